"""Pages for the glyph stage: dense text of every kind, whatever it says."""

from __future__ import annotations

import random

from extraction_assets.demo.base_recipe.canvas import FACES, MONOSPACED, Canvas, Picture, draw_face, text_width
from extraction_assets.demo.base_recipe.words import scrap

INKS = ((0, 0, 0), (0, 0, 0), (0, 0, 0), (0.2, 0.2, 0.2), (0.35, 0.35, 0.35), (0.1, 0.15, 0.5), (0.55, 0.1, 0.1), (0.05, 0.35, 0.2))
BARS = ((0.15, 0.2, 0.35), (0.1, 0.1, 0.1), (0.45, 0.1, 0.15), (0.1, 0.4, 0.35), (0.3, 0.3, 0.3))
PALE = ((0.92, 0.92, 0.92), (0.88, 0.92, 0.97), (0.97, 0.94, 0.86), (0.9, 0.96, 0.9))


def text_size(rng: random.Random) -> float:
    """17 to 28 px, most of it 18 to 23: 8.5 to 14 pt at 144 dpi. A visual token then holds some three characters of one line.

    At 96 dpi it held five, of one line and a half: after 375 steps of loose lines there were 0.83 characters right for each right look,
    and 0.95 at 144 dpi.
    """
    return rng.choice([rng.uniform(8.5, 9.5), rng.uniform(9, 10.5), rng.uniform(9, 11.5), rng.uniform(10, 14)]) * 144 / 72


def glyph_page(rng: random.Random, width: int, height: int, print_scale: float = 1.0) -> Picture:
    """Bands of text lines: each band with its own face, size, leading, ink and ground. print_scale: times the usual text size."""
    canvas = Canvas(width, height)
    top = rng.uniform(0, 6)
    while top < height - 6:
        top = _band(canvas, rng, top, print_scale)
    return canvas.render()


def _band(canvas: Canvas, rng: random.Random, top: float, print_scale: float) -> float:
    face = draw_face(rng)
    bold = rng.random() < 0.25
    size = text_size(rng) * print_scale * (0.92 if face in MONOSPACED else 1)
    leading = size * rng.uniform(1.12, 1.9)
    lines = rng.randint(1, 5)
    inverse = rng.random() < 0.1
    ink = (1.0, 1.0, 1.0) if inverse else rng.choice(INKS)
    if inverse or rng.random() < 0.08:
        canvas.box(0, top, canvas.width, top + lines * leading + 3, rng.choice(BARS if inverse else PALE))
    baseline = top + size
    for _ in range(lines):
        x = rng.uniform(0, 24)
        while x < canvas.width - 8:
            text = scrap(rng)
            canvas.text(x, baseline, text, FACES[face] if bold else face, size, ink)
            x += text_width(text, FACES[face] if bold else face, size) + rng.choice([size * 0.3, size * 0.6, rng.uniform(8, 60)])
        if rng.random() < 0.08:
            canvas.line(0, baseline + size * 0.3, canvas.width, baseline + size * 0.3)
        baseline += leading
    return baseline - size + rng.uniform(1, 8)
