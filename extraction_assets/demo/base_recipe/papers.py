"""Documents as offices set them: a head with a mark, an addressee, blocks side by side, a table, sums, a foot; in one spelling.

They show what `page_example`'s do not: values whose label stands there with nothing beside it, cells that are empty, tables
without a header, a currency that only the amounts tell. No layout and no word is taken from the demo's vendors; the ways to
write a date or a number are those of the world, theirs among them.
"""

from __future__ import annotations

import random
from dataclasses import replace

from extraction_assets.demo.base_recipe import words
from extraction_assets.demo.base_recipe.asks import Field, Kind, draw_field, draw_kind
from extraction_assets.demo.base_recipe.canvas import FACES, Canvas, draw_face, text_width
from extraction_assets.demo.base_recipe.glyph_pages import BARS, INKS, PALE
from extraction_assets.demo.base_recipe.layout import Flow, Hand, TableStyle, draw_hand, set_lines, set_pairs, set_table, spelled
from extraction_assets.demo.base_recipe.pages import ROW_KEYS, SENDER_KEYS, Asked, Example, finish, header, page_example, stamp
from extraction_assets.demo.base_recipe.words import Spelling, Value, as_printed

_GREY = (0.4, 0.4, 0.4)
_CURRENCY_KEYS = ("currency", "currency_code", "money_unit", "paid_in")


def paper_example(rng: random.Random, width: int, height: int) -> Example:
    """Mostly a paper as described above; now and then one of `page_example`'s, so that those are not forgotten."""
    if rng.random() < 0.25:
        return page_example(rng, width, height)
    canvas = Canvas(width, height)
    hand, spelling = draw_hand(rng), words.spelling(rng, 0.65)
    hand = replace(hand, size=hand.size * 0.94, leading=hand.leading * 0.9)
    margin = rng.uniform(6, 30)
    flow = Flow(canvas, hand, margin, width - margin, rng.uniform(2, 24), height - 2.5 * hand.leading)
    taken: set[str] = {*SENDER_KEYS}
    asked: list[Asked] = []
    fields: list[Field] = []
    parts = [_head, _title] if rng.random() < 0.7 else [_title, _head]
    for part in parts:
        found, labelled = part(flow, rng, taken, spelling)
        asked += found
        fields += labelled
        flow.top += rng.uniform(0.1, 0.8) * hand.leading
    fields += _band(flow, rng, taken, spelling, addressed=rng.random() < 0.6)
    if rng.random() < 0.25:
        flow.top += rng.uniform(0.2, 0.8) * hand.leading
        fields += _band(flow, rng, taken, spelling, addressed=False)
    table, row_key = None, None
    if rng.random() < 0.85 and flow.has_room(3):
        flow.top += rng.uniform(0.3, 1) * hand.leading
        style = TableStyle(spelling, rng.random() < 0.8, rng.random() < 0.15, rng.choice([0.0, 0.03, 0.08]))
        table, row_key = set_table(flow, rng, taken, rng.choice([2, 4, 6, 8]), style), rng.choice(ROW_KEYS)
    if rng.random() < 0.75 and flow.has_room(2):
        flow.top += rng.uniform(0.2, 0.8) * hand.leading
        fields += _sums(flow, rng, taken, spelling)
    if rng.random() < 0.3 and flow.has_room(2):
        flow.top += rng.uniform(0.2, 0.8) * hand.leading
        fields += _pairs(flow, rng, taken, spelling, rng.randint(1, 2))
    _foot(canvas, rng, hand, margin)
    if rng.random() < 0.1:
        stamp(canvas, rng)
    amounts = [field.value for field in fields if field.kind == "amount"]
    marked = [amount for amount in amounts if spelling.mark in amount.printed]
    bare = spelling.marked == "never" and all(field.kind != "currency" for field in fields)
    if amounts and (marked or bare) and rng.random() < 0.5:
        asked += _currency(canvas, rng, taken, spelling, marked[-1] if marked else None)
    asked += header(rng, fields, taken, absent=0.85)
    return finish(canvas, rng, asked, table, row_key)


def _currency(canvas: Canvas, rng: random.Random, taken: set[str], spelling: Spelling, amount: Value | None) -> list[Asked]:
    """No label names it: it is read off an amount, and is null where amounts stand bare (None). Empty if every key for it is taken."""
    keys = [key for key in _CURRENCY_KEYS if key not in taken]
    if not keys:
        return []
    key = rng.choice(keys)
    taken.add(key)
    if amount is None:
        return [(key, None)]
    start = amount.printed.index(spelling.mark)
    value = Value(spelling.mark, spelling.currency)
    canvas.also(value, amount, slice(start, start + len(spelling.mark)))
    return [(key, value)]


def _head(flow: Flow, rng: random.Random, taken: set[str], spelling: Spelling) -> tuple[list[Asked], list[Field]]:
    """The sender: a name, larger than the rest (seldom none), lines about it, perhaps a mark and a ground; at times labelled values beside it."""
    canvas, hand = flow.canvas, flow.hand
    name = as_printed(rng.choice([words.company, words.company, words.phrase])(rng))
    face, size = FACES[draw_face(rng)] if rng.random() < 0.4 else hand.bold, hand.size * rng.uniform(1.0, 1.6)
    mark = size * rng.uniform(1.5, 3) if rng.random() < 0.4 else 0.0
    on_the_right = rng.random() < 0.3
    pad = rng.uniform(4, 10) if rng.random() < 0.35 else 0.0
    indent = pad + (mark + 8 if mark and not on_the_right else 0.0)
    width = text_width(name.printed, face, size)
    if indent + width + (mark + 8 if on_the_right else 0) + pad > flow.width:
        return [], []
    top = flow.top
    align = rng.random()
    x = flow.x0 + indent
    if align < 0.12 and not mark:
        x = flow.x0 + (flow.width - width) / 2
    elif align < 0.24 and not mark:
        x = flow.x1 - width - pad
    flow.top += pad + size
    nameless = rng.random() < 0.08
    if not nameless:
        canvas.text(x, flow.top, name, face, size, rng.choice(INKS) if rng.random() < 0.3 else hand.ink)
    flow.top += size * rng.uniform(0.25, 0.5)
    small = replace(hand, size=hand.size * rng.uniform(0.9, 1), ink=_GREY if rng.random() < 0.4 else hand.ink)
    beside = flow.width * rng.uniform(0.5, 0.6) if align >= 0.24 and not pad and not on_the_right and rng.random() < 0.2 else 0.0
    lines = Flow(canvas, small, x, flow.x0 + beside - 10 if beside else flow.x1 - pad, flow.top, flow.bottom)
    set_lines(lines, [as_printed(_about(rng)) for _ in range(rng.randint(0, 3))])
    labelled: list[Field] = []
    if beside and x + width < flow.x0 + beside - 10:
        right = Flow(canvas, hand, flow.x0 + beside, flow.x1, top, flow.bottom)
        labelled = _pairs(right, rng, taken, spelling, rng.randint(1, 3))
        lines.top = max(lines.top, right.top)
    flow.top = max(lines.top, top + mark) + pad
    if pad:
        canvas.box(flow.x0, top, flow.x1, flow.top, rng.choice([*PALE, None]), rng.choice([0.0, 0.6]))
    if mark:
        _mark(canvas, rng, flow.x1 - mark - pad if on_the_right else flow.x0 + pad, top + pad + 2, mark)
    return ([(rng.choice(SENDER_KEYS), None if nameless else name)] if rng.random() < 0.75 else []), labelled


def _about(rng: random.Random) -> str:
    return rng.choice([words.address, words.address, words.contact, words.phrase])(rng)


def _mark(canvas: Canvas, rng: random.Random, x: float, y: float, size: float) -> None:
    """Something like a logo."""
    for _ in range(rng.randint(1, 3)):
        across, down = x + size * rng.uniform(0, 0.5), y + size * rng.uniform(0, 0.5)
        part, colour = size * rng.uniform(0.3, 0.5), rng.choice((*BARS, *PALE))
        if rng.random() < 0.5:
            canvas.disc(across + part / 2, down + part / 2, part / 2, colour)
        else:
            canvas.box(across, down, across + part, down + part, colour)


def _title(flow: Flow, rng: random.Random, taken: set[str], spelling: Spelling) -> tuple[list[Asked], list[Field]]:
    """What kind of paper it is, in large print: nobody asks for it, but for the number that may stand behind it."""
    if rng.random() < 0.2:
        return [], []
    hand = flow.hand
    face, size = FACES[draw_face(rng)] if rng.random() < 0.4 else hand.bold, hand.size * rng.uniform(1.1, 1.5)
    field = draw_field(rng, taken, "id")
    numbered = rng.random() < 0.25
    text = field.label if numbered else " ".join(words.pseudo_word(rng, 2) for _ in range(rng.choice([1, 1, 2]))).capitalize()
    text = text.upper() if rng.random() < 0.3 and "ß" not in text else text
    gap = text_width(text + " ", face, size)
    if gap + text_width(field.value.printed, face, size) > flow.width:
        return [], []
    flow.top += size
    ink = rng.choice(INKS)
    flow.canvas.text(flow.x0, flow.top, text, face, size, ink)
    if numbered:
        flow.canvas.text(flow.x0 + gap, flow.top, field.value, face, size, ink)
    flow.top += size * 0.4
    return [], [field] if numbered else []


def _band(flow: Flow, rng: random.Random, taken: set[str], spelling: Spelling, addressed: bool) -> list[Field]:
    """Labelled values over the whole width, or two blocks side by side, one of them perhaps an addressee."""
    if rng.random() < 0.35 or flow.width < 300:
        found = _addressee(flow, rng, taken) if addressed else []
        flow.top += rng.uniform(0.1, 0.6) * flow.hand.leading
        return found + _pairs(flow, rng, taken, spelling, rng.randint(2, 5))
    middle = flow.x0 + flow.width * rng.uniform(0.42, 0.58)
    left = Flow(flow.canvas, flow.hand, flow.x0, middle - 8, flow.top, flow.bottom)
    right = Flow(flow.canvas, flow.hand, middle + 8, flow.x1, flow.top, flow.bottom)
    if rng.random() < 0.3:
        left, right = right, left
    found = _addressee(left, rng, taken) if addressed else _pairs(left, rng, taken, spelling, rng.randint(1, 4))
    found = found + _pairs(right, rng, taken, spelling, rng.randint(2, 5))
    flow.top = max(left.top, right.top)
    return found


def _addressee(flow: Flow, rng: random.Random, taken: set[str]) -> list[Field]:
    """A name under its label, or under none, and where it lives."""
    field = draw_field(rng, taken, "text")
    value = as_printed(rng.choice([words.company, words.company, words.person])(rng))
    if flow.measure(value, True) > flow.width or flow.measure(field.label + ":", True) > flow.width or not flow.has_room(4):
        return []
    labelled = rng.random() < 0.7
    if labelled:
        flow.write(flow.x0, flow.advance(), field.label + rng.choice(["", ":"]), rng.random() < 0.5)
    flow.write(flow.x0, flow.advance(), value)
    set_lines(flow, [as_printed(_about(rng)) for _ in range(rng.randint(0, 2))])
    return [replace(field, value=value)] if labelled else []


def _pairs(flow: Flow, rng: random.Random, taken: set[str], spelling: Spelling, count: int) -> list[Field]:
    """Labelled values in the page's spelling; here and there one is left blank."""
    kinds = [draw_kind(rng) for _ in range(count)]
    blanks = 0.2 if rng.random() < 0.6 else 0.0
    fields = []
    for kind in kinds:
        field = draw_field(rng, taken, kind)
        value = as_printed("") if rng.random() < blanks else spelled(rng, kind, spelling) if kind in ("date", "amount") else field.value
        fields.append(replace(field, value=value))
    hand = replace(
        flow.hand,
        bold_values=rng.random() < 0.15,
        label_ink=rng.choice([_GREY, None, None]),
        bold_labels=rng.random() < 0.25,
    )
    side = Flow(flow.canvas, hand, flow.x0, flow.x1, flow.top, flow.bottom)
    placed = set_pairs(side, rng, fields)
    flow.top = side.top
    return placed


def _sums(flow: Flow, rng: random.Random, taken: set[str], spelling: Spelling) -> list[Field]:
    """Amounts one below the other, in a right part of the page or across it, the last or first perhaps in larger print."""
    found: list[Field] = []
    hand = flow.hand
    large = rng.choice([None, 0, -1])
    count = rng.randint(1, 4)
    column = Flow(flow.canvas, hand, flow.x0 + flow.width * rng.choice([0.0, 0.35, 0.45, 0.55]), flow.x1, flow.top, flow.bottom)
    way_seed = rng.getrandbits(32)  # all of them in the same way
    for number in range(count):
        kind: Kind = "percent" if rng.random() < 0.2 else "amount"
        field = draw_field(rng, taken, kind)
        if kind == "amount":
            field = replace(field, value=as_printed("") if rng.random() < 0.2 else spelled(rng, "amount", spelling))
        if rng.random() < 0.25 and kind == "amount":
            field = replace(field, label=f"{field.label} {words.percent(rng).printed}")
        is_large = large is not None and number == large % count
        column.hand = (
            replace(hand, size=hand.size * 1.2, leading=hand.leading * 1.2, bold_labels=True, bold_values=True) if is_large else hand
        )
        found += set_pairs(column, random.Random(way_seed), [field])
    flow.top = column.top
    return found


def _foot(canvas: Canvas, rng: random.Random, hand: Hand, margin: float) -> None:
    """Small print at the bottom of the page."""
    if rng.random() < 0.3:
        return
    top = canvas.height - 2.2 * hand.leading
    if rng.random() < 0.5:
        canvas.line(margin, top, canvas.width - margin, top, 0.5)
    for _ in range(rng.randint(1, 2)):
        text = rng.choice([_about(rng), f"{rng.randint(1, 4)} / {rng.randint(1, 4)}", words.phrase(rng, 2, 4)])
        width = text_width(text, hand.face, hand.size * 0.9)
        if width < canvas.width - 2 * margin:
            x = margin if rng.random() < 0.4 else (canvas.width - width) / 2
            canvas.text(x, top + hand.size, text, hand.face, hand.size * 0.9, _GREY)
        top += hand.size * 1.1
