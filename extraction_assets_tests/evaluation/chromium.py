"""A headless Chromium, spoken to over its debugging protocol: opens a page, runs JavaScript, and keeps what went wrong on the way."""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
    "about:blank",
)


class Browser:
    """`with Browser(profile) as browser: browser.open(url)`. The profile is a new empty folder."""

    def __init__(self, profile: Path, width: int = 1440, height: int = 1000) -> None:
        self.profile, self.size = profile, f"--window-size={width},{height}"
        self.requests: list[str] = []
        self.errors: list[str] = []
        self._closing = ExitStack()
        self._number = 0

    def __enter__(self) -> Browser:
        from websockets.sync.client import connect

        assert PROGRAM
        self._process = subprocess.Popen(
            [PROGRAM, f"--user-data-dir={self.profile}", self.size, *_FLAGS], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        assert self._process.stderr
        for line in self._process.stderr:  # blocks until it listens
            if "DevTools listening on " in line:
                address = line.split("listening on ")[1].strip()
                break
        else:
            raise RuntimeError("chromium did not start")
        self._socket = self._closing.enter_context(connect(address, max_size=None))
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session: str | None = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._closing.close()
        self._process.terminate()
        self._process.wait(20)
        assert self._process.stderr
        self._process.stderr.close()

    _session: str | None = None

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._socket.send(json.dumps(message))
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def open(self, url: str) -> None:
        """Returns once the page and its pictures have loaded."""
        self._loaded = False
        self.call("Page.navigate", url=url)
        while not self._loaded:
            self._receive()

    def run(self, script: str) -> Any:
        """Value of an expression (a promise is awaited)."""
        told = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in told:
            raise RuntimeError(told["exceptionDetails"].get("exception", {}).get("description", str(told["exceptionDetails"])))
        return told["result"].get("value")

    def press(self, key: str) -> None:
        code = {"/": "Slash"}.get(key, f"Key{key.upper()}" if len(key) == 1 else key)
        text = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=code, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=code)

    def _receive(self) -> dict[str, Any]:
        message = json.loads(self._socket.recv(timeout=30))
        method, told = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Runtime.exceptionThrown":
            self.errors.append(str(told["exceptionDetails"].get("exception", {}).get("description", told)))
        elif method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.errors.append(told["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
            self.errors.append(str(told["args"]))
        return message
