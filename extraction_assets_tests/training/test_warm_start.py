"""A run that goes on from the champion: when it may, and that it does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from extraction_assets.errors import InputError
from extraction_assets.settings import TrainingSettings
from extraction_assets.store import Store
from extraction_assets.training import run
from extraction_assets.training.adapter import read_manifest
from extraction_assets.training.job import TrainingJob, make_job
from extraction_assets.training.warm_start import ancestry, warm_start
from extraction_assets_tests.training.conftest import SETTINGS, Data

LEARNING = SETTINGS.model_copy(update={"max_steps": 3, "dropout": 0.0, "learning_rate": 1e-2})
GOING_ON = LEARNING.model_copy(update={"start": "champion"})


@pytest.fixture(scope="module")
def store(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("store"))
    for split in (data.train, data.val):
        store.put_file(split, ".jsonl")
    return store


def test_an_adapter_from_before_these_fields_is_still_read(champion: TrainingJob, tmp_path: Path) -> None:
    values = json.loads((Path(champion.output) / "manifest.json").read_text())
    del values["kept_step"], values["start"]
    (tmp_path / "manifest.json").write_text(json.dumps(values))
    assert (read_manifest(tmp_path).kept_step, read_manifest(tmp_path).start) == (None, None)


def _train(data: Data, store: Store, settings: TrainingSettings, start: str | None = None) -> TrainingJob:
    folder = store.folder(start) if start else None
    job = make_job(data.train, data.val, data.base, settings, store.local_root / "work", threads=1, start=folder)
    job = job.model_copy(update={"work": str(store.work_folder(job.identity)), "output": str(store.folder_path(job.identity))})
    run.train(job)
    return job


@pytest.fixture(scope="module")
def champion(data: Data, store: Store) -> TrainingJob:
    return _train(data, store, LEARNING)


@pytest.fixture(scope="module")
def unseen(data: Data, store: Store) -> str:
    """A test split of documents that are in no other."""
    return store.put_bytes(data.train.read_bytes().replace(b"a" * 64, b"c" * 64), ".jsonl")


def test_a_warm_run_goes_on_where_the_champion_ended(data: Data, store: Store, champion: TrainingJob) -> None:
    warm = _train(data, store, GOING_ON, champion.identity)
    cold, begun = read_manifest(Path(champion.output)), read_manifest(Path(warm.output))
    assert begun.start == champion.identity
    assert begun.first_loss < cold.first_loss
    assert [manifest.job for manifest in ancestry(store, warm.identity)] == [warm.identity, champion.identity]


def test_it_starts_from_the_champion_only_where_asked_and_where_there_is_one(store: Store, champion: TrainingJob, unseen: str) -> None:
    base = champion.base_digest
    assert warm_start(store, champion.identity, GOING_ON, base, unseen) == (champion.identity, f"the champion {champion.identity[:12]}")
    assert warm_start(store, champion.identity, LEARNING, base, unseen) == (None, "the base model")
    start, why = warm_start(store, champion.identity, GOING_ON.model_copy(update={"shuffle_targets": True}), base, unseen)
    assert start is None
    assert "control run" in why
    assert warm_start(store, None, GOING_ON, base, unseen) == (None, "the base model: there is no champion yet")


@pytest.mark.parametrize(
    ("change", "base", "why"),
    [
        ({"r": 8}, None, "the champion has training.r: 4, now 8"),
        ({"dora": True}, None, "the champion has training.dora: False, now True"),
        ({}, "0" * 64, "the champion was trained on another base"),
    ],
)
def test_weights_that_do_not_fit_are_left_and_the_plan_says_so(
    store: Store, champion: TrainingJob, unseen: str, change: dict[str, Any], base: str | None, why: str
) -> None:
    settings = GOING_ON.model_copy(update=change)
    assert warm_start(store, champion.identity, settings, base or champion.base_digest, unseen) == (None, f"the base model: {why}")


def test_weights_that_have_seen_a_test_document_are_never_gone_on_from(data: Data, store: Store, champion: TrainingJob) -> None:
    """Also through an adapter in between."""
    seen = store.put_file(data.val, ".jsonl")
    start, why = warm_start(store, champion.identity, GOING_ON, champion.base_digest, seen)
    assert start is None
    assert "was trained on 1 documents of today's test split" in why


def test_a_start_that_is_another_adapter_by_now_stops_the_run(data: Data, store: Store, champion: TrainingJob, tmp_path: Path) -> None:
    job = make_job(data.train, data.val, data.base, GOING_ON, tmp_path / "work", threads=1, start=Path(champion.output))
    with pytest.raises(InputError, match="as the job says"):
        run.train(job.model_copy(update={"start_digest": "f" * 64}))
