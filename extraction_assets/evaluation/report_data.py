"""The report as one JSON value: every system's rates, their differences, who is worst, how sure the answers were."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from extraction_assets.evaluation.compare import compare
from extraction_assets.evaluation.gate import Decision
from extraction_assets.evaluation.run import Answer, ReportExample, ScoredRun
from extraction_assets.evaluation.score_table import POOLED_ROW_METRICS
from extraction_assets.evaluation.scoring import METRIC_VERSION, DocumentScore, rounded
from extraction_assets.evaluation.statistics import ratio_estimates
from extraction_assets.evaluation.summary import summarise
from extraction_assets.settings import EvaluationSettings

HEADLINES = (
    ("field_accuracy", "field accuracy"),
    ("document_exact", "document exact"),
    ("row_exact_f1", "rows exact (F1)"),
    ("cell_f1", "cells (F1)"),
    ("strict_json", "strict JSON"),
    ("schema_valid", "schema valid"),
)
_ALSO = (*POOLED_ROW_METRICS, "hallucination_rate", "recoverable", "truncated", "amount_consistency")


@dataclass(frozen=True)
class HistoryPoint:
    """One earlier run's headline, for the learning curve."""

    label: str
    """what tells runs apart: the number of training examples, or a date"""
    value: float
    low: float | None = None
    high: float | None = None


def report_data(
    run: ScoredRun, settings: EvaluationSettings, title: str, decision: Decision | None = None, history: Sequence[HistoryPoint] = ()
) -> dict[str, Any]:
    """The report as one JSON value; the same for the same answers and settings."""
    names = list(run.systems)
    main = run.systems[run.main]
    return {
        "title": title,
        "metric_version": METRIC_VERSION,
        "headline": settings.headline,
        "systems": names,
        "main": run.main,
        "conditions": main.all_conditions,
        "settings": settings.model_dump(mode="json"),
        "pages": sum(len(one.examples) for one in run.types),
        "documents": len({(one.type, example.document) for one in run.types for example in one.examples}),
        "overall": {name: _overall(run, name, settings) for name in names},
        "worst_vendor": {name: _worst(run, name, settings) for name in names},
        "types": {
            one.type: {
                "pages": len(one.examples),
                "systems": {name: summarise(run.systems[name].tables[one.type], settings) for name in names},
            }
            for one in run.types
        },
        "seen": _seen(run, settings),
        "comparisons": [compare(run.systems[name], main, settings) for name in names[:-1]],
        "tokens": {name: _tokens(run, name) for name in names},
        "risk_coverage": _risk_coverage(run),
        "answers": {name: _buckets(run, name) for name in names},
        "decision": decision.as_json() if decision else None,
        "history": [{"label": p.label, "value": rounded(p.value), "low": rounded(p.low), "high": rounded(p.high)} for p in history],
    }


def _overall(run: ScoredRun, name: str, settings: EvaluationSettings) -> dict[str, Any]:
    system = run.systems[name]
    metrics = [metric for metric, _ in HEADLINES]
    metrics += [metric for metric in _ALSO if metric not in metrics]
    columns = [system.column(metric) for metric in metrics]
    hits, chances = (np.stack(side, axis=1) for side in zip(*columns, strict=True))
    estimates = ratio_estimates(hits, chances, system.clusters(), settings.bootstrap, settings.seed, "overall")
    return {metric: estimate.as_json() for metric, estimate in zip(metrics, estimates, strict=True)}


def _worst(run: ScoredRun, name: str, settings: EvaluationSettings) -> dict[str, Any] | None:
    vendors = run.systems[name].by_vendor(settings.headline)
    if not vendors:
        return None
    worst = min(vendors, key=lambda vendor: (vendors[vendor], vendor))
    return {
        "vendor": worst,
        "value": rounded(vendors[worst]),
        "mean": rounded(sum(vendors.values()) / len(vendors)),
        "vendors": len(vendors),
    }


def _seen(run: ScoredRun, settings: EvaluationSettings) -> dict[str, Any]:
    """The headline on pages of vendors that are in the training split, and of those that are not; empty where nobody said."""
    flags = {example.seen for one in run.types for example in one.examples}
    if flags != {True, False}:
        return {}
    mask = np.array([example.seen for type in sorted(one.type for one in run.types) for example in _examples(run, type)])
    told: dict[str, Any] = {}
    for name, system in run.systems.items():
        hits, chances = system.column(settings.headline)
        for label, chosen in (("seen vendors", mask), ("unseen vendors", ~mask)):
            (estimate,) = ratio_estimates(
                hits[chosen][:, None], chances[chosen][:, None], system.clusters()[chosen], settings.bootstrap, settings.seed, label
            )
            told.setdefault(label, {})[name] = estimate.as_json()
    return told


def _examples(run: ScoredRun, type: str) -> Iterable[ReportExample]:
    return next(one.examples for one in run.types if one.type == type)


def _answers(run: ScoredRun, name: str) -> Iterator[tuple[Answer | None, DocumentScore]]:
    """(answer or None, score) of every example."""
    for one in run.types:
        for example, score in zip(one.examples, run.details[one.type][name], strict=True):
            yield example.answers.get(name), score


def _tokens(run: ScoredRun, name: str) -> dict[str, Any] | None:
    counts = sorted(answer.tokens for answer, _ in _answers(run, name) if answer is not None and answer.tokens is not None)
    if not counts:
        return None
    return {
        "answers": len(counts),
        "mean": round(sum(counts) / len(counts), 1),
        "median": counts[len(counts) // 2],
        "p95": counts[min(len(counts) - 1, int(0.95 * len(counts)))],
        "most": counts[-1],
    }


def _buckets(run: ScoredRun, name: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for _, score in _answers(run, name):
        counts[score.bucket] = counts.get(score.bucket, 0) + 1
    return dict(sorted(counts.items()))


def _risk_coverage(run: ScoredRun) -> list[dict[str, float]]:
    """Share of pages not exact among the most confident ones, at up to 100 coverages; empty unless every answer has a confidence."""
    known = [(answer.confidence if answer else None, score.document_exact) for answer, score in _answers(run, run.main)]
    if not known or any(confidence is None for confidence, _ in known):
        return []
    known.sort(key=lambda item: -(item[0] or 0))
    errors = np.cumsum([not exact for _, exact in known])
    places = sorted({max(1, round(len(known) * k / 100)) for k in range(1, 101)})
    return [{"coverage": round(n / len(known), 6), "error": round(float(errors[n - 1]) / n, 6)} for n in places]
