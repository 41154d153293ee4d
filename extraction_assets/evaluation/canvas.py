"""A small SVG canvas: shapes and text at pixel places, escaped, with tooltips. Knows nothing of scores."""

from __future__ import annotations

from html import escape

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
INK, MUTED, FAINT, GRID = "#1a1d21", "#59616b", "#8b939d", "#e3e6ea"


class Canvas:
    """Collects shapes; `svg()` gives the drawing with a title for those who do not see it."""

    def __init__(self, width: float, height: float, title: str) -> None:
        self.width, self.height, self.title = width, height, title
        self._parts: list[str] = []

    def text(
        self, x: float, y: float, words: str, size: float = 12, anchor: str = "start", color: str = INK, bold: bool = False, limit: int = 0
    ) -> None:
        """Text with its baseline at y; longer than `limit` characters is cut, the whole stands in the tooltip."""
        shown = words if not limit or len(words) <= limit else words[: limit - 1] + "…"
        tooltip = f"<title>{escape(words)}</title>" if shown != words else ""
        weight = ' font-weight="600"' if bold else ""
        place = f'x="{_n(x)}" y="{_n(y)}" font-size="{_n(size)}" text-anchor="{anchor}"'
        self._parts.append(f'<text {place} fill="{color}"{weight}>{tooltip}{escape(shown)}</text>')

    def line(self, x1: float, y1: float, x2: float, y2: float, color: str = GRID, width: float = 1, dash: str = "") -> None:
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self._parts.append(
            f'<line x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}" stroke="{color}" stroke-width="{_n(width)}"{dashed}/>'
        )

    def rect(self, x: float, y: float, width: float, height: float, color: str, tooltip: str = "", radius: float = 0) -> None:
        inner = f"<title>{escape(tooltip)}</title>" if tooltip else ""
        rounded = f' rx="{_n(radius)}"' if radius else ""
        self._parts.append(
            f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(max(width, 0))}" height="{_n(height)}" fill="{color}"{rounded}>{inner}</rect>'
        )

    def dot(self, x: float, y: float, radius: float, color: str, tooltip: str = "", hollow: bool = False) -> None:
        inner = f"<title>{escape(tooltip)}</title>" if tooltip else ""
        fill = f'fill="#fff" stroke="{color}" stroke-width="2"' if hollow else f'fill="{color}"'
        self._parts.append(f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}" {fill}>{inner}</circle>')

    def path(self, points: list[tuple[float, float]], color: str, width: float = 2, fill: bool = False) -> None:
        if not points:
            return
        steps = " ".join(f"{'M' if i == 0 else 'L'}{_n(x)} {_n(y)}" for i, (x, y) in enumerate(points))
        stroke = f'fill="none" stroke="{color}" stroke-width="{_n(width)}" stroke-linejoin="round"'
        paint = f'fill="{color}" fill-opacity="0.15"' if fill else stroke
        self._parts.append(f'<path d="{steps}{"Z" if fill else ""}" {paint}/>')

    def svg(self) -> str:
        size = f'viewBox="0 0 {_n(self.width)} {_n(self.height)}" width="{_n(self.width)}" height="{_n(self.height)}"'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(self.title)}" font-family="{escape(FONT)}">'
        return f"{head}<title>{escape(self.title)}</title>{''.join(self._parts)}</svg>"


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
