"""The report's plots as SVG: what a reader compares stands on one line, every rate has its interval, every colour has a second cue."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from extraction_assets.evaluation.canvas import FAINT, GRID, INK, MUTED, Canvas
from extraction_assets.evaluation.scoring import OUTCOMES

Told = Mapping[str, Any]
"""an estimate as JSON: value, low, high, n"""

SYSTEM_COLORS = ("#9aa3ad", "#2f6db5", "#c25a12", "#6a4c93", "#2a7f62", "#8c6d1f")
OUTCOME_COLORS = {"match": "#1c7c54", "correct_absence": "#a9d5bf", "wrong": "#c4302b", "missing": "#eda83a", "hallucinated": "#7a4bab"}
OUTCOME_WORDS: dict[str, str] = {outcome: outcome.replace("correct_absence", "rightly absent") for outcome in OUTCOMES}
_LABEL, _PLOT, _ROOM = 190, 430, 150


def colors_of(systems: Sequence[str]) -> dict[str, str]:
    """The last system (the one the report is about) is always orange, the first (the base) grey."""
    if len(systems) == 1:
        return {systems[0]: SYSTEM_COLORS[2]}
    palette = [SYSTEM_COLORS[0], *(c for i, c in enumerate(SYSTEM_COLORS) if i not in (0, 2))]
    return {name: SYSTEM_COLORS[2] if name == systems[-1] else palette[i % len(palette)] for i, name in enumerate(systems)}


def as_markdown(svg: str, title: str) -> str:
    """The plot as a Markdown image that carries its own data, for places that show Markdown (Dagster's metadata)."""
    return f"![{title}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"


def rates_plot(rows: Sequence[tuple[str, Mapping[str, Told]]], systems: Sequence[str], title: str) -> str:
    """One line a rate, one dot with whiskers a system: (label, {system: estimate})."""
    color, step = colors_of(systems), 18 * len(systems) + 14
    canvas, top = _axes(len(rows) * step, title, systems)
    for i, (label, told) in enumerate(rows):
        y = top + i * step
        canvas.line(0, y, canvas.width, y)
        canvas.text(0, y + step / 2 + 4, label, limit=30)
        for k, name in enumerate(systems):
            _whisker(canvas, y + 16 + 18 * k, told[name], color[name], name, bold=name == systems[-1])
    return canvas.svg()


def bars_plot(rows: Sequence[tuple[str, str, Mapping[str, Told]]], systems: Sequence[str], title: str) -> str:
    """One group of bars a field: (label, type, {system: estimate})."""
    color, step = colors_of(systems), 13 * len(systems) + 14
    canvas, top = _axes(len(rows) * step, title, systems)
    for i, (label, type, told) in enumerate(rows):
        y = top + i * step
        canvas.line(0, y, canvas.width, y)
        canvas.text(0, y + step / 2 + 1, label, limit=26)
        canvas.text(0, y + step / 2 + 13, type, size=10, color=MUTED)
        for k, name in enumerate(systems):
            _bar(canvas, y + 8 + 13 * k, told[name], color[name], name, bold=name == systems[-1])
    return canvas.svg()


def outcomes_plot(rows: Sequence[tuple[str, Mapping[str, int]]], title: str) -> str:
    """One full-width bar a field, split by outcome: (label, {outcome: count})."""
    step, top = 26, 34
    canvas = Canvas(_LABEL + _PLOT + _ROOM, top + len(rows) * step + 8, title)
    order = ("match", "correct_absence", "wrong", "missing", "hallucinated")
    x = float(_LABEL)
    for outcome in order:
        canvas.rect(x, 6, 12, 12, OUTCOME_COLORS[outcome], radius=2)
        canvas.text(x + 17, 16, OUTCOME_WORDS[outcome], size=11, color=MUTED)
        x += 36 + 6.2 * len(OUTCOME_WORDS[outcome])
    for i, (label, counts) in enumerate(rows):
        y, total, x = top + i * step, sum(counts.values()), float(_LABEL)
        canvas.text(0, y + 15, label, limit=28)
        for outcome in order:
            width = _PLOT * counts[outcome] / total if total else 0.0
            if not counts[outcome]:
                continue
            canvas.rect(
                x, y + 3, max(width - 1, 1), 17, OUTCOME_COLORS[outcome], f"{label}: {counts[outcome]} of {total} {OUTCOME_WORDS[outcome]}"
            )
            if width > 9 + 7 * len(str(counts[outcome])):
                dark = outcome in ("correct_absence", "missing")
                canvas.text(x + width / 2, y + 15.5, str(counts[outcome]), size=11, anchor="middle", color=INK if dark else "#fff")
            x += width
        bad = sum(counts[outcome] for outcome in OUTCOMES if outcome not in ("match", "correct_absence"))
        canvas.text(
            _LABEL + _PLOT + 12, y + 15, f"{bad} of {total} not right" if bad else "all right", size=11, color=INK if bad else MUTED
        )
    return canvas.svg()


def groups_plot(rows: Sequence[tuple[str, Told]], title: str, mean: float | None = None, color: str = SYSTEM_COLORS[2]) -> str:
    """One dot with whiskers a vendor or stratum: (label, estimate); a dashed line at the mean over all."""
    step = 22
    canvas, top = _axes(len(rows) * step + 4, title, ())
    if mean is not None:
        x = _LABEL + _PLOT * mean
        canvas.line(x, top - 4, x, top + len(rows) * step, color=FAINT, dash="3 3")
        canvas.text(x, top + len(rows) * step + 12, f"all {mean:.3f}", size=10, anchor="middle", color=MUTED)
    for i, (label, told) in enumerate(rows):
        y = top + i * step
        canvas.text(0, y + 15, label, limit=28)
        _whisker(canvas, y + 11, told, color, label)
    canvas.height += 12
    return canvas.svg()


def twins_plot(twins: Mapping[str, Mapping[str, Any]], title: str) -> str:
    """Hard negatives beside their clean twins: a hollow dot (clean), a full dot (hard), the drop between them."""
    step = 26
    canvas, top = _axes(len(twins) * step + 22, title, ())
    canvas.dot(_LABEL + 6, 8, 4.5, SYSTEM_COLORS[1], hollow=True)
    canvas.text(_LABEL + 16, 12, "clean twin", size=11, color=MUTED)
    canvas.dot(_LABEL + 96, 8, 5, SYSTEM_COLORS[2])
    canvas.text(_LABEL + 106, 12, "hard negative", size=11, color=MUTED)
    for i, (stratum, drop) in enumerate(sorted(twins.items(), key=lambda item: (item[1]["difference"]["value"] or 0, item[0]))):
        y = top + i * step + 14
        canvas.text(0, y + 4, stratum, limit=28)
        if drop["clean"] is None or drop["hard"] is None:
            continue
        clean, hard, told = _LABEL + _PLOT * drop["clean"], _LABEL + _PLOT * drop["hard"], drop["difference"]
        canvas.line(clean, y, hard, y, color=FAINT, width=3)
        canvas.dot(clean, y, 5, SYSTEM_COLORS[1], f"{stratum}, clean twins: {drop['clean']:.3f}", hollow=True)
        canvas.dot(hard, y, 5.5, SYSTEM_COLORS[2], f"{stratum}: {drop['hard']:.3f}")
        canvas.text(_LABEL + _PLOT + 12, y + 1, f"{told['value']:+.3f}", size=12, bold=True)
        span = f"{told['low']:+.2f} to {told['high']:+.2f}" if told["low"] is not None else ""
        canvas.text(_LABEL + _PLOT + 66, y + 1, span, size=10, color=MUTED)
        canvas.text(_LABEL + _PLOT + 12, y + 12, f"{drop['pairs']} pairs", size=9.5, color=MUTED)
    return canvas.svg()


def curve_plot(
    points: Sequence[tuple[float, float]], title: str, x_label: str, y_label: str, x_names: Sequence[str] = (), band: Sequence[Told] = ()
) -> str:
    """A line through (x, y) points, both 0 to 1, with an optional band of intervals."""
    left, width, height, top = 52, 560, 200, 14
    canvas = Canvas(left + width + 20, top + height + 44, title)
    highest = max([y for _, y in points] + [told["high"] or 0 for told in band] + [0.05])
    scale = next((s for s in (0.05, 0.1, 0.2, 0.5, 1.0) if highest <= s), 1.0)

    def place(x: float, y: float) -> tuple[float, float]:
        return left + x * width, top + height * (1 - y / scale)

    for k in range(5):
        y = scale * k / 4
        canvas.line(left, place(0, y)[1], left + width, place(0, y)[1])
        canvas.text(left - 8, place(0, y)[1] + 4, f"{y:.2f}" if scale > 0.1 else f"{y:.3f}", size=10, anchor="end", color=MUTED)
    if band:
        known = [(x, told) for (x, _), told in zip(points, band, strict=True) if told["low"] is not None]
        canvas.path(
            [place(x, told["high"]) for x, told in known] + [place(x, told["low"]) for x, told in reversed(known)],
            SYSTEM_COLORS[2],
            fill=True,
        )
    canvas.path([place(x, y) for x, y in points], SYSTEM_COLORS[2])
    if len(points) <= 60:
        for number, (x, y) in enumerate(points):
            name = x_names[number] if x_names else f"{x:.2f}"
            canvas.dot(*place(x, y), 3.5, SYSTEM_COLORS[2], f"{name}: {y:.3f}")
    shown = range(0, len(x_names), max(1, len(x_names) // 6)) if x_names else range(0)
    for number in shown:
        canvas.text(place(points[number][0], 0)[0], top + height + 16, x_names[number], size=10, anchor="middle", color=MUTED, limit=12)
    if not x_names:
        for k in range(5):
            canvas.text(place(k / 4, 0)[0], top + height + 16, f"{k / 4:.2f}", size=10, anchor="middle", color=MUTED)
    canvas.text(left + width / 2, top + height + 36, x_label, size=11, anchor="middle", color=MUTED)
    canvas.text(left, top - 3, y_label, size=11, color=MUTED)
    return canvas.svg()


def _axes(height: float, title: str, systems: Sequence[str]) -> tuple[Canvas, float]:
    """A canvas with a 0 to 1 axis above `height` px of rows, and a legend if there are systems."""
    legend = 24 if systems else 18
    top = legend + 18
    canvas = Canvas(_LABEL + _PLOT + _ROOM, top + height + 6, title)
    x, color = float(_LABEL), colors_of(systems) if systems else {}
    for name in systems:
        canvas.rect(x, 2, 12, 12, color[name], radius=2)
        canvas.text(x + 17, 12, name, size=11, color=MUTED, limit=24)
        x += 40 + 6.5 * min(len(name), 24)
    for k in range(5):
        at = _LABEL + _PLOT * k / 4
        canvas.line(at, top - 4, at, top + height, color=GRID)
        canvas.text(at, top - 8, f"{k / 4:g}", size=10, anchor="middle", color=MUTED)
    return canvas, top


def _say(told: Told) -> str:
    span = f" ({told['low']:.3f} to {told['high']:.3f})" if told["low"] is not None else ""
    return f"{told['value']:.3f}{span}, n {told['n']}"


def _whisker(canvas: Canvas, y: float, told: Told, color: str, name: str, bold: bool = False) -> None:
    if told["value"] is None:
        canvas.text(_LABEL + _PLOT + 12, y + 4, "none", size=11, color=FAINT)
        return
    if told["low"] is not None:
        low, high = _LABEL + _PLOT * told["low"], _LABEL + _PLOT * told["high"]
        canvas.line(low, y, high, y, color=color, width=2)
        for x in (low, high):
            canvas.line(x, y - 4, x, y + 4, color=color, width=2)
    canvas.dot(_LABEL + _PLOT * told["value"], y, 5, color, f"{name}: {_say(told)}")
    _value(canvas, y + 4, told, bold)


def _bar(canvas: Canvas, y: float, told: Told, color: str, name: str, bold: bool) -> None:
    if told["value"] is None:
        canvas.text(_LABEL + _PLOT + 12, y + 9, "none", size=10, color=FAINT)
        return
    canvas.rect(_LABEL, y, _PLOT, 10, "#f3f4f6")
    canvas.rect(_LABEL, y, max(1.0, _PLOT * told["value"]), 10, color, f"{name}: {_say(told)}")
    if told["low"] is not None:
        canvas.line(_LABEL + _PLOT * told["low"], y + 5, _LABEL + _PLOT * told["high"], y + 5, color=INK, width=1.2)
    _value(canvas, y + 9, told, bold)


def _value(canvas: Canvas, y: float, told: Told, bold: bool) -> None:
    canvas.text(_LABEL + _PLOT + 12, y, f"{told['value']:.3f}", size=11.5, bold=bold)
    if told["low"] is not None:
        canvas.text(_LABEL + _PLOT + 54, y, f"{told['low']:.2f}-{told['high']:.2f}", size=10, color=MUTED)
    canvas.text(_LABEL + _PLOT + _ROOM, y, f"{told['n']}", size=10, anchor="end", color=FAINT)


def reliability_plot(points: Sequence[tuple[float, float, int]], title: str) -> str:
    """Dots (confidence, share right, values) beside the diagonal on which both are the same."""
    left, side, top = 52, 260, 14
    canvas = Canvas(_LABEL + _PLOT + _ROOM, top + side + 44, title)  # as wide as its neighbours: the page scales all to its columns
    for k in range(5):
        at = k / 4
        y, x = top + side * (1 - at), left + side * at
        canvas.line(left, y, left + side, y)
        canvas.text(left - 8, y + 4, f"{at:.2f}", size=10, anchor="end", color=MUTED)
        canvas.text(x, top + side + 16, f"{at:.2f}", size=10, anchor="middle", color=MUTED)
    canvas.line(left, top + side, left + side, top, color=FAINT, dash="4 4")
    for confidence, right, count in points:
        place = (left + side * confidence, top + side * (1 - right))
        canvas.dot(*place, 4.5, SYSTEM_COLORS[2], f"said {confidence:.3f}, right {right:.3f}, {count} values")
    canvas.text(left + side / 2, top + side + 36, "calibrated confidence", size=11, anchor="middle", color=MUTED)
    return canvas.svg()
