"""Scans: JPEG, PNG and WebP files through Pillow, upright, on white, on the grid. Runs in the worker only."""

from __future__ import annotations

import io
import warnings

import numpy as np
import PIL
from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from extraction_assets.documents.engine import Drawn, Unreadable, is_flat, is_white
from extraction_assets.documents.png import white_scanlines
from extraction_assets.page_budget import PageBudget, PageGrid

NAME = f"pillow {PIL.__version__}"

MAX_PIXELS = 250_000_000
"""A larger scan is refused by its header: 3 bytes a pixel and a copy would not fit a worker"""

_FORMATS = (JpegImagePlugin.JpegImageFile.format, PngImagePlugin.PngImageFile.format, WebPImagePlugin.WebPImageFile.format)
"""No other decoder of Pillow's ever sees a stranger's bytes (a JPEG with several pictures, MPO, goes by JPEG)"""

_EXIF_ORIENTATION = 0x0112
_TURNS = {3: 180, 4: 180, 5: 90, 6: 90, 7: 270, 8: 270}
_TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LARGEST_SHEET_IN = 24.0
"""A stated dpi that makes the sheet longer is a program's default (72, 96), not a statement"""


class Scan:
    """One picture file as a document of one page. Raises Unreadable (damaged, page_size, too_large)."""

    engine = NAME
    needs_password = False
    pages = 1

    def __init__(self, data: bytes) -> None:
        Image.MAX_IMAGE_PIXELS = None  # the cap below is ours, and an error rather than a warning
        self.flags: list[str] = []
        self._data = data
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                self._image = self._open()
        except Exception as error:
            raise Unreadable("damaged", f"its header cannot be read: {error}") from None
        if caught:
            self.flags.append("warnings")
        width, height = self._image.size
        if width * height > MAX_PIXELS:
            raise Unreadable("too_large", f"{width} x {height} px is over {MAX_PIXELS // 1_000_000} megapixels")
        self._orientation = self._stated_orientation()
        self._size = (height, width) if _TURNS.get(self._orientation, 0) in (90, 270) else (width, height)

    def grid(self, page: int, dpi: float, max_visual_tokens: int) -> PageGrid:
        try:
            return PageBudget(dpi, max_visual_tokens).for_scan(*self._size, self._stated_dpi())
        except ValueError as error:
            raise Unreadable("page_size", str(error)) from None

    def _stated_orientation(self) -> int:
        """EXIF orientation, 1 (upright) to 8. Not by getexif: that decodes a whole PNG in search of it."""
        try:
            exif = Image.Exif()
            exif.load(self._image.info.get("exif", b""))
            return int(exif.get(_EXIF_ORIENTATION, 1))
        except Exception:  # EXIF is full of half-written tags; without one the picture is taken as it lies
            return 1

    def _stated_dpi(self) -> float | None:
        try:
            across, down = (float(value) for value in self._image.info["dpi"])
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            return None
        if not 30 <= across <= 2400 or abs(across - down) > 0.02 * across:
            return None
        if abs(across - round(across)) < 0.01:
            across = round(across)  # PNG states whole pixels per metre: 300 dpi reads as 299.9994
        return across if max(self._size) / across <= _LARGEST_SHEET_IN else None

    def rotation(self, page: int) -> int:
        return _TURNS.get(self._orientation, 0)

    def draw(self, page: int, grid: PageGrid) -> Drawn:
        flags: list[str] = []
        try:
            picture = self._decode(grid, flags)
        except MemoryError:
            raise Unreadable("out_of_memory", "needs more memory than a worker may have (render.memory_mb)") from None
        except Exception as error:
            raise Unreadable("damaged", f"cannot be decoded: {error}") from None
        rows, pixels = white_scanlines(grid.height, grid.width)
        pixels[: grid.content_height, : grid.content_width] = np.asarray(picture)
        if is_flat(pixels, grid):
            if "incomplete" in flags:
                raise Unreadable("damaged", "is cut off before anything that could be shown")
            flags.append("blank" if is_white(pixels) else "flat")
        return Drawn(rows, None, flags)

    def _open(self) -> Image.Image:
        return Image.open(io.BytesIO(self._data), formats=_FORMATS)

    def _decode(self, grid: PageGrid, flags: list[str]) -> Image.Image:
        try:
            image = self._load(grid)
        except (OSError, SyntaxError, ValueError):  # cut off or damaged: show what is there, and say so
            flags.append("incomplete")
            ImageFile.LOAD_TRUNCATED_IMAGES = True
            try:
                image = self._load(grid)
            finally:
                ImageFile.LOAD_TRUNCATED_IMAGES = False
        picture = _on_white(image)
        if self._orientation in _TO_UPRIGHT:
            picture = picture.transpose(_TO_UPRIGHT[self._orientation])
        return picture.resize((grid.content_width, grid.content_height), Image.Resampling.LANCZOS, reducing_gap=3.0)

    def _load(self, grid: PageGrid) -> Image.Image:
        image = self._open()
        if image.format in ("JPEG", "MPO"):
            longest = max(grid.content_width, grid.content_height)
            image.draft(None, (2 * longest, 2 * longest))  # the decoder may halve: never below twice what is needed
        image.load()
        return image

    def close(self) -> None:
        self._image.close()


def _on_white(image: Image.Image) -> Image.Image:
    """8-bit RGB on white, whatever the picture's mode."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image)
        top = 65535.0 if values.dtype.kind in "iu" else 255.0  # Pillow opens 16-bit grey PNG as I;16 or, in older files, I
        return Image.fromarray((values * (255.0 / top)).clip(0, 255).astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        layer = image.convert("RGBA")
        result = Image.new("RGB", layer.size, "white")
        result.paste(layer, mask=layer.getchannel("A"))
        return result
    return image.convert("RGB")
