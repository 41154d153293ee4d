"""Document answers: the answers to a document's pages merged into one, with every conflict listed.

The rule, field by field (page targets hold null where a page does not show a field, so an absent value never contradicts):
- Header field: the value that most pages give, values compared under the field's scoring type. Where two values stand on as many
  pages, an amount is taken from the last such page (totals are carried over, the last one counts), anything else from the first.
- List of plain values: those of all pages in order, each once.
- Line items: the rows of all pages in order. Rows that repeat are kept: two equal lines on an invoice are two lines.
A page without a strict JSON answer (cut short, or not JSON) gives nothing; it is named, and the document is not complete.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from extraction_assets.evaluation.normalise import is_absent, normalise
from extraction_assets.evaluation.rows import value_at
from extraction_assets.schema import Leaf, TargetSchema


@dataclass(frozen=True)
class Conflict:
    """A header field to which pages give different values."""

    field: str
    taken: Any
    values: tuple[tuple[int, Any], ...]
    """(page, value) of every page that gives one"""

    def as_json(self) -> dict[str, Any]:
        return {"field": self.field, "taken": self.taken, "values": [{"page": page, "value": value} for page, value in self.values]}


@dataclass(frozen=True)
class DocumentAnswer:
    answer: dict[str, Any]
    """in target order"""
    conflicts: tuple[Conflict, ...]
    unread_pages: tuple[int, ...]
    """pages without a strict JSON answer"""

    @property
    def complete(self) -> bool:
        return not self.unread_pages

    def as_json(self) -> dict[str, Any]:
        conflicts = [conflict.as_json() for conflict in self.conflicts]
        return {"answer": self.answer, "complete": self.complete, "unread_pages": list(self.unread_pages), "conflicts": conflicts}


def merge_pages(pages: Sequence[tuple[int, Mapping[str, Any] | None]], schema: TargetSchema, locale: str | None = None) -> DocumentAnswer:
    """Merge (page number, its answer) in page order; None for an answer that is no strict JSON.

    locale: the vendor's, settles whether 04/05/2024 and 2024-05-04 are the same date.
    """
    read = [(page, answer) for page, answer in sorted(pages, key=lambda item: item[0]) if answer is not None]
    merged: dict[str, Any] = {}
    conflicts: list[Conflict] = []
    for leaf in schema.fields:
        given = [(page, value) for page, answer in read if not is_absent(value := value_at(answer, leaf.path))]
        if not given:
            continue
        if all(isinstance(value, list) for _, value in given):
            _put(merged, leaf.path, _each_once(value for _, values in given for value in values))
            continue
        taken, agreed = _taken(given, leaf, locale)
        _put(merged, leaf.path, taken)
        if not agreed:
            conflicts.append(Conflict(leaf.name, taken, tuple(given)))
    for rows in schema.row_arrays:
        found = [value_at(answer, rows.path) for _, answer in read]
        _put(merged, rows.path, [row for each in found if isinstance(each, list) for row in each])
    unread = tuple(sorted(page for page, answer in pages if answer is None))
    return DocumentAnswer(schema.complete(merged), tuple(conflicts), unread)


def _taken(given: Sequence[tuple[int, Any]], leaf: Leaf, locale: str | None) -> tuple[Any, bool]:
    """The value that counts, as its page spells it, and whether all pages agree."""
    readings = [(normalise(value, leaf.type, locale), value) for _, value in given]
    count = Counter(reading for reading, _ in readings)
    most = max(count.values())
    tied = [value for reading, value in readings if count[reading] == most]
    last_counts = leaf.type == "amount" and len(count) > 1
    return tied[-1 if last_counts else 0], len(count) == 1


def _each_once(values: Iterable[Any]) -> list[Any]:
    kept: list[Any] = []
    for value in values:
        if value not in kept:
            kept.append(value)
    return kept


def _put(target: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        target = target.setdefault(key, {})
    target[path[-1]] = value
