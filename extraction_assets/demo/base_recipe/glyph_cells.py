"""Where glyphs fall on the patch grid: the targets of the glyph heads.

A 16-px patch has 2 x 4 slots of 8 px (high) x 4 px (wide): two lines of small print may cross one patch, and no two digits share a
slot at 8 px. Patches are counted in the order in which Qwen3-VL sees them: 2 x 2 blocks row by row, and row by row within a block.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PATCH_PX = 16
SLOT_W, SLOT_H = 4, 8
SLOTS_ACROSS, SLOTS_DOWN = PATCH_PX // SLOT_W, PATCH_PX // SLOT_H
SLOTS = SLOTS_ACROSS * SLOTS_DOWN
IGNORE = -1
BORDER_PX = 0.6
"""Within this distance of a slot's side a glyph may be named in either slot: where it belongs is beyond what pixels show."""


def cell_classes(glyphs: NDArray[np.float32], width: int, height: int) -> NDArray[np.int16]:
    """(patches, SLOTS) classes: 0 blank, IGNORE where two glyphs share a slot or a neighbour lies on the border.

    glyphs: (n, 3) centre x, centre y in px, class.
    """
    cells = np.zeros((height // SLOT_H, width // SLOT_W), dtype=np.int16)
    inside = (glyphs[:, 0] >= 0) & (glyphs[:, 0] < width) & (glyphs[:, 1] >= 0) & (glyphs[:, 1] < height)
    seen = glyphs[inside]
    columns, rows = (seen[:, 0] // SLOT_W).astype(int), (seen[:, 1] // SLOT_H).astype(int)
    for near_rows, near_columns in _neighbours(seen, rows, columns, cells.shape):
        cells[near_rows, near_columns] = IGNORE
    count = np.zeros_like(cells)
    np.add.at(count, (rows, columns), 1)
    cells[rows, columns] = seen[:, 2].astype(np.int16)
    cells[count > 1] = IGNORE
    return patches_in_order(cells, width, height)


def slot_of(x: float, y: float) -> int:
    """Slot (0 to 4 * SLOTS - 1) of a point (px) within its visual token, counted as `cell_classes` counts those of four patches in a row."""
    patch = int(y % 32 // PATCH_PX) * 2 + int(x % 32 // PATCH_PX)
    return patch * SLOTS + int(y % PATCH_PX // SLOT_H) * SLOTS_ACROSS + int(x % PATCH_PX // SLOT_W)


def patches_in_order(cells: NDArray[np.int16], width: int, height: int) -> NDArray[np.int16]:
    """(h / 8, w / 4) slots -> (patches, SLOTS) in the model's patch order."""
    grid = cells.reshape(height // 32, 2, SLOTS_DOWN, width // 32, 2, SLOTS_ACROSS)
    return np.ascontiguousarray(grid.transpose(0, 3, 1, 4, 2, 5)).reshape(-1, SLOTS)


def _neighbours(
    seen: NDArray[np.float32], rows: NDArray[np.int_], columns: NDArray[np.int_], shape: tuple[int, ...]
) -> list[tuple[NDArray[np.int_], NDArray[np.int_]]]:
    """Slots across the border from glyphs that stand close to it."""
    found = []
    for axis, position, side in ((1, seen[:, 0], SLOT_W), (0, seen[:, 1], SLOT_H)):
        offset = position % side
        for step, close in ((-1, offset < BORDER_PX), (1, offset > side - BORDER_PX)):
            near_rows = rows[close] + (step if axis == 0 else 0)
            near_columns = columns[close] + (step if axis == 1 else 0)
            valid = (near_rows >= 0) & (near_rows < shape[0]) & (near_columns >= 0) & (near_columns < shape[1])
            found.append((near_rows[valid], near_columns[valid]))
    return found
