"""The table that a person reads first: a handful of rates over all document types, systems side by side, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from extraction_assets.evaluation.run import ReportExample, ScoredRun
from extraction_assets.evaluation.statistics import ratio_estimates
from extraction_assets.settings import EvaluationSettings

CLEAN = "clean"

_ROWS: tuple[tuple[str, str, Callable[[ReportExample], bool]], ...] = (
    ("fields right, all pages", "field_accuracy", lambda example: True),
    ("  seen vendors, clean pages", "field_accuracy", lambda example: example.stratum == CLEAN and example.seen is True),
    ("  unseen vendors, clean pages", "field_accuracy", lambda example: example.stratum == CLEAN and example.seen is False),
    ("  hard negatives", "field_accuracy", lambda example: example.stratum != CLEAN),
    ("invented values where a field is missing", "hallucination_rate", lambda example: example.stratum == "missing_field"),
    ("line items exact (F1)", "row_exact_f1", lambda example: True),
    ("whole page exact", "document_exact", lambda example: True),
    ("strict JSON", "strict_json", lambda example: True),
    ("follows the schema", "schema_valid", lambda example: True),
)


def headline_rows(run: ScoredRun, settings: EvaluationSettings) -> list[dict[str, Any]]:
    """[{"name", "metric", "pages", "systems": {system: {"value", "low", "high", "n"}}}]; groups without a page are left out."""
    examples = [example for one in sorted(run.types, key=lambda one: one.type) for example in one.examples]
    rows = []
    for name, metric, belongs in _ROWS:
        chosen = np.array([belongs(example) for example in examples], dtype=bool)
        if not chosen.any():
            continue
        systems = {}
        for system, scores in run.systems.items():
            hits, chances = scores.column(metric)
            (estimate,) = ratio_estimates(
                hits[chosen, None], chances[chosen, None], scores.clusters()[chosen], settings.bootstrap, settings.seed, f"{name} {metric}"
            )
            systems[system] = estimate.as_json()
        rows.append({"name": name, "metric": metric, "pages": int(chosen.sum()), "systems": systems})
    return rows


def print_headlines(rows: Sequence[Mapping[str, Any]], title: str, file: IO[str] | None = None, width: int | None = None) -> None:
    """Print headline_rows as a table."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    for system in rows[0]["systems"] if rows else ():
        table.add_column(system, justify="right", no_wrap=True)
        table.add_column("95 %", justify="right", style="dim", no_wrap=True)
    table.add_column("pages", justify="right", style="dim")
    for row in rows:
        cells = []
        for estimate in row["systems"].values():
            cells += ["-" if estimate["value"] is None else f"{estimate['value']:.3f}"]
            cells += ["" if estimate["low"] is None else f"{estimate['low']:.2f}-{estimate['high']:.2f}"]
        table.add_row(row["name"], *cells, str(row["pages"]))
    console = Console(file=file, width=width, highlight=False)
    if width is None and not console.is_terminal:
        console.width = 110
    console.print(table)
