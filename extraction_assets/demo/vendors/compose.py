"""A vendor's two layouts on paper, and one document's facts drawn onto as many pages as its rows take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from extraction_assets.demo.vendors.blocks import (
    GREY,
    RULE,
    Block,
    Frame,
    gap,
    head_block,
    short_head_block,
    stack,
    title_block,
)
from extraction_assets.demo.vendors.data_blocks import data_block, data_items
from extraction_assets.demo.vendors.facts import CENT, PRICE_DRIFT, Facts, Row, quantity_limit
from extraction_assets.demo.vendors.sheet import BLACK, Align, DoesNotFit, Sheet
from extraction_assets.demo.vendors.table import Table, longest_amount, measure_table, totals_block, totals_items
from extraction_assets.demo.vendors.vendor import PageSize, Vendor

SMALL_STEP = 32.0
"""pt: sides of small pages are multiples, so that at 72 dpi they lie on the model's 32-px grid"""
SMALL_WIDTHS = (256.0, 288.0, 320.0)
SMALL_HEIGHTS = (320.0, 448.0)
A4 = (595.0, 842.0)
MOST_ROWS = 24
"""of a document: maxItems of the target schemas"""
ROWS_PER_PAGE: dict[PageSize, int] = {"small": 4, "a4": 16}
"""Most rows on one page, so that a page's answer stays short"""


@dataclass(frozen=True)
class Template:
    """One layout of a vendor with its paper and column measures; draws any of the vendor's documents."""

    frame: Frame
    table: Table
    width: float
    height: float
    """pt; of receipts: the least"""
    margin: float
    most_rows: int
    """rows that fit on a single page with everything else"""
    page: PageSize

    def draw(self, facts: Facts) -> list[Sheet]:
        """The document's pages. Raises DoesNotFit where a value is too long for its place."""
        shares = self._shares(len(facts.rows))
        sheets, first = [], 0
        for number, share in enumerate(shares, 1):
            rows = facts.rows[first : first + share]
            body = self._body(facts, rows, first, number, len(shares))
            foot = self._foot(facts, number, len(shares))
            need = body.height + foot.height + 2 * self.margin
            height = self.height
            if facts.type == "receipt" and self.page == "small":
                height = min(max(SMALL_HEIGHTS[0], _round_up(need)), SMALL_HEIGHTS[1])
            if need > height + 1e-6:
                raise DoesNotFit(f"{need:.0f} pt of {height:.0f} pt")
            sheet = Sheet(self.width, height, number)
            body.draw(sheet, self.margin)
            foot.draw(sheet, height - self.margin - foot.height)
            sheets.append(sheet)
            first += share
        return sheets

    def _shares(self, rows: int) -> list[int]:
        """Rows of each page: a single page if they fit; else full pages, and at least one row beside the totals on the last."""
        if rows <= self.most_rows:
            return [rows]
        shares = []
        while rows > self.most_rows:
            shares.append(min(self.most_rows, rows - 1))
            rows -= shares[-1]
        return [*shares, rows]

    def _body(self, facts: Facts, rows: Sequence[Row], first: int, number: int, pages: int) -> Block:
        frame = self.frame
        blocks = self._opening(facts) if number == 1 else [short_head_block(frame, facts), gap(4)]
        blocks.append(self.table.head_block())
        blocks += [self.table.row_block(row, first + index) for index, row in enumerate(rows)]
        if number == pages:
            blocks += [gap(4), totals_block(frame, totals_items(frame, facts)), *self._closing(facts)]
        else:
            text = frame.word("carried").format(p=number + 1)
            blocks += [gap(4), _line_block(frame, text, "right")]
        return stack(blocks)

    def _opening(self, facts: Facts) -> list[Block]:
        frame, layout = self.frame, self.frame.layout
        titled = facts.type == "receipt" or layout.head != "split"
        title = [title_block(frame), gap(4)] if titled else []
        head = [head_block(frame), gap(6)]
        if facts.type == "receipt" and layout.head == "split":
            title = []
        caption = frame.word("supplier" if facts.type == "purchase_order" else "bill_to") + frame.vendor.colon
        data = data_block(frame, data_items(frame, facts), None if facts.type == "receipt" else facts.buyer, caption)
        parts = [*title, *head] if layout.title_first else [*head, *title]
        return [*parts, data, gap(6)]

    def _closing(self, facts: Facts) -> list[Block]:
        frame = self.frame
        if facts.type != "receipt":
            return []
        blocks = [gap(3), _line_block(frame, f"{frame.label('paid_by')} {facts.paid_by}", "left")]
        if frame.vendor.number % 2 == 0:
            blocks += [gap(4), _bars(frame, facts)]
        return blocks

    def _foot(self, facts: Facts, number: int, pages: int) -> Block:
        """Anchored at the bottom: thanks or company data, and the page number where there are several."""
        frame, kind = self.frame, self.frame.layout.foot
        lines: list[tuple[str, Align]] = []
        if facts.type == "receipt" or kind == "none":
            lines.append((frame.vendor.thanks, "centre"))
        else:
            lines.append((frame.vendor.tax_line, "left" if kind == "columns" else "centre"))
        if pages > 1:
            lines.append((frame.word("page").format(p=number, n=pages), "right" if kind == "columns" else "centre"))
        text = stack([_line_block(frame, line, align) for line, align in lines])

        def draw(sheet: Sheet, top: float) -> None:
            if kind != "none":
                sheet.line(frame.left, top, frame.right, top, RULE, 0.5)
            text.draw(sheet, top + 3)

        return Block(text.height + 3, draw)


def make_templates(vendor: Vendor, page: PageSize, width: float, margin: float) -> tuple[Template, Template]:
    """Both layouts on this paper, checked with the longest values the vendor can print. Raises DoesNotFit."""
    return _make_template(vendor, 0, page, width, margin), _make_template(vendor, 1, page, width, margin)


def _make_template(vendor: Vendor, index: int, page: PageSize, width: float, margin: float) -> Template:
    frame = Frame(vendor, vendor.layouts[index], margin, width - margin)
    table = measure_table(frame)
    top = ROWS_PER_PAGE[page]
    least = 3 if page == "small" else 8
    for rows in range(top, least - 1, -1):
        facts = fullest_facts(vendor, index, rows)
        trial = Template(frame, table, width, 4000.0, margin, rows, page)
        need = trial._body(facts, facts.rows, 0, 1, 1).height + trial._foot(facts, 1, 2).height + 2 * margin
        limit = SMALL_HEIGHTS[1] if page == "small" else A4[1]
        if need > limit:
            continue
        height = max(SMALL_HEIGHTS[0], _round_up(need)) if page == "small" else A4[1]
        template = Template(frame, table, width, height, margin, rows, page)
        for buyer in vendor.buyers:
            template.draw(fullest_facts(vendor, index, rows, buyer=vendor.buyers.index(buyer)))
        template.draw(fullest_facts(vendor, index, min(2 * rows, MOST_ROWS)))
        return template
    raise DoesNotFit(f"{least} rows")


def fullest_facts(vendor: Vendor, layout: int, rows: int, buyer: int = 0) -> Facts:
    """A document with every optional field and the longest values, to measure with. Its totals do not add up: never printed."""
    frame = Frame(vendor, vendor.layouts[layout], 0, 100)
    goods = sorted(vendor.goods, key=lambda good: -good.price * quantity_limit(good.price))
    lines = tuple(
        Row(good, Decimal(quantity_limit(good.price)), (good.price * PRICE_DRIFT).quantize(CENT))
        for good in (goods[index % len(goods)] for index in range(rows))
    )
    total = longest_amount(frame, rows).quantize(CENT)
    eights = Decimal("".join("8" if char.isdigit() else char for char in f"{total:f}"))
    days = [date(2028, month, 28) for month in range(1, 13)]
    longest_day = max(days, key=lambda day: frame.bold.width(vendor.formats.print_date(day), 10))
    return Facts(
        type=vendor.type,
        layout=layout,
        issuer=vendor.party,
        number=vendor.number_pattern.format(y=2028, yy="28", n=88888),
        day=longest_day,
        due=None if vendor.type == "receipt" else longest_day,
        contact=max(vendor.contacts, key=lambda name: frame.bold.width(name, 10)) if vendor.type == "purchase_order" else None,
        buyer=vendor.buyers[buyer],
        customer_no="88888",
        rows=lines,
        net=eights,
        tax=eights,
        gross=eights,
        currency=vendor.formats.currency,
        paid_by="MMMMMMMM",
    )


def _line_block(frame: Frame, text: str, align: Align) -> Block:
    x = {"left": frame.left, "right": frame.right, "centre": frame.middle}[align]

    def draw(sheet: Sheet, top: float) -> None:
        sheet.text(x, frame.baseline(top), text, frame.regular, frame.size, GREY, align, frame.width)

    return Block(frame.pitch, draw)


def _bars(frame: Frame, facts: Facts) -> Block:
    """Something like a bar code, from the receipt's own total."""

    def draw(sheet: Sheet, top: float) -> None:
        x = frame.middle - 45
        for digit in f"{int(facts.gross * 100):08d}{facts.day:%Y%m%d}":
            width = 0.7 + int(digit) * 0.2
            sheet.box(x, top, x + width, top + 16, fill=BLACK)
            x += width + 1.6 + int(digit) % 3

    return Block(18, draw)


def _round_up(side: float) -> float:
    return -(-side // SMALL_STEP) * SMALL_STEP
