"""`kill -9` at any moment of `update`, then `update` again: the same digests as an undisturbed run. And two at once."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Timer

import dagster as dg
import pytest
import yaml
from dagster._core.test_utils import create_run_for_test

from extraction_assets.assets.training import TRAINING_POOL
from extraction_assets.automation.instance import open_instance, terminal_logger
from extraction_assets.automation.staleness import Planner
from extraction_assets.automation.update import end_abandoned_runs
from extraction_assets.commands import update_command
from extraction_assets.definitions import build_definitions
from extraction_assets.home import Home
from extraction_assets.observation import Observation
from extraction_assets.record import PROCESS_TAG, Partition, Record
from extraction_assets_tests.homes import make_home

KILLS = 3
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
        process.wait(60)
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()  # not read to its end: a helper of Dagster's may have been born too late to hear of the kill, and hold it open
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


@pytest.mark.slow
def test_who_interrupts_a_training_ends_it_and_update_goes_on_from_there(tmp_path: Path) -> None:
    """By a signal to update alone (systemd, docker), and by Ctrl-C, which the terminal sends to all. Dagster would retry both."""
    home = make_home(tmp_path / "home", {"invoice/acme": 3}, types=("invoice",))
    settings = yaml.safe_load(home.settings_path.read_text())
    settings["training"] |= {"epochs": 1000, "max_steps": 900, "checkpoint_every": 2, "validate_every": 900}
    home.settings_path.write_text(yaml.safe_dump(settings))

    def interrupted(send: Callable[[int, int], None], number: int) -> str:
        process = start_update(home, "--to", "lora_adapter")
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if re.search(r"step \d*[3-9]/900", line):
                break
        send(process.pid, number)
        _, rest = process.communicate(timeout=60)
        assert process.returncode == 2
        said = "".join(lines) + rest
        # Ctrl-C reaches a helper of Dagster's too, which says so in its own way
        assert said.count("Traceback") == len(re.findall(r'watch_orphans.py", line \d+, in <module>', said))
        assert rest.splitlines()[-1].endswith("interrupted; run the same command again to go on")
        return said

    assert "resumes after step" not in interrupted(os.kill, signal.SIGTERM)
    assert interrupted(os.killpg, signal.SIGINT).count("resumes after step") == 1
    waited = time.monotonic()
    while subprocess.run(["pgrep", "--full", str(home.root)], capture_output=True).stdout:
        assert time.monotonic() - waited < 60, "a training goes on by itself"
        time.sleep(0.2)


def test_an_update_in_the_background_of_a_shell_is_ended_by_sigterm(tmp_path: Path) -> None:
    """Such a job ignores SIGINT, and Dagster gives SIGTERM its handler behind every run."""
    home = make_home(tmp_path / "home", {"invoice/acme": 1}, types=("invoice",))
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        update_command(home, ["base_model"], say=lambda line: None)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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


def test_who_shows_the_output_of_a_killed_run_ends_with_it(tmp_path: Path) -> None:
    with open_instance(make_home(tmp_path / "home", {"invoice/acme": 1}, types=("invoice",))) as instance:
        gone = create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED, tags={PROCESS_TAG: process_that_ended()})
        readers = [subprocess.Popen(["tail", "-F", str(tmp_path / run / "compute_logs" / "step.out")]) for run in (gone.run_id, "another")]
        time.sleep(0.5)  # a process is a copy of this one until it is tail
        end_abandoned_runs(instance)
        assert readers[0].wait(10) == -signal.SIGTERM
        assert readers[1].poll() is None
        readers[1].kill()
        readers[1].wait()


def test_a_run_that_waits_for_a_pool_says_so_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    @dg.asset(pool=TRAINING_POOL)
    def slow() -> None: ...

    job = dg.Definitions([slow]).resolve_implicit_global_asset_job_def().with_logger_defs({"console": terminal_logger})
    with open_instance(make_home(tmp_path / "home", {"invoice/acme": 1}, types=("invoice",))) as instance:
        storage = instance.event_log_storage
        storage.set_concurrency_slots(TRAINING_POOL, 1)
        other = create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED)
        assert storage.claim_concurrency_slot(TRAINING_POOL, other.run_id, "lora_adapter").is_claimed
        letting_go = Timer(3, storage.free_concurrency_slots_for_run, [other.run_id])
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
