"""The first engine: MuPDF through PyMuPDF. Runs in the worker only.

PyMuPDF often does not raise on a broken file: it repairs, warns, shows no pages or draws nothing. All of that becomes flags.
Annotations and form fields are drawn as a viewer shows them: hidden ones are not, print-only ones are not.
"""

from __future__ import annotations

import pymupdf
from pymupdf import mupdf

from extraction_assets.documents.engine import Drawn, Unreadable, WordRow, is_flat, is_white, pad_white, text_layer
from extraction_assets.documents.png import white_scanlines
from extraction_assets.page_budget import PageBudget, PageGrid

pymupdf.TOOLS.mupdf_display_errors(False)
pymupdf.TOOLS.mupdf_display_warnings(False)
pymupdf.TOOLS.unset_quad_corrections(True)

NAME = f"pymupdf {pymupdf.pymupdf_version} (mupdf {pymupdf.mupdf_version})"

_WORD_FLAGS = pymupdf.TEXTFLAGS_WORDS


class MuPdfDocument:
    """A PDF opened by MuPDF. Raises Unreadable: not_a_document, encrypted, no_pages, damaged, ..."""

    engine = NAME

    def __init__(self, data: bytes, passwords: tuple[str, ...]) -> None:
        _forget_warnings()
        try:
            self._document = pymupdf.open(stream=data, filetype="pdf")
            if not self._document.is_pdf:  # HTML and text open as documents of their own, whatever the file type says
                raise Unreadable("not_a_document", "is no PDF inside")
            self.needs_password = bool(self._document.needs_pass)
            if self.needs_password and not any(self._document.authenticate(password) for password in passwords):
                raise Unreadable("encrypted", "needs a password that settings.yaml (render.passwords) does not have")
            self.pages = self._document.page_count
        except Unreadable:
            raise
        except Exception as error:
            raise as_unreadable(error) from None
        if self.pages == 0:
            raise Unreadable("no_pages", "has no page that can be found")
        self.flags = ["repaired"] if self._document.is_repaired else []
        if _has_warnings():
            self.flags.append("warnings")

    def grid(self, page: int, dpi: float, max_visual_tokens: int) -> PageGrid:
        """Raises Unreadable (page_size, damaged) before a single pixel is drawn."""
        try:
            box = self._document[page].rect
        except Exception as error:
            raise as_unreadable(error) from None
        return grid_of(box.width, box.height, dpi, max_visual_tokens)

    def rotation(self, page: int) -> int:
        return int(self._document[page].rotation) % 360

    def draw(self, page: int, grid: PageGrid) -> Drawn:
        _forget_warnings()
        try:
            return self._draw(self._document[page], grid)
        except Exception as error:
            raise as_unreadable(error) from None

    def _draw(self, page: pymupdf.Page, grid: PageGrid) -> Drawn:
        # No separations (the null object): with an empty set of them, as pymupdf.Pixmap has, MuPDF simulates overprint, in
        # three times the time and with the very same pixels.
        rows, pixels = white_scanlines(grid.height, grid.width)
        samples = mupdf.python_mutable_buffer_data(rows.reshape(-1).data[1:])  # not owned: `rows` outlives `inner`
        inner = mupdf.fz_new_pixmap_with_data(
            mupdf.fz_device_rgb(), grid.width, grid.height, mupdf.FzSeparations(), 0, rows.strides[0], samples
        )
        errors = self._run(page, mupdf.fz_new_draw_device(mupdf.FzMatrix(), inner), grid)
        pad_white(pixels, grid)
        flags = ["incomplete"] if errors else []
        if _has_warnings():
            flags.append("warnings")
        blank = False
        if is_flat(pixels, grid):
            blank = is_white(pixels) and not page.get_bboxlog()
            flags.append("blank" if blank else "flat")
        if _has_foreign_font(page):
            flags.append("font_not_embedded")
        words, word_flags = text_layer(self._words(page, grid), grid, blank)
        return Drawn(rows, words, flags + word_flags)

    def _run(self, page: pymupdf.Page, device: mupdf.FzDevice, grid: PageGrid) -> int:
        """Draw contents, annotations and form fields on a device; returns how many errors MuPDF skipped over."""
        cookie = mupdf.FzCookie()
        inner = page.this.super() if isinstance(page.this, mupdf.PdfPage) else page.this
        box = page.rect
        scale = grid.scale
        matrix = mupdf.FzMatrix(scale, 0, 0, scale, -box.x0 * scale, -box.y0 * scale)
        mupdf.fz_run_page(inner, device, matrix, cookie)
        mupdf.fz_close_device(device)
        return int(cookie.m_internal.errors)

    def _words(self, page: pymupdf.Page, grid: PageGrid) -> list[WordRow]:
        """Words in px of the page image; the matrix that draws the page also places its words, so /Rotate is in it."""
        text = mupdf.FzStextPage(mupdf.FzRect(0, 0, grid.content_width, grid.content_height))
        self._run(page, mupdf.fz_new_stext_device(text, mupdf.FzStextOptions(_WORD_FLAGS)), grid)
        found = pymupdf.TextPage(text).extractWORDS()
        numbers: dict[tuple[int, int], int] = {}
        return [
            (str(word), x0, y0, x1, y1, numbers.setdefault((block, line), len(numbers))) for x0, y0, x1, y1, word, block, line, _ in found
        ]

    def close(self) -> None:
        self._document.close()
        pymupdf.TOOLS.store_shrink(100)


def grid_of(width_pt: float, height_pt: float, dpi: float, max_visual_tokens: int) -> PageGrid:
    try:
        return PageBudget(dpi, max_visual_tokens).for_page(width_pt, height_pt)
    except (ValueError, OverflowError) as error:
        raise Unreadable("page_size", str(error)) from None


def as_unreadable(error: Exception) -> Unreadable:
    """PyMuPDF's and MuPDF's exception classes as reason codes."""
    text = f"{error}".strip() or type(error).__name__
    if isinstance(error, Unreadable):
        return error
    if isinstance(error, pymupdf.EmptyFileError):
        return Unreadable("empty_file", "has no bytes")
    lowered = text.lower()
    if isinstance(error, MemoryError | mupdf.FzErrorSystem) or "malloc" in lowered or "calloc" in lowered or "out of memory" in lowered:
        return Unreadable("out_of_memory", f"needs more memory than a worker may have (render.memory_mb): {text}")
    if isinstance(error, mupdf.FzErrorLimit):
        return Unreadable("too_complex", text)
    if isinstance(error, mupdf.FzErrorUnsupported):
        return Unreadable("unsupported", text)
    return Unreadable("damaged", text)


def _forget_warnings() -> None:
    """Those of the document or page before, and its repeats, which MuPDF counts in silence until it is asked: a plain reset leaves them."""
    pymupdf.TOOLS.mupdf_warnings(reset=True)


def _has_warnings() -> bool:
    return bool(pymupdf.TOOLS.mupdf_warnings(reset=True))


def _has_foreign_font(page: pymupdf.Page) -> bool:
    """A composite font (Chinese, Japanese, Korean, ...) that is not embedded: MuPDF draws another font's characters.

    Simple fonts are not meant: their letters are known, and a stand-in of the same widths draws them.
    """
    return any(extension == "n/a" and kind == "Type0" for _, extension, kind, *_ in page.get_fonts(full=False))
