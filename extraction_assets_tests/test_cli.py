"""Bad input of every kind: exit code 2 and one clear line, never a traceback, nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from extraction_assets.assets.report_source import page_texts
from extraction_assets.cli import main
from extraction_assets.commands import latest
from extraction_assets.dataset.chat import load_split
from extraction_assets.home import Home, chat_record_schema_path
from extraction_assets.training.adapter import read_manifest
from extraction_assets_tests.homes import drop_document, make_home


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The last line of a refused command."""
    code, _, err = run(capsys, *arguments)
    assert code == 2, err
    assert "Traceback" not in err
    return err.strip().splitlines()[-1]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path / "home", {"invoice/acme": 2}, base=False)


def at(home: Home) -> tuple[str, str]:
    return "--home", str(home.root)


def test_init_makes_a_home_that_status_and_ingest_accept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "new home")
    assert run(capsys, "init", folder)[0] == 0
    assert {"settings.yaml", "schemas", "landing"} <= {path.name for path in (tmp_path / "new home").iterdir()}
    code, out, _ = run(capsys, "--home", folder, "status", "--json")
    assert code == 0
    assert all(row["state"] == "missing" for row in json.loads(out))


def test_init_keeps_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "settings.yaml").write_text("render: {dpi: 99}\n")
    assert run(capsys, "init", str(tmp_path))[0] == 0
    assert (tmp_path / "settings.yaml").read_text() == "render: {dpi: 99}\n"


def test_no_home(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "extraction init" in refused(capsys, "--home", str(tmp_path), "status")


def test_an_unknown_command_or_option_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "invalid choice" in refused(capsys, "trian")
    assert "unrecognized arguments" in refused(capsys, "status", "--jsn")


@pytest.mark.parametrize("command", ["status", "update", "ui"])
def test_a_typo_in_settings(home: Home, capsys: pytest.CaptureFixture[str], command: str) -> None:
    home.settings_path.write_text("render:\n  dpj: 100\n")
    line = refused(capsys, *at(home), command)
    assert "settings.yaml:2 render.dpj: unknown key. Did you mean dpi?" in line


def test_an_empty_landing(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    for path in [*home.landing.rglob("*.*")]:
        path.unlink()
    assert "holds no documents" in refused(capsys, *at(home), "update")


def test_a_label_that_violates_its_schema(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    path = home.landing / "invoice" / "acme" / "acme-0.json"
    path.write_text(json.dumps({"number": "1", "date": "2024-01-01", "total": 12.5}))
    line = refused(capsys, *at(home), "update", "--to", "page_targets")
    assert "invoice/acme/acme-0.json" in line
    assert "/total" in line
    path.write_text(json.dumps({"number": None, "date": None, "total": None}))
    assert run(capsys, *at(home), "update", "--to", "page_targets")[0] == 0


def test_a_label_that_is_no_json(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    (home.landing / "invoice" / "acme" / "acme-0.json").write_text('{"number": \n oops}')
    assert "acme-0.json:2" in refused(capsys, *at(home), "update", "--to", "page_targets")


@pytest.mark.parametrize("vendor", ["a∕b", "x" * 200, "tab\there", " leading", "a|b"])
def test_an_impossible_vendor_folder_is_named_and_the_others_are_made(home: Home, capsys: pytest.CaptureFixture[str], vendor: str) -> None:
    drop_document(home, f"invoice/{vendor}", "one")
    code, out, err = run(capsys, *at(home), "update", "--to", "page_images", "--json")
    assert code == 2
    assert "Traceback" not in err
    assert "landing" in err.strip().splitlines()[-1]
    assert ("page_images", "invoice/acme") in {(row["asset"], row["partition"]) for row in json.loads(out) if row["ok"]}


@pytest.mark.parametrize("vendor", ["with spaces & dots.", "Müller GmbH", "販売店", "x" * 100])
def test_an_odd_but_possible_vendor_name_works(home: Home, capsys: pytest.CaptureFixture[str], vendor: str) -> None:
    vendor = vendor.rstrip(".")
    drop_document(home, f"invoice/{vendor}", "one")
    code, out, _ = run(capsys, *at(home), "update", "--to", "page_targets", "--json")
    assert code == 0
    assert ("page_targets", f"invoice/{vendor}") in {(row["asset"], row["partition"]) for row in json.loads(out)}


def test_a_type_without_schema(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert "one of invoice, receipt" in refused(capsys, *at(home), "ingest", str(home.landing), "--type", "memo")
    drop_document(home, "memo/acme", "one")
    assert "no schema for document type 'memo'" in refused(capsys, *at(home), "update", "--to", "page_images")


def test_an_unknown_asset(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is not in the graph" in refused(capsys, *at(home), "update", "--to", "page_imgaes")


def test_lineage_of_something_unknown(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is nothing that this home made" in refused(capsys, *at(home), "lineage", "abcdef123456")


def test_a_damaged_record_is_one_line(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, *at(home), "status")[0] == 0
    configuration = home.dagster / "dagster.yaml"
    for text in ("{oops", "nonsense: 1\n"):
        configuration.write_text(text)
        assert "dagster.yaml: is no configuration" in refused(capsys, *at(home), "status")
    configuration.unlink()
    assert run(capsys, *at(home), "status")[0] == 0
    for database in home.dagster.rglob("*.db"):
        database.write_bytes(b"no database " * 100)
    assert "a database in it is damaged" in refused(capsys, *at(home), "status")
    shutil.rmtree(home.dagster)
    assert run(capsys, *at(home), "status")[0] == 0


def test_status_says_why_in_words(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, *at(home), "update", "--to", "hard_negatives")[0] == 0
    home.settings_path.write_text(home.settings_path.read_text().replace("dpi: 72", "dpi: 60"))
    _, out, _ = run(capsys, *at(home), "status")
    assert "page_images[invoice/acme]: stale: render_settings changed: dpi 72.0 -> 60.0" in out.splitlines()
    assert "render_settings: stale: changed: dpi 72.0 -> 60.0" in out.splitlines()


def test_update_twice_runs_nothing_the_second_time(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, *at(home), "update", "--to", "test_split", "--json")[0] == 0
    code, out, _ = run(capsys, *at(home), "update", "--to", "test_split", "--json")
    assert code == 0
    assert json.loads(out) == []


def test_documents_that_cannot_be_taken_are_told(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    folder = home.landing / "invoice" / "acme"
    (folder / "text.pdf").write_text("no document")
    (folder / "cut.pdf").write_bytes((folder / "acme-0.pdf").read_bytes()[:60])
    code, _, err = run(capsys, *at(home), "update", "--to", "page_images")
    assert code == 0
    for file in ("text.pdf", "cut.pdf"):
        assert [line for line in err.splitlines() if line.startswith("warning: ") and f"invoice/acme/{file} is left out: " in line], err


def test_an_unexpected_error_names_its_asset(home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def boom(*_: object, **__: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr("extraction_assets.assets.pages.render_vendor", boom)
    assert "page_images[invoice/acme]: RuntimeError: boom" in refused(capsys, *at(home), "update", "--to", "page_images")


@pytest.mark.parametrize("path", ["x" * 5000, "settings.yaml/x"])
def test_an_impossible_path_is_one_line(home: Home, capsys: pytest.CaptureFixture[str], path: str) -> None:
    refused(capsys, *at(home), "ingest", str(home.root / path), "--type", "invoice")
    refused(capsys, *at(home), "lineage", str(home.root / path))
    refused(capsys, "--home", str(home.root / path), "status")


def test_json_of_a_file_whose_name_is_no_utf8(home: Home, tmp_path: Path) -> None:
    """In a process of its own: only a real stdout refuses such a name."""
    name = os.fsencode(tmp_path) + b"/\xff.pdf"
    os.link(home.landing / "invoice" / "acme" / "acme-0.pdf", name)
    command = [sys.executable, "-m", "extraction_assets.cli", *at(home), "render", name, "--out", str(tmp_path / "out"), "--json"]
    for locale in ("C.UTF-8", "C"):
        done = subprocess.run(command, capture_output=True, env={**os.environ, "LC_ALL": locale})
        assert done.returncode == 0, done.stderr
        assert os.fsencode(json.loads(done.stdout.decode("ascii"))[0]["file"]) == name


def test_lineage_of_a_document_by_its_path(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, *at(home), "update", "--to", "document_labels")[0] == 0
    code, out, _ = run(capsys, *at(home), "lineage", str(home.landing / "invoice" / "acme" / "acme-0.pdf"), "--json")
    assert code == 0
    assert [row["file"] for row in json.loads(out)["documents"]] == ["invoice/acme/acme-0.pdf"]


def test_lineage_of_a_folder_that_is_no_adapter(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "manifest.json").write_text("oops")
    assert "manifest.json" in refused(capsys, *at(home), "lineage", str(tmp_path / "folder"))


def test_clean_pages_of_a_split_have_words_to_draft_from_and_no_others(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, *at(home), "update", "--to", "test_split")[0] == 0
    split = latest(home, "test_split")["jsonl"]
    texts = page_texts(home.store, split, latest(home, "example_index")["targets"])
    records = list(load_split(home.store.path(split, ".jsonl"), chat_record_schema_path()))
    assert {record.meta.stratum for record in records} > {"clean"}
    assert set(texts) == {record.meta.page_digest for record in records if record.meta.stratum == "clean"}
    assert all(text.words for text in texts.values())


def test_lineage_walks_from_a_split_to_the_documents(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, *at(home), "update", "--to", "test_split")[0] == 0
    store = home.root / "store"
    split = next(path for path in store.rglob("*.jsonl") if b'"messages"' in path.read_bytes())
    code, out, _ = run(capsys, *at(home), "lineage", str(split), "--json")
    assert code == 0
    for document in json.loads(out)["documents"]:
        assert (home.landing / document["file"]).is_file()
        assert (home.landing / document["label_file"]).is_file()


@pytest.mark.slow
def test_the_graph_trains_by_as_many_processes_as_the_settings_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = make_home(tmp_path / "home", {"invoice/acme": 5, "invoice/bolt": 5})
    settings = (home.root / "settings.yaml").read_text()
    (home.root / "settings.yaml").write_text(settings + "compute: {processes: 2, sharding: fsdp2}\n")
    assert run(capsys, *at(home), "update", "--to", "lora_adapter")[0] == 0
    (adapter,) = (path.parent for path in (home.root / "store").rglob("adapter_model.safetensors") if "checkpoints" not in path.parts)
    assert (read_manifest(adapter).processes, read_manifest(adapter).sharding) == (2, "fsdp2")
    (home.root / "settings.yaml").write_text(settings)
    code, out, _ = run(capsys, *at(home), "status", "--json")
    assert code == 0
    assert [row["state"] for row in json.loads(out) if row["asset"] == "lora_adapter"] == ["fresh"]


@pytest.mark.slow
def test_the_graph_trains_an_adapter_that_merges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = make_home(tmp_path / "home", {"invoice/acme": 5, "invoice/bolt": 5})
    assert "no champion yet" in refused(capsys, *at(home), "merge", "--out", str(tmp_path / "merged"))
    assert run(capsys, *at(home), "update", "--to", "lora_adapter", "--to", "test_split")[0] == 0
    (adapter,) = (path.parent for path in (home.root / "store").rglob("adapter_model.safetensors") if "checkpoints" not in path.parts)
    manifest = read_manifest(adapter)
    assert manifest.val_answers is not None  # the graph hands the schemas on that answers during training are scored by
    assert manifest.val_answers["pages"] == min(2, manifest.val_examples)
    given = ("--adapter", str(adapter), "--out", str(tmp_path / "merged"))
    code, out, _ = run(capsys, *at(home), "merge", *given, "--pages", "2", "--json")
    assert code == 0
    merged = json.loads(out)
    assert merged["pages"] == merged["equal_answers"] == 2
    assert (
        merged["field_accuracy"]["beside"] == merged["field_accuracy"]["merged"] == sum(page["right"][0] for page in merged["compared"]) / 6
    )
    assert [(page["equal"], page["fields"]) for page in merged["compared"]] == [(True, 3)] * 2
    assert (tmp_path / "merged" / "merge.json").is_file()
    assert "exists already" in refused(capsys, *at(home), "merge", *given)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
@pytest.mark.parametrize("free_kilobytes", [40, 400, 900])
def test_a_full_disk_is_one_line_and_nothing_is_lost(tmp_path: Path, free_kilobytes: int) -> None:
    """Full at once, while Dagster makes its databases, and while pages are written."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    command = [sys.executable, "-m", "extraction_assets.cli", "--home", str(disk / "home"), "update", "--to", "hard_negatives"]
    try:
        make_home(disk / "home", {"invoice/acme": 4}, base=False)
        filler = disk / "filler"
        filler.write_bytes(bytes(shutil.disk_usage(disk).free - free_kilobytes * 1024))
        full = subprocess.run(command, capture_output=True, text=True)
        assert full.returncode == 2, full.stderr
        assert "Traceback" not in full.stderr
        last = full.stderr.strip().splitlines()[-1]
        assert "No space left" in last or "full" in last, full.stderr
        filler.unlink()
        after = subprocess.run(command, capture_output=True, text=True)
        assert after.returncode == 0, after.stderr
    finally:
        subprocess.run(["umount", str(disk)], check=False)
