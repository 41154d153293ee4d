"""Line items: pairs rows of an answer with rows of the gold and counts what is equal.

Similarity of two rows is the number of cells that are present in both and equal under their type. The pairing with the largest sum is
found by `scipy.optimize.linear_sum_assignment`; pairs without one equal cell are undone, unless both rows are empty. Among pairings
of the same sum, the one with more exact rows wins, then the one whose first columns agree (a row's description says what it is).
Rows are put into an order of their own content first, so that permuting them changes no count.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extraction_assets.evaluation.normalise import normalise
from extraction_assets.schema import RowArray

Cells = tuple[str | None, ...]
"""one row's canonical cells in column order"""


@dataclass(frozen=True)
class RowPair:
    """One row of the gold and the row of the answer that was found to be it."""

    gold: int
    answer: int
    equal: tuple[bool, ...]
    """per column; two absent cells are equal"""


@dataclass(frozen=True)
class RowScore:
    """What one array of line items is worth."""

    gold_rows: int
    answer_rows: int
    pairs: tuple[RowPair, ...]
    """sorted by the row of the gold"""
    exact: int
    """pairs with every column equal"""
    equal_cells: int
    """cells present on both sides and equal, over all pairs"""
    gold_cells: int
    """present cells"""
    answer_cells: int
    column_equal: tuple[int, ...]
    """per column: pairs where it is equal"""
    order_kept: bool

    @property
    def row_exact_f1(self) -> float:
        return f1(self.exact, self.gold_rows, self.answer_rows)

    @property
    def row_detect_f1(self) -> float:
        return f1(len(self.pairs), self.gold_rows, self.answer_rows)

    @property
    def cell_f1(self) -> float:
        return f1(self.equal_cells, self.gold_cells, self.answer_cells)

    @property
    def count_error(self) -> int:
        """rows too many (positive) or too few (negative)"""
        return self.answer_rows - self.gold_rows

    @property
    def all_exact(self) -> bool:
        return self.exact == self.gold_rows == self.answer_rows

    def column_accuracy(self) -> tuple[float | None, ...]:
        """Per column: share of the gold's rows whose cell was read right; an unpaired row is wrong. None without rows."""
        return tuple(count / self.gold_rows if self.gold_rows else None for count in self.column_equal)


def f1(hits: int, gold: int, answer: int) -> float:
    """2 hits / (gold + answer); 1 where neither side has any, since nothing was asked and nothing was said."""
    return 2 * hits / (gold + answer) if gold + answer else 1.0


def score_rows(answer: Any, gold: Any, array: RowArray, locale: str | None = None) -> RowScore:
    """Score one array. What is no list counts as no rows; an item that is no object is a row without cells."""
    gold_cells, answer_cells = _cells(gold, array, locale), _cells(answer, array, locale)
    if gold_cells == answer_cells:
        matched = [(i, i) for i in range(len(gold_cells))]  # every row has its largest possible similarity
        order_kept = True
    else:
        matched = _assign(gold_cells, answer_cells)
        matched, order_kept = _settle_order(matched, gold_cells, answer_cells)
    pairs = tuple(RowPair(i, j, tuple(a == b for a, b in zip(gold_cells[i], answer_cells[j], strict=True))) for i, j in matched)
    return RowScore(
        gold_rows=len(gold_cells),
        answer_rows=len(answer_cells),
        pairs=pairs,
        exact=sum(all(pair.equal) for pair in pairs),
        equal_cells=sum(same and gold_cells[pair.gold][k] is not None for pair in pairs for k, same in enumerate(pair.equal)),
        gold_cells=_present(gold_cells),
        answer_cells=_present(answer_cells),
        column_equal=tuple(sum(pair.equal[k] for pair in pairs) for k in range(len(array.columns))),
        order_kept=order_kept,
    )


def _cells(rows: Any, array: RowArray, locale: str | None) -> list[Cells]:
    if not isinstance(rows, list):
        return []
    return [tuple(normalise(value_at(row, leaf.path), leaf.type, locale) for leaf in array.columns) for row in rows]


def value_at(value: Any, path: tuple[str, ...]) -> Any:
    """The value under nested keys; None where a key is omitted or something else stands in the way."""
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def _present(rows: list[Cells]) -> int:
    return sum(cell is not None for row in rows for cell in row)


def _assign(gold: list[Cells], answer: list[Cells]) -> list[tuple[int, int]]:
    """(row of the gold, row of the answer) of the best pairing, sorted by the gold's row."""
    if not gold or not answer:
        return []
    from scipy.optimize import linear_sum_assignment  # costs a third of a second to import

    gold_order, answer_order = _content_order(gold), _content_order(answer)
    codes: dict[str | None, int] = {None: -1}
    left = np.array([[codes.setdefault(cell, len(codes)) for cell in gold[i]] for i in gold_order])
    right = np.array([[codes.setdefault(cell, len(codes)) for cell in answer[j]] for j in answer_order])
    same = left[:, None, :] == right[None, :, :]  # (gold rows, answer rows, columns)
    present = np.logical_and(same, (left >= 0)[:, None, :])
    similarity = present.sum(axis=2)
    # The bonus of all pairs together stays below one equal cell; exact rows outweigh every preference among columns.
    pairs = min(len(gold), len(answer))
    first_columns = present @ (0.5 ** np.arange(1, present.shape[2] + 1))  # < 1
    bonus = (same.all(axis=2) * (pairs + 1) + first_columns) / (2 * pairs * (pairs + 2))
    empty: NDArray[np.bool_] = (left.max(axis=1) < 0)[:, None] & (right.max(axis=1) < 0)[None, :]
    alike: NDArray[np.bool_] = (similarity > 0) | empty
    weight = np.where(alike, similarity + bonus, 0)
    rows, partners = linear_sum_assignment(weight, maximize=True)
    return sorted((gold_order[i], answer_order[j]) for i, j in zip(rows, partners, strict=True) if alike[i, j])


def _content_order(rows: list[Cells]) -> list[int]:
    return sorted(range(len(rows)), key=lambda i: ([(cell is not None, cell or "") for cell in rows[i]], i))


def _settle_order(matched: list[tuple[int, int]], gold: list[Cells], answer: list[Cells]) -> tuple[list[tuple[int, int]], bool]:
    """Rows with the same content are interchangeable: choose among them so that the order is kept where it can be."""
    if all(a[1] < b[1] for a, b in itertools.pairwise(matched)):
        return matched, True
    partners: dict[Cells, list[int]] = {}
    for i, j in matched:
        partners.setdefault(gold[i], []).append(j)
    for indices in partners.values():
        indices.sort(reverse=True)
    wanted = [(i, answer[partners[gold[i]].pop()]) for i, _ in matched]
    free: dict[Cells, list[int]] = {}
    for j, row in enumerate(answer):
        free.setdefault(row, []).append(j)
    needed = Counter(content for _, content in wanted)
    settled, last = [], -1
    for i, content in wanted:
        later = [j for j in free[content] if j > last]
        if len(later) < needed[content]:
            return matched, False
        last = later[0]
        free[content].remove(last)
        needed[content] -= 1
        settled.append((i, last))
    return settled, True
