"""The eval report: one JSON value, one self-contained HTML page, and the same plots as SVG.

The page opens offline and asks no network for anything. With few wrong pages their pictures are inside the file; with many they lie as
JPEG in a folder beside it and are loaded one at a time. Nothing in it depends on when or how fast it was made.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from extraction_assets.errors import InputError
from extraction_assets.evaluation import plots
from extraction_assets.evaluation.browser_data import as_jpeg, browser_pages, schema_outline
from extraction_assets.evaluation.gate import Decision
from extraction_assets.evaluation.report_data import HEADLINES, HistoryPoint, report_data
from extraction_assets.evaluation.run import ImageFile, ScoredRun
from extraction_assets.evaluation.scoring import OUTCOMES
from extraction_assets.settings import EvaluationSettings
from extraction_assets.store import write_atomically

EMBED_LIMIT = 40
"""up to so many wrong pages, their pictures are inside the HTML file"""
_VENDORS_DRAWN = 30


@dataclass(frozen=True)
class Report:
    """A finished report. `write` puts it into a folder; the parts serve as an asset's value and metadata."""

    data: dict[str, Any]
    html: str
    plots: dict[str, str]
    """name -> SVG"""
    images: dict[str, ImageFile] = field(default_factory=dict)
    """name -> page image that goes as pages/NAME.jpg beside the HTML; empty where pictures are inside"""

    def write(self, folder: Path, progress: Callable[[int, int], None] | None = None) -> Path:
        """Write report.html, report.json, plots/*.svg and pages/*.jpg; returns the HTML's path. The HTML is written last."""
        for done, (name, image) in enumerate(self.images.items(), 1):
            _write_picture(folder / "pages" / f"{name}.jpg", as_jpeg(image, 1400))
            if progress:
                progress(done, len(self.images))
        for name, svg in self.plots.items():
            write_atomically(folder / "plots" / f"{name}.svg", svg.encode())
        write_atomically(folder / "report.json", json.dumps(self.data, indent=1, ensure_ascii=False, allow_nan=False).encode())
        write_atomically(folder / "report.html", self.html.encode())
        return folder / "report.html"


def build_report(
    run: ScoredRun,
    settings: EvaluationSettings,
    title: str = "Extraction report",
    decision: Decision | None = None,
    history: Sequence[HistoryPoint] = (),
    images: Literal["auto", "inside", "beside", "none"] = "auto",
    calibration: Mapping[str, Any] | None = None,
) -> Report:
    """Build the report of a scored run; one section per document type, since their schemas differ.

    decision: what the gate said
    history:  earlier runs' headlines, oldest first
    calibration: from calibrated_run.calibrate; its risk and coverage take the place of those by raw confidence
    images:   where the wrong pages' pictures go; auto: inside up to EMBED_LIMIT pages, else beside
    """
    data = report_data(run, settings, title, decision, history) | {"calibration": dict(calibration) if calibration else None}
    if calibration and calibration.get("risk_coverage"):
        data["risk_coverage"] = calibration["risk_coverage"]
    drawn = draw_plots(data)
    pages, found = browser_pages(run)
    inside = images == "inside" or (images == "auto" and len(pages) <= EMBED_LIMIT)
    if images == "none":
        found = {}
        for page in pages:
            page.pop("image", None)
    embedded = {name: _data_uri(image) for name, image in found.items()} if inside else {}
    html = _html(run, data, drawn, pages, embedded)
    return Report(data, html, drawn, {} if inside else found)


def draw_plots(data: Mapping[str, Any]) -> dict[str, str]:
    """Every plot of the report by name, as SVG; the names of a type's plots end in its type."""
    names, main, drawn = data["systems"], data["main"], {}
    told = [(label, {name: data["overall"][name][metric] for name in names}) for metric, label in HEADLINES]
    told = [(label, row) for label, row in told if any(estimate["value"] is not None for estimate in row.values())]
    drawn["headline"] = plots.rates_plot(told, names, "Headline rates with 95 % intervals")
    for type, section in data["types"].items():
        systems = section["systems"]
        own = systems[main]
        if own["fields"]:
            fields = [
                (field, told["type"], {name: systems[name]["fields"][field]["accuracy"] for name in names})
                for field, told in own["fields"].items()
            ]
            drawn[f"fields {type}"] = plots.bars_plot(fields, names, f"Accuracy per field, {type}")
            outcomes = [(field, told["outcomes"]) for field, told in own["fields"].items()]
            drawn[f"outcomes {type}"] = plots.outcomes_plot(outcomes, f"Outcomes per field of {main}, {type}")
        for array in own["rows"]:
            columns = [
                (c, "column", {name: systems[name]["rows"][array]["columns"][c] for name in names}) for c in own["rows"][array]["columns"]
            ]
            drawn[f"columns {type} {array}"] = plots.bars_plot(columns, names, f"Accuracy per column of {array}, {type}")
        for kind in ("vendors", "strata"):
            if len(own[kind]) > 1:
                rows = [(name.removeprefix(f"{type}/"), told) for name, told in worst_first(own[kind], data["headline"])[:_VENDORS_DRAWN]]
                drawn[f"{kind} {type}"] = plots.groups_plot(
                    rows, f"{kind} of {type}, worst first: {data['headline']} of {main}", own["overall"][data["headline"]]["value"]
                )
        if own["twins"]:
            drawn[f"twins {type}"] = plots.twins_plot(own["twins"], f"Hard negatives beside their clean twins, {type}")
    if data["risk_coverage"]:
        points = [(point["coverage"], point["error"]) for point in data["risk_coverage"]]
        drawn["risk coverage"] = plots.curve_plot(
            points, "Risk and coverage", "share of pages answered, most confident first", "share not exact"
        )
    if (calibration := data.get("calibration")) and calibration.get("reliability"):
        bins = calibration["reliability"]
        drawn["reliability"] = plots.reliability_plot(
            [(one["confidence"], one["right"], one["n"]) for one in bins], "Calibrated confidence and share of right values"
        )
    if len(data["history"]) > 1:
        history = data["history"]
        points = [(number / (len(history) - 1), point["value"]) for number, point in enumerate(history)]
        labels = [point["label"] for point in history]
        drawn["learning curve"] = plots.curve_plot(points, "Learning curve", "runs", data["headline"], labels, history)
    return drawn


def worst_first(groups: Mapping[str, Any], metric: str) -> list[tuple[str, dict[str, Any]]]:
    """(name, estimate) by rising value; groups that the metric says nothing about are left out."""
    known = [(name, told[metric]) for name, told in groups.items() if told[metric]["value"] is not None]
    return sorted(known, key=lambda item: (item[1]["value"], item[0]))


def _write_picture(path: Path, data: bytes) -> None:
    """Not synced to the disk one by one: the HTML that names the pictures is written after them."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise InputError(str(path), f"cannot be written: {error.strerror or error}") from None


def _data_uri(image: ImageFile) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(as_jpeg(image, 1100, 62)).decode()


def _html(run: ScoredRun, data: dict[str, Any], drawn: dict[str, str], pages: list[dict[str, Any]], embedded: dict[str, str]) -> str:
    import jinja2

    folder = files("extraction_assets.evaluation").joinpath("report_page")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"rate": _rate, "signed": _signed, "p": _p_value}
    template = environment.from_string(folder.joinpath("report.html.jinja").read_text(encoding="utf-8"))
    browser = {
        "systems": data["systems"],
        "main": data["main"],
        "colors": plots.colors_of(data["systems"]),
        "outcomes": list(OUTCOMES),
        "words": [plots.OUTCOME_WORDS[outcome] for outcome in OUTCOMES],
        "schemas": {one.type: schema_outline(one) for one in run.types},
        "pages": pages,
    }
    return template.render(
        data=data,
        plots=drawn,
        wrong=len(pages),
        style=folder.joinpath("report.css").read_text(encoding="utf-8"),
        script=folder.joinpath("report.js").read_text(encoding="utf-8"),
        browser=_script_json(browser),
        images=_script_json(embedded),
        colors=plots.colors_of(data["systems"]),
        headlines=HEADLINES,
        worst_first=worst_first,
    )


def _script_json(value: Any) -> str:
    """JSON that may stand inside a script element: nothing in it can close the element or open a comment."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}".replace("-", "−")


def _p_value(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
