"""The line items and what follows them: column measures, rows, totals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from extraction_assets.demo.vendors.blocks import GREY, RULE, WHITE, Block, Frame, Item, note_currency, print_money
from extraction_assets.demo.vendors.facts import KEYS, PRICE_DRIFT, Facts, Row, quantity_limit
from extraction_assets.demo.vendors.sheet import ASCENT, BLACK, DESCENT, Align, DoesNotFit, Sheet
from extraction_assets.demo.vendors.vendor import Column

GUTTER = 9.0
"""pt between two columns"""
_NUMERIC = ("qty", "price", "amount")


def _align(column: Column) -> Align:
    return "right" if column in _NUMERIC else "left"


@dataclass(frozen=True)
class Table:
    """Columns of one layout: where each begins and ends, wide enough for the vendor's whole catalogue."""

    frame: Frame
    edges: dict[Column, tuple[float, float]]
    """column -> (left, right) of its text, pt"""
    headed: bool
    """has a row of column names"""

    @property
    def row_height(self) -> float:
        return self.frame.pitch + self.frame.layout.row_gap

    def head_word(self, column: Column) -> str:
        if column == "pos":
            return "#"
        formats = self.frame.vendor.formats
        word = self.frame.word(column)
        return f"{word} {formats.currency}" if column == "amount" and formats.currency_style == "in_head" else word

    # --- drawing --------------------------------------------------------------------------------------------------------

    def head_block(self) -> Block:
        if not self.headed:
            return Block(5.0, lambda sheet, top: sheet.line(self.frame.left, top + 2, self.frame.right, top + 2, RULE, dashed=True))
        frame, kind = self.frame, self.frame.layout.table
        height = self.row_height + 1

        def draw(sheet: Sheet, top: float) -> None:
            if kind == "dark_head":
                sheet.box(frame.left, top, frame.right, top + height - 1, fill=frame.vendor.accent)
            elif kind == "grid":
                self._cells(sheet, top, top + height, frame.pale)
            elif kind in ("ruled", "zebra"):
                sheet.line(frame.left, top + height - 0.5, frame.right, top + height - 0.5, BLACK, 0.8)
            else:
                sheet.line(frame.left, top, frame.right, top, RULE)
                sheet.line(frame.left, top + height - 0.5, frame.right, top + height - 0.5, RULE)
            for column in self.edges:
                x, baseline = self._anchor(column), frame.baseline(top + frame.layout.row_gap / 2)
                colour = WHITE if kind == "dark_head" else BLACK
                width = sheet.text(x, baseline, self.head_word(column), frame.bold, frame.size, colour, _align(column))
                if column == "amount" and frame.vendor.formats.currency_style == "in_head":
                    note_currency(sheet, frame, (x - width, baseline - ASCENT * frame.size, x, baseline + DESCENT * frame.size))

        return Block(height, draw)

    def row_block(self, row: Row, index: int) -> Block:
        """Line item `index` (from 0) of the document."""
        frame, kind, height = self.frame, self.frame.layout.table, self.row_height

        def draw(sheet: Sheet, top: float) -> None:
            if kind == "grid" and self.headed:
                self._cells(sheet, top, top + height, None)
            elif kind == "zebra" and index % 2 == 0:
                sheet.box(frame.left, top, frame.right, top + height, fill=frame.pale)
            elif kind == "ruled":
                sheet.line(frame.left, top + height, frame.right, top + height, RULE, 0.4)
            baseline = frame.baseline(top + frame.layout.row_gap / 2)
            for column in self.edges:
                self._cell(sheet, baseline, column, row, index)

        return Block(height, draw)

    def _cell(self, sheet: Sheet, baseline: float, column: Column, row: Row, index: int) -> None:
        frame, x, within = self.frame, self._anchor(column), self.edges[column][1] - self.edges[column][0]
        key = KEYS[frame.vendor.type].get(column)
        pointer = f"/rows/{index}/{key}" if key else None
        if column in ("price", "amount"):
            money = frame.vendor.formats.print_money(row.price if column == "price" else row.amount, row=True)
            print_money(sheet, frame, x, baseline, Item("", money, pointer), frame.regular, frame.size, within)
            return
        text = {"pos": str(index + 1), "sku": row.good.sku, "item": row.good.name, "qty": frame.vendor.formats.print_number(row.quantity)}[
            column
        ]
        sheet.text(x, baseline, text, frame.regular, frame.size, BLACK, _align(column), within, pointer)

    def _anchor(self, column: Column) -> float:
        return self.edges[column][1 if column in _NUMERIC else 0]

    def _cells(self, sheet: Sheet, top: float, bottom: float, fill: tuple[float, float, float] | None) -> None:
        frame = self.frame
        sheet.box(frame.left, top, frame.right, bottom, fill=fill, stroke=RULE)
        for left, _ in list(self.edges.values())[1:]:
            x = left - GUTTER / 2
            sheet.line(x, top, x, bottom, RULE)


def measure_table(frame: Frame) -> Table:
    """Columns as wide as their head and the widest value the vendor can print; the goods' names take what is left.

    Raises DoesNotFit where that is less than the longest name needs.
    """
    vendor, headed = frame.vendor, frame.vendor.type != "receipt" or frame.layout.table in ("ruled", "dark_head")
    empty = Table(frame, {}, headed)
    prices = [good.price * PRICE_DRIFT for good in vendor.goods]
    widest: dict[Column, list[str]] = {
        "pos": ["24"],
        "sku": [good.sku for good in vendor.goods],
        "item": [good.name for good in vendor.goods],
        "qty": [vendor.formats.print_number(Decimal("39.5"))] if vendor.halves else ["40"],
        "price": [vendor.formats.print_money(price, row=True) for price in prices],
        "amount": [
            vendor.formats.print_money(price * quantity_limit(good.price), row=True)
            for good, price in zip(vendor.goods, prices, strict=True)
        ],
    }
    needed: dict[Column, float] = {}
    for column in frame.layout.columns:
        head = frame.bold.width(empty.head_word(column), frame.size) if headed else 0.0
        needed[column] = max([head, *(frame.regular.width(frame.regular.widest(text), frame.size) for text in widest[column])])
    pad = 3.0 if frame.layout.table in ("grid", "dark_head", "zebra") else 0.0
    room = frame.width - 2 * pad - GUTTER * (len(needed) - 1)
    spare = room - sum(needed.values())
    if spare < 0:
        raise DoesNotFit(" ".join(needed))
    edges, x = {}, frame.left + pad
    for column, width in needed.items():
        width += spare if column == "item" else 0.0
        edges[column] = (x, x + width)
        x += width + GUTTER
    return Table(frame, edges, headed)


# --- totals -------------------------------------------------------------------------------------------------------------


def totals_items(frame: Frame, facts: Facts) -> list[Item]:
    """Net, tax and grand total, as far as this type prints them; the grand total is strong."""
    money, pointer = frame.vendor.formats.print_money, frame.pointer
    total = {"invoice": "gross", "receipt": "paid", "purchase_order": "order_total"}[facts.type]
    code = f" {facts.currency}" if frame.vendor.formats.currency_style == "in_head" else ""
    grand = Item(frame.word(total) + code + frame.vendor.colon, money(facts.gross), pointer("gross"), strong=True)
    if facts.type == "purchase_order":
        return [grand]
    tax = [] if facts.tax is None else [Item(frame.label("tax"), money(facts.tax), pointer("tax"))]
    if facts.type == "receipt" and frame.vendor.tax_included:
        return [grand, *tax]
    return [Item(frame.label("net"), money(facts.net), pointer("net")), *tax, grand]


def totals_block(frame: Frame, items: Sequence[Item]) -> Block:
    """Labels and right-aligned amounts by layout.totals."""
    kind, big = frame.layout.totals, min(frame.size + 1.5, 12.0)
    face_of = {True: frame.bold, False: frame.regular}

    def size_of(item: Item) -> float:
        return big if item.strong else frame.size

    labels = max(face_of[item.strong].width(item.label, size_of(item)) for item in items)
    values = max(face_of[item.strong].width(item.text, size_of(item)) for item in items)
    pad = 5.0 if kind in ("boxed", "band") else 0.0
    need = labels + values + 10 + 2 * pad
    start = frame.left if kind == "wide" else min(frame.right - need, frame.left + frame.width * 0.42)
    heights = [size_of(item) * frame.vendor.leading + (3 if item.strong else 0) for item in items]

    def draw(sheet: Sheet, top: float) -> None:
        if start < frame.left - 0.01:
            raise DoesNotFit(items[-1].label)
        if kind == "boxed":
            sheet.box(start, top, frame.right, top + sum(heights) + 4, stroke=RULE)
        y = top + 2
        for item, height in zip(items, heights, strict=True):
            size = size_of(item)
            baseline = frame.baseline(y + (1.5 if item.strong else 0), size)
            if item.strong and kind == "band":
                sheet.box(start, y, frame.right, y + height, fill=frame.pale)
            elif item.strong and kind in ("right", "wide") and len(items) > 1:
                sheet.line(start, y, frame.right, y, BLACK, 0.8)
            used = sheet.text(start + pad, baseline, item.label, face_of[item.strong], size, BLACK if item.strong else GREY)
            if item.strong and frame.vendor.formats.currency_style == "in_head":
                note_currency(sheet, frame, (start + pad, y, start + pad + used, y + height))
            print_money(sheet, frame, frame.right - pad, baseline, item, face_of[item.strong], size, frame.right - start - 2 * pad - used)
            if kind == "wide" and not item.strong:
                end = frame.right - face_of[item.strong].width(item.text, size) - 5
                sheet.line(start + used + 5, baseline, end, baseline, RULE, 0.4, dashed=True)
            y += height

    return Block(sum(heights) + 5, draw)


def longest_amount(frame: Frame, rows: int) -> Decimal:
    """An upper bound of a document's grand total with so many rows."""
    dearest = max(good.price * quantity_limit(good.price) for good in frame.vendor.goods)
    return dearest * PRICE_DRIFT * rows * (1 + frame.vendor.tax_rate / 100)
