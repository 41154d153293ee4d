"""The label audit to Label Studio and back; Label Studio's own SDK judges what goes out and makes the JSON-MIN that comes in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.data_version import DATA_VERSION_TAG

from extraction_assets.automation.instance import open_instance
from extraction_assets.cli import main
from extraction_assets.commands import latest, update_command
from extraction_assets.documents.label_provenance import read_history
from extraction_assets.errors import InputError
from extraction_assets.evaluation.label_studio.controls import label_of, labelling_config, results
from extraction_assets.home import Home
from extraction_assets.schema import TargetSchema
from extraction_assets.store import digest_file, digest_of
from extraction_assets_tests.evaluation.cases import GOLD, INVOICE
from extraction_assets_tests.homes import SCHEMA, make_home

LabelInterface = pytest.importorskip("label_studio_sdk.label_interface").LabelInterface
Converter = pytest.importorskip("label_studio_sdk.converter").Converter

WRONG = "acme-1"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """One vendor's label holds a total that stands on no page."""
    home = make_home(tmp_path / "home", {"invoice/acme": 4}, base=False)
    path = label_path(home, WRONG)
    path.write_text(json.dumps({**json.loads(path.read_text()), "total": "99999.99"}))
    update_command(home, ["train_split"], lambda line: None)
    return home


def label_path(home: Home, stem: str) -> Path:
    return home.landing / "invoice/acme" / f"{stem}.json"


def run(home: Home, *arguments: str) -> int:
    return main(["--home", str(home.root), "audit", *arguments])


def exported(home: Home, out: Path) -> list[dict[str, Any]]:
    assert run(home, "--export", "label-studio", "--out", str(out)) == 0
    return json.loads((out / "invoice/tasks.json").read_text())


def judged(task: dict[str, Any], change: dict[str, str | None], **more: Any) -> dict[str, Any]:
    """The task as Label Studio exports it, once a person has started from the first prediction and changed some controls."""
    result = [region for region in task["predictions"][0]["result"] if region["from_name"] not in change]
    for name, text in change.items():
        if text is not None:
            result.append({"id": "n", "from_name": name, "to_name": "page", "type": "textarea", "value": {"text": [text]}})
    annotation = {
        "id": 71,
        "completed_by": {"id": 1, "email": "anna@example.org"},
        "result": result,
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": "2026-11-01T10:00:00.000000Z",
        "updated_at": "2026-11-01T10:05:00.000000Z",
        "lead_time": 12.5,
    }
    return {"id": 12, "data": task["data"], "annotations": [{**annotation, **more}], "predictions": []}


def test_what_goes_out_is_what_label_studio_takes(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    [task] = exported(home, out)
    interface = LabelInterface((out / "invoice/label_config.xml").read_text())
    interface.validate()
    assert interface.validate_task({"data": task["data"]})
    for prediction in task["predictions"]:
        assert interface.validate_prediction(prediction, return_errors=True) == []
    assert "'99999.99' stands on no page (unplaced)" in task["data"]["why"]
    [address] = task["data"]["pages"]
    image = out.parent / address.removeprefix("/data/local-files/?d=")
    assert digest_file(image) == image.stem
    boxed = {region["value"]["rectanglelabels"][0] for region in task["predictions"][0]["result"] if region["type"] == "rectanglelabels"}
    assert boxed == {"/number", "/date"}
    assert f"invoice/acme/{WRONG}.json" in capsys.readouterr().out


def test_images_can_stand_in_the_tasks(home: Home, tmp_path: Path) -> None:
    assert run(home, "--export", "label-studio", "--out", str(tmp_path / "out"), "--inline") == 0
    [task] = json.loads((tmp_path / "out/invoice/tasks.json").read_text())
    assert task["data"]["pages"][0].startswith("data:image/png;base64,iVBOR")
    assert not (tmp_path / "out/pages").exists()


@pytest.mark.parametrize("form", ["JSON", "JSON_MIN"])
def test_a_correction_lands_with_its_provenance_and_counts_once(
    home: Home, tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out, before = tmp_path / "out", json.loads(label_path(home, WRONG).read_text())
    [task] = exported(home, out)
    export = tmp_path / "export.json"
    export.write_text(json.dumps([judged(task, {"/total": "12.50"})]))
    if form == "JSON_MIN":
        converter = Converter((out / "invoice/label_config.xml").read_text(), str(tmp_path))
        converter.convert_to_json_min(str(export), str(tmp_path / "min"), is_dir=False)
        export = tmp_path / "min/result.json"
        assert "annotations" not in json.loads(export.read_text())[0]
    capsys.readouterr()
    assert run(home, "--import", str(export), "--json") == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert (report["added"], report["replaced"][0]["fields"]) == (1, ["/total"])
    assert f"replaced the label {digest_of(before)[:12]} (file); /total differ" in printed.err
    assert json.loads(label_path(home, WRONG).read_text()) == {**before, "total": "12.50"}
    history = read_history(label_path(home, WRONG).with_suffix(".provenance.json"), task["data"]["document"])
    [review] = history.reviews
    assert (review.origin, review.by, review.replaced and review.replaced.value) == ("label-studio", "anna@example.org", before)
    assert review.details["tasks"] == [{"task": 12, "annotation": 71, "judged": digest_of(before)}]
    assert run(home, "--import", str(export), "--json") == 0
    assert json.loads(capsys.readouterr().out)["unchanged"] == 1


def test_a_label_found_right_is_confirmed_and_a_cleared_field_is_null(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [task] = exported(home, tmp_path / "out")
    export = tmp_path / "export.json"
    text = label_path(home, WRONG).read_text()
    export.write_text(json.dumps([judged(task, {})]))
    capsys.readouterr()
    assert run(home, "--import", str(export), "--json") == 0
    assert json.loads(capsys.readouterr().out)["confirmed"] == 1
    assert label_path(home, WRONG).read_text() == text
    export.write_text(json.dumps([judged(task, {"/total": None}, id=72, updated_at="2026-11-02T10:00:00Z")]))
    assert run(home, "--import", str(export)) == 0
    assert json.loads(label_path(home, WRONG).read_text())["total"] is None


@pytest.mark.parametrize(
    ("change", "more", "told"),
    [
        ({"/number": None, "/date": None, "/total": None}, {}, "every field is empty, while the label holds values"),
        ({"/total": "123456789012345"}, {}, "/total: "),
        ({}, {"updated_at": "yesterday"}, "updated_at: bad_judgement: found 'yesterday'; expected a time with its zone"),
        ({}, {"result": "nothing"}, "/annotations: bad_judgement: found something else than annotations"),
    ],
)
def test_a_task_that_cannot_be_taken_is_one_line_and_changes_nothing(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, str | None], more: dict[str, Any], told: str
) -> None:
    [task] = exported(home, tmp_path / "out")
    text = label_path(home, WRONG).read_text()
    (tmp_path / "export.json").write_text(json.dumps([judged(task, change, **more)]))
    capsys.readouterr()
    assert run(home, "--import", str(tmp_path / "export.json")) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("refused")]
    assert told in line
    assert label_path(home, WRONG).read_text() == text
    assert not label_path(home, WRONG).with_suffix(".provenance.json").exists()


def test_a_label_that_changed_since_it_was_handed_out_is_not_overwritten(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [task] = exported(home, tmp_path / "out")
    label_path(home, WRONG).write_text('{"number": "another"}')
    (tmp_path / "export.json").write_text(json.dumps([judged(task, {"/total": "12.50"})]))
    assert run(home, "--import", str(tmp_path / "export.json")) == 2
    assert "the label has changed since it was handed out" in capsys.readouterr().err
    assert json.loads(label_path(home, WRONG).read_text()) == {"number": "another"}


def test_two_annotations_that_differ_need_a_decision(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [task] = exported(home, tmp_path / "out")
    one, other = judged(task, {"/total": "12.50"}), judged(task, {"/total": "13.50"}, id=72)
    one["annotations"] += other["annotations"]
    (tmp_path / "export.json").write_text(json.dumps([one]))
    assert run(home, "--import", str(tmp_path / "export.json")) == 2
    assert "found 2 annotations that differ; expected one" in capsys.readouterr().err
    one["annotations"][1]["ground_truth"] = True
    (tmp_path / "export.json").write_text(json.dumps([one]))
    assert run(home, "--import", str(tmp_path / "export.json")) == 0
    assert json.loads(label_path(home, WRONG).read_text())["total"] == "13.50"


def test_skipped_tasks_and_those_nobody_judged_are_counted(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [task] = exported(home, tmp_path / "out")
    tasks = [judged(task, {}, was_cancelled=True), {"id": 13, "data": task["data"], "annotations": []}]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    assert run(home, "--import", str(tmp_path / "export.json")) == 0
    assert "2 tasks not judged or skipped" in capsys.readouterr().err


def test_twins_and_what_the_champion_is_sure_of_are_in_the_list(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(home, "--json") == 0
    assert [row["label"] for row in json.loads(capsys.readouterr().out)["doubtful"]] == [f"invoice/acme/{WRONG}.json"]

    (home.landing / "invoice/bolt").mkdir()
    twin = home.landing / "invoice/bolt/twin"
    source = home.landing / "invoice/acme/acme-2.pdf"
    twin.with_suffix(".pdf").write_bytes(source.read_bytes() + b"\n")  # other bytes, the same page
    twin.with_suffix(".json").write_text(json.dumps({"number": "acme-2", "date": None, "total": None}))
    update_command(home, ["test_split"], lambda line: None)
    test = latest(home, "test_split")["jsonl"]
    said = [json.loads(line) for line in home.store.read_bytes(test, ".jsonl").splitlines()]
    lines = [record for record in said if record["meta"]["stratum"] == "clean"]
    answer = {"number": "sure", "date": None, "total": None}
    answers = [{"id": it["id"], "text": json.dumps(answer), "finish_reason": "stop", "tokens": 9} for it in lines]
    sure = [{"id": it["id"], "mean": 0.6, "values": {"/number": 0.98, "/date": 0.3, "/total": 0.3}} for it in lines]
    name = "c" * 64
    home.store.build_folder(name, lambda folder: (folder / "confidences.jsonl").write_text("".join(json.dumps(it) + "\n" for it in sure)))
    value = {
        "adapters": {"base": None, "challenger": "a" * 64},
        "splits": {"test": test},
        "answers": {"challenger": {"test": home.store.put_bytes("".join(json.dumps(it) + "\n" for it in answers).encode(), ".jsonl")}},
        "confidences": {"challenger": {"test": name}},
    }
    with open_instance(home) as instance:
        for asset, made in (("predictions", value), ("champion_adapter", {"adapter": "a" * 64})):
            event = dg.AssetMaterialization(asset, tags={DATA_VERSION_TAG: home.store.put_json(made)})
            instance.report_runless_asset_event(event)
    assert run(home, "--json") == 0
    audit = json.loads(capsys.readouterr().out)
    assert (audit["champion"], audit["read_pages"]) == ("a" * 64, len(lines))
    signs = {row["label"]: {(doubt["sign"], doubt["field"]) for doubt in row["doubts"]} for row in audit["doubtful"]}
    for label in ("invoice/acme/acme-2.json", "invoice/bolt/twin.json"):
        assert {("duplicate", "date"), ("duplicate", "total")} <= signs[label]
    read = {f"{label.removesuffix('.json')}" for label, found in signs.items() if ("disagreement", "number") in found}
    assert read == {
        path.relative_to(home.landing).with_suffix("").as_posix()
        for path in home.landing.rglob("*.pdf")
        if digest_file(path) in {it["meta"]["document"] for it in lines}
    }
    assert all(doubt["field"] == "number" for row in audit["doubtful"] for doubt in row["doubts"] if doubt["sign"] == "disagreement")
    weights = [row["weight"] for row in audit["doubtful"]]
    assert weights == sorted(weights, reverse=True)


# --- controls ---------------------------------------------------------------------------------------------------------------


KINDS = TargetSchema(
    {
        **SCHEMA,
        "required": ["paid", "count", "tags", "kind", "either", "seller"],
        "properties": {
            "paid": {"type": ["boolean", "null"]},
            "count": {"type": ["integer", "null"]},
            "tags": {"type": "array", "items": {"type": "string"}},
            "kind": {"type": ["string", "null"], "enum": ["invoice", "credit note", None]},
            "either": {"type": ["string", "number", "null"], "x-type": "amount"},
            "seller": {
                "type": "object",
                "additionalProperties": False,
                "properties": {"a/b": {"type": ["string", "null"]}},
                "required": ["a/b"],
            },
        },
    },
    "kinds",
)


@pytest.mark.parametrize(
    ("schema", "label"),
    [
        (INVOICE, GOLD),
        (INVOICE, INVOICE.empty()),
        (KINDS, {"paid": False, "count": 3, "tags": ["x", "y & <z>"], "kind": "credit note", "either": 4.5, "seller": {"a/b": "«Ä»"}}),
        (KINDS, {"paid": True, "count": None, "tags": [], "kind": None, "either": "4.50", "seller": {"a/b": None}}),
    ],
)
def test_a_label_goes_through_the_controls_unchanged(schema: TargetSchema, label: dict[str, Any]) -> None:
    interface = LabelInterface(labelling_config(schema))
    interface.validate()
    made = results(label, schema)
    assert interface.validate_prediction({"model_version": "label", "result": made}, return_errors=True) == []
    texts = {it["from_name"]: it["value"].get("text") or it["value"]["choices"] for it in made}
    assert schema.complete(label_of(texts, schema, label, "here")) == schema.complete(label)


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        ({"/count": ["three"]}, "here /count: found 'three'; expected integer"),
        ({"/kind": ["invoice", "credit note"]}, "here /kind: found 2 texts; expected one"),
    ],
)
def test_a_text_that_is_no_value_is_named(texts: dict[str, list[str]], told: str) -> None:
    with pytest.raises(InputError, match=told):
        label_of(texts, KINDS, {}, "here")


def test_a_row_that_is_no_json_is_named_with_its_line() -> None:
    with pytest.raises(InputError, match="here /line_items row 2:1: not valid JSON"):
        label_of({"/line_items": ['{"amount": "1"}\n{"amount": 2']}, INVOICE, {}, "here")
