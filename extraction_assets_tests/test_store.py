"""The store: named by content, complete or absent, verified on reading."""

from __future__ import annotations

from pathlib import Path

import pytest
from upath import UPath

from extraction_assets.errors import InputError
from extraction_assets.store import TEMPORARY_PREFIX, Store, digest_of


@pytest.mark.parametrize("protocol", ["local", "memory"])
def test_what_was_put_is_read_back_by_its_digest(tmp_path: Path, protocol: str) -> None:
    store = Store(tmp_path if protocol == "local" else UPath(f"memory://{tmp_path.name}"))
    digest = store.put_json({"b": [1, None], "a": "ü"})
    assert digest == digest_of({"a": "ü", "b": [1, None]})
    assert store.read_json(digest) == {"a": "ü", "b": [1, None]}
    assert store.put_json({"a": "ü", "b": [1, None]}) == digest


def test_a_damaged_object_is_named_and_not_returned(tmp_path: Path) -> None:
    store = Store(tmp_path)
    digest = store.put_bytes(b"page", ".png")
    Path(store.path(digest, ".png").path).write_bytes(b"pagf")
    with pytest.raises(InputError, match=digest):
        store.read_bytes(digest, ".png")


def test_a_missing_object_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="missing from the store"):
        Store(tmp_path).read_bytes("0" * 64)


def test_a_folder_whose_building_failed_is_not_there(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fail(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        store.build_folder("d1", fail)
    with pytest.raises(InputError):
        store.folder("d1")
    store.build_folder("d1", lambda folder: (folder / "whole").write_text("x") and None)
    assert [path.name for path in store.folder("d1").iterdir()] == ["whole"]
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(TEMPORARY_PREFIX)]


def test_a_store_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "objects").write_text("a file where a folder should be")
    with pytest.raises(InputError, match="cannot be written"):
        Store(tmp_path).put_bytes(b"x")
