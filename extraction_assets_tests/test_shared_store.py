"""A store with a shared copy behind it, and the shared copy itself, on every kind of place that can be had here."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from extraction_assets.errors import InputError
from extraction_assets.remote import RemoteFolder
from extraction_assets.settings_file import load_settings
from extraction_assets.store import FILE_LIST, Store, digest_bytes
from extraction_assets_tests.shared_places import KINDS, place, s3_server


@pytest.fixture(params=KINDS)
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RemoteFolder]:
    with place(request.param, tmp_path) as address:
        yield RemoteFolder(address)


def two_stores(shared: RemoteFolder, tmp_path: Path) -> tuple[Store, Store]:
    return Store(tmp_path / "one", shared), Store(tmp_path / "other", shared)


def test_what_is_written_is_listed_read_and_seen_to_change(shared: RemoteFolder, tmp_path: Path) -> None:
    assert shared.list() == {}
    assert shared.read("a/b.txt") is shared.entry("a/b.txt") is None
    shared.write("a/b.txt", b"one")
    (tmp_path / "file").write_bytes(b"\0" * 70_000)
    shared.send("a/größe & co.bin", tmp_path / "file")
    before = shared.list()
    assert {name: entry.size for name, entry in before.items()} == {"a/b.txt": 3, "a/größe & co.bin": 70_000}
    assert shared.read("a/b.txt") == b"one"
    assert shared.entry("a/b.txt") == before["a/b.txt"]
    shared.write("a/b.txt", b"two")
    assert shared.list()["a/b.txt"].tag != before["a/b.txt"].tag
    assert shared.list()["a/größe & co.bin"] == before["a/größe & co.bin"]
    assert shared.fetch("a/größe & co.bin", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"\0" * 70_000
    assert not shared.fetch("nowhere", tmp_path / "back")


def test_what_one_home_stored_another_has(shared: RemoteFolder, tmp_path: Path) -> None:
    one, other = two_stores(shared, tmp_path)
    digest = one.put_bytes(b"page", ".png")
    assert other.has(digest, ".png")
    assert not other.has(digest_bytes(b"never"), ".png")
    assert other.read_bytes(digest, ".png") == b"page"
    assert other.local_path(digest, ".png").read_bytes() == b"page"

    def build(folder: Path) -> None:
        (folder / "deep").mkdir()
        (folder / "deep" / "weights").write_bytes(b"w" * 1000)
        (folder / "card.md").write_text("ü")

    one.build_folder("d" * 64, build)
    brought = other.folder("d" * 64)
    assert (brought / "deep" / "weights").read_bytes() == b"w" * 1000
    assert (brought / "card.md").read_text() == "ü"
    assert other.build_folder("d" * 64, lambda folder: pytest.fail("it is there")) == brought
    with pytest.raises(InputError, match="missing from the store"):
        other.folder("e" * 64)
    (tmp_path / "one" / "ledgers").mkdir()
    (tmp_path / "one" / "ledgers" / "x.jsonl").write_text("a line\n")
    one.push("ledgers/x.jsonl")
    other.pull("ledgers/x.jsonl")
    assert (tmp_path / "other" / "ledgers" / "x.jsonl").read_text() == "a line\n"


def test_a_damaged_shared_object_or_folder_is_named_and_not_kept(shared: RemoteFolder, tmp_path: Path) -> None:
    one, other = two_stores(shared, tmp_path)
    digest = one.put_json({"a": 1})
    shared.write(f"objects/{digest[:2]}/{digest}.json", b'{"a":2}')
    with pytest.raises(InputError, match=f"{digest}.json: does not hold what its name says"):
        other.read_json(digest)
    assert not (tmp_path / "other" / "objects").exists() or not list((tmp_path / "other" / "objects").rglob("*.json"))
    one.build_folder("d" * 64, lambda folder: (folder / "weights").write_bytes(b"right"))  # type: ignore[arg-type, return-value]
    shared.write(f"folders/{'d' * 64}/weights", b"wrong")
    with pytest.raises(InputError, match="weights: is damaged"):
        other.folder("d" * 64)
    assert not list((tmp_path / "other" / "folders").iterdir())


@pytest.mark.parametrize("listed", [b"{", b"[]", b'{"a":1}', b'{"../out":"x"}', b'{"/out":"x"}', b'{"a//b":"x"}', b'{"":"x"}'])
def test_a_list_of_files_that_leads_elsewhere_is_refused(tmp_path: Path, listed: bytes) -> None:
    shared = RemoteFolder(f"memory://{tmp_path.name}")
    digest = digest_bytes(b"folder")
    shared.write(f"folders/{digest}{FILE_LIST}", listed)
    shared.write("folders/out", b"x")
    with pytest.raises(InputError, match="is no list of a folder's files"):
        Store(tmp_path / "store", shared).find_folder(digest)
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]


def test_a_folder_that_was_half_sent_is_none(shared: RemoteFolder, tmp_path: Path) -> None:
    one, other = two_stores(shared, tmp_path)
    shared.write(f"folders/{'d' * 64}/weights", b"half")
    with pytest.raises(InputError, match="missing from the store"):
        other.folder("d" * 64)
    one.build_folder("d" * 64, lambda folder: (folder / "weights").write_bytes(b"whole"))  # type: ignore[arg-type, return-value]
    assert (other.folder("d" * 64) / "weights").read_bytes() == b"whole"


def test_nothing_counts_here_before_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with place("memory", tmp_path) as address:
        shared = RemoteFolder(address)
        store = Store(tmp_path / "one", shared)

        def fail(*_: object) -> None:
            raise OSError("connection reset by peer")

        memory = type(fsspec.filesystem("memory"))
        with monkeypatch.context() as patch:
            patch.setattr(memory, "pipe_file", fail)
            patch.setattr(memory, "put_file", fail)
            with pytest.raises(InputError, match=f"{address}: cannot be written.*connection reset by peer"):
                store.put_bytes(b"page", ".png")
            with pytest.raises(InputError, match="cannot be written"):
                store.build_folder("d" * 64, lambda folder: (folder / "weights").write_bytes(b"w"))  # type: ignore[arg-type, return-value]
        assert not [path for path in (tmp_path / "one").rglob("*") if path.is_file()]
        digest = store.put_bytes(b"page", ".png")
        assert Store(tmp_path / "other", shared).read_bytes(digest, ".png") == b"page"


def test_what_the_shared_copy_lacks_is_named_and_sent_again(tmp_path: Path) -> None:
    with place("memory", tmp_path) as address:
        alone = Store(tmp_path / "one")
        digest = alone.put_bytes(b"page", ".png")
        alone.build_folder("d" * 64, lambda folder: (folder / "weights").write_bytes(b"w"))  # type: ignore[arg-type, return-value]
        store = Store(tmp_path / "one", RemoteFolder(address))
        assert store.unshared() == [f"objects/{digest[:2]}/{digest}.png", f"folders/{'d' * 64}"]
        for name in store.unshared():
            store.share_again(name)
        assert store.unshared() == []
        shutil.rmtree(tmp_path / "one")
        assert store.read_bytes(digest, ".png") == b"page"
        assert (store.folder("d" * 64) / "weights").read_bytes() == b"w"
        assert json.loads(RemoteFolder(address).read(f"folders/{'d' * 64}{FILE_LIST}") or b"{}") == {"weights": digest_bytes(b"w")}


# --- what goes wrong -----------------------------------------------------------------------------------------------------------


def test_a_missing_bucket_and_a_server_that_is_gone_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in s3_server().items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(InputError, match=r"^s3://nobody-made-this/x: cannot be written") as told:
        Store(tmp_path, RemoteFolder("s3://nobody-made-this/x")).put_bytes(b"page")
    assert "\n" not in str(told.value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(InputError, match=r"s3://gone/x: cannot be .*Check the address"):
        RemoteFolder("s3://gone/x").read("name")


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # as if it were not installed
    with pytest.raises(InputError, match=r"gs://bucket/x: needs gcsfs, which is not installed.*extraction-assets\[remote\]"):
        RemoteFolder("gs://bucket/x").list()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ("store: s3", "expected an address such as"),
        ("store: s3://", "expected an address such as"),
        ("store: s4://bucket/x", "unknown kind of address s4://"),
        ("store: s3://key:secret@bucket/x", "must hold no password"),
        ("store: s3://bucket\n  landing: s3://bucket/landing", "neither in the other"),
        ("store: 7", "valid string"),
    ],
)
def test_an_address_that_cannot_be_is_refused(tmp_path: Path, values: str, says: str) -> None:
    (tmp_path / "settings.yaml").write_text(f"shared:\n  {values}\n")
    with pytest.raises(InputError, match=says):
        load_settings(tmp_path / "settings.yaml")
