"""Batches made ahead of time in worker processes, in a fixed order: batch k depends on (seed, k) alone, so a resumed run continues it."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

Batch = TypeVar("Batch")


class Feed(Generic[Batch]):
    """`make(seed, group, uses)` gives the `uses` batches of one group; iterating from step n gives batches n, n + 1, ..."""

    def __init__(self, make: Callable[[int, int, int], list[Batch]], seed: int, uses: int, workers: int = 1, ahead: int = 6) -> None:
        """ahead: groups in the making or waiting. make must be importable by name."""
        self._make, self._seed, self._uses, self._ahead = make, seed, uses, ahead
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_die_with_parent)

    def __enter__(self) -> Feed[Batch]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def from_step(self, step: int) -> Iterator[Batch]:
        waiting: deque[Future[list[Batch]]] = deque()
        group, skip = divmod(step, self._uses)
        while True:
            while len(waiting) < self._ahead:
                waiting.append(self._pool.submit(self._make, self._seed, group + len(waiting), self._uses))
            yield from waiting.popleft().result()[skip:]
            group, skip = group + 1, 0


def _die_with_parent() -> None:
    """A killed trainer must not leave its workers behind: they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:

        def follow() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()
