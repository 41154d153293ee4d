"""The page for people (`extraction serve --page`): a document's pages as pictures, what was read, and where it stands.

Not part of the contract: PDFs are drawn here only so that somebody can look; machines send page images to /score.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any

from extraction_assets.dataset.matching import PageMatcher
from extraction_assets.documents.rendering import RenderedPage
from extraction_assets.schema import TargetSchema

MOST_PAGES = 20
"""of a document, that are shown"""
HEADERS = {
    "content-security-policy": "default-src 'none'; connect-src 'self'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'",
    "x-content-type-options": "nosniff",
}


def html() -> str:
    return files("extraction_assets.serving").joinpath("page", "page.html").read_text(encoding="utf-8")


def shown_page(page: RenderedPage) -> dict[str, Any]:
    """What the browser needs to draw a page."""
    return {
        "page": page.record.page,
        "width": page.record.width,
        "height": page.record.height,
        "image": base64.b64encode(page.png).decode("ascii"),
    }


def value_boxes(answer: Mapping[str, Any], schema: TargetSchema, page: RenderedPage) -> dict[str, list[tuple[float, ...]]]:
    """JSON pointer -> boxes (px) of the first place where the text layer prints the value; nothing without a text layer."""
    if page.text is None:
        return {}
    matcher = PageMatcher(page.text.words)
    found: dict[str, list[tuple[float, ...]]] = {}
    for pointer, value, scoring, in_row in _values(answer, schema):
        hits = matcher.find(value, scoring, in_row) if value is not None else ()
        if hits:
            found[pointer] = [tuple(round(side, 1) for side in box) for box in matcher.boxes(hits[:1])]
    return found


def _values(answer: Mapping[str, Any], schema: TargetSchema) -> Iterator[tuple[str, Any, Any, bool]]:
    for leaf in schema.fields:
        yield _pointer(leaf.path), _get(answer, leaf.path), leaf.type, False
    for array in schema.row_arrays:
        for number, row in enumerate(_get(answer, array.path) or ()):
            for column in array.columns:
                yield f"{_pointer(array.path)}/{number}{_pointer(column.path)}", _get(row, column.path), column.type, True


def _get(value: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _pointer(path: tuple[str, ...]) -> str:
    return "".join(f"/{key.replace('~', '~0').replace('/', '~1')}" for key in path)
