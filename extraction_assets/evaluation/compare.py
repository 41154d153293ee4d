"""Two systems on the same test set: paired differences, exact McNemar per field with Holm, and a refusal where they cannot be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extraction_assets.errors import InputError
from extraction_assets.evaluation.score_table import POOLED_ROW_METRICS, Floats, ScoreTable
from extraction_assets.evaluation.scoring import METRIC_VERSION, rounded
from extraction_assets.evaluation.statistics import Difference, holm, mcnemar, paired_difference
from extraction_assets.settings import EvaluationSettings

COMPARED = ("field_accuracy", "document_exact", *POOLED_ROW_METRICS, "strict_json", "schema_valid")


@dataclass(frozen=True)
class SystemScores:
    """One system's scores on one test set, a table per document type."""

    name: str
    """base, champion, challenger, or another system's name"""
    tables: Mapping[str, ScoreTable]
    """document type -> scores"""
    conditions: Mapping[str, str] = field(default_factory=dict)
    """under what it was scored, as digests: dataset, instruction, decoding, ...; schemas and metric version are added here"""

    @property
    def all_conditions(self) -> dict[str, str]:
        schemas = {f"schema {type}": table.schema.digest for type, table in self.tables.items()}
        return {**schemas, **self.conditions, "metric version": METRIC_VERSION}

    def column(self, metric: str) -> tuple[Floats, Floats]:
        """(hits, chances) of an overall metric over the documents of all types, types by name."""
        columns = [self.tables[type].column(metric) for type in sorted(self.tables)]
        return np.concatenate([hits for hits, _ in columns]), np.concatenate([chances for _, chances in columns])

    def clusters(self) -> NDArray[np.int64]:
        """What is drawn together, numbered over all types."""
        numbers: dict[tuple[str, str], int] = {}
        keys = [(type, document.cluster) for type in sorted(self.tables) for document in self.tables[type].documents]
        return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)

    def value(self, metric: str) -> float | None:
        hits, chances = self.column(metric)
        return float(hits.sum() / chances.sum()) if chances.sum() else None

    def by_vendor(self, metric: str) -> dict[str, float]:
        """The metric per vendor (type/vendor where there are several types); vendors it says nothing about are left out."""
        values: dict[str, float] = {}
        for type in sorted(self.tables):
            table = self.tables[type]
            for vendor, rows in table.groups(lambda document: document.vendor).items():
                value = table.value(metric, rows)
                if value is not None:
                    values[vendor if len(self.tables) == 1 else f"{type}/{vendor.removeprefix(f'{type}/')}"] = value
        return values


def refuse_unlike(a: SystemScores, b: SystemScores) -> None:
    """InputError that names what differs, unless both were scored on the same documents under the same conditions."""
    left, right = a.all_conditions, b.all_conditions
    differing = sorted(key for key in left.keys() | right.keys() if left.get(key) != right.get(key))
    if differing:
        told = ", ".join(f"{key} ({_short(left.get(key))} and {_short(right.get(key))})" for key in differing)
        raise InputError(f"{a.name} and {b.name}", f"cannot be compared, they differ in {told}", do="Score both under the same")
    for type in all_types(a, b):
        ids_a, ids_b = ([document.id for document in system.tables[type].documents] for system in (a, b))
        if ids_a != ids_b:
            only = sorted(set(ids_a) ^ set(ids_b))
            found = f"{len(only)} in one of them alone, e.g. {only[0]}" if only else "in another order"
            raise InputError(f"{a.name} and {b.name} on {type}", f"not the same documents: {found}", do="Score both on the same test set")


def all_types(a: SystemScores, b: SystemScores) -> list[str]:
    return sorted(a.tables.keys() | b.tables.keys())


def compare(a: SystemScores, b: SystemScores, settings: EvaluationSettings) -> dict[str, Any]:
    """b minus a as one JSON value: overall metrics, fields (McNemar, Holm over the fields of all types), strata.

    Raises InputError if they were not scored on the same test set under the same conditions.
    """
    refuse_unlike(a, b)
    strata = sorted({document.stratum for table in a.tables.values() for document in table.documents})
    return {
        "a": a.name,
        "b": b.name,
        "overall": {metric: difference(a, b, metric, settings).as_json() for metric in COMPARED},
        "fields": _fields(a, b),
        "strata": {stratum: difference(a, b, settings.headline, settings, stratum).as_json() for stratum in strata},
    }


def difference(a: SystemScores, b: SystemScores, metric: str, settings: EvaluationSettings, stratum: str | None = None) -> Difference:
    """Paired difference of an overall metric over the documents of all types, or of one stratum."""
    (hits_a, chances_a), (hits_b, chances_b), clusters = a.column(metric), b.column(metric), a.clusters()
    if stratum is not None:
        chosen = np.array([document.stratum == stratum for type in sorted(a.tables) for document in a.tables[type].documents])
        hits_a, chances_a, hits_b, chances_b, clusters = (x[chosen] for x in (hits_a, chances_a, hits_b, chances_b, clusters))
    purpose = f"{metric} {stratum or ''}"
    return paired_difference(hits_a, chances_a, hits_b, chances_b, clusters, settings.bootstrap, settings.seed, purpose)


def _fields(a: SystemScores, b: SystemScores) -> dict[str, Any]:
    """Per type and field: both accuracies, documents that only one has right, p of McNemar and p after Holm."""
    found: list[tuple[str, str, dict[str, Any]]] = []
    for type in all_types(a, b):
        for leaf in a.tables[type].schema.fields:
            right_a, right_b = (system.tables[type].column(f"fields.{leaf.name}.accuracy")[0] > 0 for system in (a, b))
            only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
            values = {
                "a": rounded(float(right_a.mean())) if len(right_a) else None,
                "b": rounded(float(right_b.mean())) if len(right_b) else None,
                "only_a": only_a,
                "only_b": only_b,
                "n": len(right_a),
                "p": mcnemar(only_a, only_b),
            }
            found.append((type, leaf.name, values))
    adjusted = holm([values["p"] for _, _, values in found])
    told: dict[str, Any] = {}
    for (type, name, values), p in zip(found, adjusted, strict=True):
        told.setdefault(type, {})[name] = values | {"p": rounded(values["p"]), "p_holm": rounded(p)}
    return told


def _short(digest: str | None) -> str:
    return "none" if digest is None else digest[:12]
