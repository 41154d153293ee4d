from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extraction_assets.evaluation.scoring import OUTCOMES, DocumentScore, score_document
from extraction_assets_tests.evaluation.cases import GOLD, INVOICE, JSON, NESTED, TARGET, gold, with_rows


def score(answer: Any, target: dict[str, Any] = GOLD, **options: Any) -> dict[str, Any]:
    return score_document(answer if isinstance(answer, str) else json.dumps(answer), target, INVOICE, **options).as_json(INVOICE)


def test_the_gold_itself_is_perfect() -> None:
    line = score(GOLD, comparison=True)
    assert [line[k] for k in ("field_accuracy", "row_exact_f1", "row_detect_f1", "cell_f1", "anls_star", "donut_f1", "donut_nted")] == [
        1.0
    ] * 7
    assert line["strict_json"]
    assert line["schema_valid"]
    assert line["document_exact"]
    assert line["row_order_kept"]
    assert line["amount_consistency"] is True
    assert line["fields"]["due_date"] == "correct_absence"


@pytest.mark.parametrize(
    ("target", "answer", "outcome"),
    [
        ("2024-01-31", "2024-01-31", "match"),
        ("2024-01-31", "31.01.2024", "match"),
        ("2024-01-31", "2024-01-30", "wrong"),
        ("2024-01-31", "null", "wrong"),
        ("2024-01-31", None, "missing"),
        ("2024-01-31", "", "missing"),
        ("2024-01-31", [], "missing"),
        (None, "2024-01-31", "hallucinated"),
        (None, "null", "hallucinated"),
        (None, None, "correct_absence"),
        (None, "", "correct_absence"),
        (None, [], "correct_absence"),
        ("", None, "correct_absence"),
    ],
)
def test_a_field_has_one_of_five_outcomes(target: Any, answer: Any, outcome: str) -> None:
    assert score(gold(due_date=answer), gold(due_date=target))["fields"]["due_date"] == outcome


def test_an_omitted_key_is_absent_but_breaks_the_schema() -> None:
    answer = gold()
    del answer["due_date"]
    line = score(answer)
    assert line["fields"]["due_date"] == "correct_absence"
    assert not line["schema_valid"]
    assert not line["document_exact"]


def test_one_wrong_digit_costs_one_field() -> None:
    line = score(gold(grand_total="2856.61"))
    assert line["fields"]["grand_total"] == "wrong"
    assert line["field_accuracy"] == round(8 / 9, 6)
    assert not line["document_exact"]


@pytest.mark.parametrize("total", ["285.660", "28566.0", "-2856.60", "2856.6 %"])
def test_shifted_decimals_and_turned_signs_are_wrong(total: str) -> None:
    assert score(gold(grand_total=total))["fields"]["grand_total"] == "wrong"


def test_another_print_format_matches_but_is_not_raw_exact() -> None:
    line = score(gold(grand_total="2.856,60"))
    assert line["document_exact"]
    assert line["fields"]["grand_total"] == "match"
    assert not line["raw_exact"]["grand_total"]
    assert line["raw_exact"]["net_total"]


def test_numbers_in_place_of_strings_match_and_break_the_schema() -> None:
    line = score(gold(grand_total=2856.6))
    assert line["fields"]["grand_total"] == "match"
    assert not line["schema_valid"]
    assert not line["document_exact"]


def test_an_extra_key_is_listed_once_and_costs_exactness_only() -> None:
    answer = with_rows(lambda rows: [row.update(sku="1") for row in rows]) | {"iban": "DE00"}
    line = score(answer)
    assert line["extra_keys"] == ["iban", "line_items.sku"]
    assert (line["field_accuracy"], line["row_exact_f1"], line["document_exact"]) == (1.0, 1.0, False)


def test_rows_in_another_order_change_only_the_order() -> None:
    line = score(with_rows(lambda rows: rows.reverse()))
    assert (line["row_exact_f1"], line["cell_f1"], line["row_order_kept"], line["document_exact"]) == (1.0, 1.0, False, True)


def test_a_missing_row_costs_its_share() -> None:
    line = score(with_rows(lambda rows: rows.pop(1)))
    assert [line[k] for k in ("row_exact_f1", "row_detect_f1", "cell_f1")] == [0.8, 0.8, 0.8]
    assert line["column_accuracy"] == dict.fromkeys(line["column_accuracy"], round(2 / 3, 6))
    assert (line["row_count_error"], line["row_order_kept"]) == (-1, True)


def test_cells_swapped_between_rows_are_wrong_cells_in_found_rows() -> None:
    def swap(rows: list[dict[str, Any]]) -> None:
        rows[0]["amount"], rows[1]["amount"] = rows[1]["amount"], rows[0]["amount"]

    line = score(with_rows(swap), comparison=True)
    assert (line["row_exact_f1"], line["row_detect_f1"], line["cell_f1"]) == (round(1 / 3, 6), 1.0, round(10 / 12, 6))
    assert line["column_accuracy"]["amount"] == round(1 / 3, 6)
    assert line["donut_f1"] == 1.0  # why Donut's F1 decides nothing here


def test_invented_rows_cost_precision_and_rows_without_one_equal_cell_stay_unpaired() -> None:
    invented = {"description": "x", "quantity": "77", "unit_price": "0.01", "amount": "0.77"}
    line = score(with_rows(lambda rows: rows.append(dict(invented))))
    assert (line["row_exact_f1"], line["row_detect_f1"], line["row_count_error"]) == (round(6 / 7, 6), round(6 / 7, 6), 1)
    line = score(gold(line_items=[invented] * 3))
    assert [line[k] for k in ("row_exact_f1", "row_detect_f1", "cell_f1", "row_count_error")] == [0.0, 0.0, 0.0, 0]
    line = score(gold(line_items=[invented]), gold(line_items=[]))
    assert (line["row_exact_f1"], line["document_exact"]) == (0.0, False)


def test_no_rows_asked_and_none_given_is_right() -> None:
    line = score(gold(line_items=[]), gold(line_items=[]))
    assert [line[k] for k in ("row_exact_f1", "row_detect_f1", "cell_f1")] == [1.0] * 3
    assert line["document_exact"]
    assert line["column_accuracy"]["amount"] is None


def test_absent_cells_neither_pair_rows_nor_count_as_found() -> None:
    empty = {"description": None, "quantity": None, "unit_price": None}
    line = score(gold(line_items=[empty | {"amount": "1.00"}]), gold(line_items=[empty | {"amount": "2.00"}]))
    assert (line["row_detect_f1"], line["cell_f1"]) == (0.0, 0.0)
    line = score(gold(line_items=[empty | {"amount": "2.00"}]), gold(line_items=[empty | {"amount": "2.00"}]))
    assert (line["row_exact_f1"], line["cell_f1"], line["document_exact"]) == (1.0, 1.0, True)


def test_one_of_two_equal_rows_missing_keeps_the_order() -> None:
    twice = [GOLD["line_items"][0], GOLD["line_items"][0], GOLD["line_items"][2]]
    line = score(gold(line_items=twice[1:]), gold(line_items=twice))
    assert (line["row_exact_f1"], line["row_order_kept"]) == (0.8, True)
    a, b = GOLD["line_items"][:2]
    assert score(gold(line_items=[a, b, a]), gold(line_items=[b, a]))["row_order_kept"]
    assert not score(gold(line_items=[a, b]), gold(line_items=[b, a]))["row_order_kept"]


@pytest.mark.parametrize(
    "answer", ["", "{}", "null", "[]", "not json", '{"a":NaN}', json.dumps(GOLD)[:-1], "```json\n" + json.dumps(GOLD) + "\n```"]
)
def test_an_answer_without_a_strict_object_is_worth_an_empty_one(answer: str) -> None:
    line = score(answer)
    assert line["field_accuracy"] == round(1 / 9, 6)  # the one field that the page does not hold
    assert set(line["fields"].values()) == {"missing", "correct_absence"}
    assert (line["row_exact_f1"], line["document_exact"], line["strict_json"]) == (0.0, False, answer == "{}")


@pytest.mark.parametrize("rows", [None, "three", {"0": GOLD["line_items"][0]}, [1, None, "x"], [[GOLD["line_items"][0]]]])
def test_rows_of_another_shape_are_no_rows_and_no_error(rows: Any) -> None:
    line = score(gold(line_items=rows))
    assert (line["row_exact_f1"], line["schema_valid"]) == (0.0, False)


def test_nested_fields_and_two_arrays_are_named_by_their_paths() -> None:
    target = {
        "seller": {"name": "A", "address": {"city": "Ulm", "zip": "08901"}},
        "tags": ["x", "y"],
        "goods": [{"name": "bolt", "amount": "1.00"}],
        "taxes": [{"rate": "19", "amount": "0.19"}],
    }
    line = score_document(json.dumps(target), target, NESTED).as_json(NESTED)
    assert line["document_exact"]
    assert set(line["fields"]) == {"seller.name", "seller.address.city", "seller.address.zip", "tags"}
    assert line["goods.row_exact_f1"] == line["taxes.cell_f1"] == 1.0
    assert "row_exact_f1" not in line
    answer = copy.deepcopy(target)
    answer["seller"] = {"name": "A", "address": "Ulm"}
    answer["tags"] = ["y", "x"]
    answer["taxes"] = []
    line = score_document(json.dumps(answer), target, NESTED).as_json(NESTED)
    assert line["fields"] == {"seller.name": "match", "seller.address.city": "missing", "seller.address.zip": "missing", "tags": "match"}
    assert (line["goods.row_exact_f1"], line["taxes.row_exact_f1"]) == (1.0, 0.0)


def test_a_locale_settles_day_and_month_of_answer_and_gold() -> None:
    answer = gold(invoice_date="01/02/2023")
    assert score(answer)["fields"]["invoice_date"] == "wrong"
    assert score(answer, locale="de")["fields"]["invoice_date"] == "match"
    assert score(answer, locale="en_US")["fields"]["invoice_date"] == "wrong"


def test_amounts_that_do_not_add_up_are_seen_without_a_label() -> None:
    assert score(gold(grand_total="2856.70"))["amount_consistency"] is False
    assert score(with_rows(lambda rows: rows.pop()))["amount_consistency"] is False
    assert score(gold(net_total=None, line_items=[]))["amount_consistency"] is None


def assert_in_range(result: DocumentScore) -> None:
    line = result.as_json(INVOICE)
    for name in ("field_accuracy", "row_exact_f1", "row_detect_f1", "cell_f1"):
        assert 0 <= line[name] <= 1
    assert all(v is None or 0 <= v <= 1 for v in line["column_accuracy"].values())
    assert set(line["fields"].values()) <= set(OUTCOMES)
    if result.comparison:
        assert all(v is None or 0 <= v <= 1 for v in (line["anls_star"], line["donut_f1"], line["donut_nted"]))
    json.dumps(line, allow_nan=False)


@settings(max_examples=200, deadline=None)
@given(JSON, TARGET)
def test_no_json_value_raises_and_scores_lie_between_0_and_1(answer: Any, target: dict[str, Any]) -> None:
    assert_in_range(score_document(answer, target, INVOICE, comparison=True))
    assert_in_range(score_document(json.dumps(answer), target, INVOICE, comparison=True))


@given(st.binary() | st.text(), TARGET)
def test_no_bytes_raise(answer: bytes | str, target: dict[str, Any]) -> None:
    assert_in_range(score_document(answer, target, INVOICE))


@settings(max_examples=100, deadline=None)
@given(TARGET)
def test_any_target_scores_perfectly_against_itself(target: dict[str, Any]) -> None:
    result = score_document(json.dumps(target), target, INVOICE, comparison=True)
    line = result.as_json(INVOICE)
    assert line["document_exact"]
    assert line["field_accuracy"] == 1.0
    assert line["cell_f1"] == 1.0
    assert line["row_order_kept"]
    assert line["donut_f1"] in (1.0, None)
    assert line["donut_nted"] in (1.0, None)


@settings(max_examples=200, deadline=None)
@given(TARGET, TARGET, st.integers(0, 2**32))
def test_permuting_keys_changes_nothing_and_permuting_rows_changes_only_the_order(
    answer: dict[str, Any], target: dict[str, Any], seed: int
) -> None:
    draw = random.Random(seed)
    plain = score_document(json.dumps(answer), target, INVOICE).as_json(INVOICE)

    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            items = list(value.items())
            draw.shuffle(items)
            return {k: shuffled(v) for k, v in items}
        return [shuffled(item) for item in value] if isinstance(value, list) else value

    assert score_document(json.dumps(shuffled(answer)), shuffled(target), INVOICE).as_json(INVOICE) == plain
    rows, gold_rows = list(answer["line_items"]), list(target["line_items"])
    draw.shuffle(rows)
    draw.shuffle(gold_rows)
    moved = score_document(json.dumps(answer | {"line_items": rows}), target | {"line_items": gold_rows}, INVOICE).as_json(INVOICE)
    assert moved | {"row_order_kept": None} == plain | {"row_order_kept": None}
