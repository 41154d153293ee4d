"""Qwen3-VL: loading, encoding a page and its target, LoRA."""

import logging

# on CPUs with AVX512-BF16 bitsandbytes looks for a kernel on the model hub at every import, and warns without one; 4-bit works without
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
