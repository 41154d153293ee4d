"""Vector logos: a few shapes in a square."""

from __future__ import annotations

import math

from extraction_assets.demo.vendors.sheet import Colour, Sheet

LOGO_KINDS = ("ring", "bars", "peak", "hexagon", "tiles", "arrow", "discs", "diamond", "steps")


def draw_logo(sheet: Sheet, kind: str, x: float, y: float, side: float, accent: Colour) -> None:
    """Draw a logo into the square at (x, y) with this side, pt."""
    pale: Colour = (1 - (1 - accent[0]) * 0.45, 1 - (1 - accent[1]) * 0.45, 1 - (1 - accent[2]) * 0.45)
    s = side
    if kind == "ring":
        sheet.disc(x + s / 2, y + s / 2, s / 2, accent)
        sheet.disc(x + s / 2, y + s / 2, s * 0.3, (1, 1, 1))
        sheet.disc(x + s / 2, y + s / 2, s * 0.14, pale)
    elif kind == "bars":
        for index, height in enumerate((0.45, 0.75, 1.0)):
            left = x + index * s * 0.35
            sheet.box(left, y + s * (1 - height), left + s * 0.26, y + s, fill=accent if index != 1 else pale)
    elif kind == "peak":
        sheet.polygon(((x, y + s), (x + s * 0.38, y + s * 0.15), (x + s * 0.76, y + s)), accent)
        sheet.polygon(((x + s * 0.4, y + s), (x + s * 0.7, y + s * 0.45), (x + s, y + s)), pale)
    elif kind == "hexagon":
        for radius, colour in ((s / 2, accent), (s * 0.28, pale)):
            corners = [(x + s / 2 + radius * math.cos(math.pi * k / 3), y + s / 2 + radius * math.sin(math.pi * k / 3)) for k in range(6)]
            sheet.polygon(corners, colour)
    elif kind == "tiles":
        for index in range(4):
            left, top = x + (index % 2) * s * 0.53, y + (index // 2) * s * 0.53
            sheet.box(left, top, left + s * 0.47, top + s * 0.47, fill=pale if index == 1 else accent)
    elif kind == "arrow":
        sheet.polygon(
            (
                (x, y + s * 0.3),
                (x + s * 0.5, y + s * 0.3),
                (x + s * 0.5, y),
                (x + s, y + s / 2),
                (x + s * 0.5, y + s),
                (x + s * 0.5, y + s * 0.7),
                (x, y + s * 0.7),
            ),
            accent,
        )
    elif kind == "discs":
        sheet.disc(x + s * 0.32, y + s / 2, s * 0.32, accent)
        sheet.disc(x + s * 0.72, y + s / 2, s * 0.24, pale)
    elif kind == "diamond":
        sheet.polygon(((x + s / 2, y), (x + s, y + s / 2), (x + s / 2, y + s), (x, y + s / 2)), accent)
        sheet.polygon(((x + s / 2, y + s * 0.3), (x + s * 0.7, y + s / 2), (x + s / 2, y + s * 0.7), (x + s * 0.3, y + s / 2)), (1, 1, 1))
    else:
        for index in range(3):
            sheet.box(
                x + index * s * 0.28,
                y + s * (0.66 - index * 0.33),
                x + s,
                y + s * (0.94 - index * 0.33),
                fill=accent if index != 1 else pale,
            )
