"""Published metrics, for comparison columns only: ANLS*, Donut's field F1 and Donut's tree edit accuracy.

None of them is safe alone (Donut F1 gives 1.000 to amounts in the wrong rows, the other two 0.99 to a wrong grand total), so none of
them decides anything here. They are slow: a document with 100 rows takes seconds.

ANLS* is the `anls-star` package (Peer et al. 2024, https://arxiv.org/abs/2402.03848). The Donut metrics follow the definition that Donut's
paper (Kim et al. 2022, https://arxiv.org/abs/2111.15664) and its evaluator give:

    normal form   falsy values vanish, keys are put in order of (length, name), a plain value becomes a list of one stripped string,
                  in a list with anything but objects only strings, ints and floats stay
    F1            multiset of (key path without indices, string): hits / (hits + misses / 2)
    nTED          ordered tree edit distance of the normal forms; a leaf costs the edit distance of its string, any other node 1,
                  turning a leaf into another node costs its length + 1; 1 - distance / size of the gold's tree, at least 0
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rapidfuzz.distance import Levenshtein


@dataclass(frozen=True)
class ComparisonScores:
    """None where a metric is undefined: Donut's for a gold without any value."""

    anls_star: float | None
    donut_f1: float | None
    donut_nted: float | None


def score_comparison(answer: dict[str, Any] | None, gold: dict[str, Any]) -> ComparisonScores:
    """All three for one document; an answer that is no strict JSON object (None) counts as nothing at all."""
    left, right = _normal_form(answer), _normal_form(gold)
    return ComparisonScores(_anls_star(answer, gold), _donut_f1(left, right), _donut_nted(left, right))


def _anls_star(answer: Any, gold: Any) -> float | None:
    import warnings

    from anls_star import anls_score

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            score: Any = anls_score(gold, answer)
        except (ValueError, RecursionError, ZeroDivisionError):  # the package refuses what it has no rule for
            return None
    return min(1.0, max(0.0, float(score)))


def _normal_form(data: Any) -> Any:
    if not data:
        return {}
    if isinstance(data, dict):
        children = {key: _normal_form(data[key]) for key in sorted(data, key=lambda key: (len(key), key))}
        return {key: child if isinstance(child, list) else [child] for key, child in children.items() if child}
    if isinstance(data, list):
        if all(isinstance(item, dict) for item in data):
            return [child for child in map(_normal_form, data) if child]
        return [text for item in data if type(item) in (str, int, float) and (text := _text(item))]
    return [_text(data)]


def _text(value: Any) -> str:
    try:
        return str(value).strip()
    except ValueError:  # more digits than Python prints
        return hex(value)


def _pairs(data: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(data, dict):
        for child, value in data.items():
            yield from _pairs(value, f"{key}.{child}" if key else child)
    elif isinstance(data, list):
        for item in data:
            yield from _pairs(item, key)
    else:
        yield key, data


def _donut_f1(answer: Any, gold: Any) -> float | None:
    said, asked = Counter(_pairs(answer)), Counter(_pairs(gold))
    hits = (said & asked).total()
    misses = said.total() + asked.total() - 2 * hits
    return hits / (hits + misses / 2) if hits or misses else None


@dataclass(frozen=True)
class _Tree:
    """An ordered tree in post-order, as Zhang and Shasha (1989) number it."""

    labels: list[tuple[bool, str]]
    """(is it a leaf that holds text, its text or key)"""
    leftmost: list[int]
    """per node: its leftmost descendant"""

    @property
    def key_roots(self) -> list[int]:
        return sorted({left: node for node, left in enumerate(self.leftmost)}.values())

    @property
    def costs(self) -> list[int]:
        return [len(text) if leaf else 1 for leaf, text in self.labels]


def _tree(data: Any) -> _Tree:
    tree = _Tree([], [])
    _grow(tree, (False, "<root>"), data)
    return tree


def _grow(tree: _Tree, label: tuple[bool, str], data: Any) -> int:
    """Append the node's descendants and then itself; returns its leftmost descendant."""
    first = len(tree.labels)
    if isinstance(data, dict):
        for key, value in data.items():
            _grow(tree, (False, key), value)
    else:
        for item in data:
            if isinstance(item, dict):
                _grow(tree, (False, "<subtree>"), item)
            else:
                tree.labels.append((True, str(item).replace("<leaf>", "")))
                tree.leftmost.append(len(tree.labels) - 1)
    tree.labels.append(label)
    tree.leftmost.append(first)
    return first


def _donut_nted(answer: Any, gold: Any) -> float | None:
    left, right = _tree(answer), _tree(gold)
    size = sum(right.costs) - 1  # all but the root, which an empty answer has too
    return max(0.0, 1 - _tree_distance(left, right) / size) if size else None


def _tree_distance(left: _Tree, right: _Tree) -> int:
    """Zhang and Shasha's dynamic programme: distances of all pairs of subtrees, key root by key root."""
    remove, insert = left.costs, right.costs
    update = [[_update_cost(a, b) for b in right.labels] for a in left.labels]
    distance = [[0] * len(right.labels) for _ in left.labels]
    for i in left.key_roots:
        for j in right.key_roots:
            _forest_distance(i, j, left.leftmost, right.leftmost, remove, insert, update, distance)
    return distance[-1][-1]


def _forest_distance(
    i: int, j: int, left: list[int], right: list[int], remove: list[int], insert: list[int], update: list[list[int]], out: list[list[int]]
) -> None:
    """Fill `out` for every pair of subtrees that start where the subtrees of i and j start."""
    first_i, first_j = left[i], right[j]
    above = [0]
    for y in range(first_j, j + 1):
        above.append(above[-1] + insert[y])
    rows = {first_i - 1: above}
    for x in range(first_i, i + 1):
        previous = rows[x - 1]
        row = [previous[0] + remove[x]]
        rows[x] = row
        for y in range(first_j, j + 1):
            k = y - first_j + 1
            best = min(previous[k] + remove[x], row[k - 1] + insert[y])
            if left[x] == first_i and right[y] == first_j:
                best = min(best, previous[k - 1] + update[x][y])
                out[x][y] = best
            else:
                best = min(best, rows[left[x] - 1][right[y] - first_j] + out[x][y])
            row.append(best)


def _update_cost(a: tuple[bool, str], b: tuple[bool, str]) -> int:
    (leaf_a, text_a), (leaf_b, text_b) = a, b
    if leaf_a and leaf_b:
        return Levenshtein.distance(text_a, text_b)
    if leaf_a or leaf_b:
        return 1 + len(text_a if leaf_a else text_b)
    return int(text_a != text_b)
