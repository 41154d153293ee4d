"""A running `extraction serve` for tests and benchmarks."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import httpx
import psutil

LIMIT_S = 180
"""so long may a loaded machine take for anything; no test is about time"""
_Found = TypeVar("_Found")


class Serving:
    """A running `extraction serve`, its stderr read along."""

    def __init__(self, bundle: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "extraction_assets.cli", "serve", "--bundle", str(bundle), "--port", "0", *arguments]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        self.lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)

    @property
    def url(self) -> str:
        found = wait_for(lambda: re.search(r"http://[\d.]+:\d+", "".join(self.lines)))
        return found.group()

    def wait_ready(self) -> None:
        wait_for(lambda: httpx.get(f"{self.url}/ready", timeout=LIMIT_S).status_code == 200)

    def worker(self) -> psutil.Process:
        return wait_for(lambda: next(iter(psutil.Process(self.process.pid).children()), None))

    def end(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(LIMIT_S)


def wait_for(get: Callable[[], _Found | None]) -> _Found:
    deadline = time.monotonic() + LIMIT_S
    while not (found := get()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found
