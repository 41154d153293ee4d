"""What the drawing engines of a worker have in common: how they fail, and what a drawn page is. Runs in the worker only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from extraction_assets.documents.png import Pixels, Scanlines
from extraction_assets.page_budget import PageGrid

WordRow = tuple[str, float, float, float, float, int]
"""text, x0, y0, x1, y1 (px of the page image), line number"""

WHITE = 255

_WITHOUT_MEANING = re.compile("[\x00-\x1f\ue000-\uf8ff\ufffd]")
"""what a font without a character map gives: control characters, private use, the replacement character"""


class Unreadable(Exception):
    """A file or a page that cannot be drawn: a stable reason code and one sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, " ".join(detail.split())[:300]


@dataclass
class Drawn:
    """One page on its grid."""

    scanlines: Scanlines
    """(height, 1 + 3 * width): the page image as PNG rows"""
    words: list[WordRow] | None
    """None: no text layer"""
    flags: list[str]

    @property
    def pixels(self) -> Pixels:
        """(height, width, 3) RGB, the same memory"""
        return self.scanlines[:, 1:].reshape(len(self.scanlines), -1, 3)


class OpenDocument(Protocol):
    """A document that an engine has opened. Pages count from 0; sizes are pt for PDFs, px for scans, after rotation."""

    engine: str
    flags: list[str]
    needs_password: bool
    pages: int

    def grid(self, page: int, dpi: float, max_visual_tokens: int) -> PageGrid: ...

    def rotation(self, page: int) -> int: ...

    def draw(self, page: int, grid: PageGrid) -> Drawn: ...

    def close(self) -> None: ...


def is_flat(pixels: Pixels, grid: PageGrid) -> bool:
    """True where the page itself (without its padding) is one single colour."""
    content = pixels[: grid.content_height, : grid.content_width]
    row = content[0]
    if not (row == row[0]).all():
        return False
    rows = content.reshape(len(content), -1)  # row against row: comparing pixel by pixel is slower
    if not (rows[::41] == rows[0]).all():  # nearly every page ends here
        return False
    return bool((rows == rows[0]).all())


def is_white(pixels: Pixels) -> bool:
    return bool((pixels[0, 0] >= 250).all())


def pad_white(pixels: Pixels, grid: PageGrid) -> None:
    """Whatever an engine has drawn beyond the page's box goes."""
    pixels[grid.content_height :] = WHITE
    pixels[:, grid.content_width :] = WHITE


def text_layer(words: list[WordRow], grid: PageGrid, drawn_blank: bool) -> tuple[list[WordRow] | None, list[str]]:
    """Words that stand on the page, and flags. None: there is no text layer to trust.

    Left out: words outside the page's box. No text layer: a page with marks but no words (a scan), or with words that
    mostly have no Unicode meaning (a font without a character map).
    """
    inside = [word for word in words if _stands_inside(word, grid)]
    if not inside:
        return ([] if drawn_blank else None), []
    letters = "".join(word[0] for word in inside)
    if len(_WITHOUT_MEANING.findall(letters)) > 0.3 * len(letters):
        return None, ["text_unreadable"]
    return inside, []


def _stands_inside(word: WordRow, grid: PageGrid) -> bool:
    _, x0, y0, x1, y1, _ = word
    return 0 <= (x0 + x1) / 2 <= grid.content_width and 0 <= (y0 + y1) / 2 <= grid.content_height
