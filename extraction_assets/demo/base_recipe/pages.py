"""Pages with an instruction and its answer: crops of a few lines, and whole documents."""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extraction_assets.demo.base_recipe import words
from extraction_assets.demo.base_recipe.asks import Field, draw_field
from extraction_assets.demo.base_recipe.canvas import Canvas, Picture, scanned, text_width
from extraction_assets.demo.base_recipe.glyph_pages import BARS, PALE
from extraction_assets.demo.base_recipe.layout import Flow, Table, draw_hand, set_lines, set_pairs, set_table
from extraction_assets.demo.base_recipe.words import Value, as_printed

ROW_KEYS = ("line_items", "items", "entries", "positions", "list", "lines", "parts", "goods", "bookings", "table")
SENDER_KEYS = ("sender", "company", "issued_by", "supplier_name", "from_name", "house")
Asked = tuple[str, Value | list[Value] | None]
"""a key and what the page shows for it"""
LINES_INSTRUCTION = "Lines"
READ_KEYS = ("text_lines", "all_lines", "read_lines")


@dataclass(frozen=True)
class Example:
    pixels: NDArray[np.uint8]
    """(h, w, 3)"""
    glyphs: NDArray[np.float32]
    """(n, 3): x, y, class"""
    instruction: str
    answer: str
    """compact JSON"""
    sources: list[NDArray[np.float32] | None]
    """for each character of `answer`: the (n, 2) points of the page (px) that it is read from; None outside string values"""


def lines_example(rng: random.Random, width: int, height: int) -> Example:
    """A line or more, and all of it is to be read: nearly every token of the answer is a character of the page."""
    while True:
        canvas = Canvas(width, height)
        flow = Flow(canvas, draw_hand(rng), rng.uniform(1, 16), width - 1, rng.uniform(1, 8), height - 1)
        lines = set_lines(flow, [_line(rng, flow) for _ in range(rng.choice([1, 2, 9]))])
        if lines:
            spelled = json.dumps([line.canonical for line in lines], separators=(",", ":"), ensure_ascii=False)
            return _rendered(canvas, rng, LINES_INSTRUCTION, spelled, lines)


def crop_example(rng: random.Random, width: int, height: int) -> Example:
    """A few lines: read them, or find labelled values, or read a small table."""
    while True:
        canvas = Canvas(width, height)
        flow = Flow(canvas, draw_hand(rng), rng.uniform(2, 12), width - 2, rng.uniform(1, 8), height - 1)
        task = rng.random()
        taken: set[str] = set()
        asked: list[Asked] = []
        table, row_key = None, None
        if task < 0.35:
            lines = set_lines(flow, [_line(rng, flow) for _ in range(rng.randint(1, 6))])
            asked = [(rng.choice(READ_KEYS), lines)] if lines else []
        elif task < 0.8 or height < 64:
            asked = header(rng, set_pairs(flow, rng, [draw_field(rng, taken) for _ in range(rng.randint(1, 5))]), taken)
        else:
            table, row_key = set_table(flow, rng, taken, 5), rng.choice(ROW_KEYS)
        if table or any(value for _, value in asked) or rng.random() < 0.02:  # an empty crop is seldom worth a look
            return finish(canvas, rng, asked, table, row_key)


def page_example(rng: random.Random, width: int, height: int) -> Example:
    """A document: sender, labelled values in one or two blocks, a table, sums, small print."""
    canvas = Canvas(width, height)
    hand = draw_hand(rng)
    margin = rng.uniform(4, 18)
    flow = Flow(canvas, hand, margin, width - margin, rng.uniform(2, 12), height - 3)
    taken: set[str] = {*SENDER_KEYS}  # made-up words at times make one of these
    asked: list[Asked] = []
    if rng.random() < 0.15:
        canvas.box(0, 0, width, rng.uniform(4, 10), rng.choice(BARS))
        flow.top += 10
    if rng.random() < 0.85:
        asked += _set_sender(flow, rng)
    fields: list[Field] = []
    blocks = rng.choice([1, 1, 2, 2, 3])
    for _ in range(blocks):
        flow.top += rng.uniform(0, hand.leading)
        fields += _set_block(flow, rng, [draw_field(rng, taken) for _ in range(rng.randint(2, 5))])
    table = None
    if rng.random() < 0.75 and flow.has_room(3):
        flow.top += rng.uniform(0.2, 1) * hand.leading
        table = set_table(flow, rng, taken, 6)
    if rng.random() < 0.6 and flow.has_room(2):
        flow.top += rng.uniform(0.2, 0.8) * hand.leading
        sums = [draw_field(rng, taken, rng.choice(["amount", "amount", "amount", "percent", "text"])) for _ in range(rng.randint(1, 3))]
        fields += _set_block(flow, rng, sums)
    if rng.random() < 0.3:
        set_lines(flow, [as_printed(words.phrase(rng, 2, 6)) for _ in range(2)])
    if rng.random() < 0.08:
        stamp(canvas, rng)
    asked += header(rng, fields, taken)
    return finish(canvas, rng, asked, table, rng.choice(ROW_KEYS) if table or rng.random() < 0.1 else None)


def _line(rng: random.Random, flow: Flow) -> Value:
    line = words.scrap(rng)
    while rng.random() < 0.7 and flow.measure(line) < flow.width * 0.6:
        line += " " + words.scrap(rng)
    return as_printed(line)


def _set_block(flow: Flow, rng: random.Random, fields: list[Field]) -> list[Field]:
    """Over the whole column, or in its right part."""
    indent = rng.choice([0.0, 0.0, 0.0, flow.width * rng.uniform(0.2, 0.45)])
    side = Flow(flow.canvas, flow.hand, flow.x0 + indent, flow.x1, flow.top, flow.bottom)
    placed = set_pairs(side, rng, fields)
    flow.top = side.top
    return placed


def _set_sender(flow: Flow, rng: random.Random) -> list[Asked]:
    """A company on top, larger than the rest, with some lines about it; it has no label."""
    name, face = as_printed(words.company(rng)), flow.hand.bold
    size = flow.hand.size * rng.uniform(1.0, 1.5)
    width = text_width(name.printed, face, size)
    if width > flow.width:
        return []
    flow.top += size
    x = flow.x0 if rng.random() < 0.7 else flow.x0 + (flow.width - width) / 2
    flow.canvas.text(x, flow.top, name, face, size, flow.hand.ink)
    flow.top += size * 0.4
    set_lines(flow, [as_printed(rng.choice([words.address, words.contact])(rng)) for _ in range(rng.randint(0, 2))])
    return [(rng.choice(SENDER_KEYS), name)] if rng.random() < 0.6 else []


def stamp(canvas: Canvas, rng: random.Random) -> None:
    x, y = rng.uniform(0, canvas.width * 0.6), rng.uniform(20, canvas.height - 20)
    text = words.word(rng).upper()
    canvas.text(x, y, text, "hebo", rng.uniform(14, 22), rng.choice([(0.8, 0.3, 0.3), (0.4, 0.4, 0.8), PALE[0]]))


def header(rng: random.Random, fields: list[Field], taken: set[str], absent: float = 0.3) -> list[Asked]:
    """What is asked of the labelled values: most of them, in page order or not, and keys that the page does not have, often of a kind that
    it has: the date of something else is not the date that is asked for."""
    asked: list[Asked] = [(field.key, field.value) for field in fields if rng.random() < 0.85]
    if rng.random() < absent:
        kinds = [field.kind if rng.random() < 0.6 else None for field in rng.choices(fields, k=rng.randint(1, 3))] if fields else [None]
        asked += [(draw_field(rng, taken, kind).key, None) for kind in kinds]
    if rng.random() < 0.5:
        rng.shuffle(asked)
    return asked


def finish(canvas: Canvas, rng: random.Random, asked: list[Asked], table: Table | None, row_key: str | None = None) -> Example:
    """Render, and spell instruction and answer."""
    names = [key for key, _ in asked]
    answer: dict[str, Any] = {key: _spelled(value) for key, value in asked}
    shown = [value for _, values in asked for value in (values if isinstance(values, list) else [values]) if value and value.printed]
    if table and row_key and row_key not in answer:
        chosen = [i for i in range(len(table.columns)) if rng.random() < 0.8] or [0]
        if rng.random() < 0.3:
            rng.shuffle(chosen)
        names.append(f"{row_key}[{', '.join(table.columns[i].key for i in chosen)}]")
        answer[row_key] = [{table.columns[i].key: _spelled(row[i]) for i in chosen} for row in table.rows]
        shown += [row[i] for row in table.rows for i in chosen if row[i].printed]
    elif row_key and row_key not in answer:
        names.append(f"{row_key}[{words.pseudo_word(rng, 1)}]")
        answer[row_key] = []
    if not names:
        names, answer = ["nothing_here"], {"nothing_here": None}
    spelled = json.dumps(answer, separators=(",", ":"), ensure_ascii=False)
    return _rendered(canvas, rng, f"Extract as JSON: {', '.join(names)}", spelled, shown)


def _rendered(canvas: Canvas, rng: random.Random, instruction: str, answer: str, shown: list[Value]) -> Example:
    picture = canvas.render()
    if rng.random() < 0.35:
        picture = scanned(picture, rng)
    return Example(picture.pixels, picture.glyphs, instruction, answer, _sources(answer, shown, picture))


def _spelled(value: Value | list[Value] | None) -> str | list[str] | None:
    if isinstance(value, list):
        return [line.canonical for line in value]
    return value.canonical if value and value.printed else None


def _sources(answer: str, shown: list[Value], picture: Picture) -> list[NDArray[np.float32] | None]:
    """shown: the values in the answer's order; each is one string of the JSON."""
    sources: list[NDArray[np.float32] | None] = [None] * len(answer)
    for (start, end), value in zip(string_values(answer), shown, strict=True):
        points, places = picture.places[id(value)], iter(value.sources())
        escaped = False
        for place in range(start, end):
            escaped = answer[place] == "\\" and not escaped
            if not escaped:
                sources[place] = points[next(places)]
    return sources


def string_values(answer: str) -> list[tuple[int, int]]:
    """(start, end) of the contents of each string of a compact JSON text that is a value, not a key."""
    spans = [match.span(1) for match in re.finditer(r'"((?:[^"\\]|\\.)*)"', answer)]
    return [(start, end) for start, end in spans if answer[end + 1 : end + 2] != ":"]
