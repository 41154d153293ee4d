"""The process that serves: `python -m extraction_assets.serving.worker BUNDLE FD [page] [vllm=URL]`, FD being a listening socket that its parent holds, stdin
a pipe from that parent: it stops when the parent does. vllm: the model runs in vLLM's server there.

It listens at once (alive), loads and proves the model beside that (ready), and ends with WORKER_REFUSED where the bundle cannot be served.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from pathlib import Path

import uvicorn

from extraction_assets.errors import InputError
from extraction_assets.model.loading import lasting_imports
from extraction_assets.serving import WORKER_REFUSED
from extraction_assets.serving.bundle import open_bundle
from extraction_assets.serving.engine import Engine, PageEngine
from extraction_assets.serving.golden import check_golden
from extraction_assets.serving.patience import PatientProtocol
from extraction_assets.serving.server import Endpoint
from extraction_assets.serving.vllm import VllmAnswerer, VllmEngine, uncalibrated

KEEP_ALIVE_S = 75
_log = logging.getLogger(__name__)


def main(arguments: list[str]) -> int:
    folder, descriptor = Path(arguments[0]), int(arguments[1])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    for chatty in ("httpx", "transformers", "urllib3"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    vllm = next((option.removeprefix("vllm=") for option in arguments[2:] if option.startswith("vllm=")), None)
    try:
        bundle = open_bundle(folder) if vllm is None else uncalibrated(open_bundle(folder))
    except InputError as error:
        _log.error("%s", error)
        return WORKER_REFUSED
    endpoint = Endpoint(bundle, with_page="page" in arguments[2:])
    server = uvicorn.Server(
        uvicorn.Config(
            endpoint.application(),
            fd=descriptor,
            log_config=None,
            access_log=False,
            server_header=False,
            http=PatientProtocol,
            ws="none",
            lifespan="off",
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=int(bundle.manifest.serving.request_seconds) + 1,
            h11_max_incomplete_event_size=64 * 1024,
        )
    )
    refused: list[str] = []

    def prepare() -> None:
        try:
            engine: PageEngine
            if vllm is None:
                with lasting_imports():
                    answerer = bundle.load()
                check = check_golden(bundle, answerer)
                engine = Engine(bundle, answerer)
            else:
                remote = VllmAnswerer(vllm)
                remote.wait_ready()
                check = check_golden(bundle, remote)
                engine = VllmEngine(bundle, remote)
        except InputError as error:
            refused.append(str(error))
            server.should_exit = True
            return
        except BaseException:  # a thread that dies in silence would leave the server unready for ever
            _log.exception("the model could not be loaded")
            os._exit(1)
        endpoint.engine = engine
        _log.info("ready: bundle %s, %d of %d golden pages answered to the byte", bundle.digest[:12], check.equal, check.pages)

    def follow_parent() -> None:
        # ends when the process that holds the socket does, however it ends. Not sys.stdin: its lock would hang the interpreter's own end
        while os.read(0, 1024):
            pass
        server.should_exit = True

    threading.Thread(target=follow_parent, name="parent", daemon=True).start()
    threading.Thread(target=prepare, name="load", daemon=True).start()
    server.run()
    if endpoint.engine is not None:
        endpoint.engine.close()
    for line in refused:
        _log.error("%s", line)
    return WORKER_REFUSED if refused else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
