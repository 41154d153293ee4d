"""Training in the test's own process, for tests about what surrounds it: the same job, steps and adapter without the ten and more seconds of
CPU that a process takes to import torch and its friends. How a run is launched and reports is tested in training/ and test_cli.py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from extraction_assets.training.job import TrainingJob


@contextmanager
def training_here() -> Iterator[None]:
    def train_here(context: Any, job: TrainingJob, compute: Any, pipes: Any) -> list[Any]:
        from extraction_assets.training.run import train

        train(job)
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("extraction_assets.assets.training_places.train_here", train_here)
        yield
