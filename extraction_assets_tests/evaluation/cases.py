"""A small invoice, its schema, and JSON values of every kind to throw at the scorer."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

from extraction_assets.schema import TargetSchema

HEADER = {
    "invoice_number": "id",
    "invoice_date": "date",
    "due_date": "date",
    "seller_name": "text",
    "buyer_name": "text",
    "currency": "code",
    "net_total": "amount",
    "tax_total": "amount",
    "grand_total": "amount",
}
COLUMNS = {"description": "text", "quantity": "number", "unit_price": "amount", "amount": "amount"}


def leaf(type: str) -> dict[str, Any]:
    return {"type": ["string", "null"], "x-type": type, "maxLength": 200}


def obj(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties, "required": list(properties)}


def rows_of(columns: dict[str, str]) -> dict[str, Any]:
    return {"type": "array", "maxItems": 60, "items": obj({name: leaf(type) for name, type in columns.items()})}


INVOICE = TargetSchema(obj({**{name: leaf(type) for name, type in HEADER.items()}, "line_items": rows_of(COLUMNS)}), "invoice")
NESTED = TargetSchema(
    obj(
        {
            "seller": obj({"name": leaf("text"), "address": obj({"city": leaf("text"), "zip": leaf("id")})}),
            "tags": {"type": "array", "items": {"type": "string"}, "x-type": "text"},
            "goods": rows_of({"name": "text", "amount": "amount"}),
            "taxes": rows_of({"rate": "number", "amount": "amount"}),
        }
    ),
    "nested",
)

GOLD: dict[str, Any] = {
    "invoice_number": "R-00417",
    "invoice_date": "2023-02-01",
    "due_date": None,
    "seller_name": "Müller & Söhne KG",
    "buyer_name": "Northwind Traders",
    "currency": "EUR",
    "net_total": "2400.50",
    "tax_total": "456.10",
    "grand_total": "2856.60",
    "line_items": [
        {"description": "Pump", "quantity": "2", "unit_price": "1000.00", "amount": "2000.00"},
        {"description": "Seal kit", "quantity": "4", "unit_price": "75.00", "amount": "300.00"},
        {"description": "Freight", "quantity": "1", "unit_price": "100.50", "amount": "100.50"},
    ],
}


def gold(**changes: Any) -> dict[str, Any]:
    return copy.deepcopy(GOLD) | changes


def with_rows(change: Any) -> dict[str, Any]:
    """GOLD after `change(rows)` has edited its rows in place."""
    value = copy.deepcopy(GOLD)
    change(value["line_items"])
    return value


PRINTED = st.sampled_from(
    [
        "",
        " ",
        "null",
        "0",
        "-0",
        "1,190",
        "1.190,00",
        "(5.00)",
        "5,-",
        "€ 12.50",
        "12.50 EUR",
        "05/03/2024",
        "25.12.2023",
        "3 März 2024",
        "١٢٣",
        "NaN",
        "é",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | PRINTED,
    lambda child: (
        st.lists(child, max_size=4)
        | st.dictionaries(st.text(max_size=5) | st.sampled_from([*HEADER, "line_items", *COLUMNS]), child, max_size=5)
    ),
    max_leaves=12,
)
_CELL = st.none() | PRINTED | st.sampled_from(["a", "b", "1", "2", "3.50"])
ROW = st.fixed_dictionaries(dict.fromkeys(COLUMNS, _CELL))
TARGET = st.fixed_dictionaries({**dict.fromkeys(HEADER, _CELL), "line_items": st.lists(ROW, max_size=5)})
"""targets of INVOICE with many coinciding values"""
