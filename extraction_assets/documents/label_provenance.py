"""Where a label in landing/ comes from, once a person has judged it: <stem>.provenance.json beside <stem>.json.

One file a document, one review an entry, the newest last; a review that replaced another label holds that label. A review is
written as pending before its label and among the others after it: one that is killed in between has happened if its label lies
there, else not. A label that is edited by hand afterwards has no review behind it; what is known of earlier ones stays.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from extraction_assets.documents.label_file import read_label
from extraction_assets.documents.records import Record, Review
from extraction_assets.errors import InputError
from extraction_assets.schema import TargetSchema
from extraction_assets.store import digest_of, write_atomically

LABEL_SUFFIX, PROVENANCE_SUFFIX = ".json", ".provenance.json"


class LabelHistory(Record):
    """The content of a provenance file."""

    document: str
    """SHA-256 of the document's bytes"""
    reviews: tuple[Review, ...]
    """oldest first"""
    pending: Review | None = None
    """its label is being written, or never came"""

    def beside(self, label: str | None) -> LabelHistory:
        """The history beside the label that lies there now (its digest): nothing is pending any more."""
        came = self.pending is not None and self.pending.label == label
        return self.model_copy(update={"reviews": (*self.reviews, self.pending) if came else self.reviews, "pending": None})

    def of_label(self, label: str) -> Review | None:
        """The review that stands behind the label that lies there now (its digest)."""
        reviews = self.beside(label).reviews
        return reviews[-1] if reviews and reviews[-1].label == label else None

    def replaced_before(self, label: str) -> bool:
        """Whether a review has replaced this very label (its digest)."""
        return any(review.replaced is not None and review.replaced.label == label for review in self.reviews)


def is_provenance(name: str) -> bool:
    return name.lower().endswith(PROVENANCE_SUFFIX)


def provenance_path(label: Path) -> Path:
    """Beside a label file."""
    return label.with_name(label.name[: -len(LABEL_SUFFIX)] + PROVENANCE_SUFFIX)


def provenance_stem(name: str) -> str:
    return unicodedata.normalize("NFC", name[: -len(PROVENANCE_SUFFIX)])


def read_history(path: Path, document: str) -> LabelHistory:
    """What the file says, an empty history where there is none, or where it speaks of another document (a name used again).

    Raises InputError where it cannot be read as what we write.
    """
    if not path.is_file():
        return LabelHistory(document=document, reviews=())
    value = read_label(path)
    try:
        history = LabelHistory.model_validate_json(json.dumps(value))
    except ValidationError as error:
        first = error.errors()[0]
        pointer = "".join(f"/{part}" for part in first["loc"])
        raise InputError(f"{path} {pointer}", first["msg"], "what this program wrote", "Restore the file, or remove it") from None
    return history if history.document == document else LabelHistory(document=document, reviews=())


def write_history(path: Path, history: LabelHistory) -> None:
    text = json.dumps(history.model_dump(mode="json", exclude_none=True), ensure_ascii=False, indent=1)
    write_atomically(path, (text + "\n").encode())


def means_the_same(one: dict[str, Any], other: dict[str, Any], schema: TargetSchema) -> bool:
    """Whether two labels say the same: a key left out counts as null."""
    return digest_of(completed(one, schema)) == digest_of(completed(other, schema))


def completed(label: dict[str, Any], schema: TargetSchema) -> dict[str, Any]:
    """The label with every key in target order, page by page where it is given so."""
    pages = page_parts(label, schema)
    return schema.complete(label) if pages is None else {"pages": [schema.complete(part) for part in pages]}


def page_parts(label: dict[str, Any], schema: TargetSchema) -> list[dict[str, Any]] | None:
    """The parts of a label that is given page by page ({"pages": [{...}, ...]}); None where it speaks of the whole document."""
    pages = label.get("pages")
    if not isinstance(pages, list) or "pages" in schema.document["properties"] or not all(isinstance(part, dict) for part in pages):
        return None
    return pages


def changed_pointers(before: Any, after: Any, pointer: str = "") -> Iterator[str]:
    """JSON pointers of what differs, an absent key counting as null; a list of other length is one difference."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in {**before, **after}:
            yield from changed_pointers(before.get(key), after.get(key), f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from changed_pointers(one, other, f"{pointer}/{index}")
    elif before != after:
        yield pointer
