"""Who is read when: a pure function of (seed, epoch). A run's whole position is (epoch, index), so a resumed run reads on exactly."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from extraction_assets.store import digest_of


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


def run_seed(seed: int, train_digest: str) -> int:
    """The seed of a run, from settings.seed and the SHA-256 of its training split."""
    return int(digest_of([seed, train_digest])[:12], 16) % 2**31


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
