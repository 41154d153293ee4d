"""One rendering worker as the parent sees it: a child process with pipes, a clock and a cause of death."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

from extraction_assets.documents import protocol
from extraction_assets.settings import RenderSettings

STARTUP_SECONDS = 120.0
WORKER_MODULE = "extraction_assets.documents.worker"

_PIPE_BYTES = 1 << 20

_KEEPS_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(128 << 20)}
"""glibc would hand a page's pixels back to the system and ask for them anew, in some 1,500 page faults: a tenth of a page's time"""
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
class Limits:
    """What one worker may take."""

    page_seconds: float
    """wall seconds between two frames; twice that in CPU seconds ends a worker whose parent is gone"""
    memory_mb: int

    @classmethod
    def of(cls, settings: RenderSettings) -> Limits:
        return cls(settings.page_seconds, settings.memory_mb)


class WorkerProcess:
    """One child process and what it is doing."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.task: Task | None = None
        self.key = ""
        self.engine: str | None = None
        self.done = 0
        self.starting = True
        self.has_answered = False
        """something about its present task has gone to the caller"""
        self.buffer = protocol.FrameBuffer()
        self._usage: Any = None
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the worker)
        self.process = subprocess.Popen(
            [sys.executable, "-m", WORKER_MODULE, json.dumps(vars(limits))],
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
        _widen(self.answers)
        self.deadline = time.monotonic() + STARTUP_SECONDS

    def take(self, task: Task, data: bytes | None) -> None:
        """Start on a task. data: the document's bytes, or None where it is still open here."""
        self.task, self.key, self.engine, self.has_answered = task, task.key, None, False
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

    def kill(self, is_dead: bool = False) -> None:
        """End it and learn what it had used. is_dead: its pipe has ended, so its own end is waited for. Safe to call again."""
        if self.process.returncode is None:
            status = 0
            with contextlib.suppress(ChildProcessError, ProcessLookupError):
                pid, status, self._usage = os.wait4(self.process.pid, 0 if is_dead else os.WNOHANG)
                if pid == 0:
                    os.kill(self.process.pid, signal.SIGKILL)
                    _, status, self._usage = os.wait4(self.process.pid, 0)
            self.process.returncode = os.waitstatus_to_exitcode(status)
        self.requests.close()
        self.answers.close()

    def cause_of_death(self) -> str:
        """Reason code of a worker that we have not killed."""
        number = -(self.process.returncode or 0)
        if number == signal.SIGXCPU:
            return "timeout"
        if number in (signal.SIGKILL, signal.SIGTERM):
            return "killed"
        resident = self._usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) if self._usage else 0
        return "out_of_memory" if resident > _OUT_OF_MEMORY_SHARE * (self.limits.memory_mb << 20) else "crashed"

    def obituary(self, reason: str) -> str:
        if reason == "timeout":
            return f"took longer than {self.limits.page_seconds:g} s (render.page_seconds) for one page"
        if reason == "out_of_memory":
            return f"needs more than {self.limits.memory_mb} MB (render.memory_mb)"
        if reason == "killed":
            return "its worker was killed from outside, by the system for want of memory or by somebody"
        return f"crashed the {self.engine or 'rendering'} engine"

    def startup_error(self) -> RuntimeError:
        self._complaints.seek(0)
        text = self._complaints.read().decode(errors="replace").strip()
        return RuntimeError(f"the rendering worker does not start (exit {self.process.returncode}): {text[-2000:]}")


def _widen(pipe: IO[bytes]) -> None:
    """Room for a whole page: a worker draws its next one while the parent still reads the last."""
    with contextlib.suppress(AttributeError, OSError):  # no Linux, or more than this user may have
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _bare_environment() -> dict[str, str]:
    """What a worker needs and nothing more: no keys or tokens of the parent reach a process that opens strangers' files."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR") if name in os.environ}
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path if entry and os.path.exists(entry))
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # threads cost address space, and the pool is the parallelism
    return {**kept, **one_thread, **_KEEPS_MEMORY, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8", "LC_ALL": "C.UTF-8"}
