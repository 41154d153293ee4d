"""The eval table as a person reads it in a terminal: overall, per field, rows, strata, vendors worst first."""

from __future__ import annotations

import io
from typing import IO, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

_OVERALL = (
    ("field_accuracy", "field accuracy"),
    ("document_exact", "document exact"),
    ("row_exact_f1", "rows exact, F1"),
    ("row_detect_f1", "rows found, F1"),
    ("cell_f1", "cells, F1"),
    ("strict_json", "strict JSON"),
    ("schema_valid", "schema valid"),
    ("hallucination_rate", "hallucination rate"),
    ("amount_consistency", "amounts add up"),
    ("anls_star", "ANLS*"),
    ("donut_f1", "Donut F1"),
    ("donut_nted", "Donut nTED"),
)
_VENDORS_SHOWN = 8


def print_table(summary: dict[str, Any], title: str = "Evaluation", file: IO[str] | None = None, width: int | None = None) -> None:
    """Print one system's summary (of `evaluate_files` or `summarise`). Colours only where the file is a terminal."""
    console = _console(file, width)
    console.print(_overall({"": summary}, f"{title}: {_count(summary['documents'], 'document')}"))
    console.print(_fields(summary))
    if summary["rows"]:
        console.print(_rows(summary))
    if len(summary["strata"]) > 1:
        console.print(_groups(summary, "strata", "stratum"))
    if len(summary["vendors"]) > 1:
        console.print(_groups(summary, "vendors", "vendor"))
    for line in notes(summary):
        console.print(line, style="yellow")


def print_systems(summaries: dict[str, dict[str, Any]], title: str, file: IO[str] | None = None, width: int | None = None) -> None:
    """Print several systems' summaries (base, champion, challenger) side by side: the overall rates, then accuracy per field."""
    console = _console(file, width)
    first = next(iter(summaries.values()))
    console.print(_overall(summaries, f"{title}: {_count(first['documents'], 'page')}"))
    table = _table("accuracy per field")
    table.add_column("field")
    table.add_column("type", style="dim")
    for name in summaries:
        table.add_column(name, justify="right")
    table.add_column("n", justify="right", style="dim")
    for field, told in first["fields"].items():
        values = [_share(summary["fields"][field]["accuracy"]["value"]) for summary in summaries.values()]
        table.add_row(field, told["type"], *values, str(told["accuracy"]["n"]))
    console.print(table)


def table_text(summary: dict[str, Any], title: str = "Evaluation", width: int = 110) -> str:
    """The same without colours, as text."""
    out = io.StringIO()
    print_table(summary, title, out, width)
    return out.getvalue()


def notes(summary: dict[str, Any]) -> list[str]:
    """What a reader must know beside the rates, one line each; empty if there is nothing."""
    lines = []
    missing, odd = summary.get("missing_predictions", {}), summary.get("gold_outside_schema", {})
    if missing.get("count"):
        lines.append(f"{_count(missing['count'], 'document')} without prediction, counted as empty answers, e.g. {missing['first'][0]}")
    if odd.get("count"):
        lines.append(f"{_count(odd['count'], 'gold target')} outside the schema, e.g. {odd['first'][0]}")
    answers = summary.get("answers", {})
    bad = {bucket: answers[bucket] for bucket in ("truncated", "recoverable", "unusable", "empty") if answers.get(bucket)}
    if bad:
        lines.append("answers that are no strict JSON: " + ", ".join(f"{count} {bucket}" for bucket, count in bad.items()))
    for key, count in list(summary.get("extra_keys", {}).items())[:3]:
        lines.append(f"{_count(count, 'answer')} with {key}, a key that the schema does not have")
    return lines


def _console(file: IO[str] | None, width: int | None) -> Console:
    console = Console(file=file, width=width, highlight=False)
    if width is None and not console.is_terminal:
        console.width = 110
    return console


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)


def _overall(summaries: dict[str, dict[str, Any]], title: str) -> Table:
    table = _table(title)
    table.add_column("")
    for name in summaries:
        table.add_column(name, justify="right")
        table.add_column("95 %", justify="right", style="dim")
    table.add_column("n", justify="right", style="dim")
    for metric, label in _OVERALL:
        estimates = [summary["overall"][metric] for summary in summaries.values()]
        if all(estimate["value"] is None for estimate in estimates):
            continue
        cells: list[str | Text] = []
        for estimate in estimates:
            cells += [Text(_share(estimate["value"]), style="bold"), _interval(estimate)]
        table.add_row(label, *cells, str(estimates[0]["n"]))
    return table


def _fields(summary: dict[str, Any]) -> Table:
    table = _table("fields")
    table.add_column("field", no_wrap=True)
    for name in ("accuracy", "95 %", "prec.", "recall", "halluc.", "match", "wrong", "missing", "invented", "absent"):
        table.add_column(name, justify="right", no_wrap=True, style="dim" if name == "95 %" else None)
    for field, told in summary["fields"].items():
        table.add_row(
            field,
            Text(_share(told["accuracy"]["value"]), style="bold"),
            _interval(told["accuracy"]),
            *(_share(told[metric]["value"]) for metric in ("precision", "recall", "hallucination_rate")),
            *(str(count) for count in told["outcomes"].values()),
        )
    return table


def _rows(summary: dict[str, Any]) -> Table:
    table = _table("rows")
    table.add_column("array or column")
    for name in ("rows exact F1", "rows found F1", "cells F1", "accuracy", "n"):
        table.add_column(name, justify="right", style="dim" if name == "n" else None)
    for array, told in summary["rows"].items():
        values = [_share(told[metric]["value"]) for metric in ("row_exact_f1", "row_detect_f1", "cell_f1")]
        table.add_row(Text(array, style="bold"), *values, "", str(told["row_exact_f1"]["n"]))
        for column, estimate in told["columns"].items():
            table.add_row(f"  {column}", "", "", "", _share(estimate["value"]), str(estimate["n"]))
    return table


def _groups(summary: dict[str, Any], key: str, title: str) -> Table:
    groups = sorted(summary[key].items(), key=lambda item: (_rank(item[1]["field_accuracy"]["value"]), item[0]))
    shown = groups[:_VENDORS_SHOWN]
    more = f" (the {len(shown)} worst of {len(groups)})" if len(groups) > len(shown) else ", worst first"
    table = _table(f"{key}{more}")
    table.add_column(title)
    for name in ("field accuracy", "95 %", "document exact", "rows exact F1", "against twins", "documents"):
        if name == "against twins" and (key != "strata" or not summary["twins"]):
            continue
        table.add_column(name, justify="right", style="dim" if name in ("95 %", "documents") else None)
    for name, told in shown:
        twin = summary["twins"].get(name, {}).get("difference", {}).get("value")
        drop = [_signed(twin)] if key == "strata" and summary["twins"] else []
        values = [_share(told[metric]["value"]) for metric in ("document_exact", "row_exact_f1")]
        table.add_row(
            name, _share(told["field_accuracy"]["value"]), _interval(told["field_accuracy"]), *values, *drop, str(told["documents"])
        )
    return table


def _rank(value: float | None) -> float:
    return 2.0 if value is None else value


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"


def _interval(estimate: dict[str, Any]) -> str:
    return "" if estimate["low"] is None else f"{estimate['low']:.2f}-{estimate['high']:.2f}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
