from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from extraction_assets.evaluation.statistics import bootstrap_weights, holm, mcnemar, paired_difference, ratio_estimates, wilson


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_the_exact_binomial_test(a: int, b: int) -> None:
    expected = binomtest(a, a + b).pvalue if a + b else 1.0
    assert mcnemar(a, b) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_takes_ten_thousand_disagreements() -> None:
    assert mcnemar(4000, 6000) == pytest.approx(binomtest(4000, 10000).pvalue, rel=1e-6)
    assert mcnemar(5000, 5000) == 1.0


@given(st.integers(0, 50), st.integers(0, 50))
def test_wilson_equals_scipys(hits: int, more: int) -> None:
    n = hits + more
    if n:
        interval = binomtest(hits, n).proportion_ci(method="wilson")
        assert wilson(hits, n) == pytest.approx((interval.low, interval.high), abs=1e-9)


def test_holm_steps_down_and_keeps_the_order() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_all_right_has_an_interval_below_one() -> None:
    (estimate,) = ratio_estimates(np.ones((20, 1)), np.ones((20, 1)), np.arange(20), 200, 0, "x")
    assert (estimate.value, estimate.high, estimate.n) == (1.0, 1.0, 20)
    assert estimate.low == pytest.approx(wilson(20, 20)[0])
    assert 0.8 < estimate.low < 0.9


def test_the_interval_covers_a_known_rate_and_narrows_with_more_documents() -> None:
    widths = []
    for n in (50, 5000):
        hits = (np.arange(n) % 10 < 7).astype(float)[:, None]
        (estimate,) = ratio_estimates(hits, np.ones((n, 1)), np.arange(n), 500, 1, "x")
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.low < 0.7 < estimate.high
        normal = 1.96 * (0.21 / n) ** 0.5
        assert estimate.high - estimate.low == pytest.approx(2 * normal, rel=0.15)
        widths.append(estimate.high - estimate.low)
    assert widths[1] < widths[0] / 5


def test_documents_of_one_cluster_are_drawn_together() -> None:
    hits = np.repeat(np.arange(20) % 2, 10).astype(float)[:, None]  # 20 documents of ten alike pages
    alone = ratio_estimates(hits, np.ones_like(hits), np.arange(200), 500, 0, "x")[0]
    together = ratio_estimates(hits, np.ones_like(hits), np.repeat(np.arange(20), 10), 500, 0, "x")[0]
    assert alone.low is not None
    assert alone.high is not None
    assert together.low is not None
    assert together.high is not None
    assert together.high - together.low > 2.5 * (alone.high - alone.low)


def test_nothing_to_count_gives_no_value_and_one_cluster_no_interval() -> None:
    (estimate,) = ratio_estimates(np.zeros((5, 1)), np.zeros((5, 1)), np.arange(5), 100, 0, "x")
    assert (estimate.value, estimate.low, estimate.high, estimate.n) == (None, None, None, 0)
    (estimate,) = ratio_estimates(np.array([[1.0], [0.0]]), np.ones((2, 1)), np.zeros(2, dtype=int), 100, 0, "x")
    assert (estimate.value, estimate.low) == (0.5, None)


def test_drawing_is_seeded_and_independent_of_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    once = np.concatenate(bootstrap_weights(7, 50, 3, "x"))
    assert (once.sum(1) == 7).all()
    assert (once == np.concatenate(bootstrap_weights(7, 50, 3, "x"))).all()
    assert (once != np.concatenate(bootstrap_weights(7, 50, 4, "x"))).any()
    monkeypatch.setattr("extraction_assets.evaluation.statistics._CHUNK", 70)
    assert (once == np.concatenate(bootstrap_weights(7, 50, 3, "x"))).all()


def test_a_paired_difference_sees_what_two_overlapping_intervals_do_not() -> None:
    generator = np.random.default_rng(0)
    hard = generator.random(200)  # documents differ far more than systems do
    a, b = (hard < 0.5).astype(float), (hard < 0.57).astype(float)
    ones = np.ones(200)
    difference = paired_difference(a, ones, b, ones, np.arange(200), 1000, 0, "x")
    assert difference.value == pytest.approx((b - a).mean())
    assert difference.low is not None
    assert difference.p is not None
    assert difference.low > 0
    assert difference.p < 0.01
    same = paired_difference(a, ones, a, ones, np.arange(200), 1000, 0, "x")
    assert (same.value, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)
