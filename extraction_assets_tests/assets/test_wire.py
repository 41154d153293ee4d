"""A home whose model writes rows as arrays: only the model and what it is taught from ever see one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from extraction_assets.assets.report_source import score_split, split_records, split_schemas
from extraction_assets.automation.instance import open_instance
from extraction_assets.automation.update import update
from extraction_assets.commands import export_command, latest, predict_command
from extraction_assets.definitions import build_definitions
from extraction_assets.evaluation import gate
from extraction_assets.home import Home
from extraction_assets.inference.value_confidence import value_spans
from extraction_assets.serving.bundle import open_bundle
from extraction_assets.serving.golden import check_golden
from extraction_assets_tests.homes import SCHEMA, draw_pdf, edit_settings, make_home
from extraction_assets_tests.training_here import training_here

LEAF = {"type": ["string", "null"], "maxLength": 6, "x-type": "amount"}
ROW = {
    "type": "object",
    "additionalProperties": False,
    "required": ["amount", "tax"],
    "properties": {"amount": LEAF, "tax": LEAF},
}
LINES: dict[str, Any] = {
    **SCHEMA,
    "required": ["date", "line_items"],
    "properties": {"date": SCHEMA["properties"]["date"], "line_items": {"type": "array", "maxItems": 2, "items": ROW}},  # type: ignore[index]
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Materialized whole; the challenger is promoted whatever it scored."""
    home = make_home(tmp_path_factory.mktemp("homes") / "home", {}, types=("invoice",))
    (home.schemas_folder / "invoice.schema.json").write_text(json.dumps(LINES))

    def taught(values: dict[str, Any]) -> None:
        values.update(targets={"wire": "rows_as_arrays"}, decoding={"max_output_tokens": 200})
        values["training"].update(max_steps=30, epochs=30, learning_rate=0.01)  # enough to write rows at all

    edit_settings(home, taught)
    folder = home.landing / "invoice" / "acme"
    folder.mkdir(parents=True)
    for number in range(8):
        rows = [{"amount": f"{number}1.50", "tax": f"{number}.25"}, {"amount": f"{number}2.75", "tax": f"{number}.50"}]
        day = f"2024-03-{number + 1:02d}"
        (folder / f"{number}.json").write_text(json.dumps({"date": day, "line_items": rows}))
        draw_pdf(folder / f"{number}.pdf", [f"Date {day}", *(f"{row['amount']} {row['tax']}" for row in rows)])
    with pytest.MonkeyPatch.context() as patch:
        decide = gate.decide
        patch.setattr(
            "extraction_assets.assets.evaluation.decide", lambda *a, **more: dataclasses.replace(decide(*a, **more), promote=True)
        )
        with open_instance(home) as instance, training_here():
            assert not update(build_definitions(home), instance, home).failures
    return home


def _split(home: Home, split: str) -> str:
    return str(latest(home, f"{split}_split")["jsonl"])


@pytest.mark.slow
def test_the_model_is_taught_arrays_also_by_other_trainers(home: Home, tmp_path: Path) -> None:
    records = split_records(home.store, _split(home, "train"))
    assert records
    for record in records:
        rows = json.loads(record.target)["line_items"]
        assert all(len(row) == 2 and isinstance(row, list) for row in rows)
    assert any(json.loads(record.target)["line_items"] for record in records)
    (schema,) = split_schemas(home.store, _split(home, "train")).values()
    assert schema.wire == "rows_as_arrays"
    export = export_command(home, "trl", tmp_path / "trl")
    assert export
    assert any('\\"line_items\\":[[' in file.read_text() for file in (tmp_path / "trl").rglob("*.jsonl"))


@pytest.mark.slow
def test_gold_answers_and_their_pointers_are_objects(home: Home) -> None:
    scored = score_split(home.store, latest(home, "predictions"), "test")
    examples = [example for one in scored.types for example in one.examples]
    assert any(example.gold["line_items"] for example in examples)
    answered = 0
    for example in examples:
        assert all(set(row) == {"amount", "tax"} for row in example.gold["line_items"])
        for answer in example.answers.values():
            assert answer.finish_reason == "stop"
            value = json.loads(answer.text or "")
            assert all(set(row) == {"amount", "tax"} for row in value["line_items"])
            assert set(answer.values or {}) == {pointer for pointer, _, _ in value_spans((answer.text or "").encode())}
            answered += len(value["line_items"])
    assert answered  # else this has shown nothing
    assert scored.systems["challenger"].value("schema_valid") == 1.0


@pytest.mark.slow
def test_the_bundle_answers_its_golden_pages_with_objects(home: Home) -> None:
    bundle = open_bundle(home.store.folder(latest(home, "serving_bundle")["bundle"]))
    assert bundle.schemas["invoice"].wire == "rows_as_arrays"
    assert bundle.manifest.golden
    for page in bundle.manifest.golden:
        assert bundle.schemas["invoice"].is_valid(json.loads(page.text))
    assert check_golden(bundle, bundle.load()).agreement == 1.0


@pytest.mark.slow
def test_an_adapter_is_asked_as_it_was_taught_whatever_the_settings_say_by_now(home: Home) -> None:
    files = sorted(home.landing.glob("invoice/acme/*.pdf"))[:3]
    before, _ = predict_command(home, files, "invoice", None, lambda _: None)
    assert all(row["schema_valid"] for row in before)
    edit_settings(home, lambda values: values.update(targets={"wire": "objects"}))
    after, _ = predict_command(home, files, "invoice", None, lambda _: None)
    assert [(row["text"], row["timing"]["tokens"]) for row in after] == [(row["text"], row["timing"]["tokens"]) for row in before]
