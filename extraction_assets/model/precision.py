"""Does this machine multiply bfloat16 itself?"""

from __future__ import annotations

import functools
from typing import Literal

import torch

Precision = Literal["auto", "float32", "bfloat16"]
"""of products; weights stay as they are"""
_CPU_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")
"""x86's two sets, and ARM's. Without any of them each product is taken apart and rounded in software: a step of the demo's training took
a minute on a CPU with AVX2 alone (AMD EPYC, torch 2.13), where float32 takes seconds"""


@functools.cache
def multiplies_bfloat16(device: str) -> bool:
    """device: "cuda" or "cpu". False where bfloat16 would be slower than float32."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    if "Intel" in str(capabilities.get("cpu_name")) and not capabilities.get("amx_bf16"):
        # without AMX (hypervisors hide it) Intel's bfloat16 products ran at 0.6 of float32's speed, and a training step of the embedded
        # base's shape took half as long again (Emerald Rapids, torch 2.13)
        return False
    return any(capabilities.get(name) for name in _CPU_INSTRUCTIONS)


def products(precision: Precision, device: str) -> torch.autocast:
    """Autocast of a training step's products. auto: to bfloat16 where the machine multiplies it itself; else as they stand."""
    half = precision == "bfloat16" or (precision == "auto" and multiplies_bfloat16(device))
    return torch.autocast(device, torch.bfloat16, enabled=half)
