"""Asks an endpoint's GET / again and again, each time on a connection of its own, as a probe does: `python liveness.py URL`, until its stdin ends.

A process of its own: beside hundreds of threads that send, the times would be those of this interpreter's lock.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

PAUSE_S = 0.05
TIMEOUT_S = 60.0


class Liveness:
    """A context manager; the figures are there when it has ended."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.milliseconds: list[float] = []
        self.failures: list[str] = []

    def __enter__(self) -> Liveness:
        self._process = subprocess.Popen([sys.executable, __file__, self._url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        told = json.loads(self._process.communicate()[0])
        self.milliseconds, self.failures = told["milliseconds"], told["failures"]


def ask_until_told(url: str) -> None:
    parts = urlsplit(url)
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    milliseconds: list[float] = []
    failures: list[str] = []
    while not stop.wait(PAUSE_S):
        began = time.perf_counter()
        try:
            connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=TIMEOUT_S)
            connection.request("GET", "/")
            status = connection.getresponse().status
            connection.close()
        except (OSError, http.client.HTTPException) as error:
            failures.append(type(error).__name__)
            continue
        milliseconds.append(1000 * (time.perf_counter() - began))
        if status != 200:
            failures.append(str(status))
    print(json.dumps({"milliseconds": milliseconds, "failures": failures}))


if __name__ == "__main__":
    ask_until_told(sys.argv[1])
