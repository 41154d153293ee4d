"""Warm, killable child processes that open documents, so that the parent never parses a byte of one.

A task is one document and what to do with it. A worker answers with frames; the parent watches the clock between them, kills
what is late, sees what has died, starts another worker and reports `died`: no other document of the batch is lost. What to do
about it is the caller's to decide (submit another task, or give up on that page).
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import selectors
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import IO, Any

from extraction_assets.documents import protocol
from extraction_assets.settings import RenderSettings

STARTUP_SECONDS = 120.0
TASKS_PER_WORKER = 2000
"""a worker is replaced after so many tasks: engines leak a little"""

_LARGEST_SHARE = (1 << 20) / 4
"""bytes of document per MB of a worker's memory"""

_OUT_OF_MEMORY_SHARE = 0.6
"""a worker that dies this close to its memory limit has died of it: the engines abort where an allocation fails"""


@dataclass(frozen=True)
class Task:
    """One request about one document."""

    key: str
    """names the document's bytes: a worker that still has them open gets no bytes again"""
    load: Callable[[], bytes]
    request: dict[str, Any]
    tag: Any = None
    """the caller's own; comes back with every frame"""
    attempts: int = 0
    """workers that died before they said a word about it"""


@dataclass(frozen=True)
class Frame:
    """One thing that a worker said about a task, or `died` (values: reason, detail, engine)."""

    task: Task
    kind: str
    values: dict[str, Any]
    blobs: list[bytes] = field(default_factory=list)


@dataclass(frozen=True)
class Limits:
    """What one worker may take."""

    page_seconds: float
    """wall seconds between two frames; twice that in CPU seconds ends a worker whose parent is gone"""
    memory_mb: int

    @classmethod
    def of(cls, settings: RenderSettings) -> Limits:
        return cls(settings.page_seconds, settings.memory_mb)


class Sandbox:
    """`workers` processes (0: one a core), started when there is work for them. A context manager; not for two threads."""

    def __init__(self, limits: Limits, workers: int = 0) -> None:
        self.limits = limits
        self._size = workers or os.cpu_count() or 1
        self._workers: list[_Worker] = []
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

    def _idle(self, key: str) -> _Worker | None:
        """A worker without a task: the one that has this document open, else any, else a new one."""
        idle = [worker for worker in self._workers if worker.task is None]
        if idle:
            return next((worker for worker in idle if worker.key == key), idle[0])
        if len(self._workers) < self._size:
            self._workers.append(_Worker(self.limits))
            return self._workers[-1]
        return None

    def _give(self, worker: _Worker, task: Task) -> Iterator[Frame]:
        data = None if task.key == worker.key else task.load()
        if data is not None and len(data) > self.limits.memory_mb * _LARGEST_SHARE:
            detail = f"{len(data) >> 20} MB is too much for a worker of {self.limits.memory_mb} MB (render.memory_mb)"
            yield Frame(task, "died", {"reason": "too_large", "detail": detail, "engine": None})
            return
        worker.take(task, data)

    def _listen(self, busy: list[_Worker]) -> Iterator[Frame]:
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

    def _read(self, worker: _Worker) -> Iterator[Frame]:
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

    def _heard(self, worker: _Worker, header: dict[str, Any], blobs: list[bytes]) -> Iterator[Frame]:
        kind = header["kind"]
        if kind == "ready":
            worker.starting = False
            worker.restart_clock()
            return
        task = worker.task
        if task is None:
            raise protocol.ProtocolError("an answer to nothing")
        worker.heard = True
        if kind == "engine":
            worker.engine = header["engine"]
            return
        worker.restart_clock()
        if kind == "done":
            worker.task = None
            if worker.done >= TASKS_PER_WORKER:
                self._discard(worker)
        yield Frame(task, kind, header, blobs)

    def _bury(self, worker: _Worker, reason: str | None) -> Iterator[Frame]:
        """A worker is late (reason given) or dead (None: found out here). Its task ends with `died`, or goes to the next worker."""
        task = worker.task
        self._discard(worker)
        if worker.starting:
            raise worker.startup_error()
        if task is None:
            return
        if reason is None and not worker.heard and task.attempts == 0:  # it was dead before it saw the task (kill -9 while idle)
            self._queue.append(replace(task, attempts=1))
            return
        reason = reason or worker.cause_of_death()
        yield Frame(task, "died", {"reason": reason, "detail": worker.obituary(reason), "engine": worker.engine})

    def _discard(self, worker: _Worker) -> None:
        worker.kill()
        with contextlib.suppress(ValueError):
            self._workers.remove(worker)


class _Worker:
    """One child process and what it is doing."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.task: Task | None = None
        self.key = ""
        self.engine: str | None = None
        self.done = 0
        self.starting = True
        self.heard = False
        """it has said something about its present task"""
        self.buffer = protocol.FrameBuffer()
        self._usage: Any = None
        self._status = 0
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the worker)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "extraction_assets.documents.worker", json.dumps(vars(limits))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            env=_bare_environment(),
            cwd="/",
            bufsize=0,
            start_new_session=True,  # Ctrl-C reaches the parent alone, which ends its workers
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.requests: IO[bytes] = self.process.stdin
        self.outbox: deque[memoryview] = deque()
        os.set_blocking(self.requests.fileno(), False)
        self.answers: IO[bytes] = self.process.stdout
        self.deadline = time.monotonic() + STARTUP_SECONDS

    def take(self, task: Task, data: bytes | None) -> None:
        """Start on a task. data: the document's bytes, or None where it is still open here."""
        self.task, self.key, self.engine, self.heard = task, task.key, None, False
        self.done += 1
        request = {**task.request, "key": task.key, "page_seconds": self.limits.page_seconds}
        self.outbox.extend(memoryview(part) for part in protocol.pack(request, () if data is None else (data,)))
        self.send_more()
        if not self.starting:
            self.restart_clock()

    def send_more(self) -> None:
        """Write what the pipe takes. A worker that has died is noticed where its answers end."""
        with contextlib.suppress(BlockingIOError):
            while self.outbox:
                try:
                    sent = os.write(self.requests.fileno(), self.outbox[0])
                except BrokenPipeError:
                    self.outbox.clear()
                    return
                if sent == len(self.outbox[0]):
                    self.outbox.popleft()
                else:
                    self.outbox[0] = self.outbox[0][sent:]

    def restart_clock(self) -> None:
        self.deadline = time.monotonic() + self.limits.page_seconds

    def kill(self) -> None:
        """End it and learn what it had used. Safe to call again."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            with contextlib.suppress(ChildProcessError):
                _, self._status, self._usage = os.wait4(self.process.pid, 0)
            self.process.returncode = os.waitstatus_to_exitcode(self._status)
        self.requests.close()
        self.answers.close()

    def cause_of_death(self) -> str:
        if self._usage is None:
            return "crashed"
        unit = 1 if sys.platform == "darwin" else 1024
        resident = self._usage.ru_maxrss * unit
        return "out_of_memory" if resident > _OUT_OF_MEMORY_SHARE * (self.limits.memory_mb << 20) else "crashed"

    def obituary(self, reason: str) -> str:
        if reason == "timeout":
            return f"took longer than {self.limits.page_seconds:g} s (render.page_seconds) for one page"
        if reason == "out_of_memory":
            return f"needs more than {self.limits.memory_mb} MB (render.memory_mb)"
        return f"crashed the {self.engine or 'rendering'} engine"

    def startup_error(self) -> RuntimeError:
        self._complaints.seek(0)
        text = self._complaints.read().decode(errors="replace").strip()
        return RuntimeError(f"the rendering worker does not start (exit {self.process.returncode}): {text[-2000:]}")


def _bare_environment() -> dict[str, str]:
    """What a worker needs and nothing more: no keys or tokens of the parent reach a process that opens strangers' files."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR") if name in os.environ}
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path if entry and os.path.exists(entry))
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # threads cost address space, and the pool is the parallelism
    return {**kept, **one_thread, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8", "LC_ALL": "C.UTF-8"}


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
