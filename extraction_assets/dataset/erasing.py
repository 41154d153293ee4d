"""Erasing one field of a page: its words vanish under the paper's colour, its target says null.

The pair (clean page, page without the value) is what teaches a model to answer null instead of guessing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extraction_assets.documents.records import Word

Box = tuple[float, float, float, float]
Boxes = Mapping[str, Sequence[Box]]

_RING_PX = 3
"""how far around a word the paper's colour is looked up"""


def erasable_fields(boxes: Boxes, target: dict[str, Any]) -> list[tuple[str, ...]]:
    """Groups of header fields (JSON pointers) that can be erased together, sorted.

    A group is every field printed by the same words (amount due and total are often one figure). Left out: fields that share
    words with a row, with a list, or only partly with another field, since erasing would then damage what the target keeps.
    """
    header = {pointer: set(map(tuple, found)) for pointer, found in boxes.items() if found and not _inside_list(pointer, target)}
    rows = {box for pointer, found in boxes.items() if pointer not in header for box in map(tuple, found)}
    groups: dict[tuple[str, ...], None] = {}
    for words in header.values():
        group = tuple(sorted(other for other, its in header.items() if its <= words))
        erased = set().union(*(header[other] for other in group))
        cut = any(its & erased for other, its in header.items() if other not in group)
        if not cut and not (erased & rows):
            groups[group] = None
    return sorted(groups)


def without_fields(target: dict[str, Any], pointers: Sequence[str]) -> str:
    """The target with these fields null, spelled as compactly and in the same key order as it came."""
    result = json.loads(json.dumps(target))
    for pointer in pointers:
        *path, last = pointer.split("/")[1:]
        place = result
        for key in path:
            place = place[key]
        place[last] = None
    return json.dumps(result, separators=(",", ":"), ensure_ascii=False)


def erase(pixels: NDArray[np.uint8], boxes: Sequence[Box], words: Sequence[Word]) -> None:
    """Paint over these boxes (px) in place, each in the colour of the paper around it. pixels: (h, w, 3).

    Word boxes are taller than their ink and reach into the lines above and below: they are cut back to the middle of the overlap
    with neighbouring words, so that those keep their ascenders and descenders.
    """
    gone = set(map(tuple, boxes))
    for x0, y0, x1, y1 in gone:
        for word in words:
            a0, b0, a1, b1 = word.box
            if word.box in gone or a1 <= x0 or a0 >= x1 or b1 <= y0 or b0 >= y1:
                continue
            if b0 < y0 < b1 < y1:
                y0 = (y0 + b1) / 2
            elif y0 < b0 < y1 < b1:
                y1 = (y1 + b0) / 2
        left, top = max(0, int(x0) - 1), max(0, int(y0))
        right, bottom = min(pixels.shape[1], int(np.ceil(x1)) + 1), min(pixels.shape[0], int(np.ceil(y1)))
        if right > left and bottom > top:
            pixels[top:bottom, left:right] = _paper(pixels, left, top, right, bottom)


def _paper(pixels: NDArray[np.uint8], left: int, top: int, right: int, bottom: int) -> NDArray[np.uint8]:
    """The commonest colour of the box and a ring around it: paper always covers more than ink does."""
    around = pixels[max(0, top - _RING_PX) : bottom + _RING_PX, max(0, left - _RING_PX) : right + _RING_PX].reshape(-1, 3)
    coarse = around.astype(np.uint32) >> 3  # paper of a scan wavers by a few levels
    keys = (coarse[:, 0] << 10) | (coarse[:, 1] << 5) | coarse[:, 2]
    values, counts = np.unique(keys, return_counts=True)
    common = around[keys == values[counts.argmax()]]
    return np.median(common, axis=0).astype(np.uint8)


def _inside_list(pointer: str, target: dict[str, Any]) -> bool:
    return any(isinstance(value, list) for value in _along(pointer, target))


def _along(pointer: str, target: dict[str, Any]) -> Iterator[Any]:
    value: Any = target
    for key in pointer.split("/")[1:]:
        value = value[int(key)] if isinstance(value, list) else value[key]
        yield value
