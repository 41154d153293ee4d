"""The page budget: how large a page image may be, from the settings to the endpoint.

Qwen3-VL sees one visual token per 32 x 32 pixels (patch 16 px, merge 2). A page is rendered straight onto that grid, so the
processor's own resize is a no-op and training, evaluation and serving see the same bytes. The page keeps its proportions:
it is drawn with one scale for both axes and padded with white on the right and at the bottom to the next multiple of 32 px.
Knows nothing of PDFs, images or models.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

GRID_PX = 32
"""Side of one visual token in pixels: patch size 16 x spatial merge 2 of Qwen3-VL."""

POINTS_PER_INCH = 72.0

MAX_ASPECT = 200
"""Qwen's smart_resize refuses pages longer than 200 times their width."""


@dataclass(frozen=True)
class PageGrid:
    """Where one page lands on the grid."""

    width: int
    """px, a multiple of 32: the page image, padding included"""
    height: int
    """px, a multiple of 32"""
    content_width: int
    """px of the width that the page itself covers; the rest is white padding"""
    content_height: int
    scale: float
    """px per unit of the source (pt of a PDF page, px of a scan), the same on both axes"""
    dpi: float
    """effective dpi: pixels per inch of the page as rendered"""
    limited: bool
    """True where max_visual_tokens forced a lower dpi than the one asked for"""

    @property
    def visual_tokens(self) -> int:
        return (self.width // GRID_PX) * (self.height // GRID_PX)


@dataclass(frozen=True)
class PageBudget:
    """dpi asked for and the most visual tokens a page may take."""

    dpi: float
    max_visual_tokens: int

    def __post_init__(self) -> None:
        if not (self.dpi > 0 and self.max_visual_tokens >= 1):
            raise ValueError(f"page budget needs dpi > 0 and max_visual_tokens >= 1, not {self}")

    def for_page(self, width_pt: float, height_pt: float) -> PageGrid:
        """Grid of a PDF page of this size (pt, after /Rotate). Raises ValueError on an empty or absurdly long page."""
        return self._fit(width_pt, height_pt, self.dpi / POINTS_PER_INCH, POINTS_PER_INCH)

    def for_scan(self, width_px: int, height_px: int, scan_dpi: float | None = None) -> PageGrid:
        """Grid of a scan of this size (px, upright). A scan is never enlarged.

        scan_dpi: from the file, where it states one; else the scan is taken to be as wide as an A4 page (8.27 in), or as tall
        (11.69 in) where it lies across, which is what a page scanner delivers.
        """
        if scan_dpi is None or not 30 <= scan_dpi <= 2400:
            scan_dpi = max(width_px / 8.27, height_px / 11.69)
        return self._fit(width_px, height_px, min(1.0, self.dpi / scan_dpi), scan_dpi)

    def _fit(self, width: float, height: float, scale: float, units_per_inch: float) -> PageGrid:
        if not (math.isfinite(width) and math.isfinite(height) and width > 0 and height > 0):
            raise ValueError(f"page has no area: {width} x {height}")
        if max(width, height) / min(width, height) > MAX_ASPECT:
            raise ValueError(f"page is over {MAX_ASPECT} times as long as wide: {width:g} x {height:g}")
        asked = scale
        if _tokens(width, height, scale) > self.max_visual_tokens:
            scale = self._largest_scale(width, height, scale)
        content_w, content_h = _content(width, scale), _content(height, scale)
        return PageGrid(
            width=_on_grid(content_w),
            height=_on_grid(content_h),
            content_width=content_w,
            content_height=content_h,
            scale=scale,
            dpi=round(scale * units_per_inch, 2),
            limited=scale < asked,
        )

    def _largest_scale(self, width: float, height: float, asked: float) -> float:
        """Largest scale whose padded page fits: the token count only steps where a side crosses a multiple of 32 px."""
        low, high = 0.0, asked
        for _ in range(60):
            middle = (low + high) / 2
            if middle > 0 and _tokens(width, height, middle) <= self.max_visual_tokens:
                low = middle
            else:
                high = middle
        if low == 0.0:
            raise ValueError(f"a page of {width:g} x {height:g} does not fit {self.max_visual_tokens} visual tokens")
        return low


def _content(side: float, scale: float) -> int:
    # 1e-6: a page of exactly n px must not become n + 1 through float noise
    return max(1, math.ceil(side * scale - 1e-6))


def _on_grid(side_px: int) -> int:
    return math.ceil(side_px / GRID_PX) * GRID_PX


def _tokens(width: float, height: float, scale: float) -> int:
    return (_on_grid(_content(width, scale)) // GRID_PX) * (_on_grid(_content(height, scale)) // GRID_PX)
