"""A demo vendor: a template of its own (words, formats, typefaces, colours, two layouts) and what it trades, drawn from (seed, number)."""

from __future__ import annotations

import random
import unicodedata
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from extraction_assets.demo.vendors import names
from extraction_assets.demo.vendors.formats import DATE_FORMATS, NUMBER_FORMATS, CurrencyStyle, Formats
from extraction_assets.demo.vendors.logo import LOGO_KINDS
from extraction_assets.demo.vendors.names import Party
from extraction_assets.demo.vendors.sheet import Colour
from extraction_assets.demo.vendors.typefaces import FAMILIES, MONOSPACED
from extraction_assets.demo.vendors.words import WORDS

DocumentType = Literal["invoice", "receipt", "purchase_order"]
TYPES: tuple[DocumentType, ...] = ("invoice", "receipt", "purchase_order")
PageSize = Literal["small", "a4"]

HEADS = ("left", "right", "centred", "split", "boxed", "band")
METAS = ("list", "tabs", "grid", "beside", "inline")
TABLES = ("ruled", "grid", "zebra", "plain", "dark_head")
TOTALS = ("right", "wide", "boxed", "band")
FOOTS = ("line", "columns", "none")
PALETTE: tuple[Colour, ...] = (
    (0.10, 0.22, 0.45),
    (0.55, 0.10, 0.14),
    (0.05, 0.36, 0.24),
    (0.35, 0.16, 0.42),
    (0.15, 0.15, 0.17),
    (0.05, 0.35, 0.42),
    (0.48, 0.25, 0.05),
)
"""Accents dark enough to be read on white, and to carry white"""

_CURRENCIES = {
    "en": ("USD", "GBP", "EUR"),
    "de": ("EUR", "EUR", "CHF"),
    "fr": ("EUR", "EUR", "CHF"),
    "es": ("EUR",),
    "it": ("EUR", "EUR", "CHF"),
    "nl": ("EUR",),
}
_TAX_RATES: dict[str, tuple[str, ...]] = {
    "USD": ("6", "7.5", "8.25"),
    "GBP": ("20", "5"),
    "CHF": ("8.1", "2.6"),
    "de": ("19", "7"),
    "fr": ("20", "10", "5.5"),
    "es": ("21", "10"),
    "it": ("22", "10"),
    "nl": ("21", "9"),
    "en": ("23", "13.5"),
}
"""By currency outside the euro, else by language"""

Column = Literal["pos", "sku", "item", "qty", "price", "amount"]


@dataclass(frozen=True)
class Layout:
    """One arrangement of a vendor's page."""

    head: str
    """one of HEADS"""
    logo_right: bool
    title_first: bool
    """the title stands over the vendor's name, not under it"""
    meta: str
    """one of METAS"""
    table: str
    """one of TABLES"""
    columns: tuple[Column, ...]
    totals: str
    """one of TOTALS"""
    foot: str
    """one of FOOTS"""
    logo: bool
    buyer_caption: bool
    """the buyer's address has a caption"""
    title_size: float
    """pt, the largest type on the page"""
    row_gap: float
    """pt between the lines of two rows"""


@dataclass(frozen=True)
class Good:
    """Something in a vendor's catalogue."""

    sku: str
    name: str
    price: Decimal


@dataclass(frozen=True)
class Vendor:
    """Everything that a vendor's documents share."""

    seed: int
    number: int
    """1 is the first"""
    type: DocumentType
    language: str
    party: Party
    words: dict[str, str]
    """label key -> the synonym this vendor prints"""
    formats: Formats
    family: str
    """one of FAMILIES: body"""
    title_family: str
    size: float
    """pt of the body"""
    leading: float
    """line pitch as a multiple of the size"""
    accent: Colour
    colon: str
    """what follows a label: ":" or nothing"""
    upper: bool
    """captions and the title in capitals"""
    logo: str
    tax_rate: Decimal
    tax_included: bool
    """receipts: prices hold the tax already"""
    price_step: Decimal
    """prices are multiples of it"""
    halves: bool
    """sells services by the hour, half hours too"""
    goods: tuple[Good, ...]
    buyers: tuple[Party, ...]
    contacts: tuple[str, ...]
    number_pattern: str
    """{y} year, {yy} its last two digits, {n} running number"""
    first_number: int
    contact_line: str
    tax_line: str
    thanks: str
    layouts: tuple[Layout, Layout]

    @property
    def folder(self) -> str:
        """Name of the vendor's folder: equal for every seed, so that settings can hold out a vendor by name."""
        return f"vendor-{self.number:02d}"


def draw_vendor(
    chance: random.Random, seed: int, number: int, kind: DocumentType, language: str, page: PageSize, attempt: int = 0
) -> Vendor:
    """A vendor from its own chance. A later attempt draws smaller type and shorter columns, for what did not fit."""
    shop = kind == "receipt"
    currency = chance.choice(_CURRENCIES[language])
    family = _draw_family(chance, shop, attempt)
    name = names.invent_shop(chance, language) if shop else names.invent_company(chance, language)
    party = names.invent_party(chance, language, name, currency)
    words = {key: chance.choice(synonyms) for key, synonyms in WORDS[language].items()}
    if currency == "USD":
        words["tax"] = words["sales_tax"]
    formats = _draw_formats(chance, language, currency)
    host = party.name.split()[-1 if shop and language != "en" else 0].lower()
    halves = kind == "invoice" and chance.random() < 0.3
    step = Decimal("0.10") if halves else Decimal(chance.choice(("0.01", "0.01", "0.05")))
    size = chance.choice((9.0, 9.0, 9.5, 10.0)) if page == "small" else chance.choice((9.0, 10.0, 11.0))
    return Vendor(
        seed=seed,
        number=number,
        type=kind,
        language=language,
        party=party,
        words=words,
        formats=formats,
        family=family,
        title_family=chance.choice((family, family, "helvetica", "times", "noto", "fira", "ubuntu")),
        size=size if attempt < 4 else 9.0,
        leading=chance.choice((1.22, 1.28, 1.35)),
        accent=chance.choice(PALETTE),
        colon=chance.choice((":", ":", "")),
        upper=chance.random() < 0.3,
        logo=chance.choice(LOGO_KINDS),
        tax_rate=Decimal(chance.choice(_TAX_RATES.get(currency) or _TAX_RATES[language])),
        tax_included=currency != "USD",
        price_step=step,
        halves=halves,
        goods=_draw_goods(chance, language, "shop" if shop else "services" if halves else "goods", step),
        buyers=tuple(names.invent_party(chance, language, names.invent_company(chance, language), currency) for _ in range(14)),
        contacts=tuple(names.invent_person(chance, language) for _ in range(8)),
        number_pattern=_draw_number_pattern(chance, kind),
        first_number=chance.randint(11, 8000),
        contact_line=chance.choice((f"www.{_ascii(host)}.example", f"info@{_ascii(host)}.example", f"Tel. {_phone(chance)}")),
        tax_line=_tax_line(chance, language, currency),
        thanks=names.invent_thanks(chance, language),
        layouts=_draw_layouts(chance, kind, page, attempt),
    )


def _draw_family(chance: random.Random, shop: bool, attempt: int) -> str:
    families = [family for family in FAMILIES if family not in MONOSPACED]
    if shop and chance.random() < 0.6:
        families = list(MONOSPACED)
    elif attempt < 3 and chance.random() < 0.15:
        families = ["ubuntu-mono"]  # the narrowest of the monospaced ones: a table of four columns fits
    return chance.choice(families)


def _draw_formats(chance: random.Random, language: str, currency: str) -> Formats:
    thousands, decimal = chance.choice(NUMBER_FORMATS[language])
    swiss = ("'", ".")
    if currency == "CHF":
        thousands, decimal = swiss
    elif (thousands, decimal) == swiss:
        thousands, decimal = NUMBER_FORMATS[language][0]
    styles: tuple[CurrencyStyle, ...] = ("symbol_before", "symbol_after", "code_before", "code_after", "in_head")
    if language == "en" and currency in ("USD", "GBP"):
        styles = ("symbol_before", "symbol_before", "code_before", "code_after", "in_head")
    return Formats(
        language, chance.choice(DATE_FORMATS[language]), thousands, decimal, currency, chance.choice(styles), chance.random() < 0.6
    )


def _draw_goods(chance: random.Random, language: str, kind: Literal["goods", "shop", "services"], step: Decimal) -> tuple[Good, ...]:
    """A catalogue of up to 14 goods. Article numbers follow one pattern a vendor."""
    head = chance.choice(("", chance.choice("ABCHKMPT"), chance.choice(("AR-", "KX-", "P", "M."))))
    digits = chance.choice((4, 5))
    goods = []
    for name in names.invent_goods(chance, language, 14, kind):
        low, high = {"shop": (90, 1900), "goods": (120, 48000), "services": (1500, 14000)}[kind]
        price = (Decimal(round(low * (high / low) ** chance.random())) / 100).quantize(step)
        price -= price % step
        goods.append(Good(f"{head}{chance.randint(10 ** (digits - 1), 10**digits - 1)}", name, price))
    return tuple(goods)


def _draw_number_pattern(chance: random.Random, kind: DocumentType) -> str:
    prefix = {"invoice": ("RE", "INV", "F", "FA", "R"), "receipt": ("B", "T", "K", "Q"), "purchase_order": ("PO", "B", "C", "OR")}[kind]
    letters = chance.choice(prefix)
    patterns = ("{n:05d}", f"{letters}-{{y}}-{{n:04d}}", f"{letters}{{n:06d}}", "{y}/{n:04d}", f"{letters}{{yy}}-{{n:05d}}", "{n:04d}-{yy}")
    return chance.choice(patterns)


def _draw_layouts(chance: random.Random, kind: DocumentType, page: PageSize, attempt: int) -> tuple[Layout, Layout]:
    """Two layouts that differ in head, meta and table: drawn without replacement."""
    heads, metas, tables = (chance.sample(options, 2) for options in (HEADS, METAS, TABLES))
    totals = chance.sample(TOTALS, 2)
    layouts = [
        Layout(
            head=heads[i],
            logo_right=chance.random() < 0.4,
            title_first=chance.random() < 0.25,
            meta=metas[i],
            table=tables[i],
            columns=_draw_columns(chance, kind, page, attempt),
            totals=totals[i],
            foot=chance.choice(FOOTS),
            logo=chance.random() < 0.8,
            buyer_caption=chance.random() < 0.6,
            title_size=chance.choice((11.0, 12.0, 13.0)) if page == "small" else chance.choice((13.0, 15.0, 18.0)),
            row_gap=chance.choice((2.0, 3.0, 4.0)) if page == "small" else chance.choice((3.0, 6.0, 9.0)),
        )
        for i in range(2)
    ]
    return layouts[0], layouts[1]


def _draw_columns(chance: random.Random, kind: DocumentType, page: PageSize, attempt: int) -> tuple[Column, ...]:
    options: tuple[tuple[Column, ...], ...]
    if kind == "receipt":
        options = (("qty", "item", "amount"), ("item", "qty", "amount"))
    elif kind == "purchase_order":
        options = (("sku", "item", "qty", "amount"), ("qty", "sku", "item", "amount"), ("item", "sku", "qty", "amount"))
        if page == "a4":
            options = (*options, ("pos", "sku", "item", "qty", "price", "amount"))
    else:
        options = (("item", "qty", "amount"), ("qty", "item", "amount"))
        if attempt < 2 or page == "a4":
            options = (*options, ("item", "qty", "price", "amount"), ("pos", "item", "qty", "amount"))
    return chance.choice(options)


def _tax_line(chance: random.Random, language: str, currency: str) -> str:
    digits = "".join(str(chance.randint(0, 9)) for _ in range(9))
    if currency in ("USD", "CHF"):
        return f"EIN {digits[:2]}-{digits[2:]}" if currency == "USD" else f"CHE-{digits[:3]}.{digits[3:6]}.{digits[6:]}"
    word, prefix = {
        "en": ("VAT reg.", "GB" if currency == "GBP" else "IE"),
        "de": ("USt-IdNr.", "DE"),
        "fr": ("N° TVA", "FR"),
        "es": ("NIF", "B"),
        "it": ("P. IVA", "IT"),
        "nl": ("btw-nr.", "NL"),
    }[language]
    return f"{word} {prefix}{digits}"


def _phone(chance: random.Random) -> str:
    return f"0{chance.randint(20, 899)} {chance.randint(100000, 999999)}"


def _ascii(text: str) -> str:
    folded = unicodedata.normalize("NFKD", text.replace("ß", "ss"))
    return "".join(char for char in folded if char.isascii() and char.isalnum()) or "firm"
