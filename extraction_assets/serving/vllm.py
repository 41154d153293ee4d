"""The model in vLLM's OpenAI-compatible server on this machine, behind the same contract: an engine for GPUs that many pages share.

Asked is one chat completion a page: the image inline, the instruction, greedy, held to the very grammar that our own loop holds answers to
(structured_outputs.grammar, which vLLM's guidance backend compiles with llguidance as we do). vLLM keeps the batch; nothing is drafted or
skipped, so each token is a forward pass. Its log probabilities are the model's before the mask (logprobs-mode raw_logprobs), but it counts
tokens that had no choice too, and in FP8 all are others: what was calibrated on our own loop's does not hold, so a page is never `auto` here.
Fields of the request and the answer: vLLM 0.33, vllm/entrypoints/openai/chat_completion/protocol.py.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from extraction_assets import wire
from extraction_assets.errors import InputError
from extraction_assets.inference.grammar_rules import rules
from extraction_assets.inference.page_answer import Answer, FinishReason, PagePrompt
from extraction_assets.inference.value_confidence import value_confidence
from extraction_assets.schema import TargetSchema
from extraction_assets.serving.bundle import ADAPTER, Bundle
from extraction_assets.serving.contract import ServingError
from extraction_assets.serving.engine import Asked, PageEngine
from extraction_assets.settings import DecodingSettings

SERVED_NAME = "bundle"
"""vLLM's --served-model-name"""
START_S = 3600.0
"""so long may vLLM take to load and compile; the container's readiness probe gives up before"""
_PAGE_S = 600.0
"""for one completion; request_seconds of the contract ends a caller's wait before"""
_log = logging.getLogger(__name__)


def uncalibrated(bundle: Bundle) -> Bundle:
    """The bundle without its routing. Raises InputError where its adapter is not merged."""
    if (bundle.folder / ADAPTER).is_dir():
        found = "holds base and adapter apart"
        raise InputError(str(bundle.folder), found, "merged weights", "Set serving.weights: merged, and materialize serving_bundle")
    return dataclasses.replace(bundle, manifest=bundle.manifest.model_copy(update={"routing": None}))


class VllmAnswerer:
    """Asks vLLM's server. May be called from any thread."""

    def __init__(self, url: str) -> None:
        """url: without /v1."""
        self._url = url.rstrip("/")
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        # a proxy of the environment has no business between two processes of one machine
        self._http = httpx.Client(base_url=self._url, timeout=httpx.Timeout(_PAGE_S, connect=5.0), limits=limits, trust_env=False)

    def close(self) -> None:
        self._http.close()

    def wait_ready(self, seconds: float = START_S, sleep: Callable[[float], None] = time.sleep) -> None:
        """Returns once it is healthy and serves SERVED_NAME. Raises InputError."""
        deadline = time.monotonic() + seconds
        while not self._healthy():
            if time.monotonic() > deadline:
                raise InputError(self._url, f"vLLM was not ready within {seconds:g} s", do="Look at its log above")
            sleep(1.0)
        names = [model.get("id") for model in self._http.get("/v1/models").json().get("data", [])]
        if SERVED_NAME not in names:
            raise InputError(
                self._url, f"serves {', '.join(map(str, names)) or 'nothing'}", SERVED_NAME, "Start it by the written start.sh"
            )

    def answer(self, pages: Sequence[PagePrompt], settings: DecodingSettings) -> list[Answer]:
        """One answer a page, in the order given, batch_size at a time. Raises InputError at a page that vLLM refuses."""
        try:
            with ThreadPoolExecutor(settings.batch_size) as pool:
                return list(pool.map(lambda page: self.answer_page(page, settings), pages))
        except ServingError as error:
            raise InputError(self._url, f"{error.code}: {error.message}") from None

    def answer_page(self, page: PagePrompt, settings: DecodingSettings) -> Answer:
        """Raises ServingError: not_ready (nobody answers), overloaded, internal."""
        began = time.perf_counter()
        told = self._complete(_request(page, settings))
        try:
            choice = told["choices"][0]
            text, finish = str(choice["message"]["content"] or ""), choice["finish_reason"]
            steps = (choice.get("logprobs") or {}).get("content") or []
            tokens = int(told["usage"]["completion_tokens"])
            spelled = [(bytes(step["bytes"] or b""), float(step["logprob"])) for step in steps]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            _log.error("vLLM answered in another form: %s", type(error).__name__)
            raise ServingError("internal", "the page could not be answered") from None
        if finish not in ("stop", "length"):
            _log.error("vLLM ended an answer with %r", finish)
            raise ServingError("internal", "the page could not be answered")
        return _answer(page, text, finish, tokens, spelled, time.perf_counter() - began)

    def _healthy(self) -> bool:
        try:
            return self._http.get("/health", timeout=5.0).status_code == 200
        except httpx.TransportError:
            return False

    def _complete(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            answer = self._http.post("/v1/chat/completions", json=request)
        except httpx.TransportError as error:
            _log.error("vLLM does not answer: %s", type(error).__name__)
            raise ServingError("not_ready", "the model's process does not answer; ask again in a while") from None
        if answer.status_code in (429, 503):
            raise ServingError("overloaded", "the model has too much to do; ask again in a while")
        try:
            told = answer.json()
        except ValueError:
            told = None
        if answer.status_code != 200 or not isinstance(told, dict):
            _log.error("vLLM refused a page: %d %s", answer.status_code, _kind(told))  # its message may quote the request
            raise ServingError("internal", "the page could not be answered")
        return told


class VllmEngine(PageEngine):
    """Up to twice batch_size pages at once with vLLM, which batches them itself; the others wait here."""

    def __init__(self, bundle: Bundle, answerer: VllmAnswerer) -> None:
        super().__init__(bundle)
        self._answerer = answerer
        self._at_once = 2 * bundle.manifest.decoding.batch_size
        self._pool = ThreadPoolExecutor(self._at_once, thread_name_prefix="vllm")
        self._closing = False

    def close(self) -> None:
        self._closing = True
        self._pool.shutdown(wait=True)
        self._answerer.close()

    def _waits(self) -> int:
        return max(0, len(self._open) - self._at_once)

    def _put(self, asked: Asked) -> None:
        self._pool.submit(self._answer, asked)

    def _answer(self, asked: Asked) -> None:
        asked.began = time.perf_counter()
        try:
            if self._closing:
                raise ServingError("not_ready", "the server is stopping")
            self._settle(asked, self._answerer.answer_page(asked.prompt, self.bundle.manifest.decoding))
        except ServingError as error:
            self._settle(asked, error)
        except Exception:  # whatever it is, nobody shall wait for ever
            _log.exception("answering failed")
            self._settle(asked, ServingError("internal", "the page could not be answered"))


def _request(page: PagePrompt, settings: DecodingSettings) -> dict[str, Any]:
    png = page.page if isinstance(page.page, bytes) else page.page.read_bytes()
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"}}
    request: dict[str, Any] = {
        "model": SERVED_NAME,
        "messages": [{"role": "user", "content": [image, {"type": "text", "text": page.instruction}]}],
        "max_completion_tokens": settings.max_output_tokens,
        "temperature": 0.0,
        "seed": 0,
        "logprobs": True,
        "top_logprobs": 0,
        "spaces_between_special_tokens": False,
    }
    if page.schema is not None and settings.constrained:
        request["structured_outputs"] = {"grammar": _rules(_Digested(page.schema))}
    return request


@dataclasses.dataclass(frozen=True)
class _Digested:
    """A schema that compares by its digest."""

    schema: TargetSchema = dataclasses.field(compare=False)
    digest: str = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", self.schema.digest)


@functools.lru_cache(maxsize=64)
def _rules(key: _Digested) -> str:
    return rules(key.schema)


def _answer(page: PagePrompt, text: str, finish: FinishReason, tokens: int, steps: list[tuple[bytes, float]], seconds: float) -> Answer:
    """steps: (bytes, log probability) of each token, perhaps with the one that ends the answer."""
    data = text.encode()
    if steps and b"".join(spelled for spelled, _ in steps) != data:
        steps = steps[:-1]
    values = value_confidence(text, [spelled for spelled, _ in steps], [logprob for _, logprob in steps]) if finish == "stop" else {}
    mean = sum(math.exp(logprob) for _, logprob in steps) / len(steps) if steps else 0.0
    if page.schema is not None and (told := wire.read(page.schema, text)) is not None:
        schema = page.schema
        text, values = told, {wire.object_pointer(schema, pointer): sure for pointer, sure in values.items()}
    return Answer(page.id, text, finish, tokens, mean, values, tokens, seconds)


def _kind(told: Any) -> str:
    error = told.get("error", told) if isinstance(told, dict) else {}
    return json.dumps(error.get("type") if isinstance(error, dict) else None)[:80]
