"""Machines a plan can be held against: GPUs by name or by their figures, and this CPU, measured."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from typing import Literal

import torch

from extraction_assets.errors import InputError

GIB = 2**30


@dataclass(frozen=True)
class Machine:
    name: str
    memory: int
    """bytes"""
    flops: float
    """FLOP/s it can give to matrix products in the training's dtype"""
    share: float
    """part of them that a training step is assumed to use"""
    dtype_bytes: Literal[2, 4]
    """of a weight: 2 = bfloat16, 4 = float32"""


_DENSE_BF16_TFLOPS: dict[str, tuple[int, float]] = {
    "L4": (24, 121),
    "A10": (24, 125),
    "A100-40": (40, 312),
    "A100-80": (80, 312),
    "H100": (80, 989),
    "H200": (141, 989),
}
"""data sheets: GB of memory, TFLOP/s bf16 without sparsity"""


_FIGURES = re.compile(r"(?P<memory>\d+(?:\.\d+)?)(?P<unit>GB|GiB|B|):(?P<tflops>\d+(?:\.\d+)?)(?:TFLOP/?s)?", re.IGNORECASE)
_UNITS = {"b": 1, "gb": 10**9, "gib": GIB, "": 10**9}


def machine_named(name: str | None) -> Machine:
    """A GPU by name, or by memory and dense bfloat16 TFLOP/s ("48GB:362", "51539607552B:362"); this CPU for None.

    Raises InputError naming the known GPUs.
    """
    if name is None:
        return this_cpu()
    if name.upper() in _DENSE_BF16_TFLOPS:
        gigabytes, tflops = _DENSE_BF16_TFLOPS[name.upper()]
        return _gpu(name.upper(), gigabytes * 10**9, tflops)
    figures = _FIGURES.fullmatch(name.strip())
    if figures is None:
        expected = f"one of {', '.join(_DENSE_BF16_TFLOPS)}, or memory and TFLOP/s, as 48GB:362"
        raise InputError("--gpu", f"unknown GPU {name!r}", expected)
    memory, tflops = round(float(figures["memory"]) * _UNITS[figures["unit"].lower()]), float(figures["tflops"])
    if memory < GIB or tflops <= 0:
        raise InputError("--gpu", f"found {name!r}", "1 GiB or more and some TFLOP/s, as 48GB:362")
    return _gpu(f"a GPU of {memory / 1e9:g} GB and {tflops:g} TFLOP/s", memory, tflops)


def _gpu(name: str, memory: int, tflops: float) -> Machine:
    return Machine(name, memory, tflops * 1e12, share=0.4, dtype_bytes=2)


def this_cpu(seconds: float = 0.2) -> Machine:
    """This machine, its float32 speed measured for about `seconds` s on square products of the size that layers have."""
    a = torch.randn(512, 512)
    torch.mm(a, a)
    done, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        torch.mm(a, a)
        done += 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine("this CPU", memory, 2 * 512**3 * done / elapsed, share=0.5, dtype_bytes=4)
