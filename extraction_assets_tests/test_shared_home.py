"""Two homes that share landing and store over S3: the same digests as a home alone, and nothing is lost with one machine's disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from extraction_assets.automation.instance import open_instance
from extraction_assets.automation.staleness import Planner
from extraction_assets.commands import check_command, ingest_command, latest, status_command, update_command
from extraction_assets.dataset.chat import local_split
from extraction_assets.definitions import build_definitions
from extraction_assets.home import Home
from extraction_assets.model.examples import read_examples
from extraction_assets.observation import Observation
from extraction_assets.record import Record
from extraction_assets_tests.homes import edit_settings, make_home
from extraction_assets_tests.shared_places import place
from extraction_assets_tests.training_here import training_here

VENDORS = {"invoice/acme": 4, "receipt/corner": 4}


def quiet(_: str) -> None: ...


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with place("s3", tmp_path) as address:
        yield address


def sharing(root: Path, address: str, vendors: dict[str, int]) -> Home:
    home = make_home(root, vendors)
    edit_settings(home, lambda values: values.update(shared={"landing": f"{address}/landing", "store": f"{address}/store"}))
    return home


def versions(home: Home) -> dict[tuple[str, str | None], str]:
    with open_instance(home) as instance:
        planner = Planner.of(build_definitions(home), instance, Observation.of(home))
        record = Record(instance, home)
        return {
            (asset, partition): version
            for asset in planner.shape.parents
            for partition, version in record.latest_versions(asset, asset in planner.shape.partitioned).items()
        }


def updated(home: Home, to: str) -> set[tuple[str, str | None]]:
    walk, problems = update_command(home, [to], quiet)
    assert not walk.failures
    assert not problems
    return {(row.asset, row.partition) for row in walk.ran}


@pytest.mark.slow
def test_homes_that_share_have_the_digests_of_a_home_alone(tmp_path: Path, address: str) -> None:
    alone = make_home(tmp_path / "alone", VENDORS)
    updated(alone, "dataset_card")
    one = sharing(tmp_path / "one", address, VENDORS)
    updated(one, "dataset_card")
    other = sharing(tmp_path / "other", address, {})
    updated(other, "dataset_card")  # what lies in its landing came from the other one
    assert versions(one) == versions(other) == versions(alone)
    assert not [status for status in status_command(other)[0] if status.asset == "dataset_card" and status.state != "fresh"]
    # one more document, ingested on one machine, is one vendor's news on the other
    source = tmp_path / "more"
    more = make_home(tmp_path / "source", {"receipt/corner": 5})
    source.mkdir()
    for path in sorted((more.landing / "receipt" / "corner").glob("corner-4.*")):
        shutil.copy(path, source)
    assert ingest_command(other, source, "receipt", "corner", quiet).added == 1
    ran = updated(one, "dataset_card")
    assert {partition for _, partition in ran} == {None, "receipt/corner"}
    updated(other, "dataset_card")
    assert versions(one) == versions(other)


@pytest.mark.slow
def test_a_machine_that_lost_its_store_trains_and_answers_from_the_shared_one(tmp_path: Path, address: str) -> None:
    home = sharing(tmp_path / "home", address, VENDORS)
    updated(home, "dataset_card")
    shutil.rmtree(home.root / "store" / "objects")
    check, _ = check_command(home, False, quiet)
    assert not check.findings  # all of it can be fetched
    assert not check.unshared
    split = local_split(latest(home, "train_split")["jsonl"], home.store)
    assert all(example.image.is_file() for example in read_examples(split))
    with training_here():
        updated(home, "predictions")
    adapter = latest(home, "lora_adapter")["adapter"]
    weights = {path.name: path.read_bytes() for path in home.store.folder(adapter).iterdir()}
    shutil.rmtree(home.root / "store")
    assert {path.name: path.read_bytes() for path in home.store.folder(adapter).iterdir()} == weights
    assert updated(home, "predictions") == set()
