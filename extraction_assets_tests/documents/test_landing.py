"""The landing scan: content decides, problems are named one by one, and nothing hangs on time stamps."""

from __future__ import annotations

import json
import os
import time
import unicodedata
from pathlib import Path

import pytest

from extraction_assets.documents.digest_cache import DigestCache
from extraction_assets.documents.landing import documents_digest, labels_digest, scan_landing, scan_vendor, vendor_folder
from extraction_assets.errors import InputError
from extraction_assets_tests.documents.samples import digest_bytes, put

OLD = time.time() - 3600


def settle(folder: Path) -> None:
    """As if everything had lain there for an hour; the cache remembers only what has settled."""
    for path in folder.rglob("*"):
        os.utime(path, (OLD, OLD))


def test_documents_and_labels_are_found_by_stem(landing: Path, cache: DigestCache) -> None:
    put(landing, "invoice/acme/b.pdf", "%PDF-b")
    put(landing, "invoice/acme/a.PDF", "%PDF-a")
    put(landing, "invoice/acme/a.json", "{}")
    put(landing, "receipt/shop/r.jpg", "r")
    scan = scan_landing(landing, cache)
    assert list(scan.vendors) == ["invoice/acme", "receipt/shop"]
    first, second = scan.vendors["invoice/acme"]
    assert (first.file, first.label_file) == ("invoice/acme/a.PDF", "invoice/acme/a.json")
    assert first.document == digest_bytes(b"%PDF-a")
    assert (second.file, second.label_file, second.label) == ("invoice/acme/b.pdf", None, None)
    assert scan.problems == ()


def test_no_landing_is_an_empty_one(tmp_path: Path, cache: DigestCache) -> None:
    assert scan_landing(tmp_path / "nowhere", cache).vendors == {}


@pytest.mark.parametrize("name", ["pipe.pdf", "good.json"])
def test_a_pipe_is_named_and_not_waited_for(landing: Path, cache: DigestCache, name: str) -> None:
    put(landing, "invoice/acme/good.pdf", "x")
    os.mkfifo(landing / "invoice/acme" / name)
    scan = scan_landing(landing, cache)
    assert [f"{name}: is no regular file" in str(problem) for problem in scan.problems] == [True]
    assert [file.file for file in scan.vendors["invoice/acme"]] == ["invoice/acme/good.pdf"]


def test_every_problem_is_named_and_the_rest_stands(landing: Path, cache: DigestCache) -> None:
    put(landing, "stray.pdf", "x")
    put(landing, "invoice/stray.json", "{}")
    put(landing, "invoice/acme/good.pdf", "x")
    put(landing, "invoice/acme/orphan.json", "{}")
    put(landing, "invoice/acme/bad.pdf", "y")
    put(landing, "invoice/acme/bad.json", '{"a": 1,\n "b": }')
    put(landing, "invoice/acme/deeper/x.pdf", "z")
    put(landing, "invoice/a|b/x.pdf", "z")
    os.symlink("nowhere", landing / "invoice/acme/gone.pdf")
    scan = scan_landing(landing, cache)
    lines = [str(problem) for problem in scan.problems]
    for part in ("stray.pdf", "stray.json", "orphan.json", "bad.json:2", "deeper", "a|b", "gone.pdf"):
        assert sum(part in line for line in lines) == 1, part
    assert len(lines) == 7
    assert [file.file for file in scan.vendors["invoice/acme"]] == ["invoice/acme/bad.pdf", "invoice/acme/good.pdf"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_a_problem(landing: Path, cache: DigestCache) -> None:
    put(landing, "invoice/acme/x.pdf", "x").chmod(0)
    assert "cannot be read" in str(scan_landing(landing, cache).problems[0])


def test_two_spellings_of_one_name_are_a_problem(landing: Path, cache: DigestCache) -> None:
    put(landing, "invoice/Acme/x.pdf", "x")
    put(landing, "invoice/acme/y.pdf", "y")
    scan = scan_landing(landing, cache)
    assert scan.vendors == {}
    assert "'Acme' and 'acme'" in str(scan.problems[0])


def test_hidden_and_left_over_files_are_not_seen(landing: Path, cache: DigestCache) -> None:
    for name in (".DS_Store", ".tmp-123", "Thumbs.db", "x.native.json", "x.pdf~"):
        put(landing, f"invoice/acme/{name}", "x")
    assert scan_landing(landing, cache) == type(scan_landing(landing, cache))({}, ())


def test_a_decomposed_folder_name_is_found_by_its_key(landing: Path, cache: DigestCache) -> None:
    put(landing, unicodedata.normalize("NFD", "invoice/Müller/x.pdf"), "x")
    assert list(scan_landing(landing, cache).vendors) == ["invoice/Müller"]
    assert vendor_folder(landing, "invoice/Müller").is_dir()
    assert len(scan_vendor(landing, "invoice/Müller", cache)) == 1


def test_one_vendors_scan_raises_its_problem(landing: Path, cache: DigestCache) -> None:
    put(landing, "invoice/acme/x.pdf", "x")
    put(landing, "invoice/acme/x.json", "[]")
    with pytest.raises(InputError, match=r"x\.json:1: holds a JSON array"):
        scan_vendor(landing, "invoice/acme", cache)


def test_renames_and_touches_change_no_digest_but_content_does(landing: Path, cache: DigestCache) -> None:
    path = put(landing, "invoice/acme/x.pdf", "content")
    settle(landing)
    before = scan_landing(landing, cache).vendors["invoice/acme"]
    os.utime(path)
    path.rename(path.with_name("renamed.pdf"))
    after = scan_landing(landing, cache).vendors["invoice/acme"]
    assert documents_digest(before) == documents_digest(after)
    put(landing, "invoice/acme/renamed.pdf", "CONTENT")
    assert documents_digest(scan_landing(landing, cache).vendors["invoice/acme"]) != documents_digest(after)


def test_same_size_and_time_stamp_do_not_hide_new_content(landing: Path, cache: DigestCache) -> None:
    path = put(landing, "invoice/acme/x.pdf", "content")
    settle(landing)
    before = documents_digest(scan_landing(landing, cache).vendors["invoice/acme"])
    path.write_bytes(b"CONTENT")
    os.utime(path, (OLD, OLD))
    assert documents_digest(scan_landing(landing, cache).vendors["invoice/acme"]) != before


def test_a_labels_layout_changes_no_digest_but_its_values_do(landing: Path, cache: DigestCache) -> None:
    put(landing, "invoice/acme/x.pdf", "x")
    put(landing, "invoice/acme/x.json", '{"a": 1, "b": [1.0]}')

    def digest() -> str:
        return labels_digest(scan_landing(landing, cache).vendors["invoice/acme"])

    before = digest()
    put(landing, "invoice/acme/x.json", '\ufeff{\n "b": [1.0],\n "a": 1\n}\n')
    assert digest() == before
    put(landing, "invoice/acme/x.json", '{"a": 2, "b": [1.0]}')
    assert digest() != before


def test_a_document_without_a_label_counts_for_the_labels(landing: Path, cache: DigestCache) -> None:
    put(landing, "invoice/acme/x.pdf", "x")
    before = labels_digest(scan_landing(landing, cache).vendors["invoice/acme"])
    put(landing, "invoice/acme/y.pdf", "y")
    assert labels_digest(scan_landing(landing, cache).vendors["invoice/acme"]) != before


def test_a_broken_cache_costs_time_only(landing: Path, tmp_path: Path) -> None:
    put(landing, "invoice/acme/x.pdf", "x")
    for broken in (b"", b"{", b'{"version": 1, "files": {"a": 3}}', b'{"version": 99}', b"[]"):
        (tmp_path / "cache.json").write_bytes(broken)
        assert len(scan_landing(landing, DigestCache(tmp_path / "cache.json")).vendors) == 1


def test_the_cache_is_used_and_forgets_what_is_gone(landing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from extraction_assets.documents import digest_cache

    put(landing, "invoice/acme/x.pdf", "x")
    put(landing, "invoice/acme/y.pdf", "y")
    settled = time.time_ns() + 10_000_000_000
    monkeypatch.setattr(digest_cache.time, "time_ns", lambda: settled)
    scan_landing(landing, DigestCache(tmp_path / "cache.json"))
    (landing / "invoice/acme/y.pdf").unlink()
    reads: list[str] = []
    monkeypatch.setattr(digest_cache, "digest_file", lambda path: reads.append(path))
    scan_landing(landing, DigestCache(tmp_path / "cache.json"))
    assert reads == []
    assert len(json.loads((tmp_path / "cache.json").read_bytes())["files"]) == 1
