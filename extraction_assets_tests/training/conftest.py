from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from extraction_assets.settings import TrainingSettings
from extraction_assets.training.job import TrainingJob, make_job
from extraction_assets_tests.model.pages import SCHEMA, SCHEMA_DIGEST, base, base_folder, encoder, write_split

__all__ = ["base", "base_folder", "encoder"]

SETTINGS = TrainingSettings(
    r=4,
    effective_batch=4,
    micro_batch=2,
    epochs=3,
    checkpoint_every=2,
    learning_rate=2e-3,
    warmup_ratio=0.2,
    dropout=0.1,
    val_answers=0,
    precision="float32",
)
"""9 steps over 10 examples; with dropout, so that random numbers matter; in the precision that bounds on rounding mean, whatever the CPU"""


@dataclass(frozen=True)
class Data:
    train: Path
    val: Path
    base: Path

    def job(self, work: Path, settings: TrainingSettings = SETTINGS) -> TrainingJob:
        return make_job(self.train, self.val, self.base, settings, work, threads=1, schemas={SCHEMA_DIGEST: SCHEMA})


@pytest.fixture(scope="session")
def data(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Data:
    folder = tmp_path_factory.mktemp("splits")
    return Data(write_split(folder, "train", 10), write_split(folder, "val", 3), base_folder)
