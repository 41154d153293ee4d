"""Ingest: every file ends as added, unchanged or refused; the user's files stay as they are; nothing lands half."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from extraction_assets.documents.digest_cache import DigestCache
from extraction_assets.documents.ingest import IngestReport, ingest
from extraction_assets.documents.landing import scan_landing
from extraction_assets.errors import InputError
from extraction_assets.schema import TargetSchema
from extraction_assets.settings import RenderSettings
from extraction_assets_tests.documents.samples import pdf, put, raw_pdf, scan

GOOD = {"company": "Shop", "date": "2024-01-02", "address": None, "total": "9.00"}


class Home:
    """A landing folder and a source beside it."""

    def __init__(self, root: Path, schemas: Mapping[str, TargetSchema], settings: RenderSettings) -> None:
        self.source, self.landing = root / "source", root / "landing"
        self.source.mkdir()
        self._schemas, self._settings, self._cache = schemas, settings, DigestCache(root / "digests.json")

    def ingest(self, source: Path | None = None, type: str | None = "receipt", vendor: str | None = None, workers: int = 2) -> IngestReport:
        return ingest(source or self.source, self.landing, self._schemas, type, vendor, self._settings, self._cache, workers=workers)

    def files(self) -> list[str]:
        return sorted(path.relative_to(self.landing).as_posix() for path in self.landing.rglob("*") if path.is_file())

    def manifest(self, *lines: dict[str, Any] | str) -> Path:
        text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
        return put(self.source, "manifest.jsonl", text)


@pytest.fixture
def home(tmp_path: Path, schemas: dict[str, TargetSchema], settings: RenderSettings) -> Home:
    return Home(tmp_path, schemas, settings)


def reasons(report: IngestReport) -> dict[str, str]:
    return {refused.file: refused.reason for refused in report.refused}


# --- folders ----------------------------------------------------------------------------------------------------------------


def test_a_folder_lands_with_its_labels_under_its_own_name(home: Home) -> None:
    put(home.source, "a.pdf", pdf("a"))
    put(home.source, "a.json", json.dumps(GOOD))
    put(home.source, "b.JPG", scan("JPEG"))
    report = home.ingest()
    assert (report.added, report.unchanged, report.refused) == (2, 0, ())
    assert home.files() == ["receipt/source/a.json", "receipt/source/a.pdf", "receipt/source/b.JPG"]
    assert json.loads((home.landing / "receipt/source/a.json").read_text()) == GOOD


def test_sub_folders_are_vendors_unless_one_is_given(home: Home) -> None:
    put(home.source, "bei spiel gmbh/2024/a.pdf", pdf("a"))
    put(home.source, "other/b.pdf", pdf("b"))
    home.ingest()
    assert home.files() == ["receipt/bei spiel gmbh/a.pdf", "receipt/other/b.pdf"]
    put(home.source, "other/c.pdf", pdf("c"))
    home.ingest(vendor="given")
    assert "receipt/given/c.pdf" in home.files()


def test_one_file_is_a_source_too(home: Home) -> None:
    path = put(home.source, "a.pdf", pdf("a"))
    assert home.ingest(path, vendor="acme").added == 1
    assert home.files() == ["receipt/acme/a.pdf"]


def test_a_second_ingest_changes_nothing(home: Home) -> None:
    put(home.source, "a.pdf", pdf("a"))
    put(home.source, "a.json", json.dumps(GOOD))
    home.ingest()
    before = {path: path.stat().st_mtime_ns for path in home.landing.rglob("*")}
    report = home.ingest()
    assert (report.added, report.unchanged) == (0, 1)
    assert {path: path.stat().st_mtime_ns for path in home.landing.rglob("*")} == before


def test_the_users_files_stay_as_they_are(home: Home) -> None:
    put(home.source, "a.pdf", pdf("a"))
    put(home.source, "bad.pdf", b"<html>")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in home.source.rglob("*") if path.is_file()}
    home.ingest()
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in home.source.rglob("*") if path.is_file()} == before


def test_another_label_for_known_bytes_updates_it(home: Home) -> None:
    put(home.source, "a.pdf", pdf("a"))
    home.ingest()
    put(home.source, "a.json", json.dumps(GOOD))
    assert home.ingest().added == 1
    put(home.source, "a.json", json.dumps({**GOOD, "total": "10.00"}))
    assert home.ingest().added == 1
    assert json.loads((home.landing / "receipt/source/a.json").read_text())["total"] == "10.00"
    put(home.source, "a.json", json.dumps({**GOOD, "total": "10.00"}, indent=3, sort_keys=True))
    assert home.ingest().unchanged == 1


def test_a_name_that_is_taken_gets_a_part_of_the_digest(home: Home) -> None:
    put(home.source, "x/a.pdf", pdf("one"))
    put(home.source, "x/a.json", json.dumps(GOOD))
    put(home.source, "y/a.pdf", pdf("two"))
    put(home.source, "y/a.json", json.dumps({**GOOD, "total": "2"}))
    assert home.ingest(vendor="acme").added == 2
    files = home.files()
    assert len(files) == 4
    assert files[:2] == [files[0], files[0].replace(".json", ".pdf")]
    scan = scan_landing(home.landing, DigestCache(home.landing.parent / "other.json"))
    assert scan.problems == ()
    assert len({file.label for file in scan.vendors["receipt/acme"]}) == 2


def test_the_same_bytes_under_another_vendor_are_refused_by_name(home: Home) -> None:
    put(home.source, "one/a.pdf", pdf("same"))
    put(home.source, "two/b.pdf", pdf("same"))
    report = home.ingest()
    assert report.added == 1
    assert reasons(report) == {"two/b.pdf": "duplicate"}
    assert "receipt/one/a.pdf" in report.refused[0].detail


def test_what_cannot_be_taken_is_listed_and_what_is_no_document_is_not(home: Home, settings: RenderSettings) -> None:
    put(home.source, "html.pdf", b"<!DOCTYPE html><html>")
    put(home.source, "empty.pdf", b"")
    put(home.source, "locked.pdf", pdf("x", password="other"))
    put(home.source, "open.pdf", pdf("x", password=settings.passwords[0]))
    put(home.source, "pages.pdf", raw_pdf(pages="<< /Type /Pages /Kids [] /Count 0 >>"))
    put(home.source, "fax.tiff", b"II*\0")
    put(home.source, "letter.docx", b"PK\3\4")
    put(home.source, "notes.txt", b"hello")
    put(home.source, "other.json", json.dumps(GOOD))
    put(home.source, "open.native.json", b"not ours")
    put(home.source, ".hidden.pdf", b"x")
    put(home.source, "noname", pdf("no extension"))
    report = home.ingest()
    assert report.added == 2
    assert reasons(report) == {
        "html.pdf": "not_a_document", "empty.pdf": "empty_file", "locked.pdf": "encrypted", "pages.pdf": "no_pages",
        "fax.tiff": "unsupported_format", "letter.docx": "unsupported_format",
    }  # fmt: skip
    assert home.files() == ["receipt/source/noname.pdf", "receipt/source/open.pdf"]


def test_a_file_lands_under_the_ending_of_what_it_is(home: Home) -> None:
    put(home.source, "a.pdf", scan("PNG"))
    home.ingest()
    assert home.files() == ["receipt/source/a.png"]


@pytest.mark.parametrize(
    ("label", "pointer"),
    [({**GOOD, "total": 9}, "/total"), ({**GOOD, "shop/name": "x"}, "/shop~1name"), ({**GOOD, "date": "x" * 300}, "/date")],
)
def test_a_label_that_violates_its_schema_is_refused_with_its_document(home: Home, label: dict[str, Any], pointer: str) -> None:
    put(home.source, "a.pdf", pdf("a"))
    put(home.source, "a.json", json.dumps(label))
    report = home.ingest()
    assert reasons(report) == {"a.pdf": "label_violates_schema"}
    assert pointer in report.refused[0].detail
    assert home.files() == []


def test_a_label_may_leave_keys_out(home: Home) -> None:
    put(home.source, "a.pdf", pdf("a"))
    put(home.source, "a.json", '{"total": "9.00"}')
    assert home.ingest().added == 1


def test_a_label_that_is_no_json_is_refused_with_its_line(home: Home) -> None:
    put(home.source, "a.pdf", pdf("a"))
    put(home.source, "a.json", '{"total": "9.00",\n}')
    report = home.ingest()
    assert reasons(report) == {"a.pdf": "bad_label"}
    assert "a.json:2" in report.refused[0].detail


def test_odd_file_names_become_names_that_every_system_takes(home: Home) -> None:
    put(home.source, "a\nb:c.pdf", pdf("1"))
    put(home.source, "x" * 240 + ".pdf", pdf("2"))
    os.rename(put(home.source, "raw.pdf", pdf("3")), os.fsencode(home.source) + b"/\xff.pdf")
    assert home.ingest(vendor="acme").added == 3
    for file in home.files():
        assert file.encode().decode().isprintable()
        assert len(file) < 200
    assert scan_landing(home.landing, DigestCache(home.landing.parent / "o.json")).problems == ()


# --- manifests --------------------------------------------------------------------------------------------------------------


def test_a_manifest_names_type_and_vendor_and_the_options_fill_the_rest(home: Home) -> None:
    put(home.source, "1.pdf", pdf("1"))
    put(home.source, "2.pdf", pdf("2"))
    put(home.source, "2.label", '{"invoice_number": "7"}')
    put(home.source, "3.pdf", pdf("3"))
    home.manifest(
        {"file": "1.pdf", "label": None, "type": None, "vendor": None, "licence": "ignored"},
        {"file": "2.pdf", "label": "2.label", "type": "invoice", "vendor": "seller inc."},
        {"file": "3.pdf", "type": "invoice"},
    )
    assert home.ingest(vendor="given").added == 3
    assert home.files() == ["invoice/given/3.pdf", "invoice/seller inc./2.json", "invoice/seller inc./2.pdf", "receipt/given/1.pdf"]


def test_a_vendor_that_nobody_names_is_unknown(home: Home) -> None:
    put(home.source, "1.pdf", pdf("1"))
    home.manifest({"file": "1.pdf", "type": "invoice", "vendor": None})
    home.ingest(type=None)
    assert home.files() == ["invoice/unknown/1.pdf"]


def test_a_manifests_faults_are_refused_line_by_line(home: Home) -> None:
    put(home.source, "1.pdf", pdf("1"))
    put(home.source, "2.pdf", pdf("2"))
    put(home.source, "left out.pdf", pdf("3"))
    home.manifest(
        {"file": "1.pdf"},
        {"file": "1.pdf", "type": "letter"},
        {"file": "gone.pdf", "type": "receipt"},
        {"file": "2.pdf", "type": "receipt", "label": "gone.json"},
        {"file": "./2.pdf", "type": "receipt", "vendor": "a/b"},
    )
    report = home.ingest(type=None)
    assert report.added == 0
    assert [(refused.file, refused.reason) for refused in report.refused] == [
        ("1.pdf", "no_type"),
        ("1.pdf", "unknown_type"),
        ("gone.pdf", "missing_file"),
        ("2.pdf", "missing_label"),
        ("./2.pdf", "bad_vendor_name"),
        ("left out.pdf", "not_in_manifest"),
    ]


@pytest.mark.parametrize(
    ("line", "says"), [("{", "not valid JSON"), ("[]", "no JSON object"), ('{"label": "x"}', "names no file"), ('{"file": 7}', "a string")]
)
def test_a_line_that_says_nothing_stops_before_anything_is_copied(home: Home, line: str, says: str) -> None:
    put(home.source, "1.pdf", pdf("1"))
    home.manifest({"file": "1.pdf", "type": "receipt"}, line)
    with pytest.raises(InputError, match=rf"manifest\.jsonl:2.*{says}"):
        home.ingest()
    assert home.files() == []


def test_a_manifest_may_name_what_no_file_system_can_hold(home: Home) -> None:
    lines = [{"file": "x" * 5000 + ".pdf"}, {"file": "\ud800.pdf"}, {"file": "a\0.pdf"}]
    put(home.source, "manifest.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    assert [refusal.reason for refusal in home.ingest().refused] == ["missing_file"] * 3


def test_a_manifest_line_with_a_number_too_long_is_named(home: Home) -> None:
    put(home.source, "manifest.jsonl", '{"file": "a.pdf"}\n{"file": ' + "9" * 5000 + "}\n")
    with pytest.raises(InputError, match=r"manifest\.jsonl:2"):
        home.ingest()


# --- errors of the whole ----------------------------------------------------------------------------------------------------


def test_a_bad_source_type_or_vendor_is_an_input_error(home: Home) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        home.ingest(home.source / "nothing")
    with pytest.raises(InputError, match="no such document type"):
        home.ingest(type="letter")
    with pytest.raises(InputError, match="--vendor"):
        home.ingest(vendor="a/b")
    put(home.landing, "receipt/acme/a.pdf", pdf("a"))
    with pytest.raises(InputError, match="lies in landing already"):
        home.ingest(home.landing / "receipt")
    with pytest.raises(InputError, match="holds the landing folder"):
        home.ingest(home.landing.parent)


def test_a_vendor_in_another_spelling_is_refused(home: Home) -> None:
    put(home.source, "a.pdf", pdf("a"))
    put(home.source, "b.pdf", pdf("b"))
    assert home.ingest(home.source / "a.pdf", vendor="Acme").added == 1
    report = home.ingest(home.source / "b.pdf", vendor="ACME")
    assert reasons(report) == {"b.pdf": "bad_vendor_name"}
    assert "Acme" in report.refused[0].detail


def test_the_order_of_the_report_does_not_hang_on_the_workers(
    home: Home, tmp_path: Path, schemas: dict[str, TargetSchema], settings: RenderSettings
) -> None:
    for number in range(12):
        put(home.source, f"{number % 3}/same.pdf" if number < 3 else f"v/{number:02}.pdf", pdf(f"{number // 2}"))
    first = home.ingest(workers=1)
    other = tmp_path / "other"
    other.mkdir()
    again = Home(other, schemas, settings)
    assert again.ingest(home.source, workers=3) == first
    assert again.files() == home.files()


# --- disks ------------------------------------------------------------------------------------------------------------------


def test_a_pipe_is_refused_and_not_waited_for(home: Home) -> None:
    put(home.source, "a.pdf", pdf("a"))
    os.mkfifo(home.source / "b.pdf")
    report = home.ingest()
    assert report.added == 1
    assert [(refusal.file, refusal.reason) for refusal in report.refused] == [("b.pdf", "unreadable")]


def test_a_label_left_by_a_killed_run_is_taken_up(home: Home) -> None:
    put(home.source, "a.pdf", pdf("a"))
    put(home.source, "a.json", json.dumps(GOOD))
    put(home.landing, "receipt/source/a.json", json.dumps(GOOD))  # the label goes first: this is what a kill leaves
    put(home.landing, "receipt/source/.tmp-123", "half a document")
    assert home.ingest().added == 1
    assert "receipt/source/a.pdf" in home.files()
    assert scan_landing(home.landing, DigestCache(home.landing.parent / "o.json")).problems == ()


def test_a_landing_that_cannot_be_written_is_one_clear_error(home: Home) -> None:
    put(home.source, "a.pdf", pdf("a"))
    home.landing.mkdir()
    (home.landing / "receipt").write_bytes(b"a file where a folder should be")
    with pytest.raises(InputError, match=r"cannot be (made|read)"):
        home.ingest()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_landing_is_one_clear_error(home: Home) -> None:
    put(home.source, "a.pdf", pdf("a"))
    home.landing.mkdir()
    home.landing.chmod(0o500)
    with pytest.raises(InputError, match="cannot be made"):
        home.ingest()


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from extraction_assets.documents.digest_cache import DigestCache
from extraction_assets.documents.ingest import ingest
from extraction_assets.errors import InputError
from extraction_assets.schema import TargetSchema
from extraction_assets.settings import RenderSettings
source, landing, schema = map(Path, sys.argv[1:4])
limit = int(sys.argv[4])
if limit:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    schemas, cache = {"receipt": TargetSchema.load(schema)}, DigestCache(landing.parent / "cache.json")
    ingest(source, landing, schemas, "receipt", "acme", RenderSettings(), cache, workers=1)
except InputError as error:
    print("InputError:", error)
    sys.exit(2)
"""


def _run_full_disk(home: Home, landing: Path, limit: int) -> subprocess.CompletedProcess[str]:
    schema = Path(__file__).parents[2] / "schemas" / "receipt.schema.json"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", FULL_DISK, str(home.source), str(landing), str(schema), str(limit)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


def _small_and_large(home: Home) -> None:
    import numpy as np
    from PIL import Image

    from extraction_assets_tests.documents.samples import encoded

    put(home.source, "a.pdf", pdf("small"))
    noise = np.random.default_rng(0).integers(0, 255, (700, 700, 3), np.uint8)
    put(home.source, "b.png", encoded(Image.fromarray(noise)))  # 1.4 MB


def test_a_file_that_does_not_fit_is_one_clear_error_and_nothing_half_stays(home: Home) -> None:
    _small_and_large(home)
    result = _run_full_disk(home, home.landing, 500_000)
    assert (result.returncode, result.stderr) == (2, "")
    assert "cannot be written" in result.stdout
    assert home.files() == ["receipt/acme/a.pdf"]
    assert home.ingest(vendor="acme").added == 1
    assert home.files() == ["receipt/acme/a.pdf", "receipt/acme/b.png"]


def test_a_full_disk_is_one_clear_error_and_nothing_half_stays(home: Home, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "none", str(disk)], capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small disk; the test above stands in for it")
    try:
        _small_and_large(home)
        result = _run_full_disk(home, disk / "landing", 0)
        left = sorted(path.name for path in disk.rglob("*") if path.is_file() and path.name != "cache.json")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert (result.returncode, result.stderr) == (2, "")
    assert "No space left" in result.stdout
    assert left == ["a.pdf"]
