"""Promises on real documents: hybrid e-invoices and advertising orders with human labels. Needs EXTRACTION_REALDATA."""

import json
import os
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pymupdf
import pytest

from extraction_assets.dataset.page_targets import build_page_targets
from extraction_assets.documents.records import Label, VendorLabels, VendorPages
from extraction_assets.schema import TargetSchema
from extraction_assets.settings import TargetSettings
from extraction_assets.store import Store, digest_file
from extraction_assets_tests.dataset.paper import pdf_page

REAL = os.environ.get("EXTRACTION_REALDATA")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not REAL, reason="EXTRACTION_REALDATA does not point at the real documents")]
SCHEMAS = Path(__file__).parents[2] / "schemas"


def read(folder: str, store: Store) -> tuple[Counter[str], Counter[str], list[tuple[set[str], set[str]]]]:
    """(values asked for by field, values unplaced by field, per document: header values we miss and those the set's own check misses)"""
    root = Path(REAL or "") / "open"
    asked: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    compared = []
    for line in (root / "manifest.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if not entry["file"].startswith(folder) or not entry["label"]:
            continue
        digest, value = digest_file(root / entry["file"]), json.loads((root / entry["label"]).read_text())
        label = Label(document=digest, label=value, origin="file", file=entry["label"])
        images = [pdf_page(page, digest, number, store) for number, page in enumerate(pymupdf.open(root / entry["file"]), start=1)]
        targets = build_page_targets(
            VendorLabels(type=entry["type"], vendor="v", labels=(label,)),
            VendorPages(type=entry["type"], vendor="v", pages=tuple(images)),
            TargetSchema.load(SCHEMAS / f"{entry['type']}.schema.json"),
            TargetSettings(),
            store,
        )
        asked.update(_fields(value))
        missed.update("/".join(part for part in found.pointer.split("/")[1:] if not part.isdigit()) for found in targets.unplaced)
        header = {found.pointer[1:] for found in targets.unplaced if found.pointer.count("/") == 1}
        compared.append((header, set(entry.get("header_values_not_on_page", ()))))
    return asked, missed, compared


def _fields(value: dict[str, Any]) -> list[str]:
    found = [key for key, item in value.items() if item is not None and not isinstance(item, list)]
    for key, rows in value.items():
        if isinstance(rows, list):
            found += [key] * len(rows) + [f"{key}/{column}" for row in rows for column, cell in row.items() if cell is not None]
    return found


def test_nearly_every_value_of_real_e_invoices_is_placed_and_the_rest_is_truly_not_there(store: Store) -> None:
    asked, missed, compared = read("hybrid_einvoice", store)
    share = {field: 1 - missed[field] / number for field, number in asked.items()}
    # 7 % of dates, 10 % of due dates, 3-4 % of numbers and totals of this kind are not on the page
    assert min(share[field] for field in ("seller_name", "buyer_name", "net_total", "grand_total", "invoice_number")) >= 0.9
    assert share["line_items"] >= 0.98
    assert min(share[f"line_items/{column}"] for column in ("description", "quantity", "unit_price", "amount")) >= 0.9
    differ = sum(len(ours ^ theirs) for ours, theirs in compared)
    assert differ <= 0.02 * sum(number for field, number in asked.items() if "/" not in field), "against the set's own look at the text"


def test_nearly_every_value_of_real_orders_is_placed(store: Store) -> None:
    asked, missed, _ = read("adbuy_deepform", store)
    assert min(1 - missed[field] / number for field, number in asked.items()) >= 0.94


def test_pages_share_no_value_by_accident(store: Store) -> None:
    """A label of another order must hardly ever fit: the matcher is tolerant to spelling, not to substance."""
    root = Path(REAL or "") / "open"
    labels = {path: json.loads(path.read_text()) for path in sorted((root / "adbuy_deepform").glob("*.json"))[:40]}
    paths = list(labels)
    asked: Counter[str] = Counter()
    fits: dict[str, int] = defaultdict(int)
    for index, path in enumerate(paths):
        wrong = {key: value for key, value in labels[paths[(index + 1) % len(paths)]].items() if value != labels[path].get(key)}
        digest = digest_file(path.with_suffix(".pdf"))
        images = [pdf_page(page, digest, number, store) for number, page in enumerate(pymupdf.open(path.with_suffix(".pdf")), start=1)]
        targets = build_page_targets(
            VendorLabels(type="ad_order", vendor="v", labels=(Label(document=digest, label=wrong, origin="file", file=path.name),)),
            VendorPages(type="ad_order", vendor="v", pages=tuple(images)),
            TargetSchema.load(SCHEMAS / "ad_order.schema.json"),
            TargetSettings(),
            store,
        )
        asked.update(list(wrong))
        unplaced = {found.pointer[1:] for found in targets.unplaced}
        for key in set(wrong) - unplaced:
            fits[key] += 1
    assert fits["contract_num"] == 0
    assert fits["gross_amount"] <= 0.1 * asked["gross_amount"], "round sums are printed on other orders too"
    assert fits["advertiser"] <= 0.1 * asked["advertiser"], "the same candidate may well be named"
