"""Real documents through the command line, from their manifest to the dataset. Needs EXTRACTION_REALDATA."""

from __future__ import annotations

import json
import os
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from extraction_assets.cli import main
from extraction_assets.dataset.chat import load_split
from extraction_assets.demo.tiny_base import write_random_base
from extraction_assets.home import Home, chat_record_schema_path

REAL = os.environ.get("EXTRACTION_REALDATA")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not REAL, reason="EXTRACTION_REALDATA does not point at the real documents")]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home.create(tmp_path / "home")
    home.settings_path.write_text(yaml.safe_dump({"base_model": "base", "render": {"dpi": 50}}))
    write_random_base(home.root / "base", seed=1, preset="test")  # the card counts its tokens
    return home


def run(home: Home, capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main(["--home", str(home.root), *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Every third vendor's documents, and what has no type: benchmarks/real_documents.py takes all."""
    source = Path(REAL or "") / "open"
    named = [json.loads(line) for line in (source / "manifest.jsonl").read_text().splitlines()]
    vendors = sorted({row["vendor"] or "" for row in named})[::3]
    some = [row for row in named if row["type"] is None or (row["vendor"] or "") in vendors]
    for name in {name for row in some for name in (row["file"], row["label"]) if name}:
        (tmp_path / "some" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, tmp_path / "some" / name)
    path = tmp_path / "some" / "manifest.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in some))
    return path


def test_every_file_is_taken_or_refused_and_no_document_stands_in_two_splits(
    home: Home, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = [json.loads(line) for line in manifest.read_text().splitlines()]

    taken = run(home, capsys, "ingest", str(manifest))
    assert taken["added"] + taken["unchanged"] + len(taken["refused"]) == len(named)
    assert {row["file"] for row in taken["refused"]} == {row["file"] for row in named if row["type"] is None}

    assert all(row["ok"] for row in run(home, capsys, "update", "--to", "dataset_card"))
    dataset = run(home, capsys, "dataset")
    splits: dict[str, set[str]] = defaultdict(set)
    pages: dict[str, set[str]] = defaultdict(set)
    for split, written in dataset["splits"].items():
        for record in load_split(home.store.path(written["digest"], ".jsonl"), chat_record_schema_path()):  # validates every line
            splits[record.meta.document].add(split)
            pages[record.meta.page_digest].add(split)
    assert dataset["card"]["leaks"] == []
    assert len(splits) > 0.9 * taken["added"]
    assert [document for document, found in splits.items() if len(found) > 1] == []
    assert [page for page, found in pages.items() if len(found) > 1] == []
