"""The rendering worker: a child process that opens strangers' files, and the only code that does.

`python -m extraction_assets.documents.worker '{"memory_mb": 2048, "page_seconds": 20}'` reads requests on stdin and answers on
stdout (frames: protocol.py). It limits itself before the first byte of a document: address space, CPU time a page, no files
written, no core dump, no further processes. It keeps the last document open, so that further pages of it need no bytes.
"""

from __future__ import annotations

import json
import math
import os
import resource
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import orjson

from extraction_assets.documents import einvoice, media, protocol
from extraction_assets.documents.engine import Drawn, OpenDocument, Unreadable, WordRow
from extraction_assets.documents.mupdf_engine import MuPdfDocument, as_unreadable
from extraction_assets.documents.pdfium_engine import PdfiumDocument
from extraction_assets.documents.png import encode_png
from extraction_assets.documents.scans import Scan
from extraction_assets.page_budget import PageGrid

Send = Callable[..., None]

_SPARE = 96 << 20
"""bytes above what Python and the engines themselves take: the least a worker gets"""


class Worker:
    """Answers requests, one at a time. `send(kind, blobs=(), **values)` writes one frame."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._key = ""
        self._data = b""
        self._opened: dict[str, OpenDocument] = {}
        """engine name -> the current document as that engine has opened it"""

    def answer(self, request: dict[str, Any], blobs: list[bytes]) -> None:
        try:
            if request["key"] != self._key or blobs:
                self._forget()
                self._key, self._data = request["key"], blobs[0]
            {"inspect": self._inspect, "render": self._render, "einvoice": self._einvoice}[request["op"]](request)
        except Unreadable as error:
            self._send("refused", reason=error.reason, detail=error.detail)
        except MemoryError:
            self._send("refused", reason="out_of_memory", detail="needs more memory than a worker may have (render.memory_mb)")
        self._send("done")

    # --- opening --------------------------------------------------------------------------------------------------------

    def _open(self, request: dict[str, Any]) -> OpenDocument:
        """The document in the first engine that has pages for it. Raises Unreadable, the first engine's reason."""
        if not self._data:
            raise Unreadable("empty_file", "has no bytes")
        kind = media.sniff(self._data[: media.SNIFF_BYTES])
        if kind is None:
            raise Unreadable("not_a_document", f"is no PDF, JPEG or PNG but {media.describe(self._data[: media.SNIFF_BYTES])}")
        engines = request["engines"] if kind == "application/pdf" else ["pillow"]
        first: Unreadable | None = None
        for engine in engines:
            try:
                document = self._open_in(engine, tuple(request["passwords"]))
                if first is not None and "second_opinion" not in document.flags:
                    document.flags.append("second_opinion")
                return self._within_limits(document, request)
            except Unreadable as error:
                if error.reason in ("not_a_document", "encrypted", "too_many_pages"):
                    raise
                first = first or error
        raise first or Unreadable("crashed", "killed every engine that tried to open it")

    def _open_in(self, engine: str, passwords: tuple[str, ...]) -> OpenDocument:
        if engine not in self._opened:
            self._send("engine", engine=engine)
            if engine == "mupdf":
                self._opened[engine] = MuPdfDocument(self._data, passwords)
            elif engine == "pdfium":
                self._opened[engine] = PdfiumDocument(self._data, passwords)
            else:
                self._opened[engine] = Scan(self._data)
        return self._opened[engine]

    def _within_limits(self, document: OpenDocument, request: dict[str, Any]) -> OpenDocument:
        if document.pages > request["max_pages"]:
            raise Unreadable("too_many_pages", f"has {document.pages} pages, more than render.max_pages ({request['max_pages']})")
        return document

    def _forget(self) -> None:
        for document in self._opened.values():
            document.close()
        self._opened, self._key, self._data = {}, "", b""

    # --- requests -------------------------------------------------------------------------------------------------------

    def _inspect(self, request: dict[str, Any]) -> None:
        """Opens, has pages, every page has a size that can be drawn; nothing is drawn. Refused only if no page can be."""
        document = self._open(request)
        bad: Unreadable | None = None
        good = 0
        for page in range(document.pages):
            try:
                document.grid(page, request["dpi"], request["max_visual_tokens"])
                good += 1
            except Unreadable as error:
                bad = bad or Unreadable(error.reason, f"page {page + 1}: {error.detail}")
        if bad and not good:
            raise bad
        self._send("inspected", pages=document.pages, flags=document.flags)

    def _einvoice(self, request: dict[str, Any]) -> None:
        if media.sniff(self._data[: media.SNIFF_BYTES]) != "application/pdf":
            self._send("label", label=None)
            return
        try:
            label = einvoice.label_of_pdf(self._data, tuple(request["passwords"]))
        except Exception as error:
            raise as_unreadable(error) from None
        self._send("label", label=label)

    def _render(self, request: dict[str, Any]) -> None:
        """Pages start..stop (from 0, stop not included) of the document; `opened` first, then a frame a page."""
        document = self._open(request)
        self._send("opened", pages=document.pages, needs_password=document.needs_password)
        for page in range(request["start"], min(request["stop"], document.pages)):
            engines = request["page_engines"].get(str(page), request["engines"])
            try:
                self._render_page(document, page, engines, request)
            except Unreadable as error:
                self._send("page_failed", page=page, reason=error.reason, detail=error.detail)
            except MemoryError:
                self._send("page_failed", page=page, reason="out_of_memory", detail="needs more memory than a worker may have")

    def _render_page(self, document: OpenDocument, page: int, engines: list[str], request: dict[str, Any]) -> None:
        """One page by the document's engine; by PDFium where MuPDF fails on it or draws one flat colour."""
        _allow_cpu_seconds(request["page_seconds"])
        dpi, tokens, passwords = request["dpi"], request["max_visual_tokens"], tuple(request["passwords"])
        first_error: Unreadable | None = None
        first: tuple[OpenDocument, PageGrid, Drawn] | None = None
        is_pdf = not isinstance(document, Scan)
        if not is_pdf or isinstance(document, PdfiumDocument) or "mupdf" in engines:
            try:
                grid = document.grid(page, dpi, tokens)
                first = (document, grid, document.draw(page, grid))
            except Unreadable as error:
                first_error = error
        if is_pdf and not isinstance(document, PdfiumDocument) and "pdfium" in engines and (first is None or _is_suspect(first[2])):
            try:
                other = self._open_in("pdfium", passwords)
                self._send("engine", engine="pdfium")
                grid = other.grid(page, dpi, tokens)
                drawn = other.draw(page, grid)
                if first is None or not _is_suspect(drawn):
                    drawn.flags.append("second_opinion")
                    first = (other, grid, drawn)
            except Unreadable as error:
                first_error = first_error or error
        if first is None:
            raise first_error or Unreadable("crashed", "killed every engine that tried to draw it")
        self._send_page(page, document, *first)

    def _send_page(self, page: int, document: OpenDocument, drawer: OpenDocument, grid: PageGrid, drawn: Drawn) -> None:
        png = encode_png(drawn.scanlines)
        words = b"" if drawn.words is None else _spell(drawn.words)
        self._send(
            "page",
            (png, words),
            page=page,
            width=grid.width,
            height=grid.height,
            content_width=grid.content_width,
            content_height=grid.content_height,
            dpi=grid.dpi,
            limited=grid.limited,
            rotation=drawer.rotation(page),
            engine=drawer.engine,
            flags=sorted({*document.flags, *drawn.flags}),
            has_text=drawn.words is not None,
        )


def _spell(words: list[WordRow]) -> bytes:
    """A records.PageText in canonical JSON (keys in order, no spaces), boxes to a hundredth of a pixel."""
    boxes = np.array([word[1:5] for word in words], dtype=np.float64).reshape(-1, 4).round(2).tolist()
    rows = [
        {"box": box, "line": line, "text": text.encode("utf-8", "replace").decode()}
        for (text, *_, line), box in zip(words, boxes, strict=True)
    ]
    return orjson.dumps({"words": rows})


def _is_suspect(drawn: Drawn) -> bool:
    return "flat" in drawn.flags or "blank" in drawn.flags


def _allow_cpu_seconds(seconds: float) -> None:
    """CPU time from now on: ends a worker whose parent died while it hung."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = math.ceil(used.ru_utime + used.ru_stime + 2 * seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


def _limit(memory_mb: int) -> None:
    """Everything but CPU time, for good. Address space counts what is mapped, so resident memory stays below it."""
    with open("/proc/self/statm", encoding="ascii") if os.path.exists("/proc/self/statm") else open(os.devnull) as file:
        mapped = int((file.read().split() or ["0"])[0]) * resource.getpagesize()
    space = max(memory_mb << 20, mapped + _SPARE)
    for name, value in (("RLIMIT_AS", space), ("RLIMIT_FSIZE", 0), ("RLIMIT_CORE", 0), ("RLIMIT_NOFILE", 64)):
        try:
            resource.setrlimit(getattr(resource, name), (value, value))
        except (ValueError, OSError, AttributeError):  # a system without this limit, or one already tighter
            continue


def main(arguments: list[str]) -> None:
    settings = json.loads(arguments[1])
    requests: BinaryIO = os.fdopen(os.dup(0), "rb")
    answers: BinaryIO = os.fdopen(os.dup(1), "wb", buffering=0)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # the engines print; the pipe to the parent is for frames only
        os.dup2(null, descriptor)
    _limit(settings["memory_mb"])

    def send(kind: str, blobs: tuple[bytes, ...] = (), **values: Any) -> None:
        for part in protocol.pack({"kind": kind, **values}, blobs):
            view = memoryview(part)
            while view:
                view = view[answers.write(view) :]

    worker = Worker(send)
    send("ready")
    while (frame := protocol.read_frame(requests)) is not None:
        request, blobs = frame
        _allow_cpu_seconds(request["page_seconds"])
        worker.answer(request, blobs)


if __name__ == "__main__":
    main(sys.argv)
