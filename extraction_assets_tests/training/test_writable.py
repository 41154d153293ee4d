"""Targets that their schema's grammar rejects are found before training, and no step sees them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from extraction_assets.errors import InputError
from extraction_assets.schema import TargetSchema
from extraction_assets.training import run
from extraction_assets.training.adapter import read_manifest
from extraction_assets.training.job import make_job
from extraction_assets.training.plan import plan_training
from extraction_assets_tests.model.pages import SCHEMA, SCHEMA_DIGEST
from extraction_assets_tests.training.conftest import SETTINGS, Data

NARROW = TargetSchema(
    {**SCHEMA.document, "properties": {**SCHEMA.document["properties"], "buyer": {"type": "string", "maxLength": 13}}}, "invoice"
)
"""room for two of the four words that a buyer may have"""


def _wide(jsonl: Path) -> set[str]:
    records = [json.loads(line) for line in jsonl.read_text(encoding="utf-8").splitlines()]
    return {r["id"] for r in records if len(json.loads(r["messages"][1]["content"][0]["text"])["buyer"]) > 13}


def test_they_are_named_with_their_place_and_left_out(data: Data, tmp_path: Path) -> None:
    wide = _wide(data.train)
    assert 0 < len(wide) < 10
    job = make_job(data.train, data.val, data.base, SETTINGS, tmp_path, threads=1, schemas={SCHEMA_DIGEST: NARROW})
    assert {target.id for target in job.plan.train.unwritable} == wide
    assert job.plan.train.examples == 10 - len(wide)
    for target in job.plan.train.unwritable:
        assert f"{data.train} id {target.id} character " in target.problem
        assert 'behind "buyer"' in target.problem
    seen: list[str] = []
    real = run.optimizer_step

    def watched(r: run.Run, batch: object, *rest: object) -> object:
        seen.extend(r.train.ids)
        return real(r, batch, *rest)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "optimizer_step", watched)
        manifest = read_manifest(run.train(job))
    assert not wide & set(seen)
    assert (manifest.train_examples, manifest.left_out) == (10 - len(wide), len(wide))


def test_or_they_are_an_error(data: Data) -> None:
    strict = SETTINGS.model_copy(update={"unwritable": "error"})
    with pytest.raises(InputError, match=r'id train-\d character \d+, behind "buyer": no model could write this target'):
        plan_training(data.train, data.val, data.base, strict, {SCHEMA_DIGEST: NARROW})
    assert plan_training(data.train, data.val, data.base, strict, {SCHEMA_DIGEST: SCHEMA}).train.examples == 10


def test_examples_of_another_schema_are_not_looked_at(data: Data) -> None:
    assert plan_training(data.train, data.val, data.base, SETTINGS, {"c" * 64: NARROW}).train.unwritable == ()
