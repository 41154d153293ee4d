"""The preflight: what the plan says of memory, held against what a pack takes here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from extraction_assets.demo.tiny_base import write_random_base
from extraction_assets.errors import InputError
from extraction_assets.settings import TrainingSettings
from extraction_assets.training import run
from extraction_assets.training.preflight import MemoryMeter
from extraction_assets_tests.model.pages import write_split
from extraction_assets_tests.training.conftest import SETTINGS, Data

LARGE = TrainingSettings(val_answers=0, max_steps=1, effective_batch=4, micro_batch=4, precision="float32")
"""float32, which the plan counts for a CPU: one that multiplies in bfloat16 beside float32 weights keeps a copy of some values in each"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """The demo's model and pages of the demo's size: activations weigh more than anything that is counted only roughly."""
    folder = tmp_path_factory.mktemp("large")
    write_random_base(folder / "base", seed=0, preset="demo")
    sizes = ((512, 640), (640, 672))
    return Data(write_split(folder, "train", 4, sizes, words=30), write_split(folder, "val", 1), folder / "base")


def _flight(job: Any) -> dict[str, Any]:
    lines = [json.loads(line) for line in (Path(job.work) / "metrics.jsonl").read_text().splitlines()]
    (flight,) = [line for line in lines if line["kind"] == "preflight"]
    return dict(flight)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"recompute": "layers"},
        {"recompute": "mlp", "r": 8},
        {"targets": "attention", "dropout": 0.05},
        {"method": "qlora"},
        {"micro_batch": 2},
    ],
    ids=lambda settings: " ".join(f"{key} {value}" for key, value in settings.items()) or "as they come",
)
def test_predicted_memory_is_within_15_percent_of_measured(large: Data, tmp_path: Path, settings: dict[str, Any]) -> None:
    job = large.job(tmp_path, LARGE.model_copy(update=settings))
    run.train(job)
    flight = _flight(job)
    assert flight["tokens"] == job.plan.packing.tokens
    assert flight["predicted"] == pytest.approx(flight["allocated"], rel=0.15)


def test_it_changes_nothing_that_is_learnt(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_it = data.job(tmp_path / "with", SETTINGS.model_copy(update={"max_steps": 2}))
    without = with_it.model_copy(update={"work": str(tmp_path / "without"), "output": str(tmp_path / "without" / "adapter")})
    run.train(with_it)
    monkeypatch.setattr(run, "_try", lambda *_: None)
    run.train(without)
    ends = [(Path(job.output) / "adapter_model.safetensors").read_bytes() for job in (with_it, without)]
    assert ends[0] == ends[1]


def test_a_pack_that_does_not_fit_says_what_to_change(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(run, "_try", full)
    with pytest.raises(InputError, match=r"pack of \d+ tokens \(train-.*does not fit this device: .* GB predicted.*training.recompute"):
        run.train(data.job(tmp_path))


def test_tensors_that_live_at_the_same_time_are_counted_and_no_others() -> None:
    held = torch.zeros(1000)

    def work() -> None:
        for _ in range(3):
            first = torch.empty(250_000)  # 1 MB
            del first
        second, third = torch.empty(250_000), torch.empty(500_000)
        del second, third

    allocated, _ = MemoryMeter(torch.device("cpu")).measure([held, held[:10]], work)
    assert allocated == 4_000 + 3_000_000
