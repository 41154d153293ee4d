"""Ways to set labelled values, tables and loose lines on a page. Everything returns what found room, nothing is cut off."""

from __future__ import annotations

import random
from dataclasses import dataclass

from extraction_assets.demo.base_recipe.asks import DRAW, Field, Kind, draw_field, field_by_ending
from extraction_assets.demo.base_recipe.canvas import FACES, MONOSPACED, Canvas, draw_face, text_width
from extraction_assets.demo.base_recipe.glyph_pages import BARS, INKS, PALE, text_size
from extraction_assets.demo.base_recipe.words import Spelling, Value, as_printed, some_cents, some_day

Colour = tuple[float, float, float]
WHITE: Colour = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Hand:
    """How one page is set."""

    face: str
    size: float
    """px"""
    leading: float
    """px from baseline to baseline"""
    ink: Colour
    bold_labels: bool
    colon: str
    """what stands behind a label beside its value"""
    label_ink: Colour | None = None
    """of words that are no values; None: `ink`"""
    bold_values: bool = False

    @property
    def bold(self) -> str:
        return FACES[self.face]


def draw_hand(rng: random.Random) -> Hand:
    face = draw_face(rng)
    size = text_size(rng) * (0.9 if face in MONOSPACED else 1)
    colon = rng.choice([":", ":", ":", "", " :", ".", " -", "="])
    return Hand(face, size, size * rng.uniform(1.2, 1.8), rng.choice(INKS), rng.random() < 0.3, colon)


@dataclass
class Flow:
    """Where the next line goes: a column from x0 to x1, filled from `top` to `bottom` (px)."""

    canvas: Canvas
    hand: Hand
    x0: float
    x1: float
    top: float
    bottom: float

    @property
    def width(self) -> float:
        return self.x1 - self.x0

    def has_room(self, lines: float = 1) -> bool:
        return self.top + lines * self.hand.leading <= self.bottom

    def advance(self, lines: float = 1) -> float:
        """Take lines; returns the baseline of the first."""
        baseline = self.top + self.hand.size
        self.top += lines * self.hand.leading
        return baseline

    def measure(self, text: str | Value, bold: bool = False) -> float:
        return text_width(text.printed if isinstance(text, Value) else text, self._face(text, bold), self.hand.size)

    def _face(self, text: str | Value, bold: bool) -> str:
        return self.hand.bold if bold or (self.hand.bold_values and isinstance(text, Value)) else self.hand.face

    def write(self, x: float, baseline: float, text: str | Value, bold: bool = False, colour: Colour | None = None) -> None:
        ink = self.hand.ink if isinstance(text, Value) else self.hand.label_ink or self.hand.ink
        self.canvas.text(x, baseline, text, self._face(text, bold), self.hand.size, colour or ink)

    def write_right(self, x: float, baseline: float, text: str | Value, bold: bool = False, colour: Colour | None = None) -> None:
        self.write(x - self.measure(text, bold), baseline, text, bold, colour)


def set_pairs(flow: Flow, rng: random.Random, fields: list[Field]) -> list[Field]:
    """Label and value, one way for the whole block."""
    way = rng.choice([_inline, _inline, _two_columns, _two_columns, _at_the_right_edge, _above, _boxes])
    return way(flow, rng, fields)


def _inline(flow: Flow, rng: random.Random, fields: list[Field]) -> list[Field]:
    """`Label: value`, at times two on a line."""
    bold, gap, placed = flow.hand.bold_labels, flow.measure(" "), []
    x, abreast = flow.x0, rng.random() < 0.25
    for field in fields:
        label = field.label + flow.hand.colon
        needed = flow.measure(label, bold) + gap + flow.measure(field.value)
        if x > flow.x0 and x + needed > flow.x1:
            flow.advance()
            x = flow.x0
        if needed > flow.width or not flow.has_room():
            continue
        baseline = flow.top + flow.hand.size
        flow.write(x, baseline, label, bold)
        flow.write(x + flow.measure(label, bold) + gap, baseline, field.value)
        placed.append(field)
        if abreast:
            x += needed + 3 * gap + rng.uniform(0, 20)
        else:
            flow.advance()
    if x > flow.x0:
        flow.advance()
    return placed


def _two_columns(flow: Flow, rng: random.Random, fields: list[Field]) -> list[Field]:
    bold, placed = flow.hand.bold_labels, []
    labels = [field.label + flow.hand.colon for field in fields]
    second = max(flow.measure(label, bold) for label in labels) + rng.uniform(4, 24)
    for field, label in zip(fields, labels, strict=True):
        if second + flow.measure(field.value) <= flow.width and flow.has_room():
            baseline = flow.advance()
            flow.write(flow.x0, baseline, label, bold)
            flow.write(flow.x0 + second, baseline, field.value)
            placed.append(field)
    return placed


def _at_the_right_edge(flow: Flow, rng: random.Random, fields: list[Field]) -> list[Field]:
    bold, placed, dots = flow.hand.bold_labels, [], rng.random() < 0.2
    for field in fields:
        label_width, value_width = flow.measure(field.label, bold), flow.measure(field.value)
        if label_width + value_width + 8 <= flow.width and flow.has_room():
            baseline = flow.advance()
            flow.write(flow.x0, baseline, field.label, bold)
            flow.write_right(flow.x1, baseline, field.value)
            if dots:
                room = flow.width - label_width - value_width - 8
                flow.write(flow.x0 + label_width + 4, baseline, "." * int(room / max(1.0, flow.measure("."))))
            placed.append(field)
    return placed


def _above(flow: Flow, rng: random.Random, fields: list[Field]) -> list[Field]:
    """The label over its value, one to three abreast."""
    return _stacked(flow, rng, fields, framed=False)


def _boxes(flow: Flow, rng: random.Random, fields: list[Field]) -> list[Field]:
    return _stacked(flow, rng, fields, framed=True)


def _stacked(flow: Flow, rng: random.Random, fields: list[Field], framed: bool) -> list[Field]:
    placed: list[Field] = []
    abreast = rng.randint(1, 3)
    bar = rng.choice(BARS) if framed and rng.random() < 0.3 else None
    for start in range(0, len(fields), abreast):
        group = fields[start : start + abreast]
        step = flow.width / len(group)
        if not flow.has_room(2.3):
            break
        top, baseline = flow.top, flow.advance(2.3) + (2 if framed else 0)
        if bar:
            flow.canvas.box(flow.x0, top, flow.x1, top + flow.hand.leading, bar)
        for place, field in enumerate(group):
            x = flow.x0 + place * step + (3 if framed else 0)
            if max(flow.measure(field.label, True), flow.measure(field.value)) > step - 6:
                continue
            if framed and not bar:
                flow.canvas.box(x - 3, top, x + step - 3, top + 2.2 * flow.hand.leading, None, 0.6)
            flow.write(x, baseline, field.label, flow.hand.bold_labels, WHITE if bar else None)
            flow.write(x, baseline + flow.hand.leading, field.value)
            placed.append(field)
    return placed


@dataclass(frozen=True)
class Table:
    columns: list[Field]
    """key, label and kind; their values are those of the first row"""
    rows: list[list[Value]]


_COLUMN_KINDS: tuple[Kind, ...] = ("count", "amount", "amount", "id", "text", "percent", "date", "count")


@dataclass(frozen=True)
class TableStyle:
    """How a table departs from a plain one."""

    spelling: Spelling | None = None
    """of its dates and money; None: each as it comes"""
    headed: bool = True
    """False: no label words; keys tell what is meant by their endings"""
    numbered: bool = False
    """rows begin with their number, which nobody asks for"""
    blanks: float = 0.0
    """share of the cells that are empty"""


PLAIN = TableStyle()


def set_table(flow: Flow, rng: random.Random, taken: set[str], most_rows: int, style: TableStyle = PLAIN) -> Table | None:
    """A header and rows, ruled or not; None where there is no room for a row."""
    kinds: list[Kind] = ["text", *rng.sample(_COLUMN_KINDS, rng.randint(1, 3))]
    if not style.headed:
        kinds = list(dict.fromkeys(kinds))
    if rng.random() < 0.3:
        rng.shuffle(kinds)
    wanted = rng.randint(1, most_rows)
    columns = [draw_field(rng, taken, kind) if style.headed else field_by_ending(rng, taken, kind) for kind in kinds]
    marked = rng.random() < 0.6
    rows = [[_cell(rng, kind, style, marked) for kind in kinds] for _ in range(wanted)]
    number_width = flow.measure("00") + 8 if style.numbered else 0.0
    whole, flow = flow, Flow(flow.canvas, flow.hand, flow.x0 + number_width, flow.x1, flow.top, flow.bottom)
    while columns:
        widths = [max(flow.measure(c.label, True), *(flow.measure(row[i]) for row in rows)) for i, c in enumerate(columns)]
        spare = flow.width - sum(widths) - 7 * (len(widths) - 1)
        if spare >= 0:
            break
        widest = widths.index(max(widths))  # leave out the widest column, then look again
        columns, rows = columns[:widest] + columns[widest + 1 :], [row[:widest] + row[widest + 1 :] for row in rows]
    fitting = int((flow.bottom - flow.top) / flow.hand.leading) - style.headed
    if not columns or fitting < 1:
        return None
    rows = rows[:fitting]
    gap = 7 + (spare / max(1, len(widths) - 1) if rng.random() < 0.7 else min(spare, 12)) * (len(widths) > 1)
    _draw_table(flow, rng, columns, rows, widths, gap, style.headed, number_width)
    whole.top = flow.top
    return Table([Field(c.key, c.label, c.kind, rows[0][i]) for i, c in enumerate(columns)], rows)


def _cell(rng: random.Random, kind: Kind, style: TableStyle, marked: bool) -> Value:
    if rng.random() < style.blanks:
        return as_printed("")
    return DRAW[kind](rng) if style.spelling is None else spelled(rng, kind, style.spelling, marked)


def spelled(rng: random.Random, kind: Kind, spelling: Spelling, marked: bool = True) -> Value:
    """A value of that kind, in the page's spelling."""
    if kind == "date":
        return spelling.date(some_day(rng))
    return spelling.amount(some_cents(rng), marked) if kind == "amount" else DRAW[kind](rng)


def _draw_table(
    flow: Flow,
    rng: random.Random,
    columns: list[Field],
    rows: list[list[Value]],
    widths: list[float],
    gap: float,
    headed: bool,
    number_width: float,
) -> None:
    bar = rng.choice(BARS) if rng.random() < 0.25 else None
    ruled, striped = rng.random() < 0.35, rng.choice(PALE) if rng.random() < 0.15 else None
    starts = [flow.x0 + sum(widths[:i]) + i * gap for i in range(len(columns))]
    right = [column.kind in ("amount", "count", "percent") and rng.random() < 0.8 for column in columns]
    down = flow.hand.leading * 0.28 + flow.hand.size * 0.1
    left = flow.x0 - number_width
    for number in range(-1 if headed else 0, len(rows)):
        top, baseline = flow.top, flow.advance()
        if number < 0 and bar:
            flow.canvas.box(left - 2, top - 1, flow.x1 + 2, baseline + down, bar)
        elif striped and number % 2:
            flow.canvas.box(left - 2, top - 1, flow.x1 + 2, baseline + down, striped)
        if number_width:
            flow.write(left, baseline, str(number + 1) if number >= 0 else "#", number < 0, WHITE if number < 0 and bar else None)
        for i, column in enumerate(columns):
            text = column.label if number < 0 else rows[number][i]
            write = flow.write_right if right[i] else flow.write
            write(starts[i] + (widths[i] if right[i] else 0), baseline, text, number < 0, WHITE if number < 0 and bar else None)
        if ruled or (number < 0 and not bar and rng.random() < 0.7):
            flow.canvas.line(left, baseline + down, flow.x1, baseline + down, 0.5)


def set_lines(flow: Flow, texts: list[Value]) -> list[Value]:
    """Loose lines; those too long or without room are left out."""
    placed = []
    for text in texts:
        if flow.has_room() and flow.measure(text) <= flow.width:
            flow.write(flow.x0, flow.advance(), text)
            placed.append(text)
    return placed
