"""The endpoint: POST /score with a page image, strict JSON back. Starlette under uvicorn; the model answers in a thread of its own, so
that liveness never waits behind a page.

    POST /score          a page: raw PNG, JPEG or WebP, or JSON with base64
    GET  /               alive (also /live)
    GET  /ready          200 once the golden pages were answered as the bundle says
    GET  /limits         document types, page budget, sizes and times
    GET  /openapi.json   this contract for machines
    GET  /page, POST /document      for people, where asked for (people.py)
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import logging
import os
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from typing import Any

import numpy as np
from anyio import CapacityLimiter, to_thread
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from extraction_assets.documents.rendering import RenderedPage, render_bytes
from extraction_assets.evaluation.calibration import Routing, units_of
from extraction_assets.evaluation.strict_json import parse_answer
from extraction_assets.schema import TargetSchema
from extraction_assets.serving import people
from extraction_assets.serving.bundle import Bundle
from extraction_assets.serving.contract import (
    DOCUMENT_TYPE,
    IMAGE_TYPES,
    REQUEST_ID,
    Confidence,
    Decision,
    ModelName,
    SchemaName,
    ScoreRequest,
    ScoreResponse,
    ServingError,
    Timing,
)
from extraction_assets.serving.engine import Answered, Engine
from extraction_assets.serving.openapi import openapi_document
from extraction_assets.serving.page_image import GridPage, grid_page

BODY_SECONDS = 30.0
"""within which a body must have arrived, or half of request_seconds where that is less: time to answer must be left"""
BODIES_HELD = 32
"""largest bodies that are held in memory at once, all connections together; what comes beyond that is told to come again"""
LINGER_SECONDS = 2.0
"""so long the rest of a body that is not wanted is thrown away before the connection closes"""
RETRY_AFTER_S = 2
_ENVELOPE_BYTES = 4096
"""what a JSON request may have besides its image"""
_IMAGE_BEGINS = re.compile(rb'"image"\s*:\s*"')
_GIVEN_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_log = logging.getLogger(__name__)


class Endpoint:
    """The application for one bundle. `engine` is set once the model has proved itself; until then /score says not_ready."""

    def __init__(self, bundle: Bundle, with_page: bool = False) -> None:
        self.bundle, self._with_page = bundle, with_page
        self.engine: Engine | None = None
        self._document = openapi_document(bundle)
        self._held = 0
        # a picture that is drawn takes a process and its memory: a flood of them waits in line
        self._drawing = CapacityLimiter(os.cpu_count() or 1)

    def application(self) -> ASGIApp:
        routes = [
            Route("/score", self.score, methods=["POST"]),
            *(Route(path, self.alive, methods=["GET"]) for path in ("/", "/live")),
            Route("/ready", self.ready, methods=["GET"]),
            Route("/limits", self.limits, methods=["GET"]),
            Route("/openapi.json", self.openapi, methods=["GET"]),
        ]
        if self._with_page:
            routes += [Route("/page", self.page, methods=["GET"]), Route("/document", self.document, methods=["POST"])]
        application = Starlette(routes=routes, exception_handlers={HTTPException: _routing_error})  # type: ignore[dict-item]
        application.router.redirect_slashes = False  # /score/ is another path, and an answer in JSON like every other
        return _WithRequestId(application)

    async def alive(self, request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def ready(self, request: Request) -> Response:
        if self.engine is None:
            return _refusal(ServingError("not_ready", "the model is being loaded"), request)
        return JSONResponse({"status": "ready", "bundle": self.bundle.digest})

    async def limits(self, request: Request) -> Response:
        manifest = self.bundle.manifest
        return JSONResponse(
            {
                "types": manifest.schemas,
                "media_types": [*IMAGE_TYPES, "application/json"],
                "render": manifest.render.model_dump(mode="json", include={"dpi", "max_visual_tokens", "max_pages"}),
                "max_output_tokens": manifest.decoding.max_output_tokens,
                **manifest.serving.model_dump(mode="json", include={"max_image_mb", "max_megapixels", "waiting", "request_seconds"}),
                "body_seconds": self._body_seconds,
            }
        )

    async def openapi(self, request: Request) -> Response:
        return JSONResponse(self._document)

    async def page(self, request: Request) -> Response:
        return HTMLResponse(people.html(), headers=people.HEADERS)

    async def score(self, request: Request) -> Response:
        return await self._guarded(request, self._answer)

    async def document(self, request: Request) -> Response:
        return await self._guarded(request, self._read_document)

    async def _guarded(self, request: Request, answer: Callable[[Engine, Request], Awaitable[dict[str, Any]]]) -> Response:
        """The answer as JSON, or what went wrong with its code."""
        request.state.held = 0
        try:
            if self.engine is None:
                raise ServingError("not_ready", "the model is being loaded")
            async with asyncio.timeout(self.bundle.manifest.serving.request_seconds):
                response = await answer(self.engine, request)
        except TimeoutError:
            seconds = self.bundle.manifest.serving.request_seconds
            return _refusal(ServingError("timed_out", f"no answer within {seconds:g} s"), request)
        except ServingError as error:
            return _refusal(error, request)
        except ClientDisconnect:
            return Response(status_code=499)  # nobody is there to read it
        except Exception:
            _log.exception("request %s", request.state.request_id)
            return _refusal(ServingError("internal", "the server's own fault; its log has the request id"), request)
        finally:
            self._held -= request.state.held
        return JSONResponse(response)

    # --- one request -------------------------------------------------------------------------------------------------------

    async def _answer(self, engine: Engine, request: Request) -> dict[str, Any]:
        began = time.perf_counter()
        data, type_name = await self._page(request)
        name = self._type(type_name)
        manifest = self.bundle.manifest
        page: GridPage = await to_thread.run_sync(grid_page, data, manifest.render, manifest.serving, limiter=self._drawing)
        drawn = time.perf_counter()
        future: Future[Answered] = engine.ask(page, name)
        # shielded: others may wait for the same page, and an answer that comes too late is there for the retry
        answered = await asyncio.shield(asyncio.wrap_future(future))
        return self._response(answered, name, 1000 * (drawn - began)).model_dump(mode="json", by_alias=True)

    async def _read_document(self, engine: Engine, request: Request) -> dict[str, Any]:
        name = self._type(request.query_params.get("type"))
        began = time.perf_counter()
        body = await self._body(request, self._most_bytes)
        drawn = await to_thread.run_sync(render_bytes, body, self.bundle.manifest.render, limiter=self._drawing)
        if not drawn.pages:
            raise ServingError("image_unreadable", "; ".join(f"{one.reason}: {one.detail}" for one in drawn.refused) or "has no pages")
        drawn_ms = 1000 * (time.perf_counter() - began)
        shown = drawn.pages[: people.MOST_PAGES]
        asked = [engine.ask(GridPage(page.png, page.record.width, page.record.height), name) for page in shown]
        pages = [await self._shown(page, future, name, drawn_ms, request) for page, future in zip(shown, asked, strict=True)]
        refused = [one.detail for one in drawn.refused]
        if len(drawn.pages) > len(shown):
            refused.append(f"{len(drawn.pages) - len(shown)} more pages: this page shows {people.MOST_PAGES}")
        return {"pages": pages, "refused": refused}

    async def _shown(self, page: RenderedPage, future: Future[Answered], name: str, drawn_ms: float, request: Request) -> dict[str, Any]:
        try:
            response = self._response(await asyncio.shield(asyncio.wrap_future(future)), name, drawn_ms)
        except ServingError as error:
            return {**people.shown_page(page), **error.body(request.state.request_id)}
        boxes = await to_thread.run_sync(people.value_boxes, response.answer, self.bundle.schemas[name], page)
        return {**people.shown_page(page), "response": response.model_dump(mode="json", by_alias=True), "boxes": boxes}

    async def _page(self, request: Request) -> tuple[bytes, str | None]:
        """(image bytes, document type as asked for)."""
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media in IMAGE_TYPES:
            data = await self._body(request, self._most_bytes)
            if not data:
                raise ServingError("bad_request", "the body is empty; it should be the image's bytes")
            return data, request.query_params.get("type") or request.headers.get(DOCUMENT_TYPE)
        if media != "application/json":
            raise ServingError("unsupported_media_type", f"expected application/json or one of {', '.join(IMAGE_TYPES)}")
        return await to_thread.run_sync(_from_json, await self._body(request, self._most_json))

    @property
    def _most_bytes(self) -> int:
        return int(self.bundle.manifest.serving.max_image_mb * 1e6)

    @property
    def _most_json(self) -> int:
        return 4 * (self._most_bytes // 3 + 1) + _ENVELOPE_BYTES

    @property
    def _body_seconds(self) -> float:
        return min(BODY_SECONDS, self.bundle.manifest.serving.request_seconds / 2)

    async def _body(self, request: Request, most: int) -> bytes:
        request.state.unread = True
        too_large = ServingError("body_too_large", f"the body has more than {most} bytes")
        stated = request.headers.get("content-length", "")
        if stated.isdecimal() and int(stated[:20]) > most:
            raise too_large
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._body_seconds):
                async for part in request.stream():
                    size += len(part)
                    if size > most:
                        raise too_large
                    if self._held + len(part) > BODIES_HELD * self._most_json:
                        raise ServingError("overloaded", "too many bodies are arriving; ask again in a while")
                    self._held += len(part)
                    request.state.held += len(part)
                    parts.append(part)
        except TimeoutError:
            raise ServingError("body_timeout", f"the body did not arrive within {self._body_seconds:g} s") from None
        request.state.unread = False
        return b"".join(parts)

    def _type(self, asked: str | None) -> str:
        known = self.bundle.manifest.schemas
        if asked is None and len(known) == 1:
            return next(iter(known))
        if asked is None:
            raise ServingError("bad_request", f"type is needed: one of {', '.join(known)}")
        if asked not in known:
            raise ServingError("unknown_document_type", f"this model knows {', '.join(known)}")
        return asked

    def _response(self, answered: Answered, type_name: str, image_ms: float) -> ScoreResponse:
        answer, manifest = answered.answer, self.bundle.manifest
        if answer.finish_reason != "stop":
            raise ServingError("answer_truncated", f"the answer did not end within {manifest.decoding.max_output_tokens} tokens")
        parsed = parse_answer(answer.text, answer.finish_reason)
        schema = self.bundle.schemas[type_name]
        if not parsed.strict or not isinstance(parsed.value, dict) or not schema.is_valid(parsed.value):
            raise ServingError("answer_invalid", "the model wrote something else than JSON for the schema")
        return ScoreResponse(
            answer=parsed.value,
            confidence=Confidence(mean=round(answer.confidence, 6), fields=dict(answer.values)),
            decision=decide(parsed.value, answer.values, schema, manifest.routing),
            finish_reason="stop",
            model=ModelName(bundle=self.bundle.digest, base=manifest.base, adapter=manifest.adapter),
            schema=SchemaName(type=type_name, digest=schema.digest),
            timing=Timing(
                image_ms=round(image_ms, 2),
                wait_ms=round(1000 * answered.wait_s, 2),
                model_ms=round(1000 * answer.seconds, 2),
                tokens=answer.tokens,
                passes=answer.passes,
            ),
        )


def decide(answer: dict[str, Any], values: Mapping[str, float], schema: TargetSchema, routing: Routing | None) -> Decision:
    """auto, or review and why: not calibrated, sums that fail, or the fields below the threshold (by name), the least sure first."""
    if routing is None or not routing.on or routing.threshold is None or routing.calibrator is None:
        return Decision(route="review", reasons=["confidence_not_calibrated"])
    units = units_of(answer, values, schema)
    if not units or routing.calibrator.page(units) >= routing.threshold:
        return Decision(route="auto", reasons=[])
    sure = routing.calibrator.of(units)
    unsure = [units[index].name for index in np.argsort(sure, kind="stable") if sure[index] < routing.threshold]
    reasons = ["sums_fail"] if units[0].sums is False else []
    return Decision(route="review", reasons=[*reasons, *(f"unsure: {name}" for name in unsure or ["many fields a little"])])


def _from_json(body: bytes) -> tuple[bytes, str | None]:
    """(image bytes, document type as asked for). Only the envelope is parsed: millions of keys, or a number of millions of digits,
    would hold the interpreter, and with it liveness, for seconds.
    """
    begins = _IMAGE_BEGINS.search(body)
    start = begins.end() if begins else 0
    end = body.find(b'"', start) if begins else 0
    envelope = body[:start] + body[end:] if end >= 0 else body
    if len(envelope) > _ENVELOPE_BYTES:
        raise ServingError("bad_request", f"the body has more than {_ENVELOPE_BYTES} bytes besides its image")
    try:
        value = json.loads(envelope)
        if begins and isinstance(value, dict) and value.get("image") == "":
            value["image"] = json.loads(body[start - 1 : end + 1])
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        raise ServingError("bad_request", "the body is not JSON") from None
    try:
        asked = ScoreRequest.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        at = "".join(f"/{str(part)[:40]}" for part in first["loc"])
        raise ServingError("bad_request", f"at {at or '/'}: {first['msg']}") from None
    try:
        data = base64.b64decode(asked.image, validate=True)
    except (binascii.Error, ValueError):
        raise ServingError("bad_request", "at /image: not base64") from None
    if not data:
        raise ServingError("bad_request", "at /image: empty")
    return data, asked.type


def _refusal(error: ServingError, request: Request) -> Response:
    headers = {"retry-after": str(RETRY_AFTER_S)} if error.kind.retryable else {}
    kind = _LastAnswer if getattr(request.state, "unread", False) else JSONResponse
    return kind(error.body(request.state.request_id), status_code=int(error.kind.status), headers=headers)


class _LastAnswer(JSONResponse):
    """To a request whose body is not read to its end: the connection closes behind it. What still comes is thrown away for a moment first;
    closed at once, the kernel would answer it with a reset, on which clients lose the answer that is on its way.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [*self.raw_headers, (b"connection", b"close")]
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while (message := await receive())["type"] == "http.request" and message.get("more_body"):
                    pass
        await send({"type": "http.response.body", "body": b""})


async def _routing_error(request: Request, error: HTTPException) -> Response:
    if error.status_code == 405:
        refusal = _refusal(ServingError("method_not_allowed", f"{request.url.path} takes another method"), request)
        refusal.headers.update(error.headers or {})
        return refusal
    return _refusal(ServingError("not_found", "no such path"), request)


class _WithRequestId:
    """Every answer carries a request id: the caller's, where it is plain, else one of ours."""

    def __init__(self, inner: Starlette) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        given = dict(scope["headers"]).get(REQUEST_ID.encode(), b"").decode("latin-1")
        request_id = given if _GIVEN_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (REQUEST_ID.encode(), request_id.encode())]
            await send(message)

        await self._inner(scope, receive, send_with_id)
