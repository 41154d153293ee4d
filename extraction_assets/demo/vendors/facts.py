"""What one document says: numbers, dates, rows and totals that add up to the cent; and the label that says the same as JSON."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from extraction_assets.demo.vendors.formats import plain, plain_amount
from extraction_assets.demo.vendors.names import Party, ways_to_pay
from extraction_assets.demo.vendors.vendor import DocumentType, Good, Vendor

CENT = Decimal("0.01")
_FIRST_DAY = date(2022, 1, 3)
_DAYS = 1400

KEYS: dict[DocumentType, dict[str, str]] = {
    "invoice": {
        "issuer": "biller",
        "number": "bill_no",
        "day": "billed_on",
        "due": "pay_by",
        "currency": "cur",
        "net": "net",
        "tax": "vat",
        "gross": "payable",
        "item": "what",
        "qty": "qty",
        "amount": "amt",
    },
    "receipt": {
        "issuer": "shop",
        "number": "slip_no",
        "day": "bought_on",
        "currency": "cur",
        "tax": "vat",
        "gross": "paid",
        "item": "article",
        "qty": "count",
        "amount": "price",
    },
    "purchase_order": {
        "issuer": "orderer",
        "number": "po_no",
        "day": "ordered_on",
        "due": "ship_by",
        "contact": "contact",
        "currency": "cur",
        "gross": "worth",
        "sku": "sku",
        "item": "item",
        "qty": "units",
        "amount": "cost",
    },
}
"""What a page can show -> the field of the type's target schema (data/demo/schemas). What is not named here is printed, not asked for"""

ROW_KEYS = ("sku", "item", "qty", "amount")


@dataclass(frozen=True)
class Row:
    """One line item."""

    good: Good
    quantity: Decimal
    price: Decimal
    """this document's: prices move a little over time"""

    @property
    def amount(self) -> Decimal:
        """quantity x price; exact to the cent, because half quantities go with prices in whole ten cents."""
        return self.quantity * self.price


@dataclass(frozen=True)
class Facts:
    """The content of one document. None: not printed, so null in the label."""

    type: DocumentType
    layout: int
    """0 or 1: which of the vendor's layouts"""
    issuer: Party
    number: str | None
    day: date
    due: date | None
    contact: str | None
    buyer: Party
    customer_no: str
    rows: tuple[Row, ...]
    net: Decimal
    tax: Decimal | None
    gross: Decimal
    currency: str
    paid_by: str


PRICE_DRIFT = Decimal("1.08")
"""How far above its catalogue price a good may be sold"""


def quantity_limit(price: Decimal) -> int:
    """Most pieces of a good that one row orders: many cheap ones, few dear ones."""
    return 40 if price < 5 else 12 if price < 50 else 4


def draw_facts(chance: random.Random, vendor: Vendor, number: int, layout: int, row_count: int) -> Facts:
    """Document `number` (from 1) of a vendor, in its layout 0 or 1, with so many rows."""
    rows = tuple(_draw_row(chance, vendor, good) for good in _draw_goods(chance, vendor, row_count))
    net, tax, gross = add_up(tuple(row.amount for row in rows), vendor)
    day = _FIRST_DAY + timedelta(days=chance.randint(0, _DAYS))
    running = vendor.first_number + number * 3 + chance.randint(0, 2)
    optional = vendor.type != "receipt" and chance.random() < 0.75
    return Facts(
        type=vendor.type,
        layout=layout,
        issuer=vendor.party,
        number=None
        if vendor.type == "receipt" and chance.random() < 0.15
        else vendor.number_pattern.format(y=day.year, yy=f"{day.year % 100:02d}", n=running),
        day=day,
        due=day + timedelta(days=chance.choice((7, 10, 14, 21, 30, 45))) if optional else None,
        contact=chance.choice(vendor.contacts) if vendor.type == "purchase_order" and chance.random() < 0.75 else None,
        buyer=chance.choice(vendor.buyers),
        customer_no=str(chance.randint(10000, 99999)),
        rows=rows,
        net=net,
        tax=None
        if vendor.type == "purchase_order" or (vendor.type == "receipt" and vendor.tax_included and chance.random() < 0.25)
        else tax,
        gross=gross,
        currency=vendor.formats.currency,
        paid_by=chance.choice(ways_to_pay(vendor.language)),
    )


def add_up(amounts: tuple[Decimal, ...], vendor: Vendor) -> tuple[Decimal, Decimal, Decimal]:
    """(net, tax, gross) of these row amounts. Orders are net; a receipt's rows may hold the tax already."""
    total = sum(amounts, Decimal(0))
    if vendor.type == "purchase_order":
        return total, Decimal(0), total
    if vendor.type == "receipt" and vendor.tax_included:
        tax = (total * vendor.tax_rate / (100 + vendor.tax_rate)).quantize(CENT, ROUND_HALF_UP)
        return total - tax, tax, total
    tax = (total * vendor.tax_rate / 100).quantize(CENT, ROUND_HALF_UP)
    return total, tax, total + tax


def label_of(facts: Facts) -> dict[str, Any]:
    """The document's label in the canonical spelling of its target schema."""
    values = {
        "issuer": facts.issuer.name,
        "number": facts.number,
        "day": facts.day.isoformat(),
        "due": facts.due and facts.due.isoformat(),
        "contact": facts.contact,
        "currency": facts.currency,
        "net": plain_amount(facts.net),
        "tax": None if facts.tax is None else plain_amount(facts.tax),
        "gross": plain_amount(facts.gross),
    }
    keys = KEYS[facts.type]
    label: dict[str, Any] = {key: values[name] for name, key in keys.items() if name not in ROW_KEYS}
    label["rows"] = [{keys[name]: value for name, value in _row_values(row).items() if name in keys} for row in facts.rows]
    return label


def _row_values(row: Row) -> dict[str, str]:
    return {"sku": row.good.sku, "item": row.good.name, "qty": plain(row.quantity), "amount": plain_amount(row.amount)}


def _draw_goods(chance: random.Random, vendor: Vendor, count: int) -> list[Good]:
    """Distinct as long as the catalogue lasts."""
    goods: list[Good] = []
    while len(goods) < count:
        goods += chance.sample(vendor.goods, min(count - len(goods), len(vendor.goods)))
    return goods


def _draw_row(chance: random.Random, vendor: Vendor, good: Good) -> Row:
    price = good.price * Decimal(chance.choice((92, 95, 97, 100, 100, 103, 105, 108))) / 100
    price = max((price / vendor.price_step).to_integral_value(ROUND_HALF_UP), Decimal(1)) * vendor.price_step
    limit = quantity_limit(good.price)
    quantity = Decimal(chance.choice((1, 1, 1, 2, 2, 3)) if vendor.type == "receipt" else chance.randint(1, limit))
    if vendor.halves and chance.random() < 0.4:
        quantity -= Decimal("0.5")
    return Row(good, quantity, price)
