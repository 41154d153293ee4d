"""The entry script for Azure's own inference server (azureml-inference-server-http 1.5): the same contract as `extraction serve`.

    GUNICORN_CMD_ARGS="--threads 16" azmlinfsrv --entry_script score.py --model_dir BUNDLE

@rawhttp hands over the request unread, so that bodies are bounded here and every refusal has its own status. With threads, pages that wait
together are decoded together and GET / answers meanwhile. That server has no time limit for a body, and it calls run() for every
method: anything but POST is refused before the model is asked.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import uuid
from concurrent.futures import CancelledError
from pathlib import Path
from typing import TYPE_CHECKING, Any

from azureml_inference_server_http.api.aml_request import rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse

from extraction_assets.serving.bundle import open_bundle
from extraction_assets.serving.contract import DOCUMENT_TYPE, GIVEN_ID, REQUEST_ID, RETRY_AFTER_S, ServingError
from extraction_assets.serving.engine import Engine
from extraction_assets.serving.golden import check_golden
from extraction_assets.serving.page_image import grid_page
from extraction_assets.serving.scoring import Scoring, image_of, media_type

if TYPE_CHECKING:
    from flask import Request

MODEL_DIR = "AZUREML_MODEL_DIR"
_JSON = {"Content-Type": "application/json"}
_log = logging.getLogger("azmlinfsrv.extraction")
_scorer: Scorer | None = None


def init() -> None:
    """Loads the bundle and proves it on its golden pages. An InputError keeps the server from starting."""
    global _scorer
    bundle = open_bundle(Path(os.environ[MODEL_DIR]))
    answerer = bundle.load()
    check = check_golden(bundle, answerer)
    _log.info("ready: bundle %s, %d of %d golden pages answered to the byte", bundle.digest[:12], check.equal, check.pages)
    _scorer = Scorer(Scoring(bundle), Engine(bundle, answerer))


@rawhttp
def run(request: Request) -> AMLResponse:
    assert _scorer is not None, "init() comes first"
    given = request.headers.get(REQUEST_ID, "")
    request_id = given if GIVEN_ID.fullmatch(given) else uuid.uuid4().hex
    try:
        return AMLResponse(json.dumps(_scorer.score(request), ensure_ascii=False), 200, _JSON)
    except ServingError as error:
        refused = error
    except Exception:
        _log.exception("request %s", request_id)
        refused = ServingError("internal", "the server's own fault; its log has the request id")
    headers = {**_JSON, **({"retry-after": str(RETRY_AFTER_S)} if refused.kind.retryable else {})}
    return AMLResponse(json.dumps(refused.body(request_id)), int(refused.kind.status), headers)


class Scorer:
    """May be called from any thread."""

    def __init__(self, scoring: Scoring, engine: Engine) -> None:
        self._scoring, self._engine = scoring, engine
        # a picture that is drawn takes a process and its memory: a flood of them waits in line
        self._drawing = threading.BoundedSemaphore(os.cpu_count() or 1)

    def score(self, request: Request) -> dict[str, Any]:
        """The answer as the contract says. Raises ServingError."""
        if request.method != "POST":
            raise ServingError("method_not_allowed", "/score takes another method")
        began = time.perf_counter()
        manifest = self._scoring.bundle.manifest
        media = media_type(request.headers.get("content-type", ""))
        body = _body(request, self._scoring.most_bytes_of(media))
        data, asked = image_of(media, body, request.args.get("type") or request.headers.get(DOCUMENT_TYPE))
        name = self._scoring.type_name(asked)
        with self._drawing:
            page = grid_page(data, manifest.render, manifest.serving)
        drawn = time.perf_counter()
        left = manifest.serving.request_seconds - (drawn - began)
        try:
            answered = self._engine.ask(page, name).result(timeout=max(0.0, left))
        except (TimeoutError, CancelledError):
            raise ServingError("timed_out", f"no answer within {manifest.serving.request_seconds:g} s") from None
        return self._scoring.response(answered, name, 1000 * (drawn - began)).model_dump(mode="json", by_alias=True)


def _body(request: Request, most: int) -> bytes:
    """Never more than `most` bytes in memory, whatever the head states."""
    too_large = ServingError("body_too_large", f"the body has more than {most} bytes")
    if (request.content_length or 0) > most:
        raise too_large
    body = bytes(request.stream.read(most + 1))
    if len(body) > most:
        raise too_large
    return body
