"""Warm, killable child processes that open documents, so that the parent never parses a byte of one.

A task is one document and what to do with it. A worker answers with frames; the parent watches the clock between them, kills
what is late, sees what has died, starts another worker and reports `died`: no other document of the batch is lost. What to do
about it is the caller's to decide (submit another task, or give up on that page).
"""

from __future__ import annotations

import atexit
import contextlib
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from extraction_assets.documents import protocol
from extraction_assets.documents.worker_process import Limits, Task, WorkerProcess
from extraction_assets.settings import RenderSettings

TASKS_PER_WORKER = 2000
"""a worker is replaced after so many tasks: engines leak a little"""

MAX_ATTEMPTS = 3
"""workers that may be killed from outside before they say a word about a task"""

_LARGEST_SHARE = (1 << 20) / 4
"""bytes of document per MB of a worker's memory"""


@dataclass(frozen=True)
class Frame:
    """One thing that a worker said about a task, or `died` (values: reason, detail, engine)."""

    task: Task
    kind: str
    values: dict[str, Any]
    blobs: list[bytes] = field(default_factory=list)


class Sandbox:
    """`workers` processes (0: one a core), started when there is work for them. A context manager; not for two threads."""

    def __init__(self, limits: Limits, workers: int = 0) -> None:
        self.limits = limits
        self._size = workers or os.cpu_count() or 1
        self._workers: list[WorkerProcess] = []
        self._queue: deque[Task] = deque()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for worker in self._workers:
            worker.kill()
        self._workers, self._queue = [], deque()

    @property
    def pids(self) -> list[int]:
        return [worker.process.pid for worker in self._workers]

    def submit(self, task: Task) -> None:
        """Queue a task before everything that is waiting; only while `frames` is being read."""
        self._queue.append(task)

    def frames(self, tasks: Iterable[Task]) -> Iterator[Frame]:
        """Every frame of every task, as they come. A task ends with one `done` or one `died` frame."""
        for warm in self._workers:
            warm.key = ""  # what is open from the last batch may have had another's password, or another's key
        source = iter(tasks)
        try:
            while True:
                while (task := self._queue.pop() if self._queue else next(source, None)) is not None:
                    if (worker := self._idle(task.key)) is None:
                        self._queue.append(task)
                        break
                    yield from self._give(worker, task)
                busy = [worker for worker in self._workers if worker.task is not None]
                if not busy and not self._queue:
                    return
                yield from self._listen(busy)
        finally:
            for worker in [worker for worker in self._workers if worker.task is not None]:
                self._discard(worker)  # the reader has gone: this worker's answers belong to nobody
            self._queue.clear()

    def _idle(self, key: str) -> WorkerProcess | None:
        """A worker without a task: the one that has this document open, else any, else a new one."""
        idle = [worker for worker in self._workers if worker.task is None]
        if idle:
            return next((worker for worker in idle if worker.key == key), idle[0])
        if len(self._workers) < self._size:
            self._workers.append(WorkerProcess(self.limits))
            return self._workers[-1]
        return None

    def _give(self, worker: WorkerProcess, task: Task) -> Iterator[Frame]:
        data = None if task.key == worker.key else task.load()
        if data is not None and len(data) > self.limits.memory_mb * _LARGEST_SHARE:
            detail = f"{len(data) >> 20} MB is too much for a worker of {self.limits.memory_mb} MB (render.memory_mb)"
            yield Frame(task, "died", {"reason": "too_large", "detail": detail, "engine": None})
            return
        worker.take(task, data)

    def _listen(self, busy: list[WorkerProcess]) -> Iterator[Frame]:
        """Wait for the next frame or the next deadline; yield what has come."""
        with selectors.DefaultSelector() as selector:
            for worker in busy:
                selector.register(worker.answers, selectors.EVENT_READ, worker)
                if worker.outbox:
                    selector.register(worker.requests, selectors.EVENT_WRITE, worker)
            wait = max(0.0, min(worker.deadline for worker in busy) - time.monotonic())
            ready = [(key.data, event) for key, event in selector.select(wait)]
        for worker, event in ready:
            if event & selectors.EVENT_WRITE:
                worker.send_more()
        for worker, event in ready:
            if event & selectors.EVENT_READ:
                yield from self._read(worker)
        for worker in busy:
            if worker.task is not None and worker in self._workers and time.monotonic() > worker.deadline:
                yield from self._bury(worker, "timeout")

    def _read(self, worker: WorkerProcess) -> Iterator[Frame]:
        data = os.read(worker.answers.fileno(), 1 << 20)
        try:
            worker.buffer.feed(data)
            while (frame := worker.buffer.take()) is not None:
                yield from self._heard(worker, *frame)
        except protocol.ProtocolError:
            yield from self._bury(worker, "crashed")
            return
        if not data:
            yield from self._bury(worker, None)

    def _heard(self, worker: WorkerProcess, header: dict[str, Any], blobs: list[bytes]) -> Iterator[Frame]:
        kind = header["kind"]
        if kind == "ready":
            worker.starting = False
            worker.restart_clock()
            return
        task = worker.task
        if task is None:
            raise protocol.ProtocolError("an answer to nothing")
        if kind == "engine":
            worker.engine = header["engine"]
            return
        worker.has_answered = True
        worker.restart_clock()
        if kind == "done":
            worker.task = None
            if worker.done >= TASKS_PER_WORKER:
                self._discard(worker)
        yield Frame(task, kind, header, blobs)

    def _bury(self, worker: WorkerProcess, reason: str | None) -> Iterator[Frame]:
        """A worker is late (reason given) or dead (None: found out here). Its task ends with `died`, or goes to the next worker."""
        task = worker.task
        self._discard(worker, is_dead=reason is None)
        if task is None:
            return
        reason = reason or worker.cause_of_death()
        if worker.starting and reason != "killed":
            raise worker.startup_error()
        untouched = worker.engine is None or reason == "killed"
        if untouched and not worker.has_answered and task.attempts < MAX_ATTEMPTS and reason in ("killed", "crashed"):
            self._queue.append(replace(task, attempts=task.attempts + 1))  # dead while idle, or killed from outside: not its doing
            return
        yield Frame(task, "died", {"reason": reason, "detail": worker.obituary(reason), "engine": worker.engine})

    def _discard(self, worker: WorkerProcess, is_dead: bool = False) -> None:
        worker.kill(is_dead)
        with contextlib.suppress(ValueError):
            self._workers.remove(worker)


# --- warm between calls ---------------------------------------------------------------------------------------------------

_warm: dict[tuple[Limits, int], Sandbox] = {}
_warm_pid = 0
_lock = threading.Lock()


@contextlib.contextmanager
def warm_sandbox(settings: RenderSettings, workers: int = 0) -> Iterator[Sandbox]:
    """A sandbox whose workers stay warm for the next call in this process; one of its own where that one is in use."""
    global _warm_pid
    if not _lock.acquire(blocking=False):
        with Sandbox(Limits.of(settings), workers) as own:
            yield own
        return
    try:
        if _warm_pid != os.getpid():  # after a fork the workers are the parent's
            _warm.clear()
            _warm_pid = os.getpid()
        key = (Limits.of(settings), workers)
        for other in [other for other in _warm if other != key]:
            _warm.pop(other).close()
        yield _warm.setdefault(key, Sandbox(*key))
    finally:
        _lock.release()


@atexit.register
def _close_warm() -> None:
    if _warm_pid == os.getpid():
        for sandbox in _warm.values():
            sandbox.close()
        _warm.clear()
