"""Document data (number, dates, contact) and the other party's address, in the arrangements of layout.meta."""

from __future__ import annotations

from collections.abc import Sequence

from extraction_assets.demo.vendors.blocks import GREY, RULE, Block, Frame, Item, gap, print_pair, stack
from extraction_assets.demo.vendors.facts import Facts
from extraction_assets.demo.vendors.names import Party
from extraction_assets.demo.vendors.sheet import BLACK, DoesNotFit, Sheet


def data_items(frame: Frame, facts: Facts) -> list[Item]:
    """Number, dates and the like, in print order."""
    printed = frame.vendor.formats.print_date
    number, day, due = {
        "invoice": ("invoice_no", "invoice_date", "due"),
        "receipt": ("receipt_no", "receipt_date", "due"),
        "purchase_order": ("order_no", "order_date", "deliver_by"),
    }[facts.type]
    items = []
    if facts.number:
        items.append(Item(frame.label(number), facts.number, frame.pointer("number")))
    items.append(Item(frame.label(day), printed(facts.day), frame.pointer("day")))
    if facts.due:
        items.append(Item(frame.label(due), printed(facts.due), frame.pointer("due")))
    if facts.contact:
        items.append(Item(frame.label("contact"), facts.contact, frame.pointer("contact")))
    if facts.type == "invoice" and frame.vendor.number % 3 == 0:
        items.insert(len(items) - 1, Item(frame.label("customer_no"), facts.customer_no))
    return items


def data_block(frame: Frame, items: Sequence[Item], buyer: Party | None, caption: str) -> Block:
    """Document data by layout.meta; the buyer's address above it, or to its left."""
    kind = frame.layout.meta
    if kind == "beside" and buyer is not None:
        return _beside(frame, items, buyer, caption)
    data = {"grid": _grid, "inline": _inline, "tabs": _tabs}.get(kind, _list)(frame, items)
    if buyer is None:
        return data
    address = party_block(frame, buyer, caption)
    return stack((address, gap(5), data))


def party_block(frame: Frame, party: Party, caption: str, within: float | None = None) -> Block:
    lines = ([caption] if frame.layout.buyer_caption else []) + [party.name, party.street, party.city]

    def draw(sheet: Sheet, top: float) -> None:
        for index, line in enumerate(lines):
            is_caption = frame.layout.buyer_caption and index == 0
            sheet.text(
                frame.left,
                frame.baseline(top + index * frame.pitch),
                line,
                frame.bold if is_caption else frame.regular,
                frame.size,
                frame.vendor.accent if is_caption else BLACK,
                within=within or frame.width,
            )

    return Block(len(lines) * frame.pitch, draw)


def _list(frame: Frame, items: Sequence[Item]) -> Block:
    def draw(sheet: Sheet, top: float) -> None:
        for index, item in enumerate(items):
            print_pair(sheet, frame, frame.left, top + index * frame.pitch, item, frame.width)

    return Block(len(items) * frame.pitch, draw)


def _tabs(frame: Frame, items: Sequence[Item]) -> Block:
    """Labels in one column, values in the next."""
    tab = max(frame.regular.width(item.label, frame.size) for item in items) + 10

    def draw(sheet: Sheet, top: float) -> None:
        for index, item in enumerate(items):
            baseline = frame.baseline(top + index * frame.pitch)
            sheet.text(frame.left, baseline, item.label, frame.regular, frame.size, GREY)
            sheet.text(frame.left + tab, baseline, item.text, frame.bold, frame.size, within=frame.width - tab, pointer=item.pointer)

    return Block(len(items) * frame.pitch, draw)


def _grid(frame: Frame, items: Sequence[Item]) -> Block:
    """Ruled cells, two a row, the label over the value."""
    cell_height, half = 2 * frame.pitch + 4, frame.width / 2
    rows = (len(items) + 1) // 2

    def draw(sheet: Sheet, top: float) -> None:
        for index, item in enumerate(items):
            alone = index == len(items) - 1 and index % 2 == 0
            x, y = frame.left + (index % 2) * half, top + (index // 2) * cell_height
            width = frame.width if alone else half
            sheet.box(x, y, x + width, y + cell_height, stroke=RULE)
            sheet.text(x + 4, frame.baseline(y + 2), item.label, frame.regular, frame.size, GREY, within=width - 8)
            sheet.text(
                x + 4, frame.baseline(y + 2 + frame.pitch), item.text, frame.bold, frame.size, within=width - 8, pointer=item.pointer
            )

    return Block(rows * cell_height, draw)


def _inline(frame: Frame, items: Sequence[Item]) -> Block:
    """Pairs one after the other, a new line where the next does not fit."""
    space, lines, used = 14.0, [[]], 0.0  # type: tuple[float, list[list[Item]], float]
    for item in items:
        width = frame.regular.width(item.label + item.text, frame.size) + frame.size
        if lines[-1] and used + width > frame.width:
            lines.append([])
            used = 0.0
        lines[-1].append(item)
        used += width + space

    def draw(sheet: Sheet, top: float) -> None:
        for index, line in enumerate(lines):
            x = frame.left
            for item in line:
                x += print_pair(sheet, frame, x, top + index * frame.pitch, item, frame.right - x) + space

    return Block(len(lines) * frame.pitch, draw)


def _beside(frame: Frame, items: Sequence[Item], buyer: Party, caption: str) -> Block:
    """The buyer's address on the left, document data on the right, values flush right."""
    label_width = max(frame.regular.width(item.label, frame.size) for item in items)
    value_width = max(frame.regular.width(item.text, frame.size) for item in items)
    start = frame.right - label_width - value_width - 6
    address = party_block(frame, buyer, caption, within=start - frame.left - 8)

    def draw(sheet: Sheet, top: float) -> None:
        if start < frame.left + 40:
            raise DoesNotFit(items[0].label)
        address.draw(sheet, top)
        for index, item in enumerate(items):
            baseline = frame.baseline(top + index * frame.pitch)
            sheet.text(start, baseline, item.label, frame.regular, frame.size, GREY)
            sheet.text(frame.right, baseline, item.text, frame.regular, frame.size, align="right", pointer=item.pointer)

    return Block(max(address.height, len(items) * frame.pitch), draw)
