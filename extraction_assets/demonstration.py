"""`extraction demo`: the whole graph on generated vendors and the embedded base model, on a CPU."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from extraction_assets.commands import ingest_command, latest, update_command
from extraction_assets.errors import InputError
from extraction_assets.home import PROJECT, Home
from extraction_assets.progress import terminal_bar

VENDORS = 36
DOCUMENTS_PER_VENDOR = 12
DEMO_FOLDER = PROJECT / "data" / "demo"
_GENERATED = ".generated"
"""written last: a demo home whose documents are all there"""
_OURS = ".extraction-demo"
"""marks a folder as a demo home: only such a folder is ever removed"""
_TWO_PROCESSES = """
compute:
  processes: 2                # this machine has no GPU, and cores: one for each page of a step. Part of no digest
"""


def run_demo(folder: Path, seed: int, keep: bool, say: Callable[[str], None]) -> int | None:
    """Makes a demo home, runs the graph, prints the eval table. Returns an exit code, None for success."""
    home = make_documents(folder, seed, say, keep)
    say("2/3 the graph: render, targets, hard negatives, splits, LoRA training, predictions, eval report")
    walk, problems = update_command(home, None, say)
    for line in (*walk.failures, *problems):
        say(f"extraction: {line}")
        return 2
    say("3/3 the result")
    _print_result(home)
    return None


def make_documents(folder: Path, seed: int, say: Callable[[str], None], keep: bool = False) -> Home:
    """A demo home with its generated documents ingested, nothing materialized. keep: an existing one stays as it is."""
    lock = folder.with_name(f".{folder.name}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):  # the folder itself is made anew below
        home = _demo_home(folder, keep)
        if not (home.root / _GENERATED).exists():
            _generate(home, seed, say)
            (home.root / _GENERATED).touch()
    return home


def _demo_home(folder: Path, keep: bool) -> Home:
    if folder.exists() and not folder.is_dir():
        raise InputError(str(folder), "is a file", "a folder for the demo home")
    if folder.exists() and not keep:
        if not (folder / _OURS).exists() and any(folder.iterdir()):
            raise InputError(str(folder), "is not a demo home, so it is left alone", do="Choose another --home")
        shutil.rmtree(folder)
    if not (folder / "settings.yaml").exists():
        (folder / "schemas").mkdir(parents=True, exist_ok=True)
        (folder / _OURS).touch()
        for schema in sorted((DEMO_FOLDER / "schemas").iterdir()):
            shutil.copyfile(schema, folder / "schemas" / schema.name)
        (folder / "landing").mkdir(exist_ok=True)
        settings = (DEMO_FOLDER / "settings.yaml").read_text(encoding="utf-8")
        (folder / "settings.yaml").write_text(settings + (_TWO_PROCESSES if _has_idle_cores() else ""), encoding="utf-8")
    return Home.open(folder)


def _has_idle_cores() -> bool:
    """Does a training in one process leave cores idle? On a CPU: a tiny model's operations are too small for two threads."""
    import torch

    return (os.cpu_count() or 1) > 1 and not torch.cuda.is_available()


def _generate(home: Home, seed: int, say: Callable[[str], None]) -> None:
    from extraction_assets.demo.vendors import generate

    say(f"1/3 {VENDORS} vendors with {DOCUMENTS_PER_VENDOR} generated documents each, ingested into {home.landing}")
    source = home.root / "generated"
    generate(source, seed, VENDORS, DOCUMENTS_PER_VENDOR, progress=terminal_bar("generate", "document"))
    for type_folder in sorted(path for path in source.iterdir() if path.is_dir()):
        ingest_command(home, type_folder, type_folder.name, None, say)


def _print_result(home: Home) -> None:
    from extraction_assets.evaluation.headline_table import print_headlines

    report = latest(home, "eval_report")
    print_headlines(report["headlines"], "Test split: base model and adapter on pages that neither has seen")
    print(f"gate:   {'promoted' if report['decision']['promote'] else 'not promoted'}: {report['decision']['reason']}")
    print(f"report: {home.reports / 'latest' / 'report.html'}")
    print(f"UI:     .venv/bin/extraction --home {home.root} ui")
