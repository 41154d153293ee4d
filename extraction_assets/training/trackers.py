"""Experiment trackers beside TensorBoard: MLflow (Azure ML speaks it) and Weights & Biases, through accelerate's own adapters.

A tracker is for looking, so it never decides anything: one that fails (server gone, quota, no network) is told about once and left
out for the rest of the run. One that is asked for and not installed is an error before the first step. A resumed run goes on in the
tracker's run where it left off.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extraction_assets.errors import InputError
from extraction_assets.settings import TrackingSettings
from extraction_assets.store import write_atomically

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

    from extraction_assets.training.job import TrainingJob

_MLFLOW_RUN = "mlflow_run.txt"
"""in the work folder: the run to go on with"""


class Trackers:
    """The trackers that a run still talks to."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._open: dict[str, GeneralTracker] = {}
        self._say = say

    def start(self, name: str, make: Callable[[], GeneralTracker], facts: dict[str, Any]) -> None:
        with self._leaving_out(name):
            tracker = make()
            tracker.start()
            self._open[name] = tracker
            tracker.store_init_configuration(facts)

    def log(self, values: dict[str, float], step: int) -> None:
        for name, tracker in list(self._open.items()):
            with self._leaving_out(name):
                tracker.log(values, step=step)

    def close(self) -> None:
        for name, tracker in list(self._open.items()):
            with self._leaving_out(name):
                tracker.finish()
        self._open.clear()

    @contextlib.contextmanager
    def _leaving_out(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each has exceptions of its own, for the network, for quotas, for a bad address
            self._open.pop(name, None)
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            self._say(f"{name} is not followed from here on: {reason}")


def require_installed(settings: TrackingSettings) -> None:
    """Raises InputError naming the first tracker whose package is absent."""
    for name in settings.trackers:
        if find_spec(name) is None:
            remedy = f"pip install 'extraction-assets[{name}]', or take it out of tracking.trackers"
            raise InputError("settings.yaml tracking.trackers", f"{name} is not installed", do=remedy)


def open_trackers(job: TrainingJob, say: Callable[[str], None]) -> Trackers:
    """Start or go on with what job.tracking asks for. To be called on the main process, after accelerate has begun."""
    from accelerate.tracking import MLflowTracker, WandBTracker

    trackers, settings, work = Trackers(say), job.tracking, Path(job.work)
    name = job.identity[:12]

    def mlflow() -> GeneralTracker:
        import mlflow

        if settings.mlflow_uri is not None:
            mlflow.set_tracking_uri(settings.mlflow_uri)
        path = work / _MLFLOW_RUN
        before = path.read_text(encoding="utf-8").strip() if path.exists() else None
        tracker = MLflowTracker(settings.project, run_id=before, run_name=name)
        start = tracker.start

        def start_and_remember() -> None:
            start()
            write_atomically(path, tracker.tracker.info.run_id.encode())

        tracker.start = start_and_remember
        return tracker

    def wandb() -> GeneralTracker:
        os.environ.setdefault("WANDB_SILENT", "true")  # the run's own lines are what a log needs
        return WandBTracker(settings.project, name=name, id=job.identity[:32], resume="allow", dir=str(work))

    for each in settings.trackers:
        trackers.start(each, {"mlflow": mlflow, "wandb": wandb}[each], _facts(job))
    return trackers


def _facts(job: TrainingJob) -> dict[str, Any]:
    """What a run is told by in a tracker's table: settings and the digests that make it what it is."""
    made_of = {"job": job.identity, "train_digest": job.train_digest, "val_digest": job.val_digest, "base_digest": job.base_digest}
    plan = {"steps": job.plan.steps, "train_examples": job.plan.train.examples, "adapter_parameters": job.plan.adapter_parameters}
    return {**made_of, **plan, **job.settings.model_dump(mode="json")}
