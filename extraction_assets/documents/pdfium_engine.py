"""The second opinion: PDFium through pypdfium2. Runs in the worker only.

Asked where MuPDF refuses a file, finds no pages in it, fails on a page or draws one flat colour.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any

import pypdfium2
import pypdfium2.raw as raw
from pypdfium2.version import PDFIUM_INFO, PYPDFIUM_INFO

from extraction_assets.documents.engine import Drawn, Unreadable, WordRow, is_flat, is_white, pad_white, text_layer
from extraction_assets.documents.mupdf_engine import grid_of
from extraction_assets.documents.png import white_scanlines
from extraction_assets.page_budget import PageGrid

NAME = f"pypdfium2 {PYPDFIUM_INFO.version} (pdfium {PDFIUM_INFO.build})"

_LINE_OVERLAP = 0.5
"""characters are on one line while they share this much of their height"""


class PdfiumDocument:
    """A PDF opened by PDFium. Raises Unreadable like the first engine."""

    engine = NAME

    def __init__(self, data: bytes, passwords: tuple[str, ...]) -> None:
        self._document, self.needs_password = _open(data, passwords)
        self.pages = len(self._document)
        self.flags: list[str] = []
        if self.pages == 0:
            raise Unreadable("no_pages", "has no page that can be found")
        try:
            self._document.init_forms()
        except pypdfium2.PdfiumError:
            self.flags.append("warnings")

    def grid(self, page: int, dpi: float, max_visual_tokens: int) -> PageGrid:
        width, height = self._page(page).get_size()
        return grid_of(width, height, dpi, max_visual_tokens)

    def rotation(self, page: int) -> int:
        return int(self._page(page).get_rotation()) % 360

    def draw(self, page: int, grid: PageGrid) -> Drawn:
        opened = self._page(page)
        bitmap = pypdfium2.PdfBitmap.new_native(grid.width, grid.height, raw.FPDFBitmap_BGR, rev_byteorder=True)
        bitmap.fill_rect((255, 255, 255, 255), 0, 0, grid.width, grid.height)
        where = (0, 0, grid.content_width, grid.content_height, 0, raw.FPDF_ANNOT | raw.FPDF_REVERSE_BYTE_ORDER)
        raw.FPDF_RenderPageBitmap(bitmap, opened, *where)
        if opened.formenv:
            raw.FPDF_FFLDraw(opened.formenv, bitmap, opened, *where)
        rows, pixels = white_scanlines(grid.height, grid.width)
        pixels[:] = bitmap.to_numpy()[:, :, :3]
        pad_white(pixels, grid)
        flags: list[str] = []
        blank = False
        if is_flat(pixels, grid):
            blank = is_white(pixels) and next(iter(opened.get_objects(max_depth=2)), None) is None
            flags.append("blank" if blank else "flat")
        words, word_flags = text_layer(_words(opened, grid), grid, blank)
        return Drawn(rows, words, flags + word_flags)

    def _page(self, page: int) -> Any:
        try:
            return self._document[page]
        except pypdfium2.PdfiumError as error:
            raise Unreadable("damaged", str(error)) from None

    def close(self) -> None:
        self._document.close()


def _open(data: bytes, passwords: tuple[str, ...]) -> tuple[pypdfium2.PdfDocument, bool]:
    for password in (None, *passwords):
        try:
            return pypdfium2.PdfDocument(data, password=password), password is not None
        except pypdfium2.PdfiumError as error:
            if getattr(error, "err_code", None) != raw.FPDF_ERR_PASSWORD:
                raise Unreadable("damaged", str(error)) from None
    raise Unreadable("encrypted", "needs a password that settings.yaml (render.passwords) does not have")


def _words(page: Any, grid: PageGrid) -> list[WordRow]:
    """Characters joined to words at white space, boxes through PDFium's own page-to-device transform (rotation included)."""
    text = page.get_textpage()
    words: list[WordRow] = []
    letters: list[str] = []
    box = (math.inf, math.inf, -math.inf, -math.inf)
    line = 0

    def finish() -> None:
        nonlocal letters, box, line
        if letters:
            if words and _is_below(words[-1], box):
                line += 1
            words.append(("".join(letters), *box, line))
        letters, box = [], (math.inf, math.inf, -math.inf, -math.inf)

    for index in range(text.count_chars()):
        code = raw.FPDFText_GetUnicode(text, index)
        char = chr(code) if code <= 0x10FFFF else "\ufffd"
        if code == 0 or char.isspace() or 0xD800 <= code <= 0xDFFF:
            finish()
            continue
        left, bottom, right, top = text.get_charbox(index)
        x0, y0 = _to_pixels(page, grid, left, top)
        x1, y1 = _to_pixels(page, grid, right, bottom)
        letters.append(char)
        box = (min(box[0], x0, x1), min(box[1], y0, y1), max(box[2], x0, x1), max(box[3], y0, y1))
    finish()
    return words


def _is_below(word: WordRow, box: tuple[float, float, float, float]) -> bool:
    shared = min(word[4], box[3]) - max(word[2], box[1])
    return shared < _LINE_OVERLAP * min(word[4] - word[2], box[3] - box[1])


def _to_pixels(page: Any, grid: PageGrid, x: float, y: float) -> tuple[float, float]:
    """FPDF_PageToDevice answers whole pixels, so it is asked on a raster 16 times as fine."""
    fine = 16
    out_x, out_y = ctypes.c_int(), ctypes.c_int()
    raw.FPDF_PageToDevice(page, 0, 0, grid.content_width * fine, grid.content_height * fine, 0, x, y, out_x, out_y)
    return out_x.value / fine, out_y.value / fine
