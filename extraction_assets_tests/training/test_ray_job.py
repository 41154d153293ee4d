"""A run as a Ray job: a real Ray on this machine, dagster-ray's own client, the real training processes.

Without `from __future__ import annotations`: Dagster compares the annotation of `context` itself.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

import extraction_assets
from extraction_assets.settings import ComputeSettings, RayTrainingSettings
from extraction_assets.training import run
from extraction_assets.training.adapter import verify_adapter
from extraction_assets.training.job import TrainingJob
from extraction_assets_tests.training.conftest import SETTINGS, Data

pytestmark = pytest.mark.slow
SHORT = SETTINGS.model_copy(update={"dropout": 0.0, "max_steps": 3})


def test_the_same_job_gives_the_same_adapter_there(data: Data, tmp_path: Path, cluster: ComputeSettings) -> None:
    here, there = data.job(tmp_path / "here", SHORT), data.job(tmp_path / "there", SHORT)
    run.train(here)
    result, messages, logged = _materialize(there, cluster)
    assert result.success, logged
    assert verify_adapter(Path(there.output)).files == verify_adapter(Path(here.output)).files
    assert messages[-1]["steps"] == 3
    assert any("step 3/3, val loss" in line for line in logged)


def test_a_job_that_failed_there_failed_here_and_says_why(data: Data, tmp_path: Path, cluster: ComputeSettings) -> None:
    job = data.job(tmp_path, SHORT).model_copy(update={"base_digest": "0" * 64})
    result, _, logged = _materialize(job, cluster)
    assert not result.success
    assert any("the base model is" in line and "as the job says" in line for line in logged)


def test_a_job_that_was_stopped_there_is_no_success(data: Data, tmp_path: Path, cluster: ComputeSettings) -> None:
    from ray.job_submission import JobSubmissionClient

    job = data.job(tmp_path, SHORT.model_copy(update={"max_steps": None, "epochs": 1000, "checkpoint_every": 5}))

    def stop() -> None:
        while not (tmp_path / "checkpoints" / "step-00000005").exists():
            time.sleep(0.1)
        client = JobSubmissionClient(cluster.ray.address)
        for one in client.list_jobs():
            if one.status == "RUNNING" and one.submission_id:
                client.stop_job(one.submission_id)

    stopper = threading.Thread(target=stop, daemon=True)
    stopper.start()
    result, _, logged = _materialize(job, cluster)
    assert not result.success
    assert any("stopped" in line.lower() for line in logged)
    assert not Path(job.output).exists()


def _materialize(job: TrainingJob, compute: ComputeSettings) -> tuple[dg.ExecuteInProcessResult, list[dict[str, object]], list[str]]:
    from extraction_assets.assets.training_places import train_on_ray

    messages: list[dict[str, object]] = []

    @dg.asset
    def lora_adapter(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        messages.extend(train_on_ray(context, job, compute))
        return dg.MaterializeResult()

    with dg.instance_for_test() as instance:
        result = dg.materialize([lora_adapter], instance=instance, raise_on_error=False)
        entries = instance.all_logs(result.run_id)
    logged = [entry.user_message for entry in entries]
    errors = [
        str(entry.dagster_event.event_specific_data) for entry in entries if entry.dagster_event and entry.dagster_event.is_step_failure
    ]
    return result, messages, logged + errors


@pytest.fixture(scope="module")
def cluster() -> Iterator[ComputeSettings]:
    """A Ray head of its own; it ends with the tests."""
    pytest.importorskip("dagster_ray")
    from ray.job_submission import JobSubmissionClient

    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # its sockets want a short path
    port, dashboard = _free_port(), _free_port()
    package = str(Path(extraction_assets.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": package, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    environment["RAY_AUTH_MODE"] = "disabled"  # a token in ~/.ray, of some Ray before, would be asked of every request
    start = [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        "--head",
        "--block",
        "--port",
        str(port),
        "--dashboard-port",
        str(dashboard),
        "--dashboard-agent-listen-port",  # the usual one belongs to whichever Ray of this machine came first
        str(_free_port()),
    ]
    limits = ["--num-cpus", "2", "--object-store-memory", "100000000", "--temp-dir", folder]
    with subprocess.Popen([*start, *limits], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT) as head:
        try:
            address = f"http://127.0.0.1:{dashboard}"
            for _ in range(240):
                with contextlib.suppress(OSError, RuntimeError):  # it takes jobs once its agent is up, some seconds after it answers
                    JobSubmissionClient(address).submit_job(entrypoint="true")
                    break
                time.sleep(0.5)
            else:
                pytest.fail("Ray did not start")
            yield ComputeSettings(where="ray", processes=1, ray=RayTrainingSettings(address=address, python=sys.executable))
        finally:
            head.terminate()
    shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
