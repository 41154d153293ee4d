"""Our tree distance against the zss package, ANLS* against the anls-star package, and numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import zss
from anls_star import anls_score
from hypothesis import given, settings
from hypothesis import strategies as st

from extraction_assets.evaluation.comparison_metrics import _normal_form, score_comparison
from extraction_assets_tests.evaluation.cases import TARGET

_PLAIN = st.none() | st.booleans() | st.integers(-20, 20) | st.sampled_from(["", " ", "a", "ab", "abc", "bca", "<leaf>x", "1.00"])
NESTED_DICT = st.dictionaries(
    st.sampled_from(["a", "b", "cc", "ddd"]),
    st.recursive(
        _PLAIN,
        lambda child: st.lists(child, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "cc"]), child, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


def levenshtein(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row, previous = [i], row
        for j, y in enumerate(b, 1):
            row.append(min(previous[j] + 1, row[-1] + 1, previous[j - 1] + (x != y)))
    return row[-1]


def zss_tree(data: Any, label: tuple[bool, str] = (False, "<root>")) -> zss.Node:
    node = zss.Node(label)
    for key, child in data.items() if isinstance(data, dict) else (("<subtree>", item) for item in data):
        if isinstance(child, (dict, list)):
            node.addkid(zss_tree(child, (False, key)))
        else:
            node.addkid(zss.Node((True, child.replace("<leaf>", ""))))
    return node


def zss_nted(answer: Any, gold: Any) -> float | None:
    def size(node: zss.Node) -> int:
        leaf, text = node.label
        return len(text) if leaf else 1

    def update(a: zss.Node, b: zss.Node) -> int:
        if a.label[0] and b.label[0]:
            return levenshtein(a.label[1], b.label[1])
        if a.label[0] or b.label[0]:
            return 1 + size(a if a.label[0] else b)
        return int(a.label != b.label)

    def distance(left: Any) -> float:
        return zss.distance(zss_tree(left), zss_tree(_normal_form(gold)), zss.Node.get_children, size, size, update)

    whole = distance({})
    return max(0.0, 1 - distance(_normal_form(answer)) / whole) if whole else None


@settings(max_examples=150, deadline=None)
@given(NESTED_DICT, NESTED_DICT)
def test_the_tree_distance_equals_zss_on_any_trees(answer: dict[str, Any], gold: dict[str, Any]) -> None:
    assert score_comparison(answer, gold).donut_nted == pytest.approx(zss_nted(answer, gold), abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(TARGET, TARGET)
def test_both_packages_agree_on_invoices(answer: dict[str, Any], gold: dict[str, Any]) -> None:
    scores = score_comparison(answer, gold)
    assert scores.donut_nted == pytest.approx(zss_nted(answer, gold), abs=1e-12)
    assert scores.anls_star == pytest.approx(anls_score(gold, answer), abs=1e-12)


def test_numbers_worked_out_by_hand() -> None:
    gold = {"a": "abc", "b": [{"c": "de"}, {"c": "fg"}]}
    # tree below the root: a, abc(3), b, 2 subtrees, 2 c, de(2), fg(2) = 1 + 3 + 1 + 2 + 2 + 4 = 13
    assert score_comparison({"a": "abd", "b": gold["b"]}, gold).donut_nted == pytest.approx(1 - 1 / 13)
    assert score_comparison({"a": "abc"}, gold).donut_nted == pytest.approx(1 - 9 / 13)
    assert score_comparison({"a": "abc"}, gold).donut_f1 == pytest.approx(1 / (1 + 2 / 2))
    assert score_comparison({}, gold).donut_f1 == 0.0


def test_falsy_values_vanish_from_donuts_metrics() -> None:
    scores = score_comparison({"a": 0, "b": None, "c": "", "d": [], "e": False, "f": {}, "g": "x"}, {"g": "x"})
    assert (scores.donut_f1, scores.donut_nted) == (1.0, 1.0)


def test_a_gold_without_any_value_has_no_donut_score() -> None:
    scores = score_comparison({}, {"a": None})
    assert (scores.donut_f1, scores.donut_nted) == (None, None)
