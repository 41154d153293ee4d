"""Frames between the parent and a rendering worker: 4 bytes length, a JSON header, then the blobs whose sizes it names.

JSON and raw bytes only: a worker that a hostile file has taken over can send wrong pixels, but no object that the parent
would execute.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any, BinaryIO

MAX_HEADER = 64 << 20
MAX_BLOB = 1 << 30
_LENGTH = struct.Struct(">I")


class ProtocolError(Exception):
    """The other side sent something that is no frame."""


def pack(header: dict[str, Any], blobs: Sequence[bytes] = ()) -> list[bytes]:
    """A frame in parts, ready to be written one after the other."""
    head = json.dumps({**header, "blobs": [len(blob) for blob in blobs]}, ensure_ascii=True).encode()
    return [_LENGTH.pack(len(head)) + head, *blobs]


def read_frame(file: BinaryIO) -> tuple[dict[str, Any], list[bytes]] | None:
    """Next frame of a blocking stream; None at its end."""
    start = file.read(_LENGTH.size)
    if len(start) < _LENGTH.size:
        return None
    header = json.loads(file.read(_LENGTH.unpack(start)[0]))
    return header, [file.read(size) for size in header["blobs"]]


class FrameBuffer:
    """Bytes as they arrive from a pipe, taken out frame by frame."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._wanted = _LENGTH.size

    def feed(self, data: bytes) -> None:
        self._data += data

    def take(self) -> tuple[dict[str, Any], list[bytes]] | None:
        """The next whole frame, or None until more bytes have arrived. Raises ProtocolError."""
        if len(self._data) < self._wanted:
            return None
        head_size = _LENGTH.unpack_from(self._data)[0]
        if head_size > MAX_HEADER:
            raise ProtocolError(f"a header of {head_size} bytes")
        end = _LENGTH.size + head_size
        if len(self._data) < end:
            self._wanted = end
            return None
        try:
            header = json.loads(bytes(self._data[_LENGTH.size : end]))
            sizes = [int(size) for size in header["blobs"]]
            header["kind"]
        except (ValueError, KeyError, TypeError) as error:
            raise ProtocolError(f"no frame header: {error}") from None
        if any(not 0 <= size <= MAX_BLOB for size in sizes):
            raise ProtocolError(f"blobs of {sizes} bytes")
        if len(self._data) < end + sum(sizes):
            self._wanted = end + sum(sizes)
            return None
        blobs = []
        for size in sizes:
            blobs.append(bytes(self._data[end : end + size]))
            end += size
        del self._data[:end]
        self._wanted = _LENGTH.size
        return header, blobs
