"""A store that was damaged behind our back: found, removed, made again with the same digests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from extraction_assets.automation.instance import open_instance
from extraction_assets.automation.store_check import check_store, repair_store
from extraction_assets.automation.update import update
from extraction_assets.definitions import build_definitions
from extraction_assets.home import Home
from extraction_assets.record import Record, Shape
from extraction_assets_tests.homes import make_home
from extraction_assets_tests.training_here import training_here


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = make_home(tmp_path_factory.mktemp("built") / "home", {"invoice/acme": 4, "receipt/corner": 4}, base=False)
    with open_instance(home) as instance:
        assert not update(build_definitions(home), instance, home, ["test_split"]).failures
    return home


@pytest.fixture
def home(built: Home, tmp_path: Path) -> Home:
    """A copy to be damaged. Dagster's own files name the place, so the copy takes it."""
    shutil.copytree(built.root, tmp_path / "copy", symlinks=True)
    return Home.open(tmp_path / "copy")


@pytest.fixture
def instance(home: Home) -> Iterator[dg.DagsterInstance]:
    with open_instance(home) as instance:
        yield instance


def _shape(home: Home) -> Shape:
    return Shape.of(build_definitions(home).resolve_asset_graph())


def _value(home: Home, instance: dg.DagsterInstance, asset: str, partition: str | None = None) -> Any:
    return Record(instance, home).latest_value(asset, partition)


def test_a_whole_store_has_no_findings(home: Home, instance: dg.DagsterInstance) -> None:
    check = check_store(Record(instance, home), _shape(home))
    assert check.findings == check.leftovers == ()
    assert check.objects > 40
    assert check.bytes == sum(path.stat().st_size for path in (home.root / "store" / "objects").rglob("*") if path.is_file())


def _page(home: Home, instance: dg.DagsterInstance) -> Path:
    return home.store.local_path(_value(home, instance, "page_images", "invoice/acme")["pages"][0]["image"], ".png")


def _negative(home: Home, instance: dg.DagsterInstance) -> Path:
    return home.store.local_path(_value(home, instance, "hard_negatives", "receipt/corner")["negatives"][0]["image"], ".png")


def _document(home: Home, instance: dg.DagsterInstance) -> Path:
    return home.store.local_path(_value(home, instance, "raw_documents", "invoice/acme")["documents"][0]["document"], ".pdf")


def _split(home: Home, instance: dg.DagsterInstance) -> Path:
    return home.store.local_path(_value(home, instance, "train_split")["jsonl"], ".jsonl")


def _index_value(home: Home, instance: dg.DagsterInstance) -> Path:
    return home.store.local_path(Record(instance, home).latest_versions("example_index", False)[None], ".json")


@pytest.mark.parametrize("damage", ["altered", "gone"])
@pytest.mark.parametrize(
    ("victim", "asset"),
    [
        (_page, "page_images[invoice/acme]"),
        (_negative, "hard_negatives[receipt/corner]"),
        (_document, "raw_documents[invoice/acme]"),
        (_split, "train_split"),
        (_index_value, "example_index"),
    ],
    ids=["page", "negative", "document", "split", "value"],
)
def test_damage_is_named_repaired_and_made_again_byte_for_byte(
    home: Home,
    instance: dg.DagsterInstance,
    victim: Callable[[Home, dg.DagsterInstance], Path],
    asset: str,
    damage: str,
) -> None:
    record, shape = Record(instance, home), _shape(home)
    path = victim(home, instance)
    before = path.read_bytes()
    if damage == "altered":
        path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    else:
        path.unlink()
    check = check_store(record, shape)
    (finding,) = check.findings
    assert finding.path == path
    assert finding.problem == ("does not hold what its name says" if damage == "altered" else "is missing")
    assert asset in finding.assets
    assert asset in repair_store(record, shape, check)
    walk = update(build_definitions(home), instance, home, ["test_split"])
    assert not walk.failures
    assert path.read_bytes() == before
    assert check_store(record, shape).findings == ()


def test_leftovers_of_killed_writers_are_told_and_removed(home: Home, instance: dg.DagsterInstance) -> None:
    record, shape = Record(instance, home), _shape(home)
    left = home.root / "store" / "objects" / "ab" / ".tmp-0815"
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"half")
    assert check_store(record, shape).leftovers == (), "its writer may be at work"
    os.utime(left, (0, 0))
    check = check_store(record, shape)
    assert check.leftovers == (left,)
    assert repair_store(record, shape, check) == []
    assert not left.exists()


@pytest.mark.slow
def test_adapters_are_trained_again_or_left_and_the_gates_decision_stands(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", {"invoice/acme": 5, "invoice/bolt": 5})
    with open_instance(home) as instance, training_here():
        assert not update(build_definitions(home), instance, home).failures
        record, shape = Record(instance, home), _shape(home)
        adapter, decided = record.latest_value("lora_adapter")["adapter"], record.latest_value("champion_adapter")
        weights = home.store.folder(adapter) / "adapter_model.safetensors"
        before = weights.read_bytes()
        earlier = shutil.copytree(weights.parent, home.store.folder_path("e" * 64)) / "adapter_model.safetensors"
        for path in (weights, earlier):
            path.write_bytes(before[:-1])
        home.store.local_path(record.latest_versions("champion_adapter", False)[None], ".json").unlink()

        check = check_store(record, shape)
        assert {finding.path.name: finding.can_be_made_again for finding in check.findings if finding.path.is_dir()} == {
            adapter: True,
            "e" * 64: False,
        }
        assert "lora_adapter" in repair_store(record, shape, check)
        assert earlier.is_file()
        assert not update(build_definitions(home), instance, home).failures
        assert weights.read_bytes() == before
        assert record.latest_value("champion_adapter") == decided
        assert [finding.path.name for finding in check_store(record, shape).findings] == ["e" * 64]
