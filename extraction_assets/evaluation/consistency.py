"""Do an answer's amounts add up? Needs no label: rows = net, net + tax = total.

Which field plays which part is read from `"x-role"` in the schema (net, tax, total; row_amount on a column), else from the usual names.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from extraction_assets.evaluation.normalise import normalise
from extraction_assets.evaluation.rows import value_at
from extraction_assets.schema import Leaf, TargetSchema

_NAMES = {
    "net": {"net_total", "subtotal", "sub_total", "net_amount", "total_net"},
    "tax": {"tax_total", "total_tax", "vat_total", "tax_amount", "vat_amount"},
    "total": {"grand_total", "gross_total", "total_gross", "total_amount"},
    "row_amount": {"amount", "line_total", "line_amount", "net_amount"},
}
_CENT = Decimal("0.01")


@dataclass(frozen=True)
class AmountRoles:
    """The fields whose sums are checked; None where a schema has no such field."""

    net: Leaf | None
    tax: Leaf | None
    total: Leaf | None
    rows: tuple[str, ...] | None
    """path of the array whose amounts add up to net"""
    row_amount: Leaf | None


def amount_roles(schema: TargetSchema) -> AmountRoles:
    """Find the roles; a role that two fields claim by name goes to the first in target order."""
    found: dict[str, Leaf] = {}
    for leaf in schema.fields:
        role = _role(schema.document, leaf)
        if role in ("net", "tax", "total"):
            found.setdefault(role, leaf)
    for array in schema.row_arrays:
        node = schema.document
        for key in array.path:
            node = node["properties"][key]
        for column in array.columns:
            if _role(node["items"], column) == "row_amount":
                return AmountRoles(found.get("net"), found.get("tax"), found.get("total"), array.path, column)
    return AmountRoles(found.get("net"), found.get("tax"), found.get("total"), None, None)


def amounts_consistent(value: Any, roles: AmountRoles, locale: str | None = None) -> bool | None:
    """True if every sum that can be checked holds (within a cent per term), None if none can: amounts absent or unreadable."""
    net, tax, total = (_decimal(value, leaf, locale) for leaf in (roles.net, roles.tax, roles.total))
    holds = []
    if net is not None and tax is not None and total is not None:
        holds.append(abs(net + tax - total) <= _CENT)
    rows = value_at(value, roles.rows) if roles.rows else None
    if net is not None and isinstance(rows, list) and rows:
        amounts = [_decimal(row, roles.row_amount, locale) for row in rows]
        read = [amount for amount in amounts if amount is not None]
        if len(read) == len(amounts):
            holds.append(abs(sum(read, Decimal(0)) - net) <= _CENT * max(1, len(read) // 2))
    return all(holds) if holds else None


def _decimal(value: Any, leaf: Leaf | None, locale: str | None) -> Decimal | None:
    spelled = normalise(value_at(value, leaf.path), "amount", locale) if leaf else None
    digits = (spelled or "").lstrip("-").replace(".", "", 1)
    return Decimal(spelled) if spelled and len(digits) <= 25 and digits.isascii() and digits.isdigit() else None


def _role(schema: dict[str, Any], leaf: Leaf) -> str | None:
    node = schema
    for key in leaf.path:
        node = node["properties"][key]
    if "x-role" in node:
        return str(node["x-role"])
    if leaf.type != "amount":
        return None
    kinds = ("net", "tax", "total") if schema.get("x-role") is None else ()
    name = leaf.path[-1].casefold()
    for role in (*kinds, "row_amount"):
        if name in _NAMES[role]:
            return role
    return None
