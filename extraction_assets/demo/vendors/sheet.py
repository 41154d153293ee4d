"""One page being drawn: texts, rules, boxes and shapes, y growing downwards from the top edge, all in pt.

Nothing may be cut: text that leaves its column or the page raises DoesNotFit, and the caller draws another value or layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from extraction_assets.demo.vendors.typefaces import Face

Colour = tuple[float, float, float]
"""red, green, blue in 0..1"""
Align = Literal["left", "right", "centre"]
BLACK: Colour = (0.0, 0.0, 0.0)
EDGE = 5.0
"""pt: no text comes closer to the page's edge"""
ASCENT, DESCENT = 0.78, 0.24
"""share of the size that letters reach above and below the baseline"""


class DoesNotFit(Exception):
    """A text is wider than its column, or a block higher than the page."""


@dataclass(frozen=True)
class PrintedValue:
    """A label value as it stands on a page."""

    pointer: str
    """JSON pointer into the label: /payable, /rows/0/amt"""
    page: int
    """1 is the first"""
    text: str
    """as printed: 1.234,50"""
    box: tuple[float, float, float, float]
    """x0, y0, x1, y1 in pt from the top left; px at 72 dpi"""


@dataclass
class Sheet:
    """A page of `width` x `height` pt; `page` is its number, from 1."""

    width: float
    height: float
    page: int
    printed: list[PrintedValue] = field(default_factory=list)
    faces: dict[str, Face] = field(default_factory=dict)
    _operators: list[str] = field(default_factory=list)

    def text(
        self,
        x: float,
        baseline: float,
        text: str,
        face: Face,
        size: float,
        colour: Colour = BLACK,
        align: Align = "left",
        within: float | None = None,
        pointer: str | None = None,
    ) -> float:
        """Draw one line of text at x (its left, right end or centre) and return its width, pt.

        within: pt the text may take at most. pointer: the label value that this text shows. Raises DoesNotFit.
        """
        width = face.width(text, size)
        left = x if align == "left" else x - width if align == "right" else x - width / 2
        top, bottom = baseline - ASCENT * size, baseline + DESCENT * size
        if (within is not None and width > within + 1e-6) or left < EDGE or left + width > self.width - EDGE or bottom > self.height - 2:
            raise DoesNotFit(text)
        if text.strip():
            self.faces[face.key] = face
            self._operators.append(
                f"BT {_rgb(colour)} rg /{face.key} {size:g} Tf {left:.2f} {self.height - baseline:.2f} Td {face.spell(text)} Tj ET"
            )
        if pointer is not None:
            self.printed.append(PrintedValue(pointer, self.page, text, (left, top, left + width, bottom)))
        return width

    def line(self, x0: float, y0: float, x1: float, y1: float, colour: Colour = BLACK, width: float = 0.6, dashed: bool = False) -> None:
        dash = "[3 2] 0 d" if dashed else "[] 0 d"
        self._operators.append(
            f"q {dash} {_rgb(colour)} RG {width:g} w {x0:.2f} {self.height - y0:.2f} m {x1:.2f} {self.height - y1:.2f} l S Q"
        )

    def box(
        self, x0: float, y0: float, x1: float, y1: float, fill: Colour | None = None, stroke: Colour | None = None, width: float = 0.6
    ) -> None:
        """A rectangle, filled, outlined or both."""
        operator = "B" if fill and stroke else "f" if fill else "S"
        paint = (f"{_rgb(fill)} rg " if fill else "") + (f"{_rgb(stroke)} RG {width:g} w " if stroke else "")
        self._operators.append(f"q {paint}{x0:.2f} {self.height - y1:.2f} {x1 - x0:.2f} {y1 - y0:.2f} re {operator} Q")

    def polygon(self, points: Sequence[tuple[float, float]], fill: Colour) -> None:
        moves = " ".join(f"{x:.2f} {self.height - y:.2f} {'l' if index else 'm'}" for index, (x, y) in enumerate(points))
        self._operators.append(f"q {_rgb(fill)} rg {moves} h f Q")

    def disc(self, x: float, y: float, radius: float, fill: Colour) -> None:
        """A filled circle as four Bezier curves (kappa = 0.5523)."""
        k, r, cy = 0.5523 * radius, radius, self.height - y
        self._operators.append(
            f"q {_rgb(fill)} rg {x + r:.2f} {cy:.2f} m "
            f"{x + r:.2f} {cy + k:.2f} {x + k:.2f} {cy + r:.2f} {x:.2f} {cy + r:.2f} c "
            f"{x - k:.2f} {cy + r:.2f} {x - r:.2f} {cy + k:.2f} {x - r:.2f} {cy:.2f} c "
            f"{x - r:.2f} {cy - k:.2f} {x - k:.2f} {cy - r:.2f} {x:.2f} {cy - r:.2f} c "
            f"{x + k:.2f} {cy - r:.2f} {x + r:.2f} {cy - k:.2f} {x + r:.2f} {cy:.2f} c f Q"
        )

    @property
    def content(self) -> bytes:
        """The page's content stream."""
        return "\n".join(self._operators).encode("ascii")


def _rgb(colour: Colour) -> str:
    return " ".join(f"{part:.3g}" for part in colour)
