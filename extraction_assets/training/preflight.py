"""The preflight: forward and backward of the heaviest pack before the first step, its memory measured against the plan's prediction.

A run that cannot fit fails here, in its first seconds, and not on the night's longest page. No weight moves: gradients are thrown away,
and each step seeds its own random numbers.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch.profiler import ProfilerActivity, profile

from extraction_assets.errors import InputError
from extraction_assets.model.packing import Pack
from extraction_assets.model.sharding import is_sharded, own_part
from extraction_assets.training.arithmetic import MemoryEstimate
from extraction_assets.training.feed import Feed
from extraction_assets.training.job import TrainingJob

_MOMENTS = 8
"""bytes of Adam's moments per adapter parameter: predicted for the peak, not yet there before the first step"""


@dataclass(frozen=True)
class Preflight:
    """Bytes of the heaviest pack's forward and backward, without the optimizer's moments."""

    tokens: int
    predicted: int
    allocated: int
    """tensors alive at the peak: weights, adapters, the pack and what its passes made"""
    sharded: bool
    """the prediction is that of a process that holds the whole model, and this one does not"""
    taken: int | None
    """what the process took from the system for that: `allocated`, and the gaps between tensors. None: this system does not tell"""

    def line(self) -> str:
        share = self.allocated / self.predicted
        taken = "" if self.taken is None else f", {self.taken / 1e6:,.0f} MB taken from the system"
        return (
            f"preflight: heaviest pack of {self.tokens:,} tokens, {self.predicted / 1e6:,.0f} MB predicted{' for the whole model' if self.sharded else ''}, "
            f"{self.allocated / 1e6:,.0f} MB measured ({share:.2f} times){taken}"
        )


class MemoryMeter:
    """Memory of one piece of work on a device, and of all that was loaded since the meter was made."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._before = 0 if device.type == "cuda" else _resident("VmRSS")

    def measure(self, held: Iterable[torch.Tensor], work: Callable[[], None]) -> tuple[int, int | None]:
        """(bytes of tensors alive at the peak, bytes taken from the system) while `work` runs. held: tensors that are there before."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            work()
            return torch.cuda.max_memory_allocated(self.device), torch.cuda.max_memory_reserved(self.device)
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # proc(5): the peak begins anew at what is resident now
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else each start and stop is announced on stderr
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
            work()
        taken = _resident("VmHWM")
        alive = sum(
            storage.nbytes() for storage in {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in held}.values()
        )
        return alive + _peak_of_allocations(recorded), None if taken is None or self._before is None else taken - self._before


def preflight(
    job: TrainingJob, train: Feed, packs: Sequence[Sequence[int]], model: torch.nn.Module, meter: MemoryMeter, learn: Callable[[Pack], None]
) -> Preflight:
    """Send the heaviest of `packs` (rows of `train`) through `learn`, a forward and backward pass of `model`.

    Raises InputError, with what to change, where the device's memory does not suffice.
    """
    estimates = [_estimate(job, train, rows, meter.device) for rows in packs]
    heaviest = max(range(len(packs)), key=lambda index: (estimates[index].peak, -index))
    tokens = sum(train.lengths[row] for row in packs[heaviest])
    predicted = estimates[heaviest].peak - _MOMENTS * job.plan.adapter_parameters
    pack = train.pack(packs[heaviest]).to(meter.device)
    held = [
        *map(own_part, model.parameters()),
        *model.buffers(),
        *(value for value in pack.inputs.values() if isinstance(value, torch.Tensor)),
    ]
    try:
        allocated, taken = meter.measure(held, lambda: learn(pack))
    except torch.OutOfMemoryError:
        raise InputError(
            f"pack of {tokens:,} tokens ({', '.join(pack.ids[:3])}, ...)",
            f"does not fit this device: {predicted / 1e9:.1f} GB predicted",
            do="Set training.recompute: mlp or layers, or a smaller training.micro_batch, or training.method: qlora; `extraction plan` counts",
        ) from None
    return Preflight(tokens, predicted, allocated, is_sharded(model), taken)


def _estimate(job: TrainingJob, train: Feed, rows: Sequence[int], device: torch.device) -> MemoryEstimate:
    texts = [train.examples[row][1] for row in rows]
    visual = [text.rows * text.columns for text in texts]
    response = sum(text.response_tokens for text in texts)
    weight: Literal[2, 4] = 2 if device.type == "cuda" else 4
    return job.plan.shape.memory(job.settings, weight, sum(text.tokens for text in texts), response, sum(visual), max(visual))


def _peak_of_allocations(recorded: profile) -> int:
    """Most bytes that torch's CPU allocator had given out at once, beyond what it had before."""
    now = peak = 0
    results: Any = recorded.profiler.kineto_results  # type: ignore[union-attr]  # the public events leave single allocations out
    changes = [event for event in results.events() if event.name() == "[memory]"]
    for event in sorted(changes, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def _resident(key: str) -> int | None:
    """VmRSS or VmHWM of this process in bytes; None where /proc does not say."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return None
