from __future__ import annotations

import json
from typing import Any

import pytest

from extraction_assets.errors import InputError
from extraction_assets.evaluation.compare import SystemScores, compare
from extraction_assets.evaluation.gate import decide
from extraction_assets.evaluation.score_table import ScoredDocument, ScoreTable
from extraction_assets.evaluation.scoring import score_document
from extraction_assets.schema import TargetSchema
from extraction_assets.settings import EvaluationSettings
from extraction_assets_tests.evaluation.cases import GOLD, INVOICE, gold, leaf, obj, with_rows

SETTINGS = EvaluationSettings(bootstrap=300)
ALL_WRONG = dict.fromkeys(("buyer_name", "seller_name", "currency"), "x")


def table(answers: list[Any], schema: TargetSchema = INVOICE, target: dict[str, Any] = GOLD, vendors: int = 4) -> ScoreTable:
    scores = ScoreTable(schema)
    for number, answer in enumerate(answers):
        scores.add(ScoredDocument(f"d{number}", f"v{number % vendors}", "clean", f"d{number}"), score_document(answer, target, schema))
    return scores


def system(name: str, answers: list[Any], **conditions: str) -> SystemScores:
    return SystemScores(name, {"invoice": table(answers)}, {"dataset": "d1", "decoding": "greedy"} | conditions)


def answers(right: int, of: int = 20, wrong: dict[str, Any] | None = None) -> list[Any]:
    return [GOLD if number < right else gold(**(wrong or {"buyer_name": "x"})) for number in range(of)]


BASE = system("base", ["{}"] * 20)


def test_the_first_champion_must_beat_the_base_model() -> None:
    decision = decide(None, system("challenger", answers(10)), BASE, SETTINGS)
    assert decision.promote
    assert "first champion" in decision.reason
    same = decide(None, system("challenger", ["{}"] * 20), BASE, SETTINGS)
    assert not same.promote
    assert "not better than the base's 0.111" in same.reason


def test_a_control_run_is_never_promoted() -> None:
    decision = decide(None, system("challenger", answers(20)), BASE, SETTINGS, control=True)
    assert not decision.promote
    assert "control run" in decision.reason


def test_a_better_challenger_is_promoted_and_an_equal_or_worse_one_is_not() -> None:
    champion = system("champion", answers(10))
    assert decide(champion, system("challenger", answers(12)), BASE, SETTINGS).promote
    for right in (10, 9):
        decision = decide(champion, system("challenger", answers(right)), BASE, SETTINGS)
        assert not decision.promote
        assert "is not better than the champion's" in decision.reason


def test_better_by_less_than_the_margin_is_not_enough() -> None:
    champion, challenger = system("champion", answers(10)), system("challenger", answers(12))
    gain = 2 / 20 / 9
    assert decide(champion, challenger, BASE, SETTINGS.model_copy(update={"margin": gain})).promote
    decision = decide(champion, challenger, BASE, SETTINGS.model_copy(update={"margin": gain + 0.001}))
    assert not decision.promote
    assert "not better by" in decision.reason


@pytest.mark.parametrize(
    ("worse", "guard"),
    [
        (gold(grand_total="1.00"), "grand_total falls from 1.000 to 0.850"),
        (gold(invoice_number="x"), "invoice_number falls"),
        (with_rows(lambda rows: [row.update(amount="1.00") for row in rows]), "line_items.amount falls"),
        (json.dumps(GOLD) + "}", "strict_json falls"),
    ],
)
def test_a_guard_that_falls_keeps_the_champion_although_the_headline_is_better(worse: Any, guard: str) -> None:
    champion = system("champion", answers(0, wrong=ALL_WRONG))
    challenger = system("challenger", [GOLD] * 17 + [worse] * 3)
    decision = decide(champion, challenger, BASE, SETTINGS)
    assert decision.numbers["champion"]["better"]
    assert not decision.promote
    assert guard in decision.reason
    assert decide(champion, challenger, BASE, SETTINGS.model_copy(update={"guard_margin": 1.0})).promote


def test_the_worst_vendor_guards_too() -> None:
    champion = system("champion", [gold(buyer_name="x")] * 20)
    bad = gold(**ALL_WRONG)
    challenger = system("challenger", [bad if number % 4 == 3 else GOLD for number in range(20)])
    decision = decide(champion, challenger, BASE, SETTINGS)
    assert decision.numbers["champion"]["better"]
    assert not decision.promote
    assert "worst vendor" in decision.reason


def test_falling_within_the_guard_margin_is_let_through() -> None:
    champion = system("champion", [gold(buyer_name="x")] * 100)
    challenger = system("challenger", [GOLD] * 98 + [gold(grand_total="1.00")] * 2)
    assert decide(champion, challenger, system("base", ["{}"] * 100), SETTINGS).promote


@pytest.mark.parametrize("condition", ["dataset", "decoding", "instruction"])
def test_other_conditions_are_refused_and_named(condition: str) -> None:
    with pytest.raises(InputError, match=condition):
        decide(system("champion", answers(5), **{condition: "other"}), system("challenger", answers(6)), BASE, SETTINGS)


def test_another_schema_or_test_set_is_refused_and_named() -> None:
    other = TargetSchema(obj({"invoice_number": leaf("id")}), "other")
    with pytest.raises(InputError, match="schema invoice"):
        compare(BASE, SystemScores("x", {"invoice": table(["{}"] * 20, other)}, BASE.conditions), SETTINGS)
    with pytest.raises(InputError, match=r"1 in one of them alone, e\.g\. d20"):
        compare(BASE, system("x", ["{}"] * 21), SETTINGS)
    with pytest.raises(InputError, match="schema receipt"):
        compare(BASE, SystemScores("x", {**BASE.tables, "receipt": table([], other)}, BASE.conditions), SETTINGS)


def test_comparing_tells_paired_differences_and_adjusted_tests_per_field() -> None:
    a, b = system("a", answers(5)), system("b", answers(15))
    told = compare(a, b, SETTINGS)
    assert told["overall"]["document_exact"]["value"] == 0.5
    assert told["overall"]["document_exact"]["low"] > 0.2
    field = told["fields"]["invoice"]["buyer_name"]
    assert (field["a"], field["b"], field["only_a"], field["only_b"], field["n"]) == (0.25, 0.75, 0, 10, 20)
    assert field["p"] == pytest.approx(2 / 2**10, abs=1e-6)
    assert field["p_holm"] == pytest.approx(9 * 2 / 2**10, abs=1e-6)
    assert told["fields"]["invoice"]["currency"]["p_holm"] == 1.0
    assert json.loads(json.dumps(told, allow_nan=False)) == told


def test_types_are_pooled_in_the_headline_and_named_in_the_guards() -> None:
    small = TargetSchema(obj({"number": leaf("id"), "name": leaf("text")}), "note")
    target = {"number": "1", "name": "n"}

    def both(name: str, invoices: list[Any], notes: list[Any]) -> SystemScores:
        return SystemScores(name, {"invoice": table(invoices), "note": table(notes, small, target)})

    champion = both("champion", answers(0), [target] * 4)
    challenger = both("challenger", answers(20), [{"number": "2", "name": "n"}] * 4)
    base = both("base", ["{}"] * 20, ["{}"] * 4)
    assert champion.value("field_accuracy") == pytest.approx((20 * 8 + 8) / (20 * 9 + 8))
    decision = decide(champion, challenger, base, SETTINGS)
    assert not decision.promote
    assert "note: number falls" in decision.reason
    json.dumps(decision.as_json(), allow_nan=False)
