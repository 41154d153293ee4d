"""What a table of scores comes to: overall, per field, per array of rows, per stratum, per vendor, with intervals and n beside each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extraction_assets.evaluation.score_table import FIELD_METRICS, POOLED_ROW_METRICS, ScoreTable
from extraction_assets.evaluation.scoring import OUTCOMES, rounded
from extraction_assets.evaluation.statistics import Estimate, paired_difference, ratio_estimates
from extraction_assets.settings import EvaluationSettings

GROUP_METRICS = ("strict_json", "schema_valid", "document_exact", "field_accuracy", *POOLED_ROW_METRICS)
"""what is told of each stratum and each vendor"""


def summarise(table: ScoreTable, settings: EvaluationSettings) -> dict[str, Any]:
    """Every metric of one system as one JSON value: the same for the same scores and settings.

    {"documents", "overall": {metric: estimate}, "fields": {name: {...}}, "rows": {array: {...}}, "strata", "vendors",
    "vendor_mean", "worst_vendor", "twins"}; an estimate is {"value", "low", "high", "n"}, n being the documents it speaks of.
    """
    overall = _estimates(table, table.metrics, None, settings, "overall")
    vendors = _groups(table, table.groups(lambda d: d.vendor), settings, "vendor")
    headline = {name: group[settings.headline]["value"] for name, group in vendors.items()}
    known = {name: value for name, value in headline.items() if value is not None}
    worst = min(known, key=lambda name: (known[name], name)) if known else None
    return {
        "documents": len(table),
        "overall": {name: estimate.as_json() for name, estimate in overall.items() if _is_overall(name)},
        "fields": {leaf.name: _field(table, leaf.name, leaf.type, number, overall) for number, leaf in enumerate(table.schema.fields)},
        "rows": {rows.name: _rows(table, rows.name, [column.name for column in rows.columns], overall) for rows in table.schema.row_arrays},
        "strata": _groups(table, table.groups(lambda d: d.stratum), settings, "stratum"),
        "vendors": vendors,
        "vendor_mean": rounded(sum(known.values()) / len(known)) if known else None,
        "worst_vendor": {"vendor": worst, "value": known[worst]} if worst is not None else None,
        "twins": paired_drops(table, settings),
    }


def paired_drops(table: ScoreTable, settings: EvaluationSettings) -> dict[str, Any]:
    """Per stratum of hard negatives: the headline on the clean twins, on the negatives, and the paired difference.

    Only negatives whose clean twin is in the table count, so both sides speak of the same pages.
    """
    row_of = {document.id: number for number, document in enumerate(table.documents)}
    hits, chances = table.column(settings.headline)
    drops: dict[str, Any] = {}
    for stratum, rows in table.groups(lambda d: d.stratum).items():
        pairs = [(row_of[twin], int(row)) for row in rows if (twin := table.documents[row].twin) in row_of]
        if not pairs:
            continue
        clean, hard = (np.array(side, dtype=np.int64) for side in zip(*pairs, strict=True))
        difference = paired_difference(
            hits[clean],
            chances[clean],
            hits[hard],
            chances[hard],
            table.clusters[hard],
            settings.bootstrap,
            settings.seed,
            f"twin {stratum}",
        )
        drops[stratum] = {
            "metric": settings.headline,
            "pairs": len(pairs),
            "clean": rounded(table.value(settings.headline, clean)),
            "hard": rounded(table.value(settings.headline, hard)),
            "difference": difference.as_json(),
        }
    return drops


def _estimates(
    table: ScoreTable, metrics: Iterable[str], rows: NDArray[np.int64] | None, settings: EvaluationSettings, purpose: str
) -> dict[str, Estimate]:
    names = list(metrics)
    columns = [table.metrics.index(name) for name in names]
    chosen = np.arange(len(table)) if rows is None else rows
    hits, chances = table.hits[chosen][:, columns], table.chances[chosen][:, columns]
    estimates = ratio_estimates(hits, chances, table.clusters[chosen], settings.bootstrap, settings.seed, purpose)
    return dict(zip(names, estimates, strict=True))


def _is_overall(name: str) -> bool:
    return not name.startswith(("fields.", "rows."))


def _field(table: ScoreTable, name: str, type: str, number: int, overall: dict[str, Estimate]) -> dict[str, Any]:
    counts = np.bincount(table.outcomes[:, number], minlength=len(OUTCOMES)) if len(table) else np.zeros(len(OUTCOMES))
    return {
        "type": type,
        "outcomes": {outcome: int(count) for outcome, count in zip(OUTCOMES, counts, strict=True)},
        **{metric: overall[f"fields.{name}.{metric}"].as_json() for metric in FIELD_METRICS},
    }


def _rows(table: ScoreTable, name: str, columns: list[str], overall: dict[str, Estimate]) -> dict[str, Any]:
    told: dict[str, Any] = {
        metric: overall[f"rows.{name}.{metric}"].as_json() for metric in (*POOLED_ROW_METRICS, "order_kept", "count_right")
    }
    told["mean_count_error"] = rounded(table.value(f"rows.{name}.count_error"))  # rows too many or too few per document
    told["columns"] = {column: overall[f"rows.{name}.columns.{column}"].as_json() for column in columns}
    return told


def _groups(table: ScoreTable, groups: dict[str, NDArray[np.int64]], settings: EvaluationSettings, kind: str) -> dict[str, Any]:
    return {
        name: {
            "documents": len(rows),
            **{
                metric: estimate.as_json()
                for metric, estimate in _estimates(table, GROUP_METRICS, rows, settings, f"{kind} {name}").items()
            },
        }
        for name, rows in groups.items()
    }
