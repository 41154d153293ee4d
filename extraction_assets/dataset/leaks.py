"""The leak check: does anything stand in two splits? It looks at the written records alone, not at how they came about."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Literal

from extraction_assets.dataset.chat import ChatRecord
from extraction_assets.documents.records import Record

LeakKind = Literal["example", "document", "image", "twin", "twin_group"]


class Leak(Record):
    """One thing that stands in more than one split."""

    kind: LeakKind
    """example: the same id; document; image: the same picture; twin: a negative and its clean page; twin_group"""
    key: str
    """id or digest of the thing"""
    splits: tuple[str, ...]
    examples: tuple[str, ...]
    """ids of the examples, at most eight"""


def find_leaks(records: Iterable[ChatRecord], groups: Mapping[str, str] | None = None) -> list[Leak]:
    """Every leak among the records of all splits, sorted; empty if there is none.

    groups: document -> twin group (TwinGroups.group); without it, near-duplicates are not looked for.
    """
    seen: dict[tuple[LeakKind, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))

    def saw(kind: LeakKind, key: str, record: ChatRecord) -> None:
        seen[kind, key][record.meta.split].append(record.id)

    for record in records:
        saw("example", record.id, record)
        saw("document", record.meta.document, record)
        saw("image", record.meta.page_digest, record)
        saw("twin", record.meta.twin or record.id, record)
        if groups is not None:
            saw("twin_group", groups.get(record.meta.document, record.meta.document), record)
    leaks = [
        Leak(kind=kind, key=key, splits=tuple(sorted(where)), examples=tuple(sorted({id for ids in where.values() for id in ids})[:8]))
        for (kind, key), where in seen.items()
        if len(where) > 1
    ]
    return sorted(leaks, key=lambda leak: (leak.kind, leak.key))
