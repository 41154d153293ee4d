"""The example index: one table of every page target and hard negative of every vendor, by digest.

An example is (image, target, instruction). Equal ones, which come from byte-different copies of one page, are one row: the row
of the first vendor, document and page in sorted order, and it names its copies.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from extraction_assets.dataset.records import CLEAN, IndexRow, VendorNegatives, VendorTargets
from extraction_assets.errors import InputError
from extraction_assets.store import Store, canonical_json, digest_of


def example_id(image: str, target: str, instruction: str) -> str:
    """First 32 hex characters of the digest of (image, target, instruction)."""
    return digest_of([image, target, instruction])[:32]


def build_index(targets: Iterable[VendorTargets], negatives: Iterable[VendorNegatives]) -> list[IndexRow]:
    """All examples, sorted by (type, vendor, document, page, stratum), ids unique. Both inputs are walked once, one vendor at a time.

    Raises InputError where a negative's clean page is not among the targets: one of the two is out of date.
    """
    best: dict[str, IndexRow] = {}
    clean: dict[tuple[str, str, str], str] = {}  # (vendor, document, image) -> id of the clean example
    for vendor_targets in targets:
        vendor = f"{vendor_targets.type}/{vendor_targets.vendor}"
        for target in vendor_targets.targets:
            example = example_id(target.image, target.target, vendor_targets.instruction)
            clean[vendor, target.document, target.image] = example
            _keep(
                best,
                IndexRow(
                    id=example,
                    type=vendor_targets.type,
                    vendor=vendor,
                    document=target.document,
                    page=target.page,
                    stratum=CLEAN,
                    twin=None,
                    image=target.image,
                    width=target.width,
                    height=target.height,
                    dpi=target.dpi,
                    schema_digest=vendor_targets.schema_digest,
                    instruction=vendor_targets.instruction,
                    target=target.target,
                    text=target.text,
                ),
            )
    for vendor_negatives in negatives:
        vendor = f"{vendor_negatives.type}/{vendor_negatives.vendor}"
        for negative in vendor_negatives.negatives:
            twin = clean.get((vendor, negative.document, negative.twin))
            if twin is None:
                found = f"{negative.kind} of page {negative.page} of {negative.document} has no clean page in page_targets[{vendor}]"
                raise InputError(f"hard_negatives[{vendor}]", found, do="Run update again")
            _keep(
                best,
                IndexRow(
                    id=example_id(negative.image, negative.target, vendor_negatives.instruction),
                    type=vendor_negatives.type,
                    vendor=vendor,
                    document=negative.document,
                    page=negative.page,
                    stratum=negative.kind,
                    twin=twin,
                    image=negative.image,
                    width=negative.width,
                    height=negative.height,
                    dpi=negative.dpi,
                    schema_digest=vendor_negatives.schema_digest,
                    instruction=vendor_negatives.instruction,
                    target=negative.target,
                    text=None,
                ),
            )
    return sorted(best.values(), key=_order)


def _order(row: IndexRow) -> tuple[str, str, str, int, str, str]:
    return row.type, row.vendor, row.document, row.page, row.stratum, row.id


def _keep(best: dict[str, IndexRow], row: IndexRow) -> None:
    known = best.get(row.id)
    if known is None:
        best[row.id] = row
        return
    first, other = (row, known) if _order(row) < _order(known) else (known, row)
    copies = {*known.copies, *row.copies, (other.vendor, other.document, other.page)} - {(first.vendor, first.document, first.page)}
    best[row.id] = first.model_copy(update={"copies": tuple(sorted(copies))})


def contradictions(rows: Iterable[IndexRow]) -> list[tuple[IndexRow, IndexRow]]:
    """Pairs of clean examples that ask the same question of the same picture and teach different answers."""
    first: dict[tuple[str, str], IndexRow] = {}
    pairs = []
    for row in rows:
        if row.stratum == CLEAN and (known := first.setdefault((row.image, row.instruction), row)).target != row.target:
            pairs.append((known, row))
    return pairs


def holds_values(target: str) -> bool:
    """Whether a spelled target says anything: some value is not null."""
    return bool(leaves(json.loads(target)))


def leaves(target: Any) -> list[Any]:
    """Values of a parsed target that are not null."""
    if isinstance(target, dict | list):
        return [leaf for item in (target.values() if isinstance(target, dict) else target) for leaf in leaves(item)]
    return [] if target is None else [target]


def per_document(row: IndexRow) -> list[IndexRow]:
    """The row once for every document that holds it, its own first."""
    copies = (row.model_copy(update={"vendor": v, "document": d, "page": p, "copies": ()}) for v, d, p in row.copies)
    return [row, *copies]


def write_index(rows: Iterable[IndexRow], store: Store) -> str:
    """Store the table as JSONL, one canonical line a row; returns its digest."""
    return store.put_bytes("".join(f"{canonical_json(row.model_dump(mode='json'))}\n" for row in rows).encode(), ".jsonl")


def read_index(digest: str, store: Store) -> list[IndexRow]:
    """The table back. Instructions and schema digests, the same for many rows, are kept once in memory."""
    seen: dict[str, str] = {}
    rows = []
    for line in store.read_bytes(digest, ".jsonl").splitlines():
        values = json.loads(line)
        for key in ("instruction", "schema_digest", "type", "vendor", "document"):
            values[key] = seen.setdefault(values[key], values[key])
        rows.append(IndexRow.model_validate(values))
    return rows
