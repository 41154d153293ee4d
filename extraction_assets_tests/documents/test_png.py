"""One PNG spelling of a picture."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from extraction_assets.documents.png import encode_png, scanlines_of, white_scanlines


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
