"""MLflow and W&B beside TensorBoard: the real packages, on folders, without a network."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from extraction_assets.errors import InputError
from extraction_assets.settings import TrackingSettings
from extraction_assets.training import run, trackers
from extraction_assets.training.job import TrainingJob
from extraction_assets_tests.training.conftest import SETTINGS, Data

FEW = SETTINGS.model_copy(update={"max_steps": 4, "validate_every": 2, "checkpoint_every": 2})


def _job(data: Data, work: Path, tracking: TrackingSettings) -> TrainingJob:
    return data.job(work, FEW).model_copy(update={"tracking": tracking})


class Killed(BaseException):
    pass


def test_mlflow_shows_the_run_and_a_resumed_run_goes_on_in_it(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}" if _has_sqlalchemy() else (tmp_path / "mlruns").as_uri()
    job = _job(data, tmp_path / "work", TrackingSettings(trackers=("mlflow",), project="vendors", mlflow_uri=uri))
    real = run.optimizer_step

    def killed_at_step_3(r: run.Run, batch: Any, *rest: Any) -> Any:
        if batch.step == 3:
            raise Killed
        return real(r, batch, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(run, "optimizer_step", killed_at_step_3)
        with pytest.raises(Killed):
            run.train(job)
    run.train(job)

    client = mlflow.MlflowClient(tracking_uri=uri)
    (experiment,) = [e for e in client.search_experiments() if e.name == "vendors"]
    (seen,) = client.search_runs([experiment.experiment_id])
    assert seen.info.run_name == job.identity[:12]
    assert seen.info.status == "FINISHED"
    assert seen.data.params["job"] == job.identity
    assert seen.data.params["learning_rate"] == str(FEW.learning_rate)
    assert [point.step for point in client.get_metric_history(seen.info.run_id, "train/loss")] == [1, 2, 3, 4]
    assert [point.step for point in client.get_metric_history(seen.info.run_id, "val/loss")] == [2, 4]


def _has_sqlalchemy() -> bool:
    from importlib.util import find_spec

    return find_spec("sqlalchemy") is not None


def test_wandb_keeps_the_run_for_a_later_sync(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    job = _job(data, tmp_path, TrackingSettings(trackers=("wandb",)))
    run.train(job)
    (kept,) = tmp_path.glob(f"wandb/offline-run-*-{job.identity[:32]}/run-*.wandb")
    for _ in range(600):  # W&B's own process writes it, on a busy machine some time after the run
        content = kept.read_bytes()
        if b"val/loss" in content:
            break
        time.sleep(0.1)
    assert b"train/loss" in content
    assert b"val/loss" in content


def test_a_tracker_that_fails_is_told_about_once_and_the_run_goes_on(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Down:
        calls = 0

        def start(self) -> None: ...

        def store_init_configuration(self, values: dict[str, Any]) -> None: ...

        def log(self, values: dict[str, float], step: int) -> None:
            Down.calls += 1
            raise ConnectionError("no route to host")

        def finish(self) -> None:
            pytest.fail("it was left out")

    monkeypatch.setattr("accelerate.tracking.WandBTracker", lambda *_, **__: Down())
    watched = _job(data, tmp_path / "watched", TrackingSettings(trackers=("wandb",)))
    run.train(watched)
    assert Down.calls == 1
    assert capsys.readouterr().err.count("wandb is not followed from here on: no route to host") == 1
    alone = _job(data, tmp_path / "alone", TrackingSettings())
    assert alone.identity == watched.identity
    ends = [(Path(job.output) / "adapter_model.safetensors").read_bytes() for job in (watched, alone) if run.train(job)]
    assert ends[0] == ends[1]


def test_a_tracker_that_is_not_installed_is_an_error_before_the_first_step(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"tracking.trackers: mlflow is not installed.*extraction-assets\[mlflow\]"):
        run.train(_job(data, tmp_path, TrackingSettings(trackers=("mlflow",))))
