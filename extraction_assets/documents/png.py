"""One PNG spelling of a picture: 8-bit RGB, no row filter, deflated by zlib-ng at level 1. Equal pixels give equal bytes.

That is what names a page, so it comes before speed: ISA-L (isal 1.9.1) deflates twice as fast as zlib-ng, but about once in some hundred
pages it chose another match for the same pixels, and two runs of the same documents had two datasets. zlib-ng has one matcher for all
processors (its vector code only compares and copies); it takes a quarter of zlib's time, for pages that are a quarter larger.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from zlib_ng import zlib_ng

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Scanlines = np.ndarray[Any, np.dtype[np.uint8]]

_NO_FILTER = 0
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def white_scanlines(height: int, width: int) -> tuple[Scanlines, Pixels]:
    """White rows as a PNG holds them, and the same memory as pixels (height, width, 3): what is drawn there needs no copy to be encoded."""
    rows = np.full((height, 1 + 3 * width), 255, np.uint8)
    rows[:, 0] = _NO_FILTER
    return rows, rows[:, 1:].reshape(height, width, 3)


def scanlines_of(pixels: Pixels) -> Scanlines:
    """A copy of pixels (height, width, 3) as PNG rows."""
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ValueError(f"expected (height, width, 3) uint8, not {pixels.shape} {pixels.dtype}")
    height, width, _ = pixels.shape
    rows = np.empty((height, 1 + 3 * width), np.uint8)
    rows[:, 0] = _NO_FILTER
    rows[:, 1:] = pixels.reshape(height, 3 * width)
    return rows


def encode_png(rows: Scanlines) -> bytes:
    """PNG of rows (height, 1 + 3 * width): a filter byte, then RGB."""
    height, width = rows.shape[0], rows.shape[1] // 3
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"".join((_SIGNATURE, _chunk(b"IHDR", header), _chunk(b"IDAT", zlib_ng.compress(rows.data, 1)), _chunk(b"IEND", b"")))


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib_ng.crc32(data, zlib_ng.crc32(name)))
