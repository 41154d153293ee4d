"""All documents' scores of one system as two compact tables, hits and chances, both (documents, metrics).

Every rate that a report prints (a mean, a pooled F1, a field's recall) is the sum of a column of hits over the sum of the same column
of chances, over whichever documents one asks about. A document takes a few hundred bytes here, whatever its answer was.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from extraction_assets.evaluation.scoring import OUTCOMES, RIGHT, DocumentScore
from extraction_assets.schema import TargetSchema

Floats = NDArray[np.float64]

DOCUMENT_METRICS = ("strict_json", "schema_valid", "recoverable", "truncated", "document_exact")
POOLED_ROW_METRICS = ("row_exact_f1", "row_detect_f1", "cell_f1")
FIELD_METRICS = ("accuracy", "precision", "recall", "hallucination_rate", "raw_exact")


@dataclass(frozen=True)
class ScoredDocument:
    """What is known of one scored answer besides its score."""

    id: str
    vendor: str
    stratum: str
    cluster: str
    """what is drawn together by the bootstrap: the document that the page, its twins and negatives come from"""
    twin: str | None = None
    """id of the clean example that a hard negative was made of"""


class ScoreTable:
    """Scores of one system under one schema, in the order they were added."""

    def __init__(self, schema: TargetSchema) -> None:
        self.schema = schema
        self.documents: list[ScoredDocument] = []
        self.metrics = metric_names(schema)
        self._column = {name: k for k, name in enumerate(self.metrics)}
        self._hits, self._chances = array("f"), array("f")
        self._outcomes = array("b")

    def __len__(self) -> int:
        return len(self.documents)

    def add(self, document: ScoredDocument, score: DocumentScore) -> None:
        hits, chances = _row(score, self.schema)
        self._hits.extend(hits)
        self._chances.extend(chances)
        self._outcomes.extend(OUTCOMES.index(score.fields[leaf.name]) for leaf in self.schema.fields)
        self.documents.append(document)
        for name in ("hits", "chances", "outcomes", "clusters"):
            self.__dict__.pop(name, None)

    @cached_property
    def hits(self) -> Floats:
        """(documents, metrics)"""
        return self._matrix(self._hits)

    @cached_property
    def chances(self) -> Floats:
        """(documents, metrics); 0 where a metric says nothing about a document"""
        return self._matrix(self._chances)

    @cached_property
    def outcomes(self) -> NDArray[np.int8]:
        """(documents, fields): index into OUTCOMES"""
        return np.frombuffer(self._outcomes.tobytes(), dtype=np.int8).reshape(len(self), len(self.schema.fields))

    @cached_property
    def clusters(self) -> NDArray[np.int64]:
        """(documents,): the number of each document's cluster"""
        numbers: dict[str, int] = {}
        return np.array([numbers.setdefault(document.cluster, len(numbers)) for document in self.documents], dtype=np.int64)

    def column(self, metric: str) -> tuple[Floats, Floats]:
        """(hits, chances) of one metric, both (documents,)"""
        k = self._column[metric]
        return self.hits[:, k], self.chances[:, k]

    def value(self, metric: str, rows: NDArray[np.int64] | None = None) -> float | None:
        """The metric over these documents (default: all); None where it says nothing about any of them."""
        hits, chances = self.column(metric)
        if rows is not None:
            hits, chances = hits[rows], chances[rows]
        total = chances.sum()
        return float(hits.sum() / total) if total else None

    def groups(self, key: Callable[[ScoredDocument], str]) -> dict[str, NDArray[np.int64]]:
        """Documents by a key: row numbers, keys sorted."""
        found: dict[str, list[int]] = {}
        for number, document in enumerate(self.documents):
            found.setdefault(key(document), []).append(number)
        return {name: np.array(found[name], dtype=np.int64) for name in sorted(found)}

    def _matrix(self, values: array[float]) -> Floats:
        return np.frombuffer(values.tobytes(), dtype=np.float32).reshape(len(self), len(self.metrics)).astype(np.float64)


def metric_names(schema: TargetSchema) -> tuple[str, ...]:
    """Every metric of a table: overall ones, `fields.NAME.METRIC`, `rows.ARRAY.METRIC`, `rows.ARRAY.columns.NAME`."""
    names = [*DOCUMENT_METRICS, "field_accuracy", "raw_field_accuracy", "field_precision", "field_recall", "hallucination_rate"]
    names += [*POOLED_ROW_METRICS, "amount_consistency", "gold_amount_consistency", "anls_star", "donut_f1", "donut_nted"]
    names += [f"fields.{leaf.name}.{metric}" for leaf in schema.fields for metric in FIELD_METRICS]
    for rows in schema.row_arrays:
        names += [f"rows.{rows.name}.{metric}" for metric in (*POOLED_ROW_METRICS, "order_kept", "count_right", "count_error")]
        names += [f"rows.{rows.name}.columns.{column.name}" for column in rows.columns]
    return tuple(names)


def _row(score: DocumentScore, schema: TargetSchema) -> tuple[list[float], list[float]]:
    """One document's hits and chances, in the order of `metric_names`."""
    pairs: list[tuple[float, float]] = [(getattr(score, name), 1) for name in DOCUMENT_METRICS]
    fields = len(score.fields)
    count = dict.fromkeys(OUTCOMES, 0)
    for outcome in score.fields.values():
        count[outcome] += 1
    match, wrong, missing, hallucinated, absent = (count[outcome] for outcome in OUTCOMES)
    pairs += [
        (match + absent, fields),
        (sum(score.raw_exact.values()), fields),
        (match, match + wrong + hallucinated),
        (match, match + wrong + missing),
        (hallucinated, hallucinated + absent),
    ]
    pairs += [score.pooled(name) for name in POOLED_ROW_METRICS]  # type: ignore[arg-type]
    pairs += [_known(score.amounts_consistent), _known(score.gold_consistent)]
    pairs += [_known(getattr(score.comparison, name, None)) for name in ("anls_star", "donut_f1", "donut_nted")]
    for leaf in schema.fields:
        outcome = score.fields[leaf.name]
        hit, gold_absent = outcome == "match", outcome in ("hallucinated", "correct_absence")
        pairs += [
            (outcome in RIGHT, 1),
            (hit, outcome in ("match", "wrong", "hallucinated")),
            (hit, not gold_absent),
            (outcome == "hallucinated", gold_absent),
            (score.raw_exact[leaf.name], 1),
        ]
    for rows in schema.row_arrays:
        one = score.rows[rows.name]
        asked = one.gold_rows + one.answer_rows
        pairs += [(2 * one.exact, asked), (2 * len(one.pairs), asked), (2 * one.equal_cells, one.gold_cells + one.answer_cells)]
        pairs += [(one.order_kept, len(one.pairs) > 1), (one.count_error == 0, 1), (abs(one.count_error), 1)]
        pairs += [(equal, one.gold_rows) for equal in one.column_equal]
    return [float(hit) for hit, _ in pairs], [float(chance) for _, chance in pairs]


def _known(value: float | bool | None) -> tuple[float, float]:
    return (0.0, 0.0) if value is None else (float(value), 1.0)
