"""Calibration: probabilities that mean something, a threshold that keeps its promise, and routing that stays off where it must."""

from __future__ import annotations

import json

import numpy as np
import pytest

from extraction_assets.evaluation.calibration import (
    JudgedPage,
    Unit,
    fit,
    judge,
    judged_page,
    pages_within,
    reliability,
    route,
    scores,
    units_of,
)
from extraction_assets.evaluation.scoring import score_document
from extraction_assets.schema import TargetSchema

SCHEMA = TargetSchema(
    {
        "type": "object",
        "required": ["number", "net_total", "tax_total", "grand_total", "items"],
        "properties": {
            "number": {"type": ["string", "null"], "x-type": "id"},
            **{name: {"type": ["string", "null"], "x-type": "amount"} for name in ("net_total", "tax_total", "grand_total")},
            "items": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["what", "amount"],
                    "properties": {"what": {"type": "string"}, "amount": {"type": ["string", "null"], "x-type": "amount"}},
                },
            },
        },
    },
    "invoice",
)
GOLD = {"number": "7", "net_total": "10.00", "tax_total": "1.90", "grand_total": "11.90", "items": [{"what": "a", "amount": "10.00"}]}


def pages(count: int, seed: int, vendors: int = 6, overconfident: float = 2.0, informative: bool = True) -> list[JudgedPage]:
    """Pages whose values are right with probability q, and whose model says that it is surer than that."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        level = rng.normal(4.0, 2.5)
        logits = level + rng.normal(0, 1.0, 5)
        right = rng.random(5) < 1 / (1 + np.exp(-logits))
        said = logits * overconfident if informative else rng.normal(2, 2, 5)
        units = tuple(Unit(f"f{k}", float(1 / (1 + np.exp(-x))), False, None, False) for k, x in enumerate(said))
        made.append(JudgedPage(f"v{number % vendors}", f"d{number}", units, tuple(bool(r) for r in right)))
    return made


def test_units_are_the_fields_and_the_rows_of_an_answer() -> None:
    told = {"/number": 0.5, "/net_total": 0.9, "/tax_total": 0.8, "/grand_total": 0.7, "/items/0/what": 0.5, "/items/0/amount": 0.4}
    units = units_of(GOLD, told, SCHEMA)
    assert [(unit.name, round(unit.raw, 3), unit.absent, unit.sums, unit.rows) for unit in units] == [
        ("number", 0.5, False, True, False),
        ("net_total", 0.9, False, True, False),
        ("tax_total", 0.8, False, True, False),
        ("grand_total", 0.7, False, True, False),
        ("items", 0.2, False, True, True),
    ]
    wrong = {**GOLD, "number": None, "grand_total": "12.00", "items": []}
    units = units_of(wrong, {}, SCHEMA)
    assert [(unit.absent, unit.sums) for unit in units] == [(True, False), (False, False), (False, False), (False, False), (True, False)]
    page = judged_page("v", "d", units, score_document(json.dumps(wrong), GOLD, SCHEMA))
    assert page.right == (False, True, True, False, False)


def test_calibrated_probabilities_are_shares_of_right_values() -> None:
    calibrator = fit(pages(1500, 1))
    assert calibrator is not None
    test = pages(1500, 2)
    units, right = [unit for page in test for unit in page.units], np.array([r for page in test for r in page.right])
    raw, calibrated = scores(np.array([unit.raw for unit in units]), right), scores(calibrator.of(units), right)
    assert calibrated["ece"] < 0.02 < raw["ece"]
    assert calibrated["brier"] < raw["brier"]
    assert calibrated["auroc"] == pytest.approx(raw["auroc"], abs=0.01)  # an order is not calibrated away
    assert calibrator.coefficients[1] == pytest.approx(0.5, abs=0.06)  # it said twice what it knew


def test_a_routed_page_is_wrong_no_more_often_than_promised() -> None:
    held = []
    for seed in range(20):
        routing = route(pages(800, seed), 0.05, 200, 0)
        assert routing.on, routing.reason
        told = judge(pages(2000, 1000 + seed), routing)["auto"]
        assert told["share"] > 0.02
        held.append(told["error"])
    assert np.mean(held) <= 0.05
    assert np.mean(np.array(held) > 0.08) <= 0.1


def test_a_score_that_knows_nothing_stays_off() -> None:
    for seed in range(5):
        routing = route(pages(300, seed, informative=False), 0.05, 200, 0)
        assert not routing.on
        assert routing.threshold is None
        assert "constant" in routing.reason


def test_too_few_pages_vouch_for_nothing() -> None:
    routing = route(pages(60, 3), 0.01, 200, 0)
    assert not routing.on
    assert "too few sure pages" in routing.reason


@pytest.mark.parametrize("right", [True, False])
def test_nothing_to_learn_from_is_said(right: bool) -> None:
    same = [JudgedPage(f"v{n}", f"d{n}", (Unit("f", 0.9, False, None, False),), (right,)) for n in range(20)]
    routing = route(same, 0.05, 200, 0)
    assert (routing.on, routing.calibrator) == (False, None)
    assert judge(same, routing)["raw"]["auroc"] is None


def test_one_vendor_is_judged_by_its_documents_and_one_document_not_at_all() -> None:
    assert route(pages(800, 5, vendors=1), 0.05, 200, 0).on
    lonely = [JudgedPage("v", "d", page.units, page.right) for page in pages(50, 6)]
    assert "apart" in route(lonely, 0.05, 200, 0).reason


def test_the_threshold_is_the_lowest_that_keeps_the_target() -> None:
    sure = np.array([0.99, 0.98, 0.97, 0.9, 0.8, 0.7])
    assert pages_within(sure, np.array([False] * 6), 0.25) == 6
    assert pages_within(sure, np.array([False] * 3 + [True] * 3), 0.25) == 3
    assert pages_within(sure, np.array([False] * 6), 0.1) == 0
    tied = np.array([0.9, 0.9, 0.9, 0.9])
    assert pages_within(tied, np.array([False, False, False, True]), 0.25) == 0  # the order within a tie means nothing


def test_pages_without_strict_json_count_and_are_never_auto() -> None:
    routing = route(pages(800, 8), 0.05, 200, 0)
    test = pages(100, 9)
    with_unread = judge(test, routing, unread=100)
    assert with_unread["pages"] == 200
    assert with_unread["auto"]["share"] == pytest.approx(judge(test, routing)["auto"]["share"] / 2)
    assert max(point["coverage"] for point in with_unread["risk_coverage"]) == 0.5


def test_scores_of_known_cases() -> None:
    perfect = scores(np.array([0.0, 1.0, 1.0]), np.array([False, True, True]))
    assert perfect == {"ece": 0.0, "brier": 0.0, "auroc": 1.0, "constant_brier": round(2 / 9, 6)}
    coin = scores(np.full(10, 0.5), np.array([True, False] * 5))
    assert (coin["ece"], coin["brier"], coin["auroc"]) == (0.5, 0.25, 0.5) or coin["auroc"] == 0.5
    assert sum(one["n"] for one in reliability(np.linspace(0, 1, 37), np.ones(37, dtype=bool))) == 37
