"""A PDF dropped into landing/ ends in the dataset as a new partition, without a hand on it: real daemon, real code server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from extraction_assets.automation.instance import open_instance
from extraction_assets.commands import update_command
from extraction_assets.home import HOME_VARIABLE, PROJECT, Home
from extraction_assets.record import VENDORS, Record
from extraction_assets_tests.homes import drop_document, make_home

PATIENCE_S = 900


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = make_home(tmp_path / "home", {"invoice/acme": 4}, types=("invoice",))
    update_command(home, ["test_split"], say=lambda line: None)
    return home


@pytest.fixture
def daemon(home: Home) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, HOME_VARIABLE: str(home.root), "DAGSTER_HOME": str(home.dagster)}
    log = (home.root / "daemon.log").open("wb")
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("dagster-daemon")), "run", "--workspace", str(PROJECT / "workspace.yaml")],
        env=environment,
        cwd=PROJECT,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    yield process
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_dropped_pdf_becomes_a_partition_and_reaches_the_dataset(home: Home, daemon: subprocess.Popen[bytes]) -> None:
    for number in range(3):
        drop_document(home, "invoice/new vendor", f"fresh-{number}")
    documents: set[str] = set()
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end and len(documents) < 3:
        time.sleep(3)
        assert daemon.poll() is None, (home.root / "daemon.log").read_text()[-2000:]
        with open_instance(home) as instance:
            record = Record(instance, home)
            if "invoice/new vendor" in instance.get_dynamic_partitions(VENDORS):
                documents = _documents_of(record, "invoice/new vendor")
    assert len(documents) == 3, (home.root / "daemon.log").read_text()[-3000:]


def _documents_of(record: Record, vendor: str) -> set[str]:
    """Documents of a vendor that stand in a written split."""
    found = set()
    for split in ("train", "val", "test"):
        value = record.latest_value(f"{split}_split")
        for line in record.home.store.read_bytes(value["jsonl"], ".jsonl").splitlines() if value else ():
            meta = json.loads(line)["meta"]
            if meta["vendor"] == vendor:
                found.add(meta["document"])
    return found
