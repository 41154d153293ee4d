"""What scanners, copiers and clerks do to a page: skew, quarter turns, stamps, noise. Pure functions of pixels and a seeded Random.

Pixels are (h, w, 3) uint8 of the page itself, without the white padding that brings it onto the 32-px grid.
"""

from __future__ import annotations

import io
import math
from functools import lru_cache
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Pixels = NDArray[np.uint8]

STAMP_WORDS = (
    "PAID",
    "RECEIVED",
    "COPY",
    "DRAFT",
    "APPROVED",
    "VOID",
    "BEZAHLT",
    "EINGEGANGEN",
    "KOPIE",
    "GEBUCHT",
    "PAYÉ",
    "COPIE",
    "PAGADO",
)
_DATED = ("RECEIVED", "EINGEGANGEN", "PAID", "BEZAHLT", "PAYÉ")
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_INKS = ((196, 30, 44), (178, 24, 60), (24, 66, 160), (36, 48, 120), (20, 110, 70), (70, 50, 120), (60, 60, 66))


def turn(pixels: Pixels, quarter: int) -> Pixels:
    """Turned counterclockwise by quarter x 90 degrees: (h, w, 3) -> (w, h, 3) for odd quarters."""
    return np.ascontiguousarray(np.rot90(pixels, quarter))


def skew(pixels: Pixels, angle: float, rng: Random) -> tuple[Pixels, float]:
    """Turned by a small angle (degrees, counterclockwise), same size; returns the scale that kept all ink inside (<= 1).

    Around the page lies what a scanner sees there: its lid, white, grey or dark.
    """
    height, width = pixels.shape[:2]
    scale = _scale_to_keep_ink(pixels, angle)
    lid = rng.choice(((255, 255, 255), (255, 255, 255), (236, 236, 234), (214, 214, 212), (74, 74, 78)))
    radians, cx, cy = math.radians(angle), (width - 1) / 2, (height - 1) / 2
    a, b = math.cos(radians) / scale, -math.sin(radians) / scale
    d, e = math.sin(radians) / scale, math.cos(radians) / scale
    matrix = (a, b, cx - a * cx - b * cy, d, e, cy - d * cx - e * cy)
    image = Image.fromarray(pixels)
    turned = image.transform((width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=lid)
    return np.asarray(turned), scale


def _scale_to_keep_ink(pixels: Pixels, angle: float) -> float:
    """Largest scale <= 1 at which the corners of the ink's bounding box stay on the sheet after turning about its middle."""
    height, width = pixels.shape[:2]
    paper = np.median(pixels[:: max(1, height // 64), :: max(1, width // 64)].reshape(-1, 3), axis=0)
    ink = np.abs(pixels.astype(np.int16) - paper.astype(np.int16)).max(axis=2) > 40
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    if not len(rows):
        return 1.0
    cos, sin, scale = math.cos(math.radians(angle)), math.sin(math.radians(angle)), 1.0
    for x in (columns[0] - width / 2, columns[-1] - width / 2):
        for y in (rows[0] - height / 2, rows[-1] - height / 2):
            far_x, far_y = abs(x * cos + y * sin), abs(-x * sin + y * cos)
            scale = min(scale, (width / 2 - 2) / max(far_x, 1), (height / 2 - 2) / max(far_y, 1))
    return max(scale, 0.8)


# --- stamps -------------------------------------------------------------------------------------------------------------------


def stamp(pixels: Pixels, rng: Random) -> tuple[Pixels, str]:
    """A rubber stamp somewhere on the page, as translucent ink: print under it stays as dark as it was. Returns what it says."""
    height, width = pixels.shape[:2]
    words = rng.choice(STAMP_WORDS)
    date = f"{rng.randint(1, 28):02d} {rng.choice(_MONTHS)} {rng.randint(2012, 2026)}" if words in _DATED and rng.random() < 0.6 else ""
    mask = _stamp_mask(words, date, max(24.0, width * rng.uniform(0.24, 0.42)), rng)
    mask = mask.rotate(rng.uniform(-28, 28), Image.Resampling.BICUBIC, expand=True)
    if mask.width > width or mask.height > height:
        mask.thumbnail((width, height))
    coverage = np.asarray(mask, dtype=np.float32) / 255 * _worn_ink(mask.height, mask.width, rng)
    left, top = rng.randint(0, width - mask.width), rng.randint(0, height - mask.height)
    alpha = rng.uniform(0.5, 0.85)
    ink = np.array(rng.choice(_INKS), dtype=np.float32) / 255
    result = pixels.copy()
    under = result[top : top + mask.height, left : left + mask.width].astype(np.float32)
    # ink multiplies: it darkens paper and leaves black print black
    result[top : top + mask.height, left : left + mask.width] = (under * (1 - alpha * coverage[..., None] * (1 - ink)) + 0.5).astype(
        np.uint8
    )
    return result, f"stamped {words}{' ' + date if date else ''}"


def _stamp_mask(words: str, date: str, width: float, rng: Random) -> Image.Image:
    """The stamp's face, drawn at twice its size and reduced: (L) 255 where there is ink."""
    size = 90
    font, small = _font(rng.choice(("hebo", "tibo", "cobo"))), _font("cobo")
    box, date_box = _extent(words, font), _extent(date, small)
    date_scale = 0.55
    inner_w = max(box[2] - box[0], int((date_box[2] - date_box[0]) * date_scale))
    inner_h = box[3] - box[1] + (int(size * 0.75) if date else 0)
    pad, line = int(size * 0.35), rng.randint(5, 9)
    face = Image.new("L", (inner_w + 2 * pad + 2 * line, inner_h + 2 * pad + 2 * line), 0)
    draw = ImageDraw.Draw(face)
    style = rng.choice(("round", "double", "plain", "bare"))
    edge = (line, line, face.width - line - 1, face.height - line - 1)
    if style != "bare":
        draw.rounded_rectangle(edge, radius=0 if style == "plain" else size // 4, outline=255, width=line)
    if style == "double":
        inset = 2 * line
        inner = (edge[0] + inset, edge[1] + inset, edge[2] - inset, edge[3] - inset)
        draw.rounded_rectangle(inner, radius=size // 5, outline=255, width=max(2, line // 3))
    draw.text(((face.width - (box[2] - box[0])) / 2 - box[0], line + pad - box[1]), words, fill=255, font=font)
    if date:
        line_of_date = Image.new("L", (date_box[2] - date_box[0] + 4, date_box[3] - date_box[1] + 4), 0)
        ImageDraw.Draw(line_of_date).text((2 - date_box[0], 2 - date_box[1]), date, fill=255, font=small)
        line_of_date = line_of_date.resize(
            (int(line_of_date.width * date_scale), int(line_of_date.height * date_scale)), Image.Resampling.LANCZOS
        )
        face.paste(line_of_date, ((face.width - line_of_date.width) // 2, face.height - line - pad - line_of_date.height))
    ratio = width / face.width
    return face.resize((max(8, int(width)), max(8, int(face.height * ratio))), Image.Resampling.LANCZOS)


def _extent(text: str, font: ImageFont.FreeTypeFont) -> tuple[int, int, int, int]:
    """left, top, right, bottom of a line of text, px"""
    left, top, right, bottom = ImageDraw.Draw(Image.new("L", (1, 1))).textbbox((0, 0), text, font=font) if text else (0, 0, 0, 0)
    return math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)


def _worn_ink(height: int, width: int, rng: Random) -> NDArray[np.float32]:
    """Uneven inking, 0.45 to 1: patches where the rubber pressed less, and grain. (h, w)"""
    noise = _generator(rng)
    patches = _smooth_field(noise, height, width, max(3, width // 40))
    grain = noise.random((height, width), dtype=np.float32)
    ink = 0.75 + 0.35 * patches - 0.35 * (grain > 0.86)
    return np.clip(ink, 0.45, 1.0).astype(np.float32)


@lru_cache(maxsize=8)
def _font(name: str) -> ImageFont.FreeTypeFont:
    import pymupdf

    return ImageFont.truetype(io.BytesIO(pymupdf.Font(name).buffer), 90)


# --- noise --------------------------------------------------------------------------------------------------------------------


def scan_noise(pixels: Pixels, rng: Random) -> tuple[Pixels, str]:
    """The page as an office scanner delivers it: soft, unevenly lit, grainy, dusty, and saved as JPEG."""
    height, width = pixels.shape[:2]
    noise = _generator(rng)
    done = []
    image = Image.fromarray(pixels)
    grey = rng.random() < 0.65
    if grey:
        image = image.convert("L").convert("RGB")
        done.append("grey")
    blur = rng.uniform(0.3, 0.75)
    page = np.asarray(image.filter(ImageFilter.GaussianBlur(blur)), dtype=np.float32)
    black, white = rng.uniform(6, 44), rng.uniform(236, 254)
    page = black + page * ((white - black) / 255)
    done.append(f"blur {blur:.1f} px")
    light = _uneven_light(noise, height, width, rng)
    page *= light[..., None]
    if not grey:
        page *= np.array([1.0, rng.uniform(0.97, 1.0), rng.uniform(0.92, 0.99)], dtype=np.float32)  # warm paper
    sigma = rng.uniform(2.0, 8.0)
    channels = 1 if grey else 3
    page += noise.normal(0, sigma, (height, width, channels)).astype(np.float32)
    page = np.clip(page, 0, 255)
    _dust(page, noise, rng)
    done.append(f"grain {sigma:.0f}")
    quality = rng.randint(38, 80)
    buffer = io.BytesIO()
    Image.fromarray((page + 0.5).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=quality)
    done.append(f"JPEG {quality}")
    return np.asarray(Image.open(buffer).convert("RGB")), "scanned: " + ", ".join(done)


def _uneven_light(noise: np.random.Generator, height: int, width: int, rng: Random) -> NDArray[np.float32]:
    """Light on the page, about 0.8 to 1: a slope, slow waves, and sometimes the dark fold of a bound page. (h, w)"""
    angle, strength = rng.uniform(0, 2 * math.pi), rng.uniform(0.0, 0.12)
    x = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None, :]
    y = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None]
    light = 1 - strength * (0.5 + math.cos(angle) * x + math.sin(angle) * y)
    light = light - 0.05 * _smooth_field(noise, height, width, 4)
    if rng.random() < 0.3:
        depth, reach = rng.uniform(0.15, 0.4), rng.uniform(0.015, 0.05)
        side = x + 0.5 if rng.random() < 0.5 else 0.5 - x
        light = light * (1 - depth * np.exp(-side / reach))
    return light.astype(np.float32)


def _dust(page: NDArray[np.float32], noise: np.random.Generator, rng: Random) -> None:
    """Specks of one to four px, dark and light, and sometimes a thin streak of the feeder, in place."""
    height, width = page.shape[:2]
    for _ in range(int(rng.uniform(0.00001, 0.00012) * height * width)):
        y, x = int(noise.integers(0, height)), int(noise.integers(0, width))
        tall, wide = int(noise.integers(1, 3)), int(noise.integers(1, 3))
        page[y : y + tall, x : x + wide] = 40 + 60 * noise.random() if noise.random() < 0.8 else 250
    if rng.random() < 0.25:
        x = int(noise.integers(0, width))
        page[:, x : x + 1] = page[:, x : x + 1] * (1 - rng.uniform(0.08, 0.3))


def _smooth_field(noise: np.random.Generator, height: int, width: int, cells: int) -> NDArray[np.float32]:
    """Slow waves between -1 and 1: a coarse grid of random values, stretched. (h, w)"""
    coarse = noise.uniform(-1, 1, (max(2, cells * height // max(width, 1)), max(2, cells))).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)


def _generator(rng: Random) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(rng.getrandbits(64)))
