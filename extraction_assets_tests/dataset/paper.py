"""Little real pages for the tests of this folder: set with PyMuPDF, rendered onto the 32-px grid, with their words."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import pymupdf
from PIL import Image

from extraction_assets.documents.records import Label, PageImage, PageText, VendorLabels, VendorPages, Word
from extraction_assets.page_budget import PageBudget
from extraction_assets.schema import TargetSchema
from extraction_assets.store import Store, digest_bytes

BUDGET = PageBudget(dpi=72, max_visual_tokens=1400)
Line = tuple[float, float, str]
"""x, y of the base line (pt) and text"""


@lru_cache(maxsize=1)
def _font() -> pymupdf.Font:
    return pymupdf.Font("figo")  # has the letters of all European languages, the currency signs and the ligatures


def table(
    rows: Sequence[Sequence[str]], y: float = 200, columns: Sequence[float] = (50, 250, 320, 400, 480), step: float = 16
) -> list[Line]:
    return [(x, y + i * step, cell) for i, row in enumerate(rows) for x, cell in zip(columns, row, strict=False) if cell]


def document_id(name: str) -> str:
    return digest_bytes(name.encode())


def page_of(
    store: Store, document: str, number: int, lines: Sequence[Line], scan: bool = False, size: tuple[float, float] = (595, 842)
) -> PageImage:
    """One page with these lines of text; scan: the picture alone, without its words."""
    pdf = pymupdf.open()
    page = pdf.new_page(width=size[0], height=size[1])
    writer = pymupdf.TextWriter(page.rect)
    for x, y, text in lines:
        writer.append((x, y), text, font=_font(), fontsize=10)
    writer.write_text(page)
    grid = BUDGET.for_page(*size)
    pixels = page.get_pixmap(matrix=pymupdf.Matrix(grid.scale, grid.scale), alpha=False)
    image = Image.new("RGB", (grid.width, grid.height), "white")
    image.paste(Image.frombytes("RGB", (pixels.width, pixels.height), pixels.samples).crop((0, 0, grid.content_width, grid.content_height)))
    png = io.BytesIO()
    image.save(png, "PNG")
    words = tuple(
        Word(text=w[4], box=tuple(round(v * grid.scale, 1) for v in w[:4]), line=w[5] * 100 + w[6])  # type: ignore[arg-type]
        for w in page.get_text("words")
    )
    return PageImage(
        document=document,
        page=number,
        image=store.put_bytes(png.getvalue(), ".png"),
        width=grid.width,
        height=grid.height,
        content_width=grid.content_width,
        content_height=grid.content_height,
        dpi=grid.dpi,
        limited=grid.limited,
        rotation=0,
        engine="test",
        text=None if scan else store.put_json(PageText(words=words).model_dump(mode="json")),
    )


def vendor_pages(pages: Sequence[PageImage], type: str = "invoice", vendor: str = "acme") -> VendorPages:
    return VendorPages(type=type, vendor=vendor, pages=tuple(sorted(pages, key=lambda p: (p.document, p.page))))


def vendor_labels(labels: dict[str, dict[str, Any]], type: str = "invoice", vendor: str = "acme") -> VendorLabels:
    found = (Label(document=d, label=value, origin="file", file=f"{type}/{vendor}/{d[:6]}.json") for d, value in sorted(labels.items()))
    return VendorLabels(type=type, vendor=vendor, labels=tuple(found))


def field(type: str, json_type: str = "string") -> dict[str, Any]:
    return {"type": [json_type, "null"], "x-type": type}


def invoice_schema(**more: Any) -> TargetSchema:
    row = {
        "description": field("text"),
        "quantity": field("number"),
        "unit": field("code"),
        "price": field("amount"),
        "amount": field("amount"),
    }
    properties: dict[str, Any] = {
        "number": field("id"),
        "date": field("date"),
        "seller": field("text"),
        "currency": field("code"),
        "total": field("amount"),
        **more,
        "rows": {"type": "array", "items": {"type": "object", "properties": row, "required": list(row), "additionalProperties": False}},
    }
    document = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return TargetSchema(document, "invoice", "schemas/invoice.schema.json")


def pdf_page(page: pymupdf.Page, document: str, number: int, store: Store) -> PageImage:
    """Size and text layer of a page of a real PDF, read without the sandbox; no picture."""
    words = tuple(
        Word(text=w[4], box=tuple(round(v, 1) for v in pymupdf.Rect(w[:4]) * page.rotation_matrix), line=w[5] * 1000 + w[6])  # type: ignore[arg-type]
        for w in page.get_text("words")
    )
    width, height = (-(-int(side) // 32) * 32 for side in (page.rect.width, page.rect.height))
    text = store.put_json(PageText(words=words).model_dump(mode="json")) if words else None
    size = {"width": width, "height": height, "content_width": width, "content_height": height}
    return PageImage(document=document, page=number, image="0" * 64, dpi=72, limited=False, rotation=0, engine="test", text=text, **size)
