"""landing/ and a shared landing: each file goes where it is missing, and nobody's change is lost."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from extraction_assets.documents.landing_mirror import Exchange, exchange
from extraction_assets.errors import InputError
from extraction_assets.remote import RemoteFolder
from extraction_assets_tests.shared_places import KINDS, place


@dataclass
class Side:
    """One home's landing/."""

    landing: Path
    shared: RemoteFolder

    def exchange(self) -> Exchange:
        return exchange(self.landing, self.shared, self.landing.parent / "cache" / "landing.json")

    def put(self, name: str, text: str) -> None:
        path = self.landing / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        later = time.time_ns() + 5_000_000_000  # mtime moves on however coarse the clock is
        os.utime(path, ns=(later, later))

    def files(self) -> dict[str, str]:
        found = sorted(path for path in self.landing.rglob("*") if path.is_file())
        return {path.relative_to(self.landing).as_posix(): path.read_text() for path in found}


@pytest.fixture(params=KINDS)
def sides(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Side, Side]]:
    with place(request.param, tmp_path) as address:
        yield tuple(Side(tmp_path / name / "landing", RemoteFolder(address)) for name in ("one", "other"))  # type: ignore[misc]


def test_what_lands_on_one_side_reaches_the_other_and_then_there_is_nothing_to_do(sides: tuple[Side, Side]) -> None:
    one, other = sides
    assert one.exchange() == Exchange()
    one.put("invoice/acme & söhne/1.pdf", "pdf")
    one.put("invoice/acme & söhne/1.json", "{}")
    one.put("invoice/acme & söhne/1.provenance.json", "who")
    one.put("invoice/.DS_Store", "rubbish")
    assert one.exchange().sent == tuple(f"invoice/acme & söhne/1.{end}" for end in ("json", "pdf", "provenance.json"))
    assert other.exchange().fetched == tuple(f"invoice/acme & söhne/1.{end}" for end in ("json", "pdf", "provenance.json"))
    assert other.files() == {name: text for name, text in one.files().items() if ".DS_Store" not in name}
    assert one.exchange() == other.exchange() == Exchange()


def test_a_change_travels_and_a_change_on_both_sides_is_refused_by_name(sides: tuple[Side, Side]) -> None:
    one, other = sides
    for name in ("a", "b", "c"):
        one.put(f"invoice/acme/{name}.json", "first")
    one.exchange()
    other.exchange()
    one.put("invoice/acme/a.json", "second")
    one.put("invoice/acme/b.json", "mine")
    one.exchange()
    other.put("invoice/acme/b.json", "theirs")
    other.put("invoice/acme/c.json", "changed here")
    with pytest.raises(InputError, match=r"changed here and in .* since they were last the same: invoice/acme/b.json\. Delete the copy"):
        other.exchange()
    assert other.files() == {"invoice/acme/a.json": "second", "invoice/acme/b.json": "theirs", "invoice/acme/c.json": "changed here"}
    assert one.exchange().fetched == ("invoice/acme/c.json",)
    (other.landing / "invoice/acme/b.json").unlink()  # the copy that is wrong
    assert other.exchange().fetched == ("invoice/acme/b.json",)
    assert other.files() == one.files()


def test_the_same_change_on_both_sides_is_none(sides: tuple[Side, Side]) -> None:
    one, other = sides
    for side in sides:
        side.put("invoice/acme/1.pdf", "pdf")
    one.exchange()
    assert other.exchange() == Exchange()
    assert one.exchange() == other.exchange() == Exchange()


def test_what_is_removed_there_goes_here_and_what_is_lost_here_comes_back(sides: tuple[Side, Side], tmp_path: Path) -> None:
    one, _ = sides
    one.put("invoice/acme/1.pdf", "pdf")
    one.put("invoice/acme/2.pdf", "pdf 2")
    one.exchange()
    (one.landing / "invoice/acme/1.pdf").unlink()
    assert one.exchange().fetched == ("invoice/acme/1.pdf",)
    fs, path = one.shared._at("invoice/acme/2.pdf")
    fs.rm(path)
    assert one.exchange().removed == ("invoice/acme/2.pdf",)
    assert one.files() == {"invoice/acme/1.pdf": "pdf"}
    assert one.exchange() == Exchange()


def test_a_lost_record_costs_a_reading_and_nothing_else(sides: tuple[Side, Side]) -> None:
    one, _ = sides
    one.put("invoice/acme/1.pdf", "pdf")
    one.exchange()
    for damage in (None, b"{"):
        record = one.landing.parent / "cache" / "landing.json"
        record.unlink() if damage is None else record.write_bytes(damage)
        assert one.exchange() == Exchange()
        assert one.files() == {"invoice/acme/1.pdf": "pdf"}


def test_an_exchange_that_was_cut_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with place("memory", tmp_path) as address:
        one, other = (Side(tmp_path / name / "landing", RemoteFolder(address)) for name in ("one", "other"))
        for number in range(30):
            one.put(f"invoice/acme/{number:02}.pdf", f"pdf {number}")
        one.exchange()
        whole = RemoteFolder.fetch
        left = iter(range(12))

        def cut(shared: RemoteFolder, name: str, target: Path) -> bool:
            if next(left, None) is None:
                raise InputError(address, "cannot be read: connection reset")
            return whole(shared, name, target)

        with monkeypatch.context() as patch:
            patch.setattr(RemoteFolder, "fetch", cut)
            with pytest.raises(InputError, match="connection reset"):
                other.exchange()
        assert 0 < len(other.files()) < 30
        assert len(other.exchange().fetched) >= 30 - 12
        assert other.files() == one.files()


def test_a_name_that_leads_out_of_landing_is_refused(tmp_path: Path) -> None:
    shared = RemoteFolder("memory://out-of-landing")
    shared.write("invoice/a\\..\\b.pdf", b"x")
    with pytest.raises(InputError, match="a name that cannot be a file's"):
        exchange(tmp_path / "landing", shared, tmp_path / "record.json")
