"""Splits: train, val and test by document, stratified by vendor, stable for life.

Rules, in this order
  1. Documents of held-out vendors are in test, whatever else holds. They count in no quota and are not written to the ledger.
  2. A document in the ledger keeps its split. Adding, removing and adding again moves nobody.
  3. A new document joins the split of its twins (same group, or a page picture that the ledger knows). A new twin of a held-out
     vendor's document goes to test.
  4. A new document whose twins sit in two splits is left out and reported. If twins that are both assigned sit in two splits
     (a corrected label can reveal that, or a vendor that is held out later), nobody moves: the ones outside test, then outside
     val, are left out.
  5. The other new groups go, the largest first, where most is missing: the shortfall of each split among all documents plus
     the shortfall among the vendor's. So every vendor is spread, and vendors with few documents fill val and test in turn.
  6. With three groups or more, val and test are not empty (where their share is not 0): the last groups go there if need be.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from extraction_assets.dataset.index import holds_values, per_document
from extraction_assets.dataset.ledger import LedgerEntry, SplitLedger
from extraction_assets.dataset.records import CLEAN, SPLITS, IndexRow, Split
from extraction_assets.dataset.twins import TwinGroups
from extraction_assets.settings import SplitSettings

_STRICTEST: tuple[Split, ...] = ("test", "val", "train")
"""of documents that may not stand in two splits, those of the first of these stay"""


@dataclass(frozen=True, order=True)
class SplitDocument:
    """One document as the assignment sees it."""

    document: str
    vendors: tuple[str, ...]
    """type/vendor, sorted; more than one where the same file lies in several folders"""
    images: tuple[str, ...] = ()
    """digests of its clean page images that show at least one value"""
    pages: tuple[str, ...] = ()
    """digests of all its clean page images"""

    @property
    def vendor(self) -> str:
        return self.vendors[0]

    def is_held_out(self, held_out: set[str]) -> bool:
        return not held_out.isdisjoint(self.vendors)


@dataclass(frozen=True, order=True)
class LeftOut:
    """A document that is in no split."""

    document: str
    vendor: str
    reason: str


@dataclass(frozen=True)
class Assignment:
    """Who is where. Documents that are neither in `splits` nor in `left_out` were not asked about."""

    splits: Mapping[str, Split]
    left_out: tuple[LeftOut, ...] = ()
    picture_split: Mapping[str, Split] = field(default_factory=dict)
    """page image -> its split for life; a page that documents of several splits share (terms) stands in this one only"""
    unknown_held_out: tuple[str, ...] = ()
    """held-out vendors of the settings that have no document (a misspelt name?)"""
    groups: TwinGroups = field(default_factory=lambda: TwinGroups({}, ()))
    """twin groups of the documents that are in a split"""

    def documents(self, split: Split) -> list[str]:
        return sorted(document for document, its in self.splits.items() if its == split)


def split_documents(rows: Iterable[IndexRow]) -> list[SplitDocument]:
    """The documents of an index, copies included, sorted by digest."""
    vendors: dict[str, set[str]] = defaultdict(set)
    images: dict[str, set[str]] = defaultdict(set)
    pages: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        telling = row.stratum == CLEAN and holds_values(row.target)
        for vendor, document in [(row.vendor, row.document), *((vendor, document) for vendor, document, _ in row.copies)]:
            vendors[document].add(vendor)
            if row.stratum == CLEAN:
                pages[document].add(row.image)
            if telling:
                images[document].add(row.image)
    return [SplitDocument(d, tuple(sorted(vendors[d])), tuple(sorted(images[d])), tuple(sorted(pages[d]))) for d in sorted(vendors)]


def assign_splits(documents: Sequence[SplitDocument], twins: TwinGroups, settings: SplitSettings, ledger: SplitLedger) -> Assignment:
    """Assign every document by the rules above, and write the new ones to the ledger before answering.

    Deterministic in the set of documents and the ledger's content; the order of `documents` means nothing.
    """
    by_digest = {document.document: document for document in documents}
    held_out = set(settings.held_out_vendors)
    fixed = _fixed(by_digest, ledger, held_out)
    members: dict[str, list[SplitDocument]] = defaultdict(list)
    for document in sorted(by_digest.values()):
        members[twins.group.get(document.document, document.document)].append(document)
    splits: dict[str, Split] = {}
    left_out: list[LeftOut] = []
    new: list[list[SplitDocument]] = []
    known_images = ledger.split_of_image()
    for group in sorted(members):
        told = {fixed[d.document] for d in members[group] if d.document in fixed}
        told |= {known_images[image] for d in members[group] if d.document not in fixed for image in d.images if image in known_images}
        fresh = [document for document in members[group] if document.document not in fixed]
        splits |= {d.document: fixed[d.document] for d in members[group] if d.document in fixed}
        if len(told) > 1:
            where = " and ".join(split for split in SPLITS if split in told)
            left_out += [LeftOut(d.document, d.vendor, f"its twins are in {where}") for d in fresh]
        elif told:
            splits |= dict.fromkeys((d.document for d in fresh), *told)
        elif fresh:
            new.append(fresh)
    splits |= _assign_new(new, by_digest, splits, settings, held_out)
    recorded = [d for d in by_digest.values() if d.document in splits and not d.is_held_out(held_out)]
    # before conflicts are settled: the ledger says where a document belongs even while a twin keeps it out
    ledger.record(LedgerEntry(d.document, splits[d.document], d.vendor, d.pages) for d in recorded)
    left_out += _settle_conflicts(splits, by_digest, twins.without(out.document for out in left_out))
    for out in left_out:
        splits.pop(out.document, None)
    return Assignment(
        splits=dict(sorted(splits.items())),
        left_out=tuple(sorted(left_out)),
        picture_split=ledger.split_of_image(),
        unknown_held_out=tuple(sorted(held_out - {vendor for document in documents for vendor in document.vendors})),
        groups=twins.without(document for document in twins.group if document not in splits),
    )


def split_rows(rows: Iterable[IndexRow], assignment: Assignment) -> dict[Split, list[IndexRow]]:
    """The rows of each split, in the order of the index. Negatives go with their document and their clean page.

    A row that several documents hold is told as the first of them that is in the picture's split.
    """
    table = list(rows)
    split_of: dict[str, Split] = {}
    told: dict[str, IndexRow] = {}
    for row in sorted(table, key=lambda row: row.stratum != CLEAN):
        wanted = assignment.picture_split.get(row.image) if row.stratum == CLEAN else split_of.get(row.twin or "")
        if row.stratum != CLEAN and wanted is None:
            continue
        for candidate in per_document(row):
            split = assignment.splits.get(candidate.document)
            if split is not None and wanted in (None, split):
                split_of[row.id], told[row.id] = split, candidate
                break
    chosen: dict[Split, list[IndexRow]] = {split: [] for split in SPLITS}
    for row in table:
        if row.id in told:
            chosen[split_of[row.id]].append(told[row.id])
    return chosen


def _fixed(by_digest: Mapping[str, SplitDocument], ledger: SplitLedger, held_out: set[str]) -> dict[str, Split]:
    """Documents whose split is already said: by a held-out vendor (rule 1) or by the ledger (rule 2)."""
    fixed: dict[str, Split] = {}
    for document in by_digest.values():
        if document.is_held_out(held_out):
            fixed[document.document] = "test"
        elif document.document in ledger.entries:
            fixed[document.document] = ledger.entries[document.document].split
    return fixed


def _assign_new(
    groups: list[list[SplitDocument]],
    by_digest: Mapping[str, SplitDocument],
    assigned: Mapping[str, Split],
    settings: SplitSettings,
    held_out: set[str],
) -> dict[str, Split]:
    shares: dict[Split, float] = {"train": settings.train, "val": settings.val, "test": settings.test}
    everywhere: Counter[Split] = Counter()
    at_vendor: dict[str, Counter[Split]] = defaultdict(Counter)
    present = Counter(assigned.values())
    for document, split in assigned.items():
        if not by_digest[document].is_held_out(held_out):
            everywhere[split] += 1
            at_vendor[by_digest[document].vendor][split] += 1
    chosen: dict[str, Split] = {}
    queue = sorted(groups, key=lambda group: (-len(group), _lot(settings.seed, group[0].vendor), _lot(settings.seed, group[0].document)))
    for place, group in enumerate(queue):
        vendors = Counter(document.vendor for document in group)
        left = len(queue) - place
        empty: list[Split] = [split for split in _STRICTEST if shares[split] > 0 and not present[split]]
        if "train" not in empty and len(empty) >= left:
            split = empty[0]  # rule 6: what is left must fill what is empty
        else:
            split = max(
                SPLITS, key=lambda s: (_shortfall(s, len(group), shares, everywhere, vendors, at_vendor), s == "train", s == "test")
            )
        for member in group:
            chosen[member.document] = split
            everywhere[split] += 1
            present[split] += 1
            at_vendor[member.vendor][split] += 1
    return chosen


def _shortfall(
    split: Split,
    size: int,
    shares: Mapping[Split, float],
    everywhere: Counter[Split],
    vendors: Counter[str],
    at_vendor: Mapping[str, Counter[Split]],
) -> float:
    """Documents that this split lacks, among all plus among the group's vendors (weighted), once the group is counted in."""
    if shares[split] == 0:
        return float("-inf")
    overall = shares[split] * (everywhere.total() + size) - everywhere[split]
    local = sum(
        count / size * (shares[split] * (at_vendor[v].total() + count) - at_vendor[v][split]) for v, count in sorted(vendors.items())
    )
    return overall + local


def _settle_conflicts(splits: Mapping[str, Split], by_digest: Mapping[str, SplitDocument], twins: TwinGroups) -> list[LeftOut]:
    """Rule 4, second half: of assigned twins in two splits, those of the strictest split stay."""
    members: dict[str, list[str]] = defaultdict(list)
    for document in splits:
        members[twins.group.get(document, document)].append(document)
    out = []
    for group in sorted(members):
        present = {splits[document] for document in members[group]}
        if len(present) > 1:
            stays = next(split for split in _STRICTEST if split in present)
            reason = f"a twin of it is in {stays}"
            out += [LeftOut(d, by_digest[d].vendor, reason) for d in sorted(members[group]) if splits[d] != stays]
    return out


def _lot(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()
