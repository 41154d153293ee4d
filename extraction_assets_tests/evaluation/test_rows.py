"""The pairing of rows against every possible pairing."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from extraction_assets.evaluation.rows import RowScore, score_rows
from extraction_assets.schema import Leaf, RowArray

COLUMNS = ("a", "b", "c")
ARRAY = RowArray(("rows",), tuple(Leaf((name,), "text", ("string", "null")) for name in COLUMNS))
CELL = st.sampled_from(["1", "2", None])
ROWS = st.lists(st.fixed_dictionaries(dict.fromkeys(COLUMNS, CELL)), max_size=4)
Row = dict[str, Any]


def equal_cells(gold: Row, answer: Row) -> int:
    return sum(gold[name] is not None and gold[name] == answer[name] for name in COLUMNS)


def pairings(gold: list[Row], answer: list[Row]) -> list[list[tuple[Row, Row]]]:
    short, long = sorted((gold, answer), key=len)
    flip = short is answer and len(gold) != len(answer)
    found = []
    for chosen in itertools.permutations(long, len(short)):
        pairs = list(zip(short, chosen, strict=True))
        found.append([(b, a) for a, b in pairs] if flip else pairs)
    return found


def counts(score: RowScore) -> tuple[Any, ...]:
    return score.exact, len(score.pairs), score.equal_cells, score.column_equal, score.gold_cells, score.answer_cells


@settings(max_examples=400, deadline=None)
@given(ROWS, ROWS)
def test_no_pairing_has_more_equal_cells_and_none_of_the_best_has_more_exact_rows(gold: list[Row], answer: list[Row]) -> None:
    score = score_rows(answer, gold, ARRAY)
    best = max(
        (sum(equal_cells(g, a) for g, a in pairs), sum(g == a and any(g.values()) for g, a in pairs)) for pairs in pairings(gold, answer)
    )
    exact = sum(all(pair.equal) and any(gold[pair.gold].values()) for pair in score.pairs)
    assert (score.equal_cells, exact) == best


@settings(max_examples=400, deadline=None)
@given(ROWS, ROWS, st.randoms(use_true_random=False))
def test_rows_in_any_order_count_the_same(gold: list[Row], answer: list[Row], draw: Any) -> None:
    moved_gold, moved_answer = draw.sample(gold, len(gold)), draw.sample(answer, len(answer))
    assert counts(score_rows(moved_answer, moved_gold, ARRAY)) == counts(score_rows(answer, gold, ARRAY))


@given(ROWS, ROWS)
def test_a_row_is_paired_at_most_once_and_only_with_one_that_shares_a_cell(gold: list[Row], answer: list[Row]) -> None:
    score = score_rows(answer, gold, ARRAY)
    assert len({pair.gold for pair in score.pairs}) == len({pair.answer for pair in score.pairs}) == len(score.pairs)
    for pair in score.pairs:
        g, a = gold[pair.gold], answer[pair.answer]
        assert equal_cells(g, a) or not (any(g.values()) or any(a.values()))


def test_of_two_equally_good_pairings_the_one_with_the_same_first_column_wins() -> None:
    gold = [{"a": "Pump", "b": "1", "c": "5"}, {"a": "Seal", "b": "2", "c": "6"}]
    answer = [{"a": "Pump", "b": "2", "c": "5"}, {"a": "Seal", "b": "1", "c": "6"}]
    for rows in (answer, answer[::-1]):
        score = score_rows(rows, gold, ARRAY)
        assert score.column_equal == (2, 0, 2)
    tied = [{"a": "Pump", "b": "2", "c": None}, {"a": "Seal", "b": "1", "c": None}]
    assert score_rows(tied, gold, ARRAY).column_equal == (2, 0, 0)
    assert score_rows(tied, gold, ARRAY).order_kept


def test_rows_that_hold_nothing_pair_with_each_other_only() -> None:
    empty = dict.fromkeys(COLUMNS)
    assert counts(score_rows([empty], [empty], ARRAY))[:2] == (1, 1)
    assert score_rows([empty], [], ARRAY).row_exact_f1 == 0.0
    assert score_rows([empty], [{"a": "1", "b": None, "c": None}], ARRAY).row_detect_f1 == 0.0
