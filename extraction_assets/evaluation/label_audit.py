"""Look at these labels first: a ranked list of what is probably wrong in the gold itself.

Four signs, each with a weight that says how often it means a wrong label rather than an odd document:

    duplicate      two documents with the same content carry different labels: one of them is wrong
    disagreement   a model that is sure of a value says something else than the label (weight: its confidence in that value)
    unplaced       a value stands on no page of a document that has a text layer
    sum            the totals do not add up

Signs of one document add up; a field with several signs is most likely where the mistake is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from extraction_assets.evaluation.consistency import amount_roles, amounts_consistent
from extraction_assets.evaluation.normalise import normalise
from extraction_assets.evaluation.rows import value_at
from extraction_assets.evaluation.scoring import score_document
from extraction_assets.schema import TargetSchema

Sign = Literal["duplicate", "disagreement", "unplaced", "sum"]
WEIGHTS: dict[Sign, float] = {"duplicate": 2.0, "disagreement": 1.5, "unplaced": 1.0, "sum": 0.75}
SURE = 0.9
"""confidence from which a model's disagreement counts"""


@dataclass(frozen=True)
class Reading:
    """What a model answers to one page, beside what the label wants of it."""

    page: int
    target: Mapping[str, Any]
    answer: Mapping[str, Any]
    """parsed"""
    confidence: float | None
    """of the answer, 0 to 1; None: its disagreement does not count"""
    values: Mapping[str, float] = field(default_factory=dict)
    """JSON pointer of a value -> its confidence, where it is known value by value"""

    def sure(self, path: Sequence[str]) -> float | None:
        """Confidence in what stands at this path; of rows, in the least sure of their values."""
        pointer = "/" + "/".join(path)
        own = [sure for at, sure in self.values.items() if at == pointer or at.startswith(f"{pointer}/")]
        return min(own) if own else self.confidence


@dataclass(frozen=True)
class LabelledDocument:
    """One document's label and what is known about it."""

    id: str
    vendor: str
    label: Mapping[str, Any]
    same_as: str | None = None
    """what documents of the same content share: a near-duplicate group, a text digest"""
    unplaced: Sequence[tuple[str, str]] = ()
    """(JSON pointer, value) of label values that stand on no page"""
    readings: Sequence[Reading] = ()
    """what the champion answers to its pages"""
    locale: str | None = None


@dataclass(frozen=True)
class Doubt:
    """One sign that a label is wrong."""

    sign: Sign
    field: str
    """dotted name; an array's name for its rows"""
    why: str
    weight: float


@dataclass(frozen=True)
class DoubtfulLabel:
    """One document's label with every sign against it, heaviest first."""

    id: str
    vendor: str
    doubts: tuple[Doubt, ...]
    weight: float = field(default=0.0)

    def as_json(self) -> dict[str, Any]:
        doubts = [{"sign": d.sign, "field": d.field, "why": d.why, "weight": round(d.weight, 6)} for d in self.doubts]
        return {"id": self.id, "vendor": self.vendor, "weight": round(self.weight, 6), "doubts": doubts}


def audit_labels(documents: Sequence[LabelledDocument], schema: TargetSchema) -> list[DoubtfulLabel]:
    """Every label with at least one sign against it, the most doubtful first; the same list for any order of the documents."""
    roles = amount_roles(schema)
    found: list[DoubtfulLabel] = []
    duplicates = _duplicates(documents, schema)
    for document in documents:
        doubts = [*duplicates.get(document.id, ()), *_disagreements(document, schema), *_unplaced(document)]
        if amounts_consistent(document.label, roles, document.locale) is False:
            name = (roles.total or roles.net).name if roles.total or roles.net else ""  # type: ignore[union-attr]
            doubts.append(Doubt("sum", name, "the totals do not add up", WEIGHTS["sum"]))
        if doubts:
            doubts.sort(key=lambda doubt: (-doubt.weight, doubt.field, doubt.sign))
            found.append(DoubtfulLabel(document.id, document.vendor, tuple(doubts), _weight(doubts)))
    return sorted(found, key=lambda label: (-label.weight, label.id))


def _weight(doubts: Sequence[Doubt]) -> float:
    """Signs about one field add up; further fields count half, so that one field with two signs leads two fields with one."""
    fields: dict[str, float] = {}
    for doubt in doubts:
        fields[doubt.field] = fields.get(doubt.field, 0.0) + doubt.weight
    first, *rest = sorted(fields.values(), reverse=True)
    return first + sum(rest) / 2


def _duplicates(documents: Sequence[LabelledDocument], schema: TargetSchema) -> dict[str, list[Doubt]]:
    groups: dict[str, list[LabelledDocument]] = {}
    for document in documents:
        if document.same_as is not None:
            groups.setdefault(document.same_as, []).append(document)
    found: dict[str, list[Doubt]] = {}
    for group in groups.values():
        group.sort(key=lambda document: document.id)
        for document in group:
            others = [other for other in group if other.id != document.id]
            for name in _differing(document, others, schema):
                twin = next(other for other in others if name in _differing(document, [other], schema))
                doubt = Doubt("duplicate", name, f"{twin.id} has the same content and another value", WEIGHTS["duplicate"])
                found.setdefault(document.id, []).append(doubt)
    return found


def _differing(document: LabelledDocument, others: Sequence[LabelledDocument], schema: TargetSchema) -> list[str]:
    names: dict[str, None] = {}
    for other in others:
        score = score_document(dict(other.label), document.label, schema, locale=document.locale)
        names |= dict.fromkeys(name for name, outcome in score.fields.items() if outcome not in ("match", "correct_absence"))
        names |= dict.fromkeys(name for name, rows in score.rows.items() if not rows.all_exact)
    return list(names)


def _disagreements(document: LabelledDocument, schema: TargetSchema) -> list[Doubt]:
    """One doubt a field: that of the page on which the model is surest."""
    found: dict[str, Doubt] = {}

    def doubt(name: str, reading: Reading, path: Sequence[str], why: str) -> None:
        sure = reading.sure(path)
        if sure is not None and sure >= SURE and (name not in found or found[name].weight < WEIGHTS["disagreement"] * sure):
            found[name] = Doubt("disagreement", name, f"page {reading.page}: {why}", WEIGHTS["disagreement"] * sure)

    for reading in document.readings:
        score = score_document(dict(reading.answer), reading.target, schema, locale=document.locale)
        for leaf in schema.fields:
            if score.fields[leaf.name] not in ("match", "correct_absence"):
                said = normalise(value_at(reading.answer, leaf.path), leaf.type, document.locale)
                why = f"the model is sure of {said!r}" if said is not None else "the model is sure that it is absent"
                doubt(leaf.name, reading, leaf.path, why)
        for array in schema.row_arrays:
            rows = score.rows[array.name]
            if not rows.all_exact:
                why = f"the model is sure of {rows.answer_rows} rows, {rows.exact} as labelled"
                doubt(array.name, reading, array.path, why)
    return list(found.values())


def _unplaced(document: LabelledDocument) -> list[Doubt]:
    """One doubt a value; rows are told by their array's name, so that a table read by another eye does not drown the rest."""
    found: dict[str, Doubt] = {}
    for pointer, value in document.unplaced:
        parts = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
        head: list[str] = []
        for part in parts:
            if part.isdigit():
                break
            head.append(part)
        name = ".".join(head)
        found.setdefault(name, Doubt("unplaced", name, f"{value!r} stands on no page", WEIGHTS["unplaced"]))
    return list(found.values())
