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
_HEADER = struct.Struct(">IIBBBBB")
_RGB_8 = [8, 2, 0, 0, 0]
"""bits, colour type, and the only compression, filter method and order of rows that we write"""
_MOST_PIXELS = 1 << 26
"""that decode_png takes: 192 MiB"""


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
    header = _HEADER.pack(width, height, *_RGB_8)
    return b"".join((_SIGNATURE, _chunk(b"IHDR", header), _chunk(b"IDAT", zlib_ng.compress(rows.data, 1)), _chunk(b"IEND", b"")))


def decode_png(png: bytes) -> Pixels | None:
    """Pixels (height, width, 3) of a PNG that encode_png wrote, or any like it; None: another spelling, or damaged. In a tenth of Pillow's time."""
    chunks = _chunks(png)
    if chunks is None or [name for name, _ in chunks[:1]] != [b"IHDR"] or len(chunks[0][1]) != _HEADER.size:
        return None
    width, height, *spelling = _HEADER.unpack(chunks[0][1])
    if spelling != _RGB_8 or not 0 < width * height <= _MOST_PIXELS or any(name not in (b"IDAT", b"IEND") for name, _ in chunks[1:]):
        return None
    size = height * (1 + 3 * width)
    try:
        deflated = b"".join(data for name, data in chunks if name == b"IDAT")
        inflate = zlib_ng.decompressobj()
        data = inflate.decompress(deflated, size)  # no more than that, whatever the stream holds
    except zlib_ng.error:  # type: ignore[misc]  # zlib-ng 1.1 types the class as an instance of it
        return None
    if len(data) != size or inflate.decompress(inflate.unconsumed_tail, 1) or not inflate.eof:
        return None
    rows = np.frombuffer(data, np.uint8).reshape(height, 1 + 3 * width)
    return None if rows[:, 0].any() else rows[:, 1:].reshape(height, width, 3)


def _chunks(png: bytes) -> list[tuple[bytes, bytes]] | None:
    """(name, data) of each, up to IEND; None: not a PNG, or a check sum that is wrong."""
    if not png.startswith(_SIGNATURE):
        return None
    chunks, at, name = [], len(_SIGNATURE), b""
    while name != b"IEND":
        length, name = int.from_bytes(png[at : at + 4], "big"), png[at + 4 : at + 8]
        data, check = png[at + 8 : at + 8 + length], png[at + 8 + length : at + 12 + length]
        if len(check) != 4 or zlib_ng.crc32(data, zlib_ng.crc32(name)) != int.from_bytes(check, "big"):
            return None
        chunks.append((name, data))
        at += 12 + length
    return chunks


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib_ng.crc32(data, zlib_ng.crc32(name)))
