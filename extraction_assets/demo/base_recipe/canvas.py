"""One generated page: text drawn into a PDF, the PDF rendered as the product renders pages, its glyphs located.

Drawn so that one point is one pixel. What stands where comes back from the PDF itself (texttrace), not from what was asked for.
"""

from __future__ import annotations

import functools
import io
import math
import random
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import pymupdf
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from extraction_assets.demo.base_recipe.words import CHARACTERS, Value

# name -> bold face; the base-14 faces are embedded too (TextWriter embeds), the others come from the pymupdf-fonts package
FACES = {
    "helv": "hebo",
    "tiro": "tibo",
    "cour": "cobo",
    "notos": "notosbo",
    "figo": "figbo",
    "ubuntu": "ubuntubo",
    "cascadia": "cascadiab",
    "fimo": "fimbo",
    "spacemo": "spacembo",
    "ubuntm": "ubuntmbo",
    "heit": "hebi",
    "tiit": "tibi",
}
_WEIGHTS = [10, 6, 4, 7, 5, 4, 1, 2, 1, 2, 1, 1]
MONOSPACED = {"cour", "cascadia", "fimo", "spacemo", "ubuntm"}
_CLASS = {ord(character): i + 1 for i, character in enumerate(CHARACTERS)}


@functools.cache
def font(name: str) -> pymupdf.Font:
    return pymupdf.Font(name)


def draw_face(rng: random.Random) -> str:
    return rng.choices(list(FACES), _WEIGHTS)[0]


def text_width(text: str, face: str, size: float) -> float:
    """Width in pt; there is no kerning, so it is the sum of the advances (asking MuPDF glyph by glyph takes longer than drawing)."""
    advances = _advances(face)
    return size * sum(advances[character] for character in text)


class _Advances(dict[str, float]):
    """character -> advance at size 1, looked up once."""

    def __init__(self, face: str) -> None:
        super().__init__()
        self._face = face

    def __missing__(self, character: str) -> float:
        self[character] = float(font(self._face).text_length(character, fontsize=1))
        return self[character]


@functools.cache
def _advances(face: str) -> _Advances:
    return _Advances(face)


@dataclass(frozen=True)
class Picture:
    """A rendered page with its glyphs."""

    pixels: NDArray[np.uint8]
    """(h, w, 3)"""
    glyphs: NDArray[np.float32]
    """(n, 3): centre x, centre y (px, the middle of the x-height), class"""
    places: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    """id of a drawn Value -> (characters of what is printed, 2): centre x, centre y of each (px)"""


class Canvas:
    """A PDF page to draw on; width and height in pt = px."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._document = pymupdf.open()
        self._page = self._document.new_page(width=width, height=height)
        self._places: dict[int, NDArray[np.float32]] = {}
        self._writers: dict[tuple[float, ...], pymupdf.TextWriter] = defaultdict(lambda: pymupdf.TextWriter(self._page.rect))

    def text(
        self, x: float, baseline: float, text: str | Value, face: str, size: float, colour: tuple[float, float, float] = (0, 0, 0)
    ) -> None:
        """Draw; where a Value's characters stand is kept for `Picture.places` (the caller keeps the Value alive)."""
        if isinstance(text, Value):
            advances = np.array([size * _advances(face)[character] for character in text.printed], dtype=np.float32)
            centres = x + np.cumsum(advances) - advances / 2
            self._places[id(text)] = np.stack([centres, np.full_like(centres, baseline - 0.34 * size)], axis=1)
            text = text.printed
        if text:
            self._writers[colour].append((x, baseline), text, font=font(face), fontsize=size)

    def also(self, value: Value, of: Value, characters: slice) -> None:
        """`value` is read from those characters of a Value that is drawn already."""
        self._places[id(value)] = self._places[id(of)][characters]

    def disc(self, x: float, y: float, radius: float, fill: tuple[float, float, float]) -> None:
        self._page.draw_circle((x, y), radius, fill=fill, color=None, width=0)

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: tuple[float, float, float] | None, edge: float = 0.0) -> None:
        """A filled bar, a frame (edge: line width in pt), or both."""
        if x1 > x0 and y1 > y0:
            self._page.draw_rect(pymupdf.Rect(x0, y0, x1, y1), fill=fill, color=(0.3, 0.3, 0.3) if edge else None, width=edge)

    def line(self, x0: float, y0: float, x1: float, y1: float, width: float = 0.7) -> None:
        self._page.draw_line((x0, y0), (x1, y1), width=width)

    def render(self) -> Picture:
        """Raises nothing that a caller could mend; the document is closed."""
        for colour, writer in self._writers.items():
            writer.write_text(self._page, color=colour)
        glyphs = [
            (
                (glyph[3][0] + glyph[3][2]) / 2,
                glyph[2][1] - 0.34 * span["size"],
                _CLASS.get(glyph[0], 0),
            )
            for span in self._page.get_texttrace()
            for glyph in span["chars"]
        ]
        pixmap = self._page.get_pixmap(dpi=72, alpha=False)
        pixels = np.frombuffer(pixmap.samples, dtype=np.uint8).reshape(pixmap.height, pixmap.stride)[:, : pixmap.width * 3]
        pixels = pixels.reshape(pixmap.height, pixmap.width, 3).copy()
        self._document.close()
        found = np.array([glyph for glyph in glyphs if glyph[2]], dtype=np.float32).reshape(-1, 3)
        return Picture(pixels, found, self._places)


def scanned(picture: Picture, rng: random.Random) -> Picture:
    """The same page as a scanner might see it: a small turn, blur, noise, uneven light, weak ink, JPEG."""
    pixels, glyphs, places = picture.pixels, picture.glyphs, picture.places
    noise = np.random.default_rng(rng.getrandbits(64))
    if rng.random() < 0.3:
        degrees = rng.uniform(-3, 3) if rng.random() < 0.4 else rng.uniform(-1, 1)
        height, width = pixels.shape[:2]
        pixels = np.asarray(Image.fromarray(pixels).rotate(degrees, Image.Resampling.BICUBIC, fillcolor=(255, 255, 255)))
        glyphs = _turned(glyphs, degrees, width, height)
        places = {key: _turned(points, degrees, width, height) for key, points in places.items()}
    if rng.random() < 0.35:
        pixels = np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.6))))
    values = pixels.astype(np.float32)
    if rng.random() < 0.5:
        dark, light = rng.uniform(0, 90), rng.uniform(215, 255)
        values = dark + values * ((light - dark) / 255)
    if rng.random() < 0.3:
        ramp = np.linspace(1, rng.uniform(0.8, 1), values.shape[1], dtype=np.float32)
        values = values * ramp[None, :, None]
    if rng.random() < 0.6:
        values = values + noise.normal(0, rng.uniform(2, 14), values.shape[:2])[..., None].astype(np.float32)
    if rng.random() < 0.2:
        specks = noise.random(values.shape[:2]) < rng.uniform(0.0005, 0.004)
        values[specks] = rng.choice([0, 60, 255])
    pixels = np.clip(values, 0, 255).astype(np.uint8)
    if rng.random() < 0.25:
        packed = io.BytesIO()
        Image.fromarray(pixels).save(packed, "JPEG", quality=rng.randint(35, 85))
        pixels = np.asarray(Image.open(packed).convert("RGB"))
    return Picture(pixels, glyphs, places)


def _turned(points: NDArray[np.float32], degrees: float, width: int, height: int) -> NDArray[np.float32]:
    """Points (n, 2 or more; x and y first) of a page turned counter-clockwise about its middle."""
    angle = math.radians(degrees)
    x, y = points[:, 0] - width / 2, points[:, 1] - height / 2
    moved = points.copy()
    moved[:, 0] = x * math.cos(angle) + y * math.sin(angle) + width / 2
    moved[:, 1] = -x * math.sin(angle) + y * math.cos(angle) + height / 2
    return moved
