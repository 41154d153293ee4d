"""Batches of the glyph stage: crops of generated sheets with the classes of their slots. Imports no torch: worker processes run it."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from extraction_assets.demo.base_recipe.canvas import Picture, scanned
from extraction_assets.demo.base_recipe.glyph_cells import cell_classes
from extraction_assets.demo.base_recipe.glyph_pages import glyph_page

SIZES = ((192, 64), (224, 128), (256, 160), (320, 192), (256, 320))
"""width, height in px; the larger, the more the tower learns to keep lines apart, the smaller, the faster it learns letters"""
PATCHES = 3840
SLACK_PX = 32
BLANKS_PER_GLYPH = 0.5
"""Blank slots are by far the most; this share of them is enough to know them."""


@dataclass(frozen=True)
class GlyphBatch:
    pixels: NDArray[np.uint8]
    """(images, h, w, 3)"""
    chosen: NDArray[np.int64]
    """flat slot numbers over the whole batch that are scored"""
    classes: NDArray[np.int64]
    """their classes, 0 blank"""


def glyph_batches(seed: int, number: int, uses: int, patches: int = PATCHES, print_scale: float = 1.0) -> list[GlyphBatch]:
    """`uses` batches cut from the same sheets at different offsets, with different scan noise: rendering is the dear part."""
    rng = random.Random(f"glyphs:{seed}:{number}")
    width, height = SIZES[number % len(SIZES)]
    images = max(1, patches * 256 // (width * height))
    sheets = [glyph_page(rng, width + SLACK_PX, height + SLACK_PX, print_scale) for _ in range(images)]
    return [_batch(rng, sheets, width, height) for _ in range(uses)]


def _batch(rng: random.Random, sheets: list[Picture], width: int, height: int) -> GlyphBatch:
    crops = [_crop(rng, sheet, width, height) for sheet in sheets]
    classes = np.concatenate([cell_classes(crop.glyphs, width, height) for crop in crops]).reshape(-1)
    glyphs, blanks = np.flatnonzero(classes > 0), np.flatnonzero(classes == 0)
    noise = np.random.default_rng(rng.getrandbits(64))
    kept = noise.choice(blanks, min(len(blanks), int(len(glyphs) * BLANKS_PER_GLYPH) + 1), replace=False)
    chosen = np.concatenate([glyphs, kept])
    return GlyphBatch(np.stack([crop.pixels for crop in crops]), chosen, classes[chosen].astype(np.int64))


def _crop(rng: random.Random, sheet: Picture, width: int, height: int) -> Picture:
    x, y = rng.randrange(SLACK_PX), rng.randrange(SLACK_PX)
    glyphs = sheet.glyphs - np.array([x, y, 0], dtype=np.float32)
    crop = Picture(sheet.pixels[y : y + height, x : x + width], glyphs)
    return scanned(crop, rng) if rng.random() < 0.35 else crop
