"""Loading of torch, transformers and peft: a million objects that stay for the life of a process."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lasting_imports() -> Iterator[None]:
    """What is made in its body is taken to stay. The garbage collector does not go through it, neither while it grows (an eighth of the time
    of an import of torch, transformers and peft) nor later."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()
