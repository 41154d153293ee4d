"""model"""

import logging
import warnings

# bitsandbytes (imported by peft) warns at import that an optional faster CPU kernel is absent: nothing a user of ours can act on
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
# peft 0.21 still reads a name that transformers 5.23 has deprecated; gone when peft follows
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
