"""From a request's bytes to a page on the grid: header first, so that no bomb is ever decoded."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

from PIL import Image

from extraction_assets.documents.rendering import render_bytes
from extraction_assets.errors import InputError
from extraction_assets.model.encoding import read_page
from extraction_assets.page_budget import GRID_PX, MAX_ASPECT
from extraction_assets.serving.contract import IMAGE_TYPES, ServingError
from extraction_assets.settings import RenderSettings, ServingSettings

_PNG = "PNG"


@dataclass(frozen=True)
class GridPage:
    """A PNG whose sides are multiples of 32 px."""

    png: bytes
    width: int
    """px"""
    height: int


def grid_page(data: bytes, render: RenderSettings, limits: ServingSettings) -> GridPage:
    """A PNG that is on the grid and within the page budget is taken as it is; any other picture goes the way of a scan
    (`extraction predict scan.jpg`): upright, on white, within the budget, in the sandbox.

    Raises ServingError: image_unreadable, image_too_large.
    """
    if len(data) > limits.max_image_mb * 1e6:
        raise ServingError("body_too_large", f"the image has {len(data)} bytes; at most {limits.max_image_mb * 1e6:.0f} are read")
    kind, width, height = _header(data)
    if width * height > limits.max_megapixels * 1e6:
        raise ServingError("image_too_large", f"{width} x {height} px are more than {limits.max_megapixels:g} megapixels")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ServingError("image_too_large", f"{width} x {height} px: one side is over {MAX_ASPECT} times the other")
    on_grid = width % GRID_PX == 0 and height % GRID_PX == 0 and width * height <= render.max_visual_tokens * GRID_PX**2
    if kind == _PNG and on_grid:
        try:
            read_page(data, "image")
        except InputError:
            raise ServingError("image_unreadable", "the PNG is cut off or damaged") from None
        return GridPage(data, width, height)
    drawn = render_bytes(data, render)
    if drawn.refused or len(drawn.pages) != 1 or "incomplete" in drawn.pages[0].record.flags:
        reason = drawn.refused[0].reason if drawn.refused else "incomplete"
        raise ServingError("image_unreadable", f"the picture cannot be drawn: {reason}")
    record = drawn.pages[0].record
    return GridPage(drawn.pages[0].png, record.width, record.height)


def _header(data: bytes) -> tuple[str, int, int]:
    """(format, width, height) without decoding a pixel."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures: the caller judges the size
            with Image.open(io.BytesIO(data), formats=sorted(set(IMAGE_TYPES.values()))) as image:
                return str(image.format), image.width, image.height
    except Image.DecompressionBombError:
        raise ServingError("image_too_large", "the header states more pixels than are ever read") from None
    except Exception:  # whatever a stranger's header leads Pillow to
        raise ServingError("image_unreadable", "the bytes do not begin as a PNG, a JPEG or a WebP") from None
