"""How many labelled documents does a vendor need? Field accuracy on new documents against the documents per vendor that were trained on.

    python benchmarks/learning_curve.py [--seed N] [--documents 5 10 20 50 100] [--quick] [--json] [--plot FILE.png] [--keep FOLDER]

For each count a home of its own goes through the graph down to its adapter: generated invoices of SEEN vendors, with the demo's settings
and the same number of training steps. Every adapter, and the base, then reads the same new invoices: of the vendors it was trained on,
and of vendors that nobody trained on. --quick: 5 and 20 documents. --keep leaves the homes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from printing import Row, machine, print_rows

from extraction_assets.commands import ingest_command, latest, update_command
from extraction_assets.demo.vendors import generate
from extraction_assets.demo.vendors.generated_set import make_document
from extraction_assets.demonstration import DEMO_FOLDER
from extraction_assets.documents.rendering import render_bytes
from extraction_assets.evaluation.harness import evaluate_files
from extraction_assets.home import Home
from extraction_assets.inference.answers import Answerer
from extraction_assets.inference.predict import RenderedPage, predict_pages, prediction_line
from extraction_assets.model.base import load_base
from extraction_assets.schema import TargetSchema

SEEN, UNSEEN = 6, 3
"""vendors whose documents are trained on, and vendors after them that are only read"""
NEW_DOCUMENTS = 12
"""per vendor, numbered from FIRST_NEW: no training set has them"""
FIRST_NEW = 1001
STEPS = 200
"""optimizer steps of every adapter: more documents are not more training"""
STRATA = ("seen", "unseen")


@dataclass(frozen=True)
class Exam:
    """The new documents, the same for every adapter."""

    pages: tuple[RenderedPage, ...]
    gold: Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="of the generated vendors")
    parser.add_argument("--documents", type=int, nargs="+", default=[5, 10, 20, 50, 100], help="per vendor")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    parser.add_argument("--keep", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.keep or Path(scratch)
        curve = measure(folder, arguments.seed, [5, 20] if arguments.quick else arguments.documents)
    if arguments.plot:
        draw(curve, arguments.plot)
    rows = [row for stratum in STRATA for row in _rows(curve, stratum)]
    print_rows(rows, ("torch", "transformers", "peft"), arguments.json)


def measure(folder: Path, seed: int, counts: Sequence[int]) -> dict[int, dict[str, Any]]:
    """documents per vendor (0: the base) -> {"seen", "unseen"} -> field accuracy with its interval."""
    curve: dict[int, dict[str, Any]] = {}
    exam: Exam | None = None
    for count in counts:
        home = make_home(folder / f"{count}-documents", seed, count)
        exam = exam or make_exam(home, folder, seed)
        if 0 not in curve:
            curve[0] = score(home, exam, None, folder)
        walk, problems = update_command(home, ["lora_adapter"], say)
        if walk.failures or problems:
            sys.exit("\n".join([*walk.failures, *map(str, problems)]))
        curve[count] = score(home, exam, home.store.folder(latest(home, "lora_adapter")["adapter"]), folder)
        say(f"{count} documents per vendor: {json.dumps(curve[count])}")
    return curve


def make_home(folder: Path, seed: int, documents: int) -> Home:
    home = Home.create(folder)
    for schema in home.schemas_folder.iterdir():
        schema.unlink()
    shutil.copyfile(DEMO_FOLDER / "schemas" / "invoice.schema.json", home.schemas_folder / "invoice.schema.json")
    settings = yaml.safe_load((DEMO_FOLDER / "settings.yaml").read_text(encoding="utf-8"))
    settings["splits"].pop("held_out_vendors", None)
    settings["training"] |= {"max_steps": STEPS, "epochs": 1000}
    home.settings_path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    generate(folder / "generated", seed, SEEN, documents, types=["invoice"])
    ingest_command(home, folder / "generated" / "invoice", "invoice", None, say)
    return home


def make_exam(home: Home, folder: Path, seed: int) -> Exam:
    """New documents of one page each, rendered as the home renders pages."""
    settings = home.settings()
    pages: list[RenderedPage] = []
    lines: list[str] = []
    for vendor in range(1, SEEN + UNSEEN + 1):
        for number in range(FIRST_NEW, FIRST_NEW + NEW_DOCUMENTS):
            document = make_document(seed, vendor, number, "invoice")
            if len(document.page_sizes) > 1:
                continue
            (page,) = render_bytes(document.pdf, settings.render).pages
            pages.append(RenderedPage(document.stem, 1, page.png, page.record.width, page.record.height))
            stratum = STRATA[vendor > SEEN]
            lines.append(json.dumps({"id": document.stem, "target": document.label, "vendor": document.vendor, "stratum": stratum}))
    gold = folder / "exam.jsonl"
    gold.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return Exam(tuple(pages), gold)


def score(home: Home, exam: Exam, adapter: Path | None, folder: Path) -> dict[str, Any]:
    schema: TargetSchema = home.schema("invoice")
    answerer = Answerer.of(load_base(home.base_model()), adapter)
    answers = predict_pages(exam.pages, schema, answerer, home.settings().decoding)
    predictions = folder / "answers.jsonl"
    lines = [{**json.loads(prediction_line(page.answer)), "id": page.file} for page in answers]
    predictions.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    report = evaluate_files(predictions, exam.gold, schema, comparison=False)
    return {stratum: report["strata"][stratum]["field_accuracy"] for stratum in STRATA}


def draw(curve: dict[int, dict[str, Any]], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    counts = sorted(count for count in curve if count)
    figure, axes = pyplot.subplots(figsize=(7, 4), dpi=120)
    for stratum, colour, label in (("seen", "#c2570c", "vendors trained on, new documents"), ("unseen", "#475569", "vendors never seen")):
        values = [curve[count][stratum] for count in counts]
        spread = [[told["value"] - told["low"] for told in values], [told["high"] - told["value"] for told in values]]
        axes.errorbar(counts, [told["value"] for told in values], yerr=spread, color=colour, marker="o", capsize=3, label=label)
        axes.axhline(curve[0][stratum]["value"], color=colour, linestyle=":", linewidth=1)
    axes.set_xscale("log")
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set_ylim(0, 1)
    axes.set_xlabel(f"labelled documents per vendor ({SEEN} vendors, {STEPS} training steps each; dotted: the base)")
    axes.set_ylabel("header fields right, 95 % intervals")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    axes.set_title(f"Learning curve of the embedded base, {machine()}", fontsize=10)
    figure.tight_layout()
    figure.savefig(file)


def _rows(curve: dict[int, dict[str, Any]], stratum: str) -> list[Row]:
    base = curve[0][stratum]
    rows = []
    for count in sorted(curve):
        told = curve[count][stratum]
        unit = f"share of header fields, 95 % {told['low']:.3f}-{told['high']:.3f}"
        peer = (round(base["value"], 4), "base model") if count else (None, None)
        rows.append(Row(f"{stratum}_{count}_documents" if count else f"{stratum}_base", round(told["value"], 4), unit, "higher", *peer))
    return rows


def say(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    main()
