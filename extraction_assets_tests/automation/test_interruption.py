"""`kill -9` at any moment of `update`, then `update` again: the same digests as an undisturbed run. And two at once."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Timer

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from extraction_assets.assets.training import TRAINING_POOL
from extraction_assets.automation.instance import open_instance, terminal_logger
from extraction_assets.automation.staleness import Planner
from extraction_assets.automation.update import end_abandoned_runs
from extraction_assets.definitions import build_definitions
from extraction_assets.home import Home
from extraction_assets.observation import Observation
from extraction_assets.record import PROCESS_TAG, Partition, Record
from extraction_assets_tests.homes import make_home

KILLS = 4
"""benchmarks/crash.py does it by the hundred"""
VENDORS = {"invoice/acme": 4, "receipt/corner": 3}


def start_update(home: Home, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "extraction_assets.cli", "--home", str(home.root), "update", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finish(process: subprocess.Popen[str]) -> str:
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors[-3000:]
    return errors


def digests(home: Home) -> dict[tuple[str, Partition], str]:
    with open_instance(home) as instance:
        planner = Planner.of(build_definitions(home), instance, Observation.of(home))
        record = Record(instance, home)
        return {
            (asset, partition): version
            for asset in planner.shape.parents
            for partition, version in record.latest_versions(asset, asset in planner.shape.partitioned).items()
        }


@pytest.mark.slow
def test_an_update_killed_again_and_again_ends_with_the_digests_of_an_undisturbed_one(tmp_path: Path) -> None:
    calm = make_home(tmp_path / "calm", VENDORS)
    disturbed = Home.open(Path(shutil.copytree(calm.root, tmp_path / "disturbed")))
    begin = time.monotonic()
    finish(start_update(calm))
    undisturbed_seconds = time.monotonic() - begin
    draw = random.Random(0)
    killed = 0
    for number in range(KILLS):
        process = start_update(disturbed)
        # spread over the whole run; later ones start from what the earlier ones left
        time.sleep(draw.uniform(0.15, 0.9) * undisturbed_seconds * (number + 1) / KILLS)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.communicate()
    assert killed >= KILLS // 2
    finish(start_update(disturbed))
    assert digests(disturbed) == digests(calm)
    assert "0 materialized" in finish(start_update(disturbed))


@pytest.mark.slow
def test_of_two_updates_at_once_the_second_waits_and_finds_nothing_to_do(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", {"invoice/acme": 2}, types=("invoice",))
    first = start_update(home, "--to", "page_targets")
    time.sleep(1.0)
    second = start_update(home, "--to", "page_targets")
    outputs = [finish(first), finish(second)]
    assert sorted("waiting for it to end" in output for output in outputs) == [False, True]
    assert sum("0 materialized" in output.splitlines() for output in outputs) == 1


@pytest.mark.parametrize("claimed", [True, False])
def test_a_killed_run_keeps_no_pool_slot_whether_claimed_or_only_promised(tmp_path: Path, claimed: bool) -> None:
    with open_instance(make_home(tmp_path / "home", {"invoice/acme": 1}, types=("invoice",))) as instance:
        storage = instance.event_log_storage
        storage.set_concurrency_slots(TRAINING_POOL, 1)
        gone = create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED, tags={PROCESS_TAG: process_that_ended()})
        if claimed:
            assert storage.claim_concurrency_slot(TRAINING_POOL, gone.run_id, "lora_adapter").is_claimed
        else:  # what the first half of a claim leaves
            storage.add_pending_step(TRAINING_POOL, gone.run_id, "lora_adapter", should_assign=True)
        assert not storage.claim_concurrency_slot(TRAINING_POOL, "another", "lora_adapter").is_claimed
        end_abandoned_runs(instance)
        assert storage.claim_concurrency_slot(TRAINING_POOL, "another", "lora_adapter").is_claimed


def test_a_run_that_waits_for_a_pool_says_so_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    @dg.asset(pool=TRAINING_POOL)
    def slow() -> None: ...

    job = dg.Definitions([slow]).resolve_implicit_global_asset_job_def().with_logger_defs({"console": terminal_logger})
    with open_instance(make_home(tmp_path / "home", {"invoice/acme": 1}, types=("invoice",))) as instance:
        storage = instance.event_log_storage
        storage.set_concurrency_slots(TRAINING_POOL, 1)
        other = create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED)
        assert storage.claim_concurrency_slot(TRAINING_POOL, other.run_id, "lora_adapter").is_claimed
        letting_go = Timer(8, storage.free_concurrency_slots_for_run, [other.run_id])
        letting_go.start()
        assert job.execute_in_process(instance=instance, run_config={"loggers": {"console": {}}}).success
        letting_go.join()
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if "waits" in line] == [
        f"slow waits: another run has the pool {TRAINING_POOL}, which takes one at a time (in the UI: Deployment, Concurrency)"
    ]


def process_that_ended() -> str:
    program = "from extraction_assets.record import process_identity; print(process_identity())"
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.strip()
