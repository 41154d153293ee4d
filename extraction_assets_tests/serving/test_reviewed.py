"""Reviewed answers come back as labels: with provenance, without leaks, and nothing that a person wrote is lost in silence."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from extraction_assets.automation.instance import open_instance
from extraction_assets.automation.lineage import trace
from extraction_assets.cli import main
from extraction_assets.commands import ingest_command, latest, status_command, update_command
from extraction_assets.dataset.chat import ChatRecord, load_split
from extraction_assets.documents.ingest import IngestReport
from extraction_assets.documents.label_provenance import LabelHistory, read_history
from extraction_assets.home import chat_record_schema_path
from extraction_assets.record import Record
from extraction_assets.store import digest_file, digest_of
from extraction_assets_tests.homes import draw_pdf, drop_document, make_home

VENDOR_CHAIN = ("document_labels", "page_targets", "hard_negatives")
WRONG = {"number": None, "date": None, "total": None}


def silent(line: str) -> None:
    pass


def response(answer: dict[str, Any], type: str = "invoice") -> dict[str, Any]:
    """The body of a 200 from /score."""
    return {
        "answer": answer,
        "confidence": {"mean": 0.7, "fields": {"/total": 0.4}},
        "decision": {"route": "review", "reasons": ["/total is unsure"]},
        "finish_reason": "stop",
        "model": {"bundle": "b" * 64, "base": "tiny", "adapter": "a" * 64},
        "schema": {"type": type, "digest": "5" * 64},
        "timing": {"image_ms": 1.0, "wait_ms": 0.0, "model_ms": 9.0, "tokens": 5, "passes": 5},
    }


def review(file: str, label: dict[str, Any], day: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "file": file,
        "label": label,
        "reviewer": "anna",
        "reviewed_at": f"2026-11-{day:02d}T10:00:00+00:00",
        "request_id": f"request-{day}",
        "response": response({**label, "total": "1.00"}),
        **more,
    }


class Desk:
    """A home, and a folder beside it where reviews come in."""

    def __init__(self, root: Path) -> None:
        self.home = make_home(root / "home", {"invoice/acme": 6, "invoice/bolt": 3}, base=False)
        self.folder = root / "reviews"
        self.folder.mkdir()

    def bring(self, landed: str) -> Path:
        """A copy of a landed document, as the client that sent it has it."""
        path = self.home.landing / landed
        copy = self.folder / path.name
        copy.write_bytes(path.read_bytes())
        return copy

    def ingest(self, *records: dict[str, Any] | str, vendor: str | None = None) -> IngestReport:
        lines = (record if isinstance(record, str) else json.dumps(record) for record in records)
        (self.folder / "reviewed.jsonl").write_text("".join(f"{line}\n" for line in lines))
        return ingest_command(self.home, self.folder, None, vendor, silent, reviewed=True)

    def label(self, landed: str) -> dict[str, Any]:
        return json.loads((self.home.landing / landed).with_suffix(".json").read_text())

    def history(self, landed: str) -> LabelHistory:
        path = self.home.landing / landed
        return read_history(path.with_suffix(".provenance.json"), digest_file(path))

    def update(self, to: str = "train_split") -> None:
        walk, problems = update_command(self.home, [to], silent)
        assert not walk.failures
        assert not problems

    def records(self, split: str) -> Iterator[ChatRecord]:
        return load_split(self.home.store.path(latest(self.home, f"{split}_split")["jsonl"], ".jsonl"), chat_record_schema_path())


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_correction_makes_one_vendor_stale_and_stands_in_the_train_split(desk: Desk) -> None:
    right = {}
    for path in sorted((desk.home.landing / "invoice/acme").glob("*.json")):
        right[path.stem] = json.loads(path.read_text())
        path.write_text(json.dumps({**right[path.stem], "total": None}))
    desk.update()
    splits = {record.meta.document: split for split in ("train", "val", "test") for record in desk.records(split)}
    of_train = next(path for path in sorted((desk.home.landing / "invoice/acme").glob("*.pdf")) if splits.get(digest_file(path)) == "train")
    landed = of_train.relative_to(desk.home.landing).as_posix()
    before = desk.label(landed)

    report = desk.ingest(review(desk.bring(landed).name, right[of_train.stem]))
    assert (report.added, report.unchanged, report.refused) == (1, 0, ())
    [replaced] = report.replaced
    assert (replaced.origin, replaced.earlier, replaced.fields) == ("file", digest_of(before), ("/total",))

    statuses, _ = status_command(desk.home)
    stale = {(status.asset, status.partition) for status in statuses if status.partition and status.state == "stale"}
    assert stale == {(asset, "invoice/acme") for asset in VENDOR_CHAIN}
    desk.update()
    document = digest_file(of_train)
    targets = [
        json.loads(record.messages[1].content[0].text)
        for record in desk.records("train")
        if (record.meta.document, record.meta.stratum) == (document, "clean")
    ]
    assert targets == [right[of_train.stem]]
    assert {record.meta.document: split for split in ("train", "val", "test") for record in desk.records(split)} == splits


def test_who_judged_a_label_is_told_by_the_graph_and_by_lineage(desk: Desk) -> None:
    landed = "invoice/acme/acme-1.pdf"
    before = desk.label(landed)
    desk.ingest(review(desk.bring(landed).name, {**before, "date": None}))
    desk.update("document_labels")
    with open_instance(desk.home) as instance:
        record = Record(instance, desk.home)
        chain = trace(record, digest_file(desk.home.landing / landed))
        event = instance.get_latest_materialization_event(key("document_labels"))
        assert event is not None
        by_partition = {
            it.partition_key: it.asset_materialization.metadata
            for it in instance.fetch_materializations(key("document_labels"), limit=10).records
            if it.asset_materialization
        }
    assert "reviewed by anna at 2026-11-01T10:00:00Z (endpoint), in place of " + digest_of(before)[:12] in chain.text()
    told = chain.as_json()["documents"][0]["label_review"]
    assert told["details"]["request_id"] == "request-1"
    assert told["details"]["decision"]["route"] == "review"
    assert told["details"]["model"]["bundle"] == "b" * 64
    assert told["details"]["schema"] == {"type": "invoice", "digest": "5" * 64}
    assert told["details"]["corrected"] == ["/total"]
    assert by_partition["invoice/acme"]["reviewed"].value == 1
    assert "anna" in by_partition["invoice/acme"]["reviews"].value
    assert by_partition["invoice/bolt"]["reviewed"].value == 0


def key(name: str) -> Any:
    import dagster as dg

    return dg.AssetKey(name)


def test_the_earlier_label_is_kept_and_the_same_review_counts_once(desk: Desk) -> None:
    landed = "invoice/acme/acme-1.pdf"
    before, file = desk.label(landed), desk.bring(landed).name
    first, second = review(file, WRONG), review(file, {**before, "total": "7.00"}, day=2)
    assert [it.earlier for it in desk.ingest(first).replaced] == [digest_of(before)]
    assert [it.origin for it in desk.ingest(first, second).replaced] == ["endpoint"]  # a log that grows
    again = desk.ingest(first, second)
    assert (again.added, again.unchanged, again.replaced) == (0, 2, ())
    assert desk.label(landed) == {**before, "total": "7.00"}
    history = desk.history(landed)
    assert [it.replaced and it.replaced.value for it in history.reviews] == [before, WRONG]
    assert history.reviews[0].replaced is not None
    assert digest_of(history.reviews[0].replaced.value) == history.reviews[0].replaced.label


def test_a_label_found_right_stays_as_it_is_and_is_known_to_be_confirmed(desk: Desk) -> None:
    landed = "invoice/acme/acme-1.pdf"
    path = (desk.home.landing / landed).with_suffix(".json")
    path.write_text('{"number":   "acme-1"}')  # the other keys count as null
    report = desk.ingest(review(desk.bring(landed).name, {"number": "acme-1", "date": None, "total": None}))
    assert (report.added, report.confirmed, report.replaced) == (0, 1, ())
    assert path.read_text() == '{"number":   "acme-1"}'
    assert desk.history(landed).of_label(digest_of({"number": "acme-1"})) is not None


def test_an_older_review_does_not_undo_a_newer_one(desk: Desk) -> None:
    landed = "invoice/acme/acme-1.pdf"
    file = desk.bring(landed).name
    desk.ingest(review(file, WRONG, day=5))
    report = desk.ingest(review(file, {**WRONG, "number": "x"}, day=4))
    assert [it.reason for it in report.refused] == ["label_not_replaced"]
    assert "was reviewed again at 2026-11-05 10:00 by anna" in report.refused[0].detail
    assert desk.label(landed) == WRONG


def test_the_source_that_a_label_came_from_does_not_undo_its_correction(desk: Desk, tmp_path: Path) -> None:
    landed = "invoice/acme/acme-1.pdf"
    source = tmp_path / "nightly"
    source.mkdir()
    for suffix in (".pdf", ".json"):
        path = (desk.home.landing / landed).with_suffix(suffix)
        (source / path.name).write_bytes(path.read_bytes())
    before = desk.label(landed)
    desk.ingest(review(desk.bring(landed).name, WRONG))
    report = ingest_command(desk.home, source, "invoice", "acme", silent)
    assert (report.added, report.unchanged) == (0, 1)
    assert desk.label(landed) == WRONG
    (source / "acme-1.json").write_text(json.dumps({**before, "total": "3.00"}))  # a third one, which no review has seen
    report = ingest_command(desk.home, source, "invoice", "acme", silent)
    assert [it.origin for it in report.replaced] == ["endpoint"]
    assert desk.label(landed)["total"] == "3.00"
    assert desk.history(landed).reviews[-1].origin == "ingest"


def test_a_kill_between_provenance_and_label_is_made_good(desk: Desk) -> None:
    landed = "invoice/acme/acme-1.pdf"
    path = (desk.home.landing / landed).with_suffix(".json")
    before, one = path.read_bytes(), review(desk.bring(landed).name, WRONG)
    desk.ingest(one)
    provenance = path.with_suffix(".provenance.json")
    written = json.loads(provenance.read_text())
    path.write_bytes(before)  # as it is when the label was not yet written
    provenance.write_text(json.dumps({"document": written["document"], "reviews": [], "pending": written["reviews"][0]}))
    desk.update("document_labels")
    report = desk.ingest(one)
    assert len(report.replaced) == 1
    assert desk.label(landed) == WRONG
    assert len(desk.history(landed).reviews) == 1


def test_a_hand_edit_after_a_review_is_not_undone_by_the_same_review(desk: Desk) -> None:
    landed = "invoice/acme/acme-1.pdf"
    before, one = desk.label(landed), review(desk.bring(landed).name, WRONG)
    desk.ingest(one)
    (desk.home.landing / landed).with_suffix(".json").write_text(json.dumps(before))
    assert desk.ingest(one).unchanged == 1
    assert desk.label(landed) == before
    assert desk.history(landed).of_label(digest_of(before)) is None


def test_reviewed_pictures_of_a_test_page_go_to_test_or_nowhere(desk: Desk) -> None:
    desk.update("test_split")
    of_test = next(record for record in desk.records("test") if record.meta.stratum == "clean")
    picture = Image.open(io.BytesIO(desk.home.store.read_bytes(of_test.meta.page_digest, ".png"))).convert("RGB")
    label = json.loads(of_test.messages[1].content[0].text)
    for format in ("PNG", "JPEG"):
        picture.save(desk.folder / f"{format}.img", format, quality=80)
        report = desk.ingest(review(f"{format}.img", label), vendor="acme")
        assert (report.added, report.refused) == (1, ())
    desk.update("test_split")
    landed = {path.name for path in (desk.home.landing / "invoice/acme").iterdir() if path.suffix in (".png", ".jpg")}
    assert landed == {"PNG.png", "JPEG.jpg"}
    desk.update("train_split")
    documents = {digest_file(desk.home.landing / "invoice/acme" / name) for name in landed}
    for split in ("train", "val"):
        assert all(record.meta.document not in documents for record in desk.records(split))
        assert all(record.meta.page_digest != of_test.meta.page_digest for record in desk.records(split))
    assert of_test.meta.document in {record.meta.document for record in desk.records("test")}


def test_a_new_page_lands_with_its_label_and_its_provenance(desk: Desk) -> None:
    draw_pdf(desk.folder / "new.pdf", ["Number N-1", "Total 5.00"])
    label = {"number": "N-1", "date": None, "total": "5.00"}
    assert desk.ingest(review("new.pdf", label, vendor="corner")).added == 1
    landed = "invoice/corner/new.pdf"
    assert desk.label(landed) == label
    behind = desk.history(landed).of_label(digest_of(label))
    assert behind is not None
    assert behind.by == "anna"
    assert behind.replaced is None


def test_reviews_of_pages_become_one_label_and_none_may_be_missing(desk: Desk) -> None:
    import pymupdf

    with pymupdf.open() as document:
        for number in (1, 2):
            document.new_page(width=224, height=160).insert_text((16, 30), f"Number N-{number} of two pages")
        document.save(desk.folder / "two.pdf")
    parts = [{"number": f"N-{page}", "date": None, "total": None} for page in (1, 2)]
    reviews = [review("two.pdf", part, page=page, vendor="corner") for page, part in zip((1, 2), parts, strict=True)]
    assert "speak of pages 1 to 1; expected 1 to 2" in desk.ingest(reviews[0]).refused[0].detail
    assert "no review of page 1" in desk.ingest(reviews[1]).refused[0].detail
    assert desk.ingest(*reviews).added == 1
    assert desk.label("invoice/corner/two.pdf") == {"pages": parts}
    desk.update("page_targets")
    with open_instance(desk.home) as instance:
        value = Record(instance, desk.home).latest_value("page_targets", "invoice/corner")
    assert value is not None
    assert [json.loads(target["target"])["number"] for target in value["targets"]] == ["N-1", "N-2"]


def test_files_of_one_record_each_are_taken_too(desk: Desk) -> None:
    landed = "invoice/acme/acme-1.pdf"
    (desk.folder / "one.review.json").write_text(json.dumps(review(desk.bring(landed).name, WRONG)))
    report = ingest_command(desk.home, desk.folder, None, None, silent, reviewed=True)
    assert len(report.replaced) == 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"label": {**WRONG, "total": 5}}, "label_violates_schema: its label /total: 5 is not of type"),
        ({"label": {**WRONG, "totl": "5"}}, "label_violates_schema: its label /totl: the schema has no such key"),
        ({"file": "nowhere.png"}, "missing_file: nowhere.png: no such file"),
        ({"reviewer": ""}, 'bad_review: /reviewer: found ""'),
        (
            {"reviewed_at": "2026-11-01T10:00:00"},
            'bad_review: /reviewed_at: found "2026-11-01T10:00:00"; expected input should have timezone',
        ),
        ({"response": {}}, "bad_review: /response/answer: found nothing; expected field required"),
        ({"type": "letter"}, "unknown_type: the type 'letter' has no schema"),
        ({"vendor": "bolt"}, "duplicate: the same bytes already lie in landing as invoice/acme/acme-1.pdf"),
        ({"pages": 3}, "bad_review: /pages: found 3"),
    ],
)
def test_a_record_that_cannot_be_taken_is_one_line_and_the_others_land(
    desk: Desk, capsys: pytest.CaptureFixture[str], change: dict[str, Any], told: str
) -> None:
    good = drop_document(desk.home, "invoice/acme", "good")
    before = (desk.home.landing / "invoice/acme/acme-1.json").read_text()
    lines = [
        json.dumps(review(desk.bring("invoice/acme/acme-1.pdf").name, WRONG) | change),
        json.dumps(review(desk.bring("invoice/acme/good.pdf").name, WRONG)),
    ]
    (desk.folder / "reviewed.jsonl").write_text("\n".join(lines))
    code = main(["--home", str(desk.home.root), "ingest", str(desk.folder), "--reviewed", "--json"])
    out, err = capsys.readouterr()
    assert code == 0
    [line] = [line for line in err.splitlines() if line.startswith("refused")]
    assert line.startswith("refused reviewed.jsonl:1")
    assert told in line
    assert "invoice/acme/good.json: replaced the label" in err
    report = json.loads(out)
    assert (report["added"], len(report["refused"]), report["replaced"][0]["file"]) == (1, 1, "invoice/acme/good.json")
    assert (desk.home.landing / "invoice/acme/acme-1.json").read_text() == before
    assert json.loads(good.with_suffix(".json").read_text()) == WRONG


def test_a_folder_without_reviews_is_named(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--home", str(desk.home.root), "ingest", str(desk.folder), "--reviewed"]) == 2
    assert "holds no reviewed answer; expected reviewed.jsonl, or files named *.review.json" in capsys.readouterr().err


def test_a_provenance_file_that_is_damaged_is_named(desk: Desk) -> None:
    landed = "invoice/acme/acme-1.pdf"
    one = review(desk.bring(landed).name, WRONG)
    desk.ingest(one)
    path = (desk.home.landing / landed).with_suffix(".provenance.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "reviews": [3]}))
    walk, _ = update_command(desk.home, ["document_labels"], silent)
    assert any("acme-1.provenance.json /reviews/0" in failure for failure in walk.failures)
