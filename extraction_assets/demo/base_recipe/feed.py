"""Batches made ahead of time in worker processes, in a fixed order: batch k depends on (seed, k) alone, so a resumed run continues it."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

Batch = TypeVar("Batch")


class Feed(Generic[Batch]):
    """`make(seed, group, uses)` gives the `uses` batches of one group; iterating from step n gives batches n, n + 1, ..."""

    def __init__(self, make: Callable[[int, int, int], list[Batch]], seed: int, uses: int, workers: int = 1) -> None:
        """make must be importable by name. Groups travel through files in the temporary folder: a GPU's hold hundreds of megabytes."""
        self._make, self._seed, self._uses, self._ahead = make, seed, uses, max(6, 2 * workers)
        context = multiprocessing.get_context("spawn")
        self._folder = tempfile.TemporaryDirectory(prefix="feed-")
        self._pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_die_with_parent)
        self._loader = ThreadPoolExecutor(1)

    def __enter__(self) -> Feed[Batch]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._loader.shutdown(wait=True, cancel_futures=True)
        self._folder.cleanup()

    def from_step(self, step: int) -> Iterator[Batch]:
        waiting: deque[Future[list[Batch]]] = deque()
        group, skip = divmod(step, self._uses)
        while True:
            while len(waiting) < self._ahead:
                number = group + len(waiting)
                path = Path(self._folder.name) / str(number)
                made = self._pool.submit(_make_file, self._make, self._seed, number, self._uses, path)
                waiting.append(self._loader.submit(_load_file, made, path))
            yield from waiting.popleft().result()[skip:]
            group, skip = group + 1, 0


def _make_file(make: Callable[[int, int, int], list[Batch]], seed: int, group: int, uses: int, path: Path) -> None:
    with path.open("wb") as file:
        pickle.dump(make(seed, group, uses), file, pickle.HIGHEST_PROTOCOL)


def _load_file(made: Future[None], path: Path) -> list[Any]:
    made.result()
    with path.open("rb") as file:
        batches: list[Any] = pickle.load(file)
    path.unlink()
    return batches


def _die_with_parent() -> None:
    """A killed trainer must not leave its workers behind: they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:

        def follow() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()
