"""One new vendor among many: does `update` make only what hangs on it, and how long does it take beside the whole?

    python benchmarks/increment.py [--vendors N] [--documents N] [--quick] [--json] [--keep HOME]

N generated vendors are built up to the dataset card (rendered, targets, hard negatives, splits, JSONL); then one more vendor's documents
are ingested and `update` runs again; then `status`. Exits 1 where the second run drew another vendor's pages or made its targets again, or
where anything is stale at the end. one_vendor_of_N: the second run's share of the first's time.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import yaml
from printing import Row, print_rows

from extraction_assets.automation.update import Walk
from extraction_assets.commands import dataset_command, ingest_command, status_command, update_command
from extraction_assets.demo.vendors import generate
from extraction_assets.demonstration import DEMO_FOLDER
from extraction_assets.home import Home

TARGET = "dataset_card"
SETTINGS = {"base_model": "base_models/tiny-qwen3-vl", "render": {"dpi": 96, "max_visual_tokens": 640}}
SEED = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vendors", type=int, default=100)
    parser.add_argument("--documents", type=int, default=20, help="a vendor")
    parser.add_argument("--quick", action="store_true", help="6 vendors of 3 documents")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", type=Path, metavar="HOME")
    arguments = parser.parse_args()
    vendors, documents = (6, 3) if arguments.quick else (arguments.vendors, arguments.documents)
    with tempfile.TemporaryDirectory() as scratch:
        home = Home.create(arguments.keep or Path(scratch) / "home")
        shutil.copytree(DEMO_FOLDER / "schemas", home.root / "schemas", dirs_exist_ok=True)
        home.settings_path.write_text(yaml.safe_dump(SETTINGS))
        rows, faults = measure(home, Path(scratch) / "generated", vendors, documents)
    print_rows(rows, ("dagster", "pymupdf"), arguments.json)
    for fault in faults:
        print(fault, file=sys.stderr)
    sys.exit(bool(faults))


def measure(home: Home, source: Path, vendors: int, documents: int) -> tuple[list[Row], list[str]]:
    generated = generate(source, SEED, vendors + 1, documents)
    late_type, late_vendor = generated.vendors[-1]
    late = source / late_type / late_vendor
    aside = source.with_name("late")
    late.rename(aside)
    for folder in sorted(path for path in source.iterdir() if path.is_dir()):
        ingest_command(home, folder, folder.name, None, say)
    whole_s, whole = timed(lambda: run(home))
    ingest_command(home, aside, late_type, late_vendor, say)
    one_s, walk = timed(lambda: run(home))
    status_s, (statuses, _) = timed(lambda: status_command(home))
    value, _ = dataset_command(home)
    examples = sum(split["examples"] for split in value["splits"].values())
    ran = Counter(row.asset for row in walk.ran)
    others = sorted({f"{row.asset}[{row.partition}]" for row in walk.ran if row.partition not in (None, f"{late_type}/{late_vendor}")})
    built = {row.asset for row in whole.ran}
    stale = [status for status in statuses if status.state != "fresh" and status.asset in built]
    faults = [f"{name} ran again, though only {late_type}/{late_vendor} is new" for name in others]
    faults += [f"{status.asset} is stale after the update" for status in stale]
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return [
        Row("whole_build", round(whole_s, 1), f"s: {vendors} vendors of {documents} documents to the dataset card", "lower"),
        Row("one_vendor", round(one_s, 1), f"s: one more vendor; runs: {dict(ran)}", "lower"),
        Row(f"one_vendor_of_{vendors}", round(one_s / whole_s, 4), "of the whole build's time", "lower"),
        Row("one_vendor_limit", round(0.02 * whole_s + 20, 1), "s: 2 % of the whole build, and 20 s", "lower"),
        Row("status", round(status_s, 1), f"s for {len(statuses)} partitions", "lower"),
        Row("examples", examples, "lines of the three splits", "higher"),
        Row("peak_memory", round(peak_mb), "MB resident, this process", "lower"),
    ], faults


def timed(work: Callable[[], object]) -> tuple[float, object]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def run(home: Home) -> Walk:
    walk, problems = update_command(home, [TARGET], say)
    if walk.failures or problems:
        sys.exit("\n".join([*walk.failures, *map(str, problems)]))
    return walk


def say(line: str) -> None:
    if "was never materialized" not in line:
        print(line, file=sys.stderr)


if __name__ == "__main__":
    main()
