"""Pages that hold nothing of the schema: an empty sheet, and a page of prose that is no document of its kind.

Drawn from a seeded Random, in the size of the page they stand in for.
"""

from __future__ import annotations

import io
from functools import lru_cache
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Pixels = NDArray[np.uint8]


def blank_page(width: int, height: int, rng: Random) -> Pixels:
    """The back of a sheet as a scanner sees it: paper, a few specks, sometimes print shining through. (h, w, 3)"""
    noise = np.random.Generator(np.random.PCG64(rng.getrandbits(64)))
    tint = np.array([255, 255, 255 - rng.randint(0, 7)], dtype=np.float32) - rng.choice((0, 0, 2, 5, 9))
    page = np.broadcast_to(tint, (height, width, 3)).copy()
    if rng.random() < 0.6:
        page += noise.normal(0, rng.uniform(0.5, 2.5), (height, width, 1)).astype(np.float32)
    if rng.random() < 0.3:
        through = np.asarray(_show_through(width, height, rng), dtype=np.float32)[..., None]
        page -= through * rng.uniform(0.02, 0.05)
    for _ in range(rng.randint(3, 40)):
        y, x = int(noise.integers(0, height)), int(noise.integers(0, width))
        size = int(noise.integers(1, 3))
        page[y : y + size, x : x + size] = 60 + 120 * noise.random()
    return np.clip(page, 0, 255).astype(np.uint8)


def _show_through(width: int, height: int, rng: Random) -> Image.Image:
    """Lines of the other side, mirrored and out of focus: (L) 255 where there is ink."""
    image = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(image)
    step = max(8, height // 60)
    for y in range(height // 10, height * 9 // 10, step):
        x = width // 10
        while x < width * 0.88 and rng.random() > 0.06:
            word = rng.randint(width // 60 + 2, width // 12 + 4)
            draw.rectangle((x, y, x + word, y + step // 2), fill=255)
            x += word + width // 90 + 2
    return image.filter(ImageFilter.GaussianBlur(max(2.0, width / 350)))


_SUBJECTS = (
    "the parties", "the tenant", "the committee", "our service team", "the property", "the new office", "every member", "the supplier",
    "the warranty", "the agreement", "our museum", "the training course", "the apprentice", "the neighbouring building", "the archive",
)  # fmt: skip
_VERBS = (
    "shall notify", "has agreed to support", "will be informed about", "may at any time end", "is responsible for", "looks forward to",
    "continues to improve", "must keep in good order", "has decided to postpone", "expects to finish", "was asked to review",
    "thanks you for",
)  # fmt: skip
_OBJECTS = (
    "the use of the common rooms", "all reasonable precautions", "the works on the north wing", "your kind letter", "the opening hours",
    "the protection of personal data", "the changes described above", "any disclosure to third parties", "the spring programme",
    "the delivery of printed matter", "the place of jurisdiction", "the annual meeting of members", "a good working relationship",
)  # fmt: skip
_TAILS = (
    "unless agreed otherwise in writing", "as soon as the weather allows", "without prejudice to other rights", "in line with local rules",
    "and will answer any question you may have", "for as long as the building is open to visitors", "to the extent permitted by law",
    "which we regret very much", "so that nobody is disturbed", "within a reasonable period", "and we hope that this finds you well",
)  # fmt: skip
_HEADS = (
    "General Terms and Conditions", "Notice to all residents", "Minutes of the meeting", "Privacy notice", "Letter of recommendation",
    "House rules", "Instructions for use", "Newsletter", "Application for admission", "Safety leaflet", "Invitation", "Terms of Service",
)  # fmt: skip
_FAMILIES = (("helv", "hebo"), ("tiro", "tibo"), ("cour", "cobo"))


def foreign_page(width: int, height: int, dpi: float, rng: Random) -> tuple[Pixels, str]:
    """A letter, a notice or terms in prose: nothing that a document schema asks for. (h, w, 3), and its heading."""
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    regular, bold = rng.choice(_FAMILIES)
    size = max(7, round(rng.uniform(8.5, 11.5) * min(dpi, width / 5) / 72))
    body, head = _font(regular, size), _font(bold, round(size * rng.uniform(1.3, 1.9)))
    heading = rng.choice(_HEADS)
    margin, y = int(width * rng.uniform(0.08, 0.13)), int(height * rng.uniform(0.06, 0.12))
    columns = 2 if width > 40 * size and rng.random() < 0.4 else 1
    draw.text((margin, y), heading, fill=(20, 20, 24), font=head)
    top = y + int(size * 3.2)
    column_w = (width - 2 * margin - (columns - 1) * 2 * size) // columns
    numbered, stop = rng.random() < 0.5, height * rng.uniform(0.6, 0.94)
    paragraph = 0
    for column in range(columns):
        y = top
        while y < stop:
            paragraph += 1
            words = " ".join(_sentence(rng) for _ in range(rng.randint(2, 5))).split()
            if numbered:
                words.insert(0, f"§{paragraph}")
            y = _set_paragraph(draw, words, body, (margin + column * (column_w + 2 * size), y), column_w, stop, size)
            y += int(size * 0.8)
    return np.asarray(image), f"a page of another kind: {heading}"


def _set_paragraph(
    draw: ImageDraw.ImageDraw, words: list[str], font: ImageFont.FreeTypeFont, at: tuple[int, int], width: int, stop: float, size: int
) -> int:
    """Set words in lines no wider than `width` px; returns the y below the last line."""
    x, y = at
    line = ""
    for word in [*words, ""]:
        longer = f"{line} {word}".strip()
        if word and draw.textlength(longer, font=font) <= width:
            line = longer
            continue
        if y + size > stop:
            return int(stop) + 1
        draw.text((x, y), line, fill=(28, 28, 32), font=font)
        line, y = word, y + int(size * 1.35)
    return y


def _sentence(rng: Random) -> str:
    text = f"{rng.choice(_SUBJECTS)} {rng.choice(_VERBS)} {rng.choice(_OBJECTS)} {rng.choice(_TAILS)}"
    return text[0].upper() + text[1:] + "."


@lru_cache(maxsize=64)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    import pymupdf

    return ImageFont.truetype(io.BytesIO(pymupdf.Font(name).buffer), size)
