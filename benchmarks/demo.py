"""What fine-tuning gives: the demo as `make demo` runs it, then the same documents with QLoRA, then a control run with shuffled targets.

    python benchmarks/demo.py [--seed N] [--quick] [--json] [--keep HOME]

Every figure is read from the eval reports that the graph wrote; intervals resample documents. The control run (training.shuffle_targets)
is taught the same pages with each other's targets: what it scores, no model has to read for. --quick leaves QLoRA out. --keep leaves the
demo home in that folder.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from printing import Row, print_rows

from extraction_assets.commands import latest, update_command
from extraction_assets.demonstration import run_demo
from extraction_assets.home import Home

GROUPS = {"": "  seen vendors, clean pages", "_unseen_vendors": "  unseen vendors, clean pages", "_hard_negatives": "  hard negatives"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="of the generated vendors")
    parser.add_argument("--quick", action="store_true", help="without QLoRA")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", type=Path, metavar="HOME")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.keep or Path(scratch) / "home"
        started = time.perf_counter()
        if run_demo(folder, arguments.seed, keep=False, say=say):
            sys.exit(1)
        seconds = time.perf_counter() - started
        rows = demo_rows(Home.open(folder), seconds, arguments.quick)
    print_rows(rows, ("torch", "transformers", "peft", "bitsandbytes"), arguments.json)


def demo_rows(home: Home, seconds: float, quick: bool) -> list[Row]:
    """The figures of a finished demo, and of the runs that are made here from the same documents."""
    lora = headlines(home)
    rows = []
    for suffix, name in GROUPS.items():
        base, adapter = (lora[name][system] for system in ("base", "challenger"))
        rows.append(share(f"base_field_accuracy{suffix}", base))
        rows.append(share(f"adapter_field_accuracy{suffix}", adapter, base, "base model"))
    for row, name, better in (
        ("adapter_row_exact_f1", "line items exact (F1)", "higher"),
        ("adapter_hallucination_rate", "invented values where a field is missing", "lower"),
        ("adapter_strict_json", "strict JSON", "higher"),
    ):
        rows.append(share(row, lora[name]["challenger"], lora[name]["base"], "base model", better))
    rows.append(Row("demo_seconds", round(seconds, 1), "s, all of it: documents, graph, training, answers, report", "lower"))
    seen = GROUPS[""]
    control = changed(home, {"shuffle_targets": True})
    rows.append(share("shuffled_labels_field_accuracy", control[seen]["challenger"], lora[seen]["challenger"], "adapter", "lower"))
    if not quick:
        qlora = changed(home, {"shuffle_targets": False, "method": "qlora"})
        everywhere = "fields right, all pages"
        rows.append(share("qlora_field_accuracy", qlora[everywhere]["challenger"], lora[everywhere]["challenger"], "lora, all pages"))
    return rows


def changed(home: Home, training: Mapping[str, Any]) -> dict[str, Any]:
    """Headlines after another training on the same dataset; what the settings do not touch is not made again."""
    settings = yaml.safe_load(home.settings_path.read_text(encoding="utf-8"))
    settings["training"] |= training
    home.settings_path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    walk, problems = update_command(home, None, say)
    if walk.failures or problems:
        sys.exit("\n".join([*walk.failures, *map(str, problems)]))
    return headlines(home)


def headlines(home: Home) -> dict[str, Any]:
    return {row["name"]: row["systems"] for row in latest(home, "eval_report")["headlines"]}


def share(
    name: str, estimate: Mapping[str, Any], peer: Mapping[str, Any] | None = None, peer_name: str | None = None, better: str = "higher"
) -> Row:
    unit = f"share, 95 % {estimate['low']:.3f}-{estimate['high']:.3f}"
    return Row(name, round(estimate["value"], 4), unit, better, round(peer["value"], 4) if peer else None, peer_name)


def say(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    main()
