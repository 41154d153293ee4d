"""The run as Dagster starts it: the real Pipes client, a real training process.

Without `from __future__ import annotations`: Dagster compares the annotation of `context` itself.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import psutil
import pytest

from extraction_assets.training.adapter import verify_adapter
from extraction_assets.training.job import TrainingJob, write_job
from extraction_assets.training.launch import training_command
from extraction_assets_tests.training.conftest import SETTINGS, Data

pytestmark = pytest.mark.slow


def _materialize(job: TrainingJob) -> tuple[dg.ExecuteInProcessResult, list[dict[str, object]], list[str]]:
    """Run a job inside an asset; returns the result, Pipes' custom messages, and what the process logged."""
    messages: list[dict[str, object]] = []

    @dg.asset
    def lora_adapter(context: dg.AssetExecutionContext, pipes: dg.PipesSubprocessClient) -> dg.MaterializeResult:
        command = training_command(write_job(job))
        try:
            invocation = pipes.run(command=command, context=context)
        except dg.DagsterPipesExecutionError as error:
            raise dg.Failure("training failed", allow_retries=False) from error
        messages.extend(invocation.get_custom_messages())
        invocation.get_results(implicit_materializations=False)
        return dg.MaterializeResult()

    with dg.instance_for_test() as instance:
        result = dg.materialize([lora_adapter], instance=instance, resources={"pipes": dg.PipesSubprocessClient()}, raise_on_error=False)
        logged = [entry.user_message for entry in instance.all_logs(result.run_id)]
    return result, messages, logged


def test_metrics_arrive_live_and_the_last_message_is_the_result(data: Data, tmp_path: Path) -> None:
    job = data.job(tmp_path)
    result, messages, logged = _materialize(job)
    assert result.success
    manifest = verify_adapter(Path(job.output))
    assert messages[-1] == {
        "adapter": job.output,
        "steps": 9,
        "first_loss": manifest.first_loss,
        "last_loss": manifest.last_loss,
        "val_loss": manifest.val_loss,
    }
    assert any("step 1/9" in line and "examples/s" in line for line in logged)
    assert any("step 9/9, val loss" in line for line in logged)


def test_a_failed_run_fails_the_asset_and_says_why(data: Data, tmp_path: Path) -> None:
    job = data.job(tmp_path).model_copy(update={"train": str(tmp_path / "absent.jsonl")})
    result, _, logged = _materialize(job)
    assert not result.success
    assert any("no such split" in line for line in logged)
    assert "no such split" in (tmp_path / "failure.txt").read_text()


@pytest.mark.parametrize("launcher", [False, True])
def test_a_killed_orchestrator_leaves_no_training_behind(data: Data, tmp_path: Path, launcher: bool) -> None:
    """The orchestrator's own parent may go: a terminal that is closed. launcher: torch's stands between orchestrator and training."""
    job = data.job(tmp_path, SETTINGS.model_copy(update={"epochs": 1000, "checkpoint_every": 1000}))
    environment = {"DAGSTER_PIPES_CONTEXT": "x", "DAGSTER_PIPES_MESSAGES": "x"}  # what a Pipes session puts there is not read by the watch
    if launcher:
        environment["TORCHELASTIC_RUN_ID"] = "none"
    script = (
        "import subprocess, sys, json\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from extraction_assets.training import run, progress\n"
        "from contextlib import nullcontext\n"
        "run.open_pipes = lambda: nullcontext(None)\n"
        "sys.exit(run.main([sys.argv[2]]))\n"
    )
    starter = [sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:])"]
    trainer = [sys.executable, "-c", script, str(Path(__file__).parents[2]), str(write_job(job))]
    line = [*starter, *starter, *trainer]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}) as first:
        assert first.stderr is not None
        second = next(psutil.Process(first.pid) for text in first.stderr if "step 1/" in text).children()[0]
        first.send_signal(signal.SIGKILL)
        if not launcher:
            shown = (text for text in first.stderr if " step " in text)
            assert [next(shown), next(shown)]
            second.kill()
        rest = first.stderr.read()  # ends when the last process that holds the pipe has ended
    assert "whoever started this training is gone" in rest


def test_an_interruption_while_torch_is_being_loaded_is_no_traceback(data: Data, tmp_path: Path) -> None:
    with subprocess.Popen(training_command(write_job(data.job(tmp_path))), stderr=subprocess.PIPE, text=True) as process:
        while "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text():
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == -signal.SIGINT


def test_an_interruption_that_comes_twice_ends_it_once(data: Data, tmp_path: Path) -> None:
    job = data.job(tmp_path, SETTINGS.model_copy(update={"epochs": 1000, "checkpoint_every": 1000}))
    with subprocess.Popen(training_command(write_job(job)), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any("step 1/" in line for line in process.stderr)
        for _ in range(5):
            process.send_signal(signal.SIGINT)
            time.sleep(0.02)
        *_, last = process.stderr.read().splitlines()
    assert last == "training: interrupted; started again, it resumes at its last checkpoint"
    assert process.returncode in (130, -signal.SIGINT)  # the latter where one comes when Python itself is ending


def test_started_by_hand_it_outlives_its_terminal(data: Data, tmp_path: Path) -> None:
    job = data.job(tmp_path)
    trainer = [sys.executable, "-m", "extraction_assets.training.process", str(write_job(job))]
    launcher = "import subprocess, sys; subprocess.run(sys.argv[1:])"
    with subprocess.Popen([sys.executable, "-c", launcher, *trainer], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any("trainable" in line for line in process.stderr)
        process.send_signal(signal.SIGKILL)
        process.stderr.read()
    verify_adapter(Path(job.output))
