"""`kill -9` at random moments of ingest, render and dataset: does what follows end with the digests of a run that nobody disturbed?

    python benchmarks/crash.py [--kills N] [--seed N] [--quick] [--json]

Generated PDFs of two vendors with labels. Undisturbed: `extraction ingest`, then `extraction update --to dataset_card`. Each round starts
from nothing, or for update from a copy of the home that ingest left, kills ingest or update after a random part of the time that it took undisturbed (every other time its whole process group, so
that workers die in the middle of a page too; else the parent alone, whose workers must then go by themselves), runs both commands
again and compares the versions of every asset and partition, and the files of landing/, with the undisturbed home's; then `check` reads the
whole store. Exits 1 where a digest differs, a command fails, the store check finds anything, or a worker outlives its parent by a minute.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import yaml
from printing import Row, print_rows

from extraction_assets.automation.instance import open_instance
from extraction_assets.automation.staleness import Planner
from extraction_assets.definitions import build_definitions
from extraction_assets.demo.vendors import generate
from extraction_assets.demonstration import DEMO_FOLDER
from extraction_assets.home import Home
from extraction_assets.observation import Observation
from extraction_assets.record import Record
from extraction_assets.store import digest_file

TARGET = "dataset_card"
SETTINGS = {
    "base_model": "base_models/tiny-qwen3-vl",
    "render": {"dpi": 96, "max_visual_tokens": 640},
    "negatives": {"rotated": 0.5, "stamped": 0.5, "noisy": 0.5, "missing_field": 0.5},
}
SEED = 11


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="4 kills")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rows, faults = measure(Path(scratch), 4 if arguments.quick else arguments.kills, arguments.seed)
    print_rows(rows, ("dagster", "pymupdf"), arguments.json)
    for fault in faults:
        print(fault, file=sys.stderr)
    sys.exit(bool(faults))


def measure(scratch: Path, kills: int, seed: int) -> tuple[list[Row], list[str]]:
    source = scratch / "source"
    generate(source, SEED, 2, 3)
    calm = new_home(scratch / "calm")
    took = {"ingest": run(calm, source, "ingest")}
    shutil.copytree(calm.root, scratch / "ingested", symlinks=True)
    took["update"] = run(calm, source, "update")
    expected = state(calm)
    draw = random.Random(seed)
    killed: Counter[str] = Counter()
    faults: list[str] = []
    rounds = 0
    while sum(killed.values()) < kills:
        rounds += 1
        # in proportion to their time, but never less than one in four
        step = "ingest" if draw.random() < max(0.25, took["ingest"] / sum(took.values())) else "update"
        home = new_home(scratch / "disturbed") if step == "ingest" else copy_of(scratch / "ingested", scratch / "disturbed")
        moment = draw.uniform(0.0, took[step])
        hit = killed_at(home, source, step, moment, whole_group=rounds % 2 == 0)
        killed[step] += hit
        place = f"round {rounds}: {step} killed after {moment:.2f} s of {took[step]:.2f}"
        if not hit:  # it was faster than it was undisturbed: no kill, no round
            shutil.rmtree(home.root)
            continue
        try:
            for name in (*STEPS, "check"):
                run(home, source, name)
        except RuntimeError as error:
            faults.append(f"{place}: {error}")
            continue
        finally:
            if left := survivors(home):
                faults.append(f"{place}: processes {left} outlive it")
        faults += [f"{place}: {difference}" for difference in differences(expected, state(home))]
        shutil.rmtree(home.root)
        print(f"{sum(killed.values())}/{kills} kills, {len(faults)} faults", end="\r" if sys.stderr.isatty() else "\n", file=sys.stderr)
    return [
        Row("kills", sum(killed.values()), f"kill -9: {dict(killed)}; seed {seed}", "higher"),
        Row("faults", len(faults), "rounds with another digest, a failed command or a process left", "lower"),
        Row("partitions", len(expected), "versions and landed files compared after each", "higher"),
        Row("undisturbed", round(sum(took.values()), 1), "s: ingest, and update to the dataset card", "lower"),
    ], faults


STEPS = ("ingest", "update")


def new_home(root: Path) -> Home:
    shutil.rmtree(root, ignore_errors=True)
    home = Home.create(root)
    shutil.copytree(DEMO_FOLDER / "schemas", home.root / "schemas", dirs_exist_ok=True)
    home.settings_path.write_text(yaml.safe_dump(SETTINGS))
    return home


def copy_of(root: Path, other: Path) -> Home:
    shutil.rmtree(other, ignore_errors=True)
    shutil.copytree(root, other, symlinks=True)
    return Home(other)


def commands(home: Home, source: Path, name: str) -> list[list[str]]:
    extraction = [sys.executable, "-m", "extraction_assets.cli", "--home", str(home.root)]
    if name == "ingest":
        return [[*extraction, "ingest", str(folder), "--type", folder.name] for folder in sorted(source.iterdir()) if folder.is_dir()]
    return [[*extraction, *(["update", "--to", TARGET] if name == "update" else [name])]]


def start(command: list[str]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True, env=environment)


def run(home: Home, source: Path, name: str) -> float:
    """Seconds; RuntimeError with its last words where a command fails."""
    began = time.monotonic()
    for command in commands(home, source, name):
        process = start(command)
        _, errors = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{name} exits {process.returncode}: {errors.decode(errors='replace').strip()[-300:]}")
    return time.monotonic() - began


def killed_at(home: Home, source: Path, name: str, moment: float, whole_group: bool) -> bool:
    """Whether it was still running then."""
    until = time.monotonic() + moment
    for command in commands(home, source, name):
        process = start(command)
        try:
            process.communicate(timeout=max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            if whole_group:
                for pid in (*children(process.pid), process.pid):
                    os.kill(pid, signal.SIGKILL)
            else:
                process.kill()
            process.stderr.close()  # type: ignore[union-attr]  # its workers may still hold the other end
            process.wait()
            return True
    return False


def children(pid: int) -> list[int]:
    """Of all generations; rendering workers are sessions of their own."""
    try:
        direct = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [found for child in direct for found in (*children(child), child)]


def survivors(home: Home, patience_s: float = 60.0) -> list[int]:
    """Processes that name this home on their command line or are nobody's rendering workers, after so long."""
    until = time.monotonic() + patience_s
    while (left := _alive(home)) and time.monotonic() < until:
        time.sleep(0.2)
    return left


def _alive(home: Home) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            command = (folder / "cmdline").read_bytes()
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if os.fsencode(home.root) in command or (b"extraction_assets.documents.worker" in command and parent == 1):
            found.append(int(folder.name))
    return found


def state(home: Home) -> dict[str, str]:
    """Version of each asset and partition, digest of each landed file."""
    found = {str(path.relative_to(home.root)): digest_file(path) for path in sorted(home.landing.rglob("*")) if path.is_file()}
    with open_instance(home) as instance:
        planner = Planner.of(build_definitions(home), instance, Observation.of(home))
        record = Record(instance, home)
        for asset in planner.shape.parents:
            for partition, version in record.latest_versions(asset, asset in planner.shape.partitioned).items():
                found[f"{asset}[{partition}]"] = version
    return found


def differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    names = sorted({*expected, *found})
    return [f"{name} is {found.get(name)}, {expected.get(name)} undisturbed" for name in names if expected.get(name) != found.get(name)]


if __name__ == "__main__":
    main()
