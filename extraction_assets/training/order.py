"""Who is read when: a pure function of (seed, epoch). A run's whole position is (epoch, index), so a resumed run reads on exactly."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class GlobalBatch:
    """The examples of one optimizer step."""

    step: int
    """1 is the first"""
    epoch: int
    """0 is the first"""
    start: int
    """examples of this epoch read before it"""
    rows: tuple[int, ...]
    """indices into the split"""
    ends_epoch: bool


def epoch_order(ids: Sequence[str], seed: int, epoch: int) -> list[int]:
    """A shuffle of range(len(ids)) that depends on nothing but seed, epoch and the ids themselves (not on where they stand)."""
    return sorted(range(len(ids)), key=lambda row: hashlib.sha256(f"{seed}:{epoch}:{ids[row]}".encode()).digest())


def global_batches(ids: Sequence[str], seed: int, effective_batch: int, steps: int, done_steps: int = 0) -> Iterator[GlobalBatch]:
    """The steps that are still to do, in order. The last batch of an epoch may be smaller."""
    per_epoch = -(-len(ids) // effective_batch)
    for epoch in range(done_steps // per_epoch, -(-steps // per_epoch)):
        order = epoch_order(ids, seed, epoch)
        for index in range(per_epoch):
            step = epoch * per_epoch + index + 1
            if done_steps < step <= steps:
                start = index * effective_batch
                yield GlobalBatch(step, epoch, start, tuple(order[start : start + effective_batch]), index == per_epoch - 1)


def micro_batches(rows: Sequence[int], lengths: Sequence[int], micro_batch: int, ranks: int = 1, rank: int = 0) -> list[tuple[int, ...]]:
    """This rank's share of a global batch, longest first, pages of like length together so that little is padding.

    Which page meets which in a forward pass changes nothing: the loss is a sum over response tokens divided by their number in
    the global batch. A rank without a page of its own gets none; it must still join the collective operations.
    """
    by_length = sorted(rows, key=lambda row: (-lengths[row], row))
    size = max(1, min(micro_batch, -(-len(by_length) // ranks)))
    batches = [tuple(by_length[i : i + size]) for i in range(0, len(by_length), size)]
    return batches[rank::ranks]
