"""Another label for a document that lies in landing/: the earlier one is kept as provenance, and what changed is told.

Every label comes with a review: who judged it, when, and where that came from. See label_provenance for what is kept on disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from extraction_assets.documents.label_file import read_label
from extraction_assets.documents.label_provenance import (
    LabelHistory,
    changed_pointers,
    completed,
    means_the_same,
    provenance_path,
    read_history,
    write_history,
)
from extraction_assets.documents.landed_names import LandingIndex, Place
from extraction_assets.documents.records import EarlierLabel, Review
from extraction_assets.errors import InputError
from extraction_assets.schema import TargetSchema
from extraction_assets.store import digest_file, digest_of

Outcome = Literal["unchanged", "confirmed", "labelled", "replaced"]


@dataclass(frozen=True)
class Replacement:
    """A label that a person had given, and another one that now stands in its place."""

    file: str
    """path below landing/ of the label file"""
    earlier: str
    """digest of the label that was replaced; its value stands in the provenance file"""
    origin: str
    """where that one came from: file (a person put it there), label-studio, endpoint, ingest"""
    label: str
    """digest of the new one"""
    fields: tuple[str, ...]
    """JSON pointers of what differs"""

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "fields": list(self.fields)}

    def line(self) -> str:
        shown = ", ".join(self.fields[:5]) + (f" and {len(self.fields) - 5} more" if len(self.fields) > 5 else "")
        return f"{self.file}: replaced the label {self.earlier[:12]} ({self.origin}); {shown} differ"


def relabel(
    index: LandingIndex,
    place: Place,
    document: str,
    label: dict[str, Any],
    review: Review,
    schema: TargetSchema,
    judged: str | None = None,
) -> tuple[Outcome, Replacement | None]:
    """Put a reviewed label in place.

    judged: digest of the label that the reviewer had before them, where it is known; InputError where another one lies there now.

    review: its `label`, `given` and `replaced` are set here. A label that says the same as the one that lies there is confirmed: the file
    stays as it is. The same review a second time changes nothing. Raises InputError where the review is older than the one that
    stands behind the label now, or something cannot be read or written.
    """
    path = index.label_path(place)
    kept = provenance_path(path)
    present = read_label(path) if place.label is not None else None
    history = read_history(kept, document).beside(None if present is None else digest_of(present))
    new = review.model_copy(update={"label": digest_of(label), "given": digest_of(label)})
    if any(known.is_the_same_as(new) for known in history.reviews):
        return "unchanged", None
    behind = None if present is None else history.of_label(digest_of(present))
    if behind is not None and new.is_older_than(behind.at):
        raise InputError(
            index.below_landing(path),
            f"was reviewed again at {behind.at:%Y-%m-%d %H:%M} by {behind.by}",
            f"a newer review than one of {new.at:%Y-%m-%d %H:%M}",
        )
    if present is not None and judged is not None and digest_of(present) != judged:
        found, do = f"the label has changed since it was handed out: {digest_of(present)[:12]} lies there", "Hand it out and judge it again"
        raise InputError(index.below_landing(path), found, judged[:12], do)
    if present is not None and means_the_same(present, label, schema):
        write_history(kept, _with(history, new.model_copy(update={"label": digest_of(present)})))
        return "confirmed", None
    replacement = None
    if present is not None:
        earlier = EarlierLabel(label=digest_of(present), origin=behind.origin if behind else "file", value=present)
        new = new.model_copy(update={"replaced": earlier})
        fields = tuple(changed_pointers(completed(present, schema), completed(label, schema)))
        replacement = Replacement(index.below_landing(path), earlier.label, earlier.origin, new.label, fields)
    write_history(kept, history.model_copy(update={"pending": new}))
    index.relabel(place, label)
    write_history(kept, _with(history, new))
    return ("replaced", replacement) if replacement else ("labelled", None)


def replace_by_file(
    index: LandingIndex, place: Place, document: str, label: dict[str, Any], source: Path | None, schema: TargetSchema
) -> tuple[Outcome, Replacement | None]:
    """Put the label of a label file in place of another one.

    The source that a reviewed label first came from is often ingested every night: what a review has replaced stays replaced.
    """
    path = index.label_path(place)
    history = read_history(provenance_path(path), document).beside(place.label)
    if history.replaced_before(digest_of(label)):
        return "unchanged", None
    if history.reviews:
        given = Review(origin="ingest", source=source.name if source else "", source_digest=digest_file(source) if source else "")
        return relabel(index, place, document, label, given, schema)
    if place.label is None:
        index.relabel(place, label)
        return "labelled", None
    fields = tuple(changed_pointers(completed(read_label(path), schema), completed(label, schema)))
    index.relabel(place, label)
    return "replaced", Replacement(index.below_landing(path), place.label, "file", digest_of(label), fields)


def _with(history: LabelHistory, review: Review) -> LabelHistory:
    return history.model_copy(update={"reviews": (*history.reviews, review)})
