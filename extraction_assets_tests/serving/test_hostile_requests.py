"""Strangers' requests against a running `extraction serve`: each gets its code, nothing of the server shows, nothing restarts, and it stays alive."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from extraction_assets.settings import ServingSettings
from extraction_assets_tests.serving.conftest import make_bundle
from extraction_assets_tests.serving.hostile_requests import Hostile, Limits, complaints, flood, hostile_requests, send
from extraction_assets_tests.serving.liveness import Liveness
from extraction_assets_tests.serving.running import Serving

SERVING = ServingSettings(max_image_mb=0.5, max_megapixels=4, waiting=8, request_seconds=8)
LIMITS = Limits("invoice", 500_000, 4.0, 4.0)
REQUESTS = hostile_requests(LIMITS)
LIVENESS_MS = 2_000
"""ten times what `benchmarks/hostile_requests.py` holds a machine of its own to: less than any request here that liveness could wait behind"""


@dataclass(frozen=True)
class Target:
    url: str
    serving: Serving
    worker: int


@pytest.fixture(scope="module")
def target(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Whatever was sent in between: the same worker is there at the end, and its log has no traceback."""
    bundle = make_bundle(tmp_path_factory.mktemp("hostile") / "bundle", base_folder, SERVING)
    serving = Serving(bundle.folder)
    try:
        serving.wait_ready()
        target = Target(serving.url, serving, serving.worker().pid)
        assert Limits.of(target.url) == LIMITS
        yield target
        assert serving.worker().pid == target.worker
        assert not [line for line in serving.lines if "Traceback" in line or "another starts" in line]
    finally:
        serving.end()


def test_there_are_enough_of_them() -> None:
    assert len(REQUESTS) >= 300


@pytest.mark.parametrize("hostile", [one for one in REQUESTS if not one.slow], ids=str)
def test_each_gets_its_code(target: Target, hostile: Hostile) -> None:
    assert complaints([hostile], [send(target.url, hostile)]) == []


def test_slow_clients_and_a_flood_at_once_get_theirs_and_liveness_does_not_wait(target: Target) -> None:
    slow = [one for one in REQUESTS if one.slow]
    pages = flood(LIMITS, 48)
    large = [one for one in REQUESTS if one.group in ("bomb", "size")]
    asked = [*slow, *pages, *large]
    with Liveness(target.url) as liveness, ThreadPoolExecutor(len(asked)) as pool:
        outcomes = list(pool.map(lambda one: send(target.url, one), asked))
    # in a flood any of them may be told to come again
    busy = frozenset(["overloaded", "timed_out"])
    hurried = [one if one.slow else Hostile(one.group, one.name, one.sent, one.expected | busy) for one in asked]
    assert complaints(hurried, outcomes) == []
    assert sum(outcome.code == "overloaded" for outcome in outcomes) > 0
    assert sum(outcome.code == "ok" for outcome in outcomes) > 0
    assert liveness.failures == []
    assert max(liveness.milliseconds) < LIVENESS_MS


@pytest.mark.slow
def test_what_schemathesis_makes_of_the_openapi_document_is_answered_as_it_says(target: Target, tmp_path: Path) -> None:
    pytest.importorskip("schemathesis")
    command = [
        sys.executable,
        "-m",
        "schemathesis.cli",
        "run",
        f"{target.url}/openapi.json",
        "--max-examples",
        "20",
        "--seed",
        "1",
        "--no-color",
        "--exclude-checks",
        "positive_data_acceptance",
    ]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-2000:]
