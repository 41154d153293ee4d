from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from extraction_assets.errors import InputError
from extraction_assets.evaluation.harness import evaluate_files
from extraction_assets.settings import EvaluationSettings
from extraction_assets_tests.evaluation.cases import GOLD, INVOICE, gold, with_rows

SETTINGS = EvaluationSettings(bootstrap=200)


def write(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines), encoding="utf-8")
    return path


def evaluate(folder: Path, predictions: list[Any], golds: list[Any], **options: Any) -> dict[str, Any]:
    return evaluate_files(write(folder / "p.jsonl", predictions), write(folder / "g.jsonl", golds), INVOICE, settings=SETTINGS, **options)


def said(id: str, answer: Any = GOLD, **more: Any) -> dict[str, Any]:
    return {"id": id, "text": answer if isinstance(answer, str) or answer is None else json.dumps(answer), **more}


def asked(id: str, target: Any = GOLD, vendor: str = "a", stratum: str = "clean", **more: Any) -> dict[str, Any]:
    return {"id": id, "target": target, "vendor": vendor, "stratum": stratum, **more}


def test_rates_are_told_overall_per_field_per_stratum_and_per_vendor_with_n(tmp_path: Path) -> None:
    report = evaluate(
        tmp_path,
        [said("1"), said("2", gold(grand_total="1.00")), said("3", gold(due_date="2024-01-01")), said("4", "{")],
        [asked("1"), asked("2", vendor="b"), asked("3", vendor="b", stratum="rotated"), asked("4", vendor="c", stratum="rotated")],
    )
    assert report["documents"] == 4
    assert report["overall"]["strict_json"]["value"] == 0.75
    assert report["overall"]["document_exact"] == report["overall"]["document_exact"] | {"value": 0.25, "n": 4}
    assert report["overall"]["field_accuracy"]["value"] == round((9 + 8 + 8 + 1) / 36, 6)
    total = report["fields"]["grand_total"]
    assert total["outcomes"] == {"match": 2, "wrong": 1, "missing": 1, "hallucinated": 0, "correct_absence": 0}
    assert [total[m]["value"] for m in ("accuracy", "precision", "recall")] == [0.5, round(2 / 3, 6), 0.5]
    assert total["hallucination_rate"] == {"value": None, "low": None, "high": None, "n": 0}
    due = report["fields"]["due_date"]
    assert (due["hallucination_rate"]["value"], due["hallucination_rate"]["n"]) == (0.25, 4)
    assert report["strata"]["rotated"]["documents"] == 2
    assert report["vendors"]["b"]["field_accuracy"]["value"] == round(16 / 18, 6)
    assert report["worst_vendor"] == {"vendor": "c", "value": round(1 / 9, 6)}
    assert report["vendor_mean"] == round((1 + 16 / 18 + 1 / 9) / 3, 6)
    assert report["answers"] == {"strict": 3, "truncated": 1, "recoverable": 0, "unusable": 0, "empty": 0}
    for estimate in report["overall"].values():
        if estimate["low"] is not None:
            assert 0 <= estimate["low"] <= estimate["value"] <= estimate["high"] <= 1


def test_hard_negatives_stand_beside_their_clean_twins_only(tmp_path: Path) -> None:
    report = evaluate(
        tmp_path,
        [said("1"), said("1r", gold(net_total="9.00")), said("2"), said("2r"), said("3r", "{}")],
        [
            asked("1"),
            asked("1r", stratum="rotated", twin="1"),
            asked("2"),
            asked("2r", stratum="rotated", twin="2"),
            asked("3r", stratum="rotated", twin="gone"),
        ],
    )
    drop = report["twins"]["rotated"]
    assert (drop["pairs"], drop["clean"], drop["hard"]) == (2, 1.0, round(17 / 18, 6))
    assert drop["difference"]["value"] == pytest.approx(-1 / 18, abs=1e-6)


def test_a_gold_line_without_prediction_counts_as_an_empty_answer_and_is_told(tmp_path: Path) -> None:
    report = evaluate(tmp_path, [said("1"), said("3", None)], [asked("1"), asked("2"), asked("3")])
    assert report["missing_predictions"] == {"count": 1, "first": ["2"]}
    assert report["answers"]["empty"] == 2
    assert report["overall"]["document_exact"]["value"] == round(1 / 3, 6)


def test_the_order_of_predictions_changes_nothing(tmp_path: Path) -> None:
    lines, golds = [said("1"), said("2", "{}"), said("3", gold(net_total="1"))], [asked("1"), asked("2"), asked("3")]
    reports = [evaluate(tmp_path, some, golds, per_document=tmp_path / "o.jsonl") for some in (lines, lines[::-1])]
    for report in reports:
        del report["inputs"]
    assert reports[0] == reports[1]
    assert [json.loads(line)["id"] for line in (tmp_path / "o.jsonl").read_text().splitlines()] == ["1", "2", "3"]


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    texts = [json.dumps(evaluate(tmp_path, [said("1"), said("2", "{}")], [asked("1"), asked("2", vendor="b")])) for _ in range(2)]
    assert texts[0] == texts[1]


def test_per_document_lines_hold_what_the_command_line_promises(tmp_path: Path) -> None:
    evaluate(tmp_path, [said("é", with_rows(lambda rows: rows.reverse()))], [asked("é")], per_document=tmp_path / "o.jsonl")
    (line,) = [json.loads(text) for text in (tmp_path / "o.jsonl").read_text(encoding="utf-8").splitlines()]
    promised = "id strict_json schema_valid fields field_accuracy row_exact_f1 row_detect_f1 cell_f1 column_accuracy extra_keys"
    assert set((promised + " row_order_kept document_exact anls_star donut_f1 donut_nted").split()) <= set(line)
    assert (line["id"], line["row_order_kept"], line["anls_star"]) == ("é", False, 1.0)


def test_comparison_metrics_can_be_asked_for_and_left_out(tmp_path: Path) -> None:
    report = evaluate(tmp_path, [said("1")], [asked("1")], comparison=False)
    assert report["overall"]["anls_star"]["value"] is None
    assert evaluate(tmp_path, [said("1")], [asked("1")])["overall"]["anls_star"]["value"] == 1.0


def test_documents_named_in_gold_are_drawn_together(tmp_path: Path) -> None:
    lines = [said(str(i), GOLD if i < 10 else "{}") for i in range(20)]
    apart = evaluate(tmp_path, lines, [asked(str(i)) for i in range(20)], comparison=False)
    together = evaluate(tmp_path, lines, [asked(str(i), document=str(i // 5)) for i in range(20)], comparison=False)
    width = [
        r["overall"]["strict_json"]["value"] and r["overall"]["document_exact"]["high"] - r["overall"]["document_exact"]["low"]
        for r in (apart, together)
    ]
    assert width[1] > width[0] * 1.5


@pytest.mark.parametrize(
    ("predictions", "golds", "where", "found"),
    [
        ([said("1"), "{not json"], [asked("1")], "p.jsonl:2", "not JSON"),
        (["[1]"], [asked("1")], "p.jsonl:1", "JSON array"),
        ([{"text": "{}"}], [asked("1")], "p.jsonl:1 /id", "None"),
        ([{"id": 1, "text": "{}"}], [asked("1")], "p.jsonl:1 /id", "found 1"),
        (['{"id": "\\ud800", "text": ""}'], [asked("1")], "p.jsonl:1 /id", "surrogate"),
        ([{"id": "1"}], [asked("1")], "p.jsonl:1", "no /text"),
        ([{"id": "1", "text": {"a": 1}}], [asked("1")], "p.jsonl:1 /text", "JSON object"),
        ([said("1", finish_reason=3)], [asked("1")], "p.jsonl:1 /finish_reason", "found 3"),
        ([said("1"), said("1")], [asked("1")], "p.jsonl:2 /id", "already stands in line 1"),
        ([said("1"), said("2"), said("3")], [asked("1")], "p.jsonl:2 /id", "and 1 more"),
        ([said("1")], [asked("1"), asked("1")], "g.jsonl:2 /id", "already stands in line 1"),
        ([said("1")], [{"id": "1"}], "g.jsonl:1 /target", "is missing"),
        ([said("1")], [asked("1", "text")], "g.jsonl:1 /target", "JSON string"),
        ([said("1")], [asked("1", gold(extra="x"))], "g.jsonl:1 /target/extra", "no such key"),
        ([said("1")], [asked("1", with_rows(lambda rows: rows[1].update(sku="x")))], "g.jsonl:1 /target/line_items/1/sku", "no such key"),
        ([said("1")], [asked("1", gold(line_items={}))], "g.jsonl:1 /target/line_items", "JSON object"),
        ([said("1")], [asked("1", gold(currency={"a": 1}))], "g.jsonl:1 /target/currency", "JSON object"),
        ([said("1")], [asked("1", vendor=3)], "g.jsonl:1 /vendor", "found 3"),  # type: ignore[arg-type]
        ([], [], "g.jsonl", "holds no line"),
    ],
)
def test_bad_lines_are_named_by_file_line_and_pointer(
    tmp_path: Path, predictions: list[Any], golds: list[Any], where: str, found: str
) -> None:
    with pytest.raises(InputError) as error:
        evaluate(tmp_path, predictions, golds, per_document=tmp_path / "o.jsonl")
    assert error.value.where.endswith(where)
    assert found in error.value.found
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g.jsonl", "p.jsonl"]


def test_a_missing_file_and_bytes_that_are_no_text_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        evaluate_files(tmp_path / "none.jsonl", write(tmp_path / "g.jsonl", [asked("1")]), INVOICE)
    (tmp_path / "b.jsonl").write_bytes(b'{"id":"\xff"}\n')
    with pytest.raises(InputError, match=r"b\.jsonl:1: not UTF-8"):
        evaluate_files(tmp_path / "b.jsonl", tmp_path / "g.jsonl", INVOICE)


def test_gold_that_bends_its_schema_is_scored_and_told(tmp_path: Path) -> None:
    target = gold(grand_total=2856.6)
    del target["due_date"]
    report = evaluate(tmp_path, [said("1")], [asked("1", target)])
    assert report["overall"]["field_accuracy"]["value"] == 1.0
    assert report["gold_outside_schema"]["count"] == 1
    assert "g.jsonl:1 /target" in report["gold_outside_schema"]["first"][0]


@pytest.mark.parametrize(("spelled", "found"), [("NaN", "found nan"), ("1e999", "found inf"), ('"\\ud800"', "holds a lone surrogate")])
def test_gold_that_json_cannot_hold_is_named_by_line_and_pointer(tmp_path: Path, spelled: str, found: str) -> None:
    line = json.dumps(asked("2", gold(grand_total="HERE"))).replace('"HERE"', spelled)
    with pytest.raises(InputError, match=rf"g\.jsonl:2 /target/grand_total: {found}"):
        evaluate(tmp_path, [said("1")], [asked("1"), line])


@pytest.mark.parametrize("name", ["p.jsonl", "g.jsonl", "same.jsonl"])
def test_scores_never_take_the_place_of_an_input(tmp_path: Path, name: str) -> None:
    (tmp_path / "same.jsonl").symlink_to("g.jsonl")
    with pytest.raises(InputError, match="is one of the inputs"):
        evaluate(tmp_path, [said("1")], [asked("1")], per_document=tmp_path / name)
    assert json.loads((tmp_path / "g.jsonl").read_text())["id"] == "1"


def test_scores_never_take_the_place_of_what_is_no_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # stands for /dev/null, which a rename by root would replace for everybody
    with pytest.raises(InputError, match="is no regular file"):
        evaluate(tmp_path, [said("1")], [asked("1")], per_document=pipe)
    assert pipe.is_fifo()
