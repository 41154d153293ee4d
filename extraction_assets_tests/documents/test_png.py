"""One PNG spelling of a picture."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from extraction_assets.documents.png import decode_png, encode_png, scanlines_of, white_scanlines


def picture(seed: int, height: int = 96, width: int = 160) -> np.ndarray:
    """Flat ground, repeated rows and noise: what a matcher can choose between."""
    draw = np.random.default_rng(seed)
    pixels = np.full((height, width, 3), 255, np.uint8)
    for _ in range(12):
        y, x = draw.integers(0, height - 8), draw.integers(0, width - 20)
        pixels[y : y + 8, x : x + 20] = draw.integers(0, 256, (8, 20, 3)) if draw.random() < 0.5 else draw.integers(0, 256, 3)
    return pixels


def test_every_decoder_reads_the_pixels_back() -> None:
    pixels = picture(1)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode_png(scanlines_of(pixels))))), pixels)


def test_it_is_read_back_without_pillow_too() -> None:
    pixels = picture(3)
    decoded = decode_png(encode_png(scanlines_of(pixels)))
    assert decoded is not None
    assert np.array_equal(decoded, pixels)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "I;16"])
def test_another_spelling_is_left_to_pillow(mode: str) -> None:
    assert decode_png(_saved(Image.new(mode, (32, 32)))) is None


def test_a_chunk_more_is_left_to_pillow() -> None:
    assert decode_png(_saved(Image.new("RGB", (32, 32)), dpi=(72, 72))) is None


def test_filtered_rows_are_left_to_pillow() -> None:
    gradient = np.tile(np.arange(96, dtype=np.uint8)[:, None, None], (1, 64, 3))
    assert decode_png(_saved(Image.fromarray(gradient))) is None


def test_a_damaged_file_is_left_to_pillow() -> None:
    png = encode_png(scanlines_of(picture(5)))
    for at in range(0, len(png), 97):
        assert decode_png(png[:at]) is None
        assert decode_png(png[:at] + bytes([png[at] ^ 1]) + png[at + 1 :]) is None


@pytest.mark.parametrize(("rows", "width"), [(96, 159), (95, 160), (97, 160), (1 << 20, 1 << 20), (0, 160)])
def test_a_header_that_does_not_fit_the_rows_is_left_to_pillow(rows: int, width: int) -> None:
    png = encode_png(scanlines_of(picture(6)))
    header = b"IHDR" + struct.pack(">II", width, rows) + png[24:29]
    assert decode_png(png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]) is None


def _saved(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def test_equal_pixels_give_equal_bytes_wherever_they_lie_in_memory() -> None:
    for seed in range(40):
        pixels = picture(seed)
        first = encode_png(scanlines_of(pixels))
        for shift in (1, 7, 64):
            elsewhere = np.empty(pixels.size + shift, np.uint8)
            elsewhere[shift:] = pixels.reshape(-1)
            assert encode_png(scanlines_of(elsewhere[shift:].reshape(pixels.shape))) == first
        assert encode_png(scanlines_of(np.ascontiguousarray(pixels[:, ::-1])[:, ::-1])) == first


def test_what_is_drawn_onto_white_scanlines_is_what_a_copy_of_it_would_be() -> None:
    pixels = picture(2)
    rows, canvas = white_scanlines(*pixels.shape[:2])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode_png(rows)))), np.full_like(pixels, 255))
    canvas[:] = pixels
    assert encode_png(rows) == encode_png(scanlines_of(pixels))


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 4)])
def test_other_arrays_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        scanlines_of(np.zeros(shape, np.uint8))
