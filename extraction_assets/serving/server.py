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
import contextlib
import logging
import os
import time
import uuid
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any

from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from extraction_assets.documents.rendering import RenderedPage, render_bytes
from extraction_assets.serving import people
from extraction_assets.serving.bundle import Bundle
from extraction_assets.serving.contract import DOCUMENT_TYPE, GIVEN_ID, IMAGE_TYPES, REQUEST_ID, RETRY_AFTER_S, ServingError
from extraction_assets.serving.engine import Answered, Engine
from extraction_assets.serving.openapi import openapi_document
from extraction_assets.serving.page_image import GridPage, grid_page
from extraction_assets.serving.scoring import Scoring, image_of, media_type

BODY_SECONDS = 30.0
"""within which a body must have arrived, or half of request_seconds where that is less: time to answer must be left"""
BODIES_HELD = 32
"""largest bodies that are held in memory at once, all connections together; what comes beyond that is told to come again"""
LINGER_SECONDS = 2.0
"""so long the rest of a body that is not wanted is thrown away before the connection closes"""
_log = logging.getLogger(__name__)


class Endpoint:
    """The application for one bundle. `engine` is set once the model has proved itself; until then /score says not_ready."""

    def __init__(self, bundle: Bundle, with_page: bool = False) -> None:
        self.bundle, self._with_page = bundle, with_page
        self.engine: Engine | None = None
        self._scoring = Scoring(bundle)
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
        name = self._scoring.type_name(type_name)
        manifest = self.bundle.manifest
        page: GridPage = await to_thread.run_sync(grid_page, data, manifest.render, manifest.serving, limiter=self._drawing)
        drawn = time.perf_counter()
        future: Future[Answered] = engine.ask(page, name)
        # shielded: others may wait for the same page, and an answer that comes too late is there for the retry
        answered = await asyncio.shield(asyncio.wrap_future(future))
        return self._scoring.response(answered, name, 1000 * (drawn - began)).model_dump(mode="json", by_alias=True)

    async def _read_document(self, engine: Engine, request: Request) -> dict[str, Any]:
        name = self._scoring.type_name(request.query_params.get("type"))
        began = time.perf_counter()
        body = await self._body(request, self._scoring.most_bytes)
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
            response = self._scoring.response(await asyncio.shield(asyncio.wrap_future(future)), name, drawn_ms)
        except ServingError as error:
            return {**people.shown_page(page), **error.body(request.state.request_id)}
        boxes = await to_thread.run_sync(people.value_boxes, response.answer, self.bundle.schemas[name], page)
        return {**people.shown_page(page), "response": response.model_dump(mode="json", by_alias=True), "boxes": boxes}

    async def _page(self, request: Request) -> tuple[bytes, str | None]:
        """(image bytes, document type as asked for)."""
        media = media_type(request.headers.get("content-type", ""))
        body = await self._body(request, self._scoring.most_bytes_of(media))
        asked = request.query_params.get("type") or request.headers.get(DOCUMENT_TYPE)
        return await to_thread.run_sync(image_of, media, body, asked)

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
                    if self._held + len(part) > BODIES_HELD * self._scoring.most_json:
                        raise ServingError("overloaded", "too many bodies are arriving; ask again in a while")
                    self._held += len(part)
                    request.state.held += len(part)
                    parts.append(part)
        except TimeoutError:
            raise ServingError("body_timeout", f"the body did not arrive within {self._body_seconds:g} s") from None
        request.state.unread = False
        return b"".join(parts)


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
        request_id = given if GIVEN_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (REQUEST_ID.encode(), request_id.encode())]
            await send(message)

        await self._inner(scope, receive, send_with_id)
