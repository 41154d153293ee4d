"""What stands above a page's table (head, title) and what all blocks share: measures, label-value pairs, amounts.

A block knows its height before it is drawn; the composer stacks blocks, so nothing overlaps. Widths are checked while drawing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from extraction_assets.demo.vendors.facts import KEYS, Facts
from extraction_assets.demo.vendors.logo import draw_logo
from extraction_assets.demo.vendors.sheet import ASCENT, BLACK, Align, Colour, PrintedValue, Sheet
from extraction_assets.demo.vendors.typefaces import FAMILIES, Face, face
from extraction_assets.demo.vendors.vendor import Layout, Vendor

GREY: Colour = (0.28, 0.28, 0.30)
RULE: Colour = (0.45, 0.45, 0.48)
WHITE: Colour = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Block:
    """Something `height` pt high that is drawn with its top at a given y."""

    height: float
    draw: Callable[[Sheet, float], None]


@dataclass(frozen=True)
class Frame:
    """One layout of one vendor on one paper width: the measures that all blocks share, in pt."""

    vendor: Vendor
    layout: Layout
    left: float
    right: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def middle(self) -> float:
        return (self.left + self.right) / 2

    @property
    def size(self) -> float:
        return self.vendor.size

    @property
    def pitch(self) -> float:
        """From one line to the next."""
        return self.vendor.size * self.vendor.leading

    @property
    def regular(self) -> Face:
        return face(FAMILIES[self.vendor.family][0])

    @property
    def bold(self) -> Face:
        return face(FAMILIES[self.vendor.family][1])

    @property
    def title(self) -> Face:
        return face(FAMILIES[self.vendor.title_family][1])

    @property
    def pale(self) -> Colour:
        """The accent, light enough to be printed over."""
        red, green, blue = self.vendor.accent
        return (1 - (1 - red) * 0.13, 1 - (1 - green) * 0.13, 1 - (1 - blue) * 0.13)

    def word(self, key: str) -> str:
        return self.vendor.words[key]

    def label(self, key: str) -> str:
        """A label word with the vendor's colon, its tax rate filled in."""
        rate = self.vendor.formats.print_number(self.vendor.tax_rate)
        return self.vendor.words[key].replace("{r}", rate) + self.vendor.colon

    def pointer(self, name: str) -> str | None:
        """JSON pointer of a header field of this type's label; None where it has none."""
        key = KEYS[self.vendor.type].get(name)
        return f"/{key}" if key else None

    def baseline(self, top: float, size: float | None = None) -> float:
        """Baseline of a line whose pitch box begins at `top`."""
        size = size or self.size
        return top + ASCENT * size + (self.vendor.leading - 1) * size / 2


@dataclass(frozen=True)
class Item:
    """A label word and the value beside it."""

    label: str
    text: str
    pointer: str | None = None
    strong: bool = False


def gap(height: float) -> Block:
    return Block(height, lambda sheet, top: None)


def print_money(sheet: Sheet, frame: Frame, x: float, baseline: float, item: Item, face: Face, size: float, within: float) -> None:
    """An amount, right-aligned at x. Its digits are the field's value; its sign, if it has one, is the currency's."""
    width = sheet.text(x, baseline, item.text, face, size, align="right", within=within)
    box = (x - width, baseline - ASCENT * size, x, baseline + 0.24 * size)
    sign = frame.vendor.formats.currency_sign
    if item.pointer:
        digits = item.text.removesuffix(sign).removeprefix(sign).strip()
        sheet.printed.append(PrintedValue(item.pointer, sheet.page, digits, box))
    if sign in item.text:
        note_currency(sheet, frame, box)


def note_currency(sheet: Sheet, frame: Frame, box: tuple[float, float, float, float]) -> None:
    pointer = frame.pointer("currency")
    if pointer:
        sheet.printed.append(PrintedValue(pointer, sheet.page, frame.vendor.formats.currency_sign, box))


def stack(blocks: Sequence[Block]) -> Block:
    """Blocks under each other as one."""

    def draw(sheet: Sheet, top: float) -> None:
        for block in blocks:
            block.draw(sheet, top)
            top += block.height

    return Block(sum(block.height for block in blocks), draw)


def print_pair(sheet: Sheet, frame: Frame, x: float, top: float, item: Item, within: float) -> float:
    """Label and value on one line; the width they take."""
    baseline = frame.baseline(top)
    used = sheet.text(x, baseline, item.label, frame.regular, frame.size, GREY, within=within) + frame.size * 0.45
    return used + sheet.text(
        x + used, baseline, item.text, frame.bold if item.strong else frame.regular, frame.size, within=within - used, pointer=item.pointer
    )


# --- head and title -----------------------------------------------------------------------------------------------------


def title_text(frame: Frame) -> str:
    text = frame.word({"invoice": "invoice_title", "receipt": "receipt_title", "purchase_order": "order_title"}[frame.vendor.type])
    return text.upper() if frame.vendor.upper else text


def head_block(frame: Frame) -> Block:
    """The issuer's name and address with the logo, arranged by layout.head."""
    vendor, layout, kind = frame.vendor, frame.layout, frame.layout.head
    name_size = layout.title_size - 1
    party = vendor.party
    lines = [party.street, party.city] + ([vendor.contact_line] if vendor.number % 2 else [])
    name_height = name_size * vendor.leading
    text_height = name_height + len(lines) * frame.pitch
    logo = min(text_height, 30.0) if layout.logo else 0.0
    pad = 5.0 if kind in ("boxed", "band") else 0.0
    above = logo + 4 if kind == "centred" and logo else 0.0
    height = above + text_height + 2 * pad

    def draw(sheet: Sheet, top: float) -> None:
        left, right = frame.left + pad, frame.right - pad
        if kind == "boxed":
            sheet.box(frame.left, top, frame.right, top + height, stroke=RULE)
        elif kind == "band":
            sheet.box(frame.left, top, frame.right, top + height, fill=frame.pale)
        logo_right = layout.logo_right != (kind == "right")
        room = right - left
        if logo and kind == "centred":
            draw_logo(sheet, vendor.logo, frame.middle - logo / 2, top, logo, vendor.accent)
        elif logo and kind != "split":
            draw_logo(sheet, vendor.logo, right - logo if logo_right else left, top + pad, logo, vendor.accent)
            room -= logo + 7
        align: Align = "centre" if kind == "centred" else "left"
        x = frame.middle if kind == "centred" else left
        if kind == "right":
            align, x = "right", right - (logo + 7 if logo and logo_right else 0)
        elif align == "left" and logo and not logo_right and kind != "split":
            x = left + logo + 7
        y = top + pad + above
        used = sheet.text(
            x,
            frame.baseline(y, name_size),
            party.name,
            frame.title,
            name_size,
            BLACK,
            align,
            room,
            frame.pointer("issuer"),
        )
        if kind == "split":
            size = layout.title_size
            sheet.text(frame.right, frame.baseline(y, size), title_text(frame), frame.title, size, vendor.accent, "right", room - used - 10)
        y += name_height
        for line in lines:
            sheet.text(x, frame.baseline(y), line, frame.regular, frame.size, GREY, align, room)
            y += frame.pitch

    return Block(height, draw)


def title_block(frame: Frame) -> Block:
    size = frame.layout.title_size
    centred = frame.layout.head == "centred"

    def draw(sheet: Sheet, top: float) -> None:
        x = frame.middle if centred else frame.left
        align: Align = "centre" if centred else "left"
        sheet.text(x, frame.baseline(top, size), title_text(frame), frame.title, size, frame.vendor.accent, align, frame.width)

    return Block(size * frame.vendor.leading, draw)


def short_head_block(frame: Frame, facts: Facts) -> Block:
    """Head of a second page: the issuer's name and the document's number."""
    key = {"invoice": "invoice_no", "receipt": "receipt_no", "purchase_order": "order_no"}[facts.type]

    def draw(sheet: Sheet, top: float) -> None:
        sheet.text(
            frame.left, frame.baseline(top), facts.issuer.name, frame.bold, frame.size, within=frame.width, pointer=frame.pointer("issuer")
        )
        if facts.number:
            print_pair(
                sheet, frame, frame.left, top + frame.pitch, Item(frame.label(key), facts.number, frame.pointer("number")), frame.width
            )
        sheet.line(frame.left, top + 2 * frame.pitch + 3, frame.right, top + 2 * frame.pitch + 3, RULE)

    return Block(2 * frame.pitch + 6, draw)
