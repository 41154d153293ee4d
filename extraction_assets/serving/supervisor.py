"""`extraction serve`: holds the listening socket and keeps one worker alive on it.

A worker that dies (killed, out of memory) is started again; connections made meanwhile wait in the socket's queue.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from extraction_assets.errors import InputError
from extraction_assets.serving import WORKER_REFUSED
from extraction_assets.serving.bundle import open_bundle

_SHORT_LIFE_S = 10.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 10.0


def serve(bundle: Path, host: str, port: int, say: Callable[[str], None], page: bool = False, vllm: str | None = None) -> None:
    """Serve until SIGTERM or SIGINT. port 0: any free one; page: also the page for people; vllm: address of vLLM's server, which holds the model.

    Raises InputError: no bundle, a damaged one, the address is taken, or the worker refuses to serve it.
    """
    open_bundle(bundle)  # what is wrong with it is said here, before anything listens
    with _listen(host, port) as listening:
        address = listening.getsockname()
        say(
            f"serving {bundle} on http://{host}:{address[1]}: POST /score; GET / (alive), /ready, /limits, /openapi.json{', /page' if page else ''}"
        )
        stop: list[int] = []
        worker: subprocess.Popen[bytes] | None = None

        def on_signal(number: int, _frame: FrameType | None) -> None:
            stop.append(number)
            if worker is not None:
                worker.terminate()

        before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            pause = _FIRST_PAUSE_S
            while not stop:
                started = time.monotonic()
                command = [
                    sys.executable,
                    "-m",
                    "extraction_assets.serving.worker",
                    str(bundle),
                    str(listening.fileno()),
                    *(["page"] if page else []),
                    *([f"vllm={vllm}"] if vllm else []),
                ]
                # a session of its own: Ctrl-C in the terminal reaches this process, which lets the worker finish what it has begun
                worker = subprocess.Popen(command, pass_fds=[listening.fileno()], stdin=subprocess.PIPE, start_new_session=True)
                if stop:
                    worker.terminate()
                status = worker.wait()
                if stop:
                    break
                if status == WORKER_REFUSED:
                    raise InputError(str(bundle), "cannot be served; the lines above say why")
                pause = _FIRST_PAUSE_S if time.monotonic() - started > _SHORT_LIFE_S else min(2 * pause, _LONGEST_PAUSE_S)
                say(f"the worker ended with status {status}; another starts in {pause:.1f} s")
                time.sleep(pause)
        finally:
            if worker is not None and worker.poll() is None:
                worker.kill()
                worker.wait()
            for number, handler in before.items():
                signal.signal(number, handler)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=512)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{host}:{port}", f"cannot be listened on: {reason}", do="Choose another --port or --host") from None
