"""Real documents from their manifest to an eval report: nothing lost, nothing truncated, no document in two splits.

    python benchmarks/real_documents.py FOLDER [--quick] [--json] [--keep HOME]

FOLDER holds manifest.jsonl (file, label, type, vendor) and the files it names; default: $EXTRACTION_REALDATA/open. The model is the
embedded base and its training is cut short (4 steps, 64 output tokens): what is measured is the way there, not what it reads.
--quick stops at the dataset card. --keep leaves the home (report, store, Dagster's record) in that folder.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import yaml
from printing import Row, print_rows

from extraction_assets.commands import dataset_command, ingest_command, latest, update_command
from extraction_assets.dataset.chat import load_split
from extraction_assets.home import Home, chat_record_schema_path
from extraction_assets.training.plan import TrainingPlan

SETTINGS = {"render": {"dpi": 72}, "training": {"max_steps": 4}, "decoding": {"max_output_tokens": 64}}
"""72 dpi: a page has a third of the tokens it has at 120, and two cores are what there is"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(os.environ.get("EXTRACTION_REALDATA", ".")) / "open")
    parser.add_argument("--quick", action="store_true", help="up to the dataset card, without model")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", type=Path, metavar="HOME")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rows = measure(arguments.folder / "manifest.jsonl", Home.create(arguments.keep or Path(scratch) / "home"), arguments.quick)
    print_rows(rows, ("dagster", "pymupdf", "torch", "transformers"), arguments.json)


def measure(manifest: Path, home: Home, quick: bool) -> list[Row]:
    home.settings_path.write_text(yaml.safe_dump(SETTINGS))
    rows = []
    started = time.perf_counter()
    taken = ingest_command(home, manifest, None, None, say)
    rows += [
        Row("files named", sum(1 for line in manifest.read_text().splitlines() if line.strip()), "files in the manifest", "higher"),
        Row("files taken", taken.added, "files landed", "higher"),
        Row("files known", taken.unchanged, "files that are byte for byte another of the same vendor", "lower"),
        Row("files refused", len(taken.refused), f"files, by reason: {dict(Counter(r.reason for r in taken.refused))}", "lower"),
        Row("ingest", round(time.perf_counter() - started, 1), "s", "lower"),
    ]
    started = time.perf_counter()
    run(home, ["dataset_card"])
    seconds = time.perf_counter() - started
    value, _ = dataset_command(home)
    rows += [*dataset_rows(home, value), Row("documents to dataset", round(seconds, 1), "s", "lower")]
    if quick:
        return rows
    started = time.perf_counter()
    run(home, None)
    plan = TrainingPlan.model_validate(latest(home, "training_plan")["plan"])
    report = latest(home, "eval_report")
    return [
        *rows,
        Row("over-length examples", len(plan.train.over_length), "examples left out of training whole; none is ever cut", "lower"),
        Row("longest example", plan.train.longest, "tokens", "lower"),
        Row("test pages scored", next(row["pages"] for row in report["headlines"]), "pages in the eval report", "higher"),
        Row("dataset to report", round(time.perf_counter() - started, 1), "s: plan, 4 training steps, predictions, report", "lower"),
    ]


def dataset_rows(home: Home, value: dict) -> list[Row]:
    """Counts over the written JSONL; every line is validated again on the way."""
    records = {
        split: list(load_split(home.store.path(found["digest"], ".jsonl"), chat_record_schema_path()))
        for split, found in value["splits"].items()
    }
    splits_of: dict[str, set[str]] = {}
    for split, lines in records.items():
        for record in lines:
            splits_of.setdefault(record.meta.document, set()).add(split)
    return [
        Row(
            "documents",
            len(splits_of),
            f"labelled documents of {len({r.meta.vendor for lines in records.values() for r in lines})} vendors",
            "higher",
        ),
        *(Row(f"{split} examples", len(lines), "JSONL lines, each valid", "higher") for split, lines in records.items()),
        Row("documents in two splits", sum(len(splits) > 1 for splits in splits_of.values()), "documents", "lower"),
        Row("leaks on the card", len(value["card"]["leaks"]), "documents, twins, page pictures or examples in two splits", "lower"),
    ]


def run(home: Home, to: list[str] | None) -> None:
    walk, problems = update_command(home, to, say)
    if walk.failures or problems:
        sys.exit("\n".join([*walk.failures, *map(str, problems)]))


def say(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    main()
