"""Answers during training: the pages of val, through inference's own loop, scored as the eval report scores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from extraction_assets.errors import InputError
from extraction_assets.evaluation.scoring import score_document
from extraction_assets.inference.answers import Answerer
from extraction_assets.inference.page_answer import PagePrompt
from extraction_assets.model.base import load_base
from extraction_assets.model.examples import read_examples
from extraction_assets.settings import DecodingSettings, TrainingSettings
from extraction_assets.training import run
from extraction_assets.training.adapter import read_manifest
from extraction_assets.training.checkpoints import RunState
from extraction_assets.training.job import TrainingJob
from extraction_assets.training.val_answers import AnswerRates
from extraction_assets_tests.model.pages import SCHEMA, write_split
from extraction_assets_tests.training.conftest import SETTINGS, Data

LEARNS = SETTINGS.model_copy(
    update={"epochs": 60, "effective_batch": 4, "micro_batch": 4, "dropout": 0.0, "learning_rate": 1e-2, "r": 16, "val_answers": 3}
    | {"max_target_tokens": 64, "validate_every": 30}
)


@pytest.fixture(scope="module")
def learnt(data: Data, tmp_path_factory: pytest.TempPathFactory) -> TrainingJob:
    """A run that learns its four pages by heart; val is the same four."""
    folder = tmp_path_factory.mktemp("by heart")
    job = Data(write_split(folder, "train", 4), write_split(folder, "train", 4), data.base).job(folder / "work", LEARNS)
    run.train(job)
    return job


def _validations(job: TrainingJob) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (Path(job.work) / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "validation"]


@pytest.mark.slow
def test_what_is_said_during_training_is_what_the_adapter_answers(learnt: TrainingJob) -> None:
    """The last validation's rates are those of the finished adapter, loaded afresh, merged, on the same sample."""
    examples = read_examples(Path(learnt.val))
    base = load_base(learnt.base, dtype=torch.float32)
    answerer = Answerer.of(base, Path(learnt.output))
    answers = answerer.answer([PagePrompt.of(e) for e in examples], DecodingSettings(max_output_tokens=65))
    scores = {e.id: score_document(a.text, json.loads(e.target), SCHEMA) for e, a in zip(examples, answers, strict=True)}
    said = _validations(learnt)
    assert [line["step"] for line in said] == [30, 60]
    assert all(line["val_pages"] == 3 for line in said)
    possible = {round(sum(s.right_fields for i, s in scores.items() if i != left_out) / 9, 6) for left_out in scores}
    assert round(said[-1]["val_field_accuracy"], 6) in possible
    assert said[-1]["val_strict_json"] == 1.0
    assert said[-1]["val_field_accuracy"] > said[0]["val_field_accuracy"]


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_looking_does_not_change_what_is_learnt(data: Data, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers and losses of val leave attention, random numbers and weights as they were, also those in four bits."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)  # there it lays weights out anew for answering
    few = {"max_steps": 4, "max_target_tokens": 64, "method": method}
    looks = {
        "answers": {"validate_every": 2, "val_answers": 2},
        "losses": {"validate_every": 2, "val_answers": 0},
        "at the end": {"validate_every": 9},
    }
    jobs = [data.job(tmp_path / name, SETTINGS.model_copy(update={**few, **look})) for name, look in looks.items()]
    ends = {(run.train(job) / "adapter_model.safetensors").read_bytes() for job in jobs}
    assert len(ends) == 1


def test_best_answers_are_kept(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = SETTINGS.model_copy(update={"validate_every": 2, "keep": "best_answers", "val_answers": 3, "max_steps": 8})
    rates, losses = iter([0.1, 0.6, 0.6, 0.5]), iter([4.0, 3.0, 2.0, 1.0])
    monkeypatch.setattr(run, "answer_val", lambda _: AnswerRates(3, 1.0, next(rates)))
    monkeypatch.setattr(run, "validate", lambda _: next(losses))
    manifest = read_manifest(run.train(data.job(tmp_path, settings)))
    assert (manifest.steps, manifest.kept_step, manifest.val_loss) == (8, 6, 2.0)
    assert manifest.val_answers == {"pages": 3, "strict_json": 1.0, "field_accuracy": 0.6}


def test_best_is_the_lowest_loss_whatever_the_answers() -> None:
    rates = {"2": {"field_accuracy": 0.9}, "4": {"field_accuracy": 0.1}}
    state = RunState(4, val_losses={"2": 2.0, "4": 1.0}, val_answers=rates)
    assert (state.best_step("best"), state.best_step("best_answers")) == (4, 2)
    assert (state.worse_validations("best"), state.worse_validations("best_answers")) == (0, 1)


def test_best_answers_without_answers_is_refused() -> None:
    with pytest.raises(ValueError, match="best_answers needs val_answers"):
        TrainingSettings(keep="best_answers", val_answers=0)


def test_a_job_without_the_schema_says_so(data: Data, tmp_path: Path) -> None:
    job = data.job(tmp_path, SETTINGS.model_copy(update={"val_answers": 2, "max_steps": 1, "max_target_tokens": 64}))
    with pytest.raises(InputError, match=r"example val-\d: the job does not bring its schema bbbbbbbbbbbb"):
        run.train(job.model_copy(update={"schemas": {}}))


def test_no_answers_are_given_where_none_are_asked_for(data: Data, tmp_path: Path) -> None:
    job = data.job(tmp_path, SETTINGS.model_copy(update={"max_steps": 1}))
    run.train(job)
    assert "val_field_accuracy" not in _validations(job)[0]
