"""The page budget: on the grid, in proportion, never over the token limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extraction_assets.page_budget import GRID_PX, PageBudget

sides = st.floats(1, 100_000, allow_nan=False)


@given(sides, sides, st.floats(18, 600), st.integers(200, 16384))
def test_every_page_lies_on_the_grid_within_its_tokens(width: float, height: float, dpi: float, tokens: int) -> None:
    if max(width, height) / min(width, height) > 150:
        return
    grid = PageBudget(dpi, tokens).for_page(width, height)
    assert grid.width % GRID_PX == 0
    assert grid.height % GRID_PX == 0
    assert grid.visual_tokens <= tokens
    assert 0 <= grid.width - grid.content_width < GRID_PX
    assert 0 <= grid.height - grid.content_height < GRID_PX
    assert grid.dpi <= dpi + 0.01
    assert grid.limited == (grid.dpi < round(dpi, 2) - 0.005) or grid.limited


def test_a4_at_the_default_dpi_is_not_limited() -> None:
    grid = PageBudget(120, 1408).for_page(595.276, 841.89)
    assert (grid.width, grid.height, grid.visual_tokens, grid.dpi, grid.limited) == (1024, 1408, 1408, 120, False)


def test_a_limited_page_keeps_the_largest_dpi_that_fits() -> None:
    budget = PageBudget(300, 1200)
    grid = budget.for_page(612, 792)
    assert grid.limited
    assert grid.visual_tokens <= 1200
    assert PageBudget(grid.dpi + 1, 16384).for_page(612, 792).visual_tokens > 1200


def test_a_page_of_whole_pixels_gets_no_extra_column() -> None:
    grid = PageBudget(72, 1000).for_page(320, 448)
    assert (grid.width, grid.height) == (320, 448)


def test_a_scan_is_never_enlarged() -> None:
    grid = PageBudget(300, 16384).for_scan(640, 960, scan_dpi=72)
    assert (grid.content_width, grid.content_height) == (640, 960)


@pytest.mark.parametrize("size", [(0, 10), (10, -1), (float("nan"), 3), (10, 10_000)])
def test_a_page_without_area_or_absurdly_long_is_refused(size: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="page"):
        PageBudget(100, 1000).for_page(*size)
