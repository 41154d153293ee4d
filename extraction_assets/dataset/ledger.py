"""The split ledger: who was assigned to which split, for life. JSONL in the home's store, one line a document.

One file for each set of assignment settings (seed, shares, near-duplicate threshold), named by their digest. Meaning is
append-only: a line, once written, never changes its split. The file is sorted and rewritten whole, atomically.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from upath import UPath

from extraction_assets.dataset.records import SPLITS, Split
from extraction_assets.errors import InputError
from extraction_assets.settings import SplitSettings
from extraction_assets.store import canonical_json, digest_of, write_atomically


@dataclass(frozen=True)
class LedgerEntry:
    """One document's place for life."""

    document: str
    split: Split
    vendor: str
    images: tuple[str, ...] = ()
    """digests of the clean page images that it brought first: a copy under another document digest is recognised even if this one
    has left the home, and a page that many documents share (terms) stays in one split"""


class SplitLedger:
    """The ledger of one home under one set of assignment settings."""

    def __init__(self, folder: Path | UPath, settings: SplitSettings) -> None:
        """Reads the ledger if there is one. Raises InputError naming file and line where it is damaged."""
        self.path = folder / f"{assignment_digest(settings)}.jsonl"
        self.entries: dict[str, LedgerEntry] = {}
        if not self.path.exists():
            return
        for number, line in enumerate(self.path.read_bytes().splitlines(), start=1):
            entry = _parse(line)
            if entry is None or entry.document in self.entries:
                what = "is no ledger line" if entry is None else f"names document {entry.document} for the second time"
                do = "Restore the file from a backup; without it, documents may change their split"
                raise InputError(f"{self.path}:{number}", what, '{"document", "images", "split", "vendor"}', do)
            self.entries[entry.document] = entry

    def split_of_image(self) -> dict[str, Split]:
        """Page image -> the split of the document that brought it first."""
        return {image: entry.split for entry in self.entries.values() for image in entry.images}

    def record(self, entries: Iterable[LedgerEntry]) -> None:
        """Add documents and write the file. A known document keeps its split, an image its first document."""
        before = dict(self.entries)
        owned = self.split_of_image().keys() | set()
        for entry in sorted(entries, key=lambda entry: entry.document):
            known = self.entries.get(entry.document)
            if known is not None and known.split != entry.split:
                raise ValueError(f"document {entry.document} is assigned to {known.split} for life, not {entry.split}")
            images = {*(known.images if known else ()), *(image for image in entry.images if image not in owned)}
            owned |= images
            vendor = known.vendor if known else entry.vendor
            self.entries[entry.document] = LedgerEntry(entry.document, entry.split, vendor, tuple(sorted(images)))
        if self.entries != before:
            lines = (
                canonical_json({"document": e.document, "images": list(e.images), "split": e.split, "vendor": e.vendor})
                for e in sorted(self.entries.values(), key=lambda e: e.document)
            )
            write_atomically(self.path, "".join(f"{line}\n" for line in lines).encode())


def assignment_digest(settings: SplitSettings) -> str:
    """Digest of the settings under which assignments hold for life. Held-out vendors are not among them: they only override."""
    return digest_of(settings.model_dump(mode="json", exclude={"held_out_vendors"}))


def _parse(line: bytes) -> LedgerEntry | None:
    try:
        value = json.loads(line)
        entry = LedgerEntry(value["document"], value["split"], value["vendor"], tuple(value["images"]))
    except (ValueError, KeyError, TypeError):
        return None
    texts = (entry.document, entry.vendor, *entry.images)
    return entry if entry.split in SPLITS and all(isinstance(text, str) for text in texts) else None
