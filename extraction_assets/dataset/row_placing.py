"""Which printed row of which page a label's line item is.

A row is found by its cells: its most distinctive ones (a description, an amount) propose printed lines, the others vote for the
line they stand close to. A dynamic programme then gives rows to lines so that the order of the rows is the order of print and
no line serves two rows; rows that do not fit that order (labels sorted otherwise) get the best line still free.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from extraction_assets.dataset.matching import Hit, PageMatcher
from extraction_assets.schema import Leaf

REACH = 2.5
"""line heights between a cell and its row's line"""
ENOUGH = 0.3
"""share of a row's weight that must be found close together"""


@dataclass
class PlacedRow:
    """One label row on one page."""

    row: int
    """index in the label's array"""
    page: int
    """index of the page in the document"""
    cells: dict[tuple[str, ...], Hit] = field(default_factory=dict)
    """column path -> where it stands; columns that stand nowhere near are absent"""


@dataclass(frozen=True, slots=True)
class _Candidate:
    page: int
    line: int
    anchor: Hit
    score: float


def place_rows(rows: Sequence[dict[str, Any]], columns: Sequence[Leaf], pages: Sequence[PageMatcher]) -> list[PlacedRow]:
    """Rows that stand on a page, in label order. Rows found nowhere are absent."""
    candidates = [_candidates(row, columns, pages) for row in rows]
    chosen = _in_order(candidates)
    used: list[set[int]] = [set() for _ in pages]
    for candidate in chosen.values():
        used[candidate.page].update(candidate.anchor.words)
    for index, options in enumerate(candidates):
        if index not in chosen:
            free = [option for option in options if used[option.page].isdisjoint(option.anchor.words)]
            if free:
                chosen[index] = max(free, key=lambda option: (option.score, -option.page, -option.line))
                used[chosen[index].page].update(chosen[index].anchor.words)
    return _collect(rows, columns, pages, chosen, used)


def _weight(value: Any, leaf: Leaf) -> float:
    """How much a cell says about which row this is."""
    if value is None or leaf.type == "code":
        return 0.0
    if leaf.type in ("text", "id"):
        return 2.0 + min(len(str(value)) / 12, 2.0)
    if leaf.type == "number":
        return 0.5 if len(str(value)) < 3 else 1.0
    return 2.0


def _value(row: dict[str, Any], leaf: Leaf) -> Any:
    value: Any = row
    for key in leaf.path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _candidates(row: dict[str, Any], columns: Sequence[Leaf], pages: Sequence[PageMatcher]) -> list[_Candidate]:
    cells = [(leaf, value, _weight(value, leaf)) for leaf in columns if (value := _value(row, leaf)) is not None]
    total = sum(weight for _, _, weight in cells)
    if total == 0:
        return []
    best: dict[tuple[int, int], _Candidate] = {}
    for number, page in enumerate(pages):
        hits = [(weight, page.find(value, leaf.type, in_row=True)) for leaf, value, weight in cells if weight]
        found = sorted(((len(places) / weight, i) for i, (weight, places) in enumerate(hits) if places))
        for _, i in found[:2]:
            for anchor in hits[i][1]:
                score = sum(weight * _closeness(anchor, places, page.line_height) for weight, places in hits)
                line = page.line_of(anchor)
                kept = best.get((number, line))
                if score >= ENOUGH * total and (kept is None or score > kept.score):
                    best[number, line] = _Candidate(number, line, anchor, score / total)
    return [best[key] for key in sorted(best)]


def _closeness(anchor: Hit, places: Sequence[Hit], line_height: float) -> float:
    """1 on the anchor's own line, less with distance and for weak hits, 0 out of reach."""
    best = 0.0
    for place in places:
        gap = _gap(anchor, place) / line_height
        if gap <= REACH:
            best = max(best, (1.0 - 0.15 * gap) * (1.0 if place.strong else 0.7))
    return best


def _gap(a: Hit, b: Hit) -> float:
    """px from sharing a line: 0 where they overlap by half the lower one's height, growing as they overlap less and then part."""
    overlap = min(a.bottom, b.bottom) - max(a.top, b.top)
    return max(0.0, 0.5 * min(a.bottom - a.top, b.bottom - b.top) - overlap)


def _in_order(candidates: Sequence[Sequence[_Candidate]]) -> dict[int, _Candidate]:
    """Row -> candidate with the greatest sum of scores, (page, line) rising strictly with the row."""
    positions = sorted({(option.page, option.line) for options in candidates for option in options})
    rank = {position: number + 1 for number, position in enumerate(positions)}
    best = [0.0] * (len(positions) + 1)  # best[k]: greatest sum of the rows so far that ends at a position of rank <= k
    taken: list[list[_Candidate | None]] = []
    for options in candidates:
        here: list[_Candidate | None] = [None] * (len(positions) + 1)
        gained = list(best)
        for option in options:
            k = rank[option.page, option.line]
            if best[k - 1] + option.score > gained[k] + 1e-9:
                gained[k], here[k] = best[k - 1] + option.score, option
        for k in range(1, len(gained)):
            if gained[k - 1] >= gained[k] - 1e-9 and gained[k - 1] > best[k] + 1e-9:
                gained[k], here[k] = gained[k - 1], here[k - 1]
        best = gained
        taken.append(here)
    chosen, k = {}, len(positions)
    for row in range(len(candidates) - 1, -1, -1):
        choice = taken[row][k]
        if choice is not None:
            chosen[row] = choice
            k = rank[choice.page, choice.line] - 1
    return chosen


def _collect(
    rows: Sequence[dict[str, Any]],
    columns: Sequence[Leaf],
    pages: Sequence[PageMatcher],
    chosen: dict[int, _Candidate],
    used: Sequence[set[int]],
) -> list[PlacedRow]:
    """The cells of each placed row: the nearest print that no other row has taken, between the lines of its neighbours."""
    anchors = sorted({(option.page, option.line) for option in chosen.values()})
    placed = []
    for index in sorted(chosen):
        option = chosen[index]
        page = pages[option.page]
        others = [line for number, line in anchors if number == option.page and line != option.line]
        above, below = max((x for x in others if x < option.line), default=-1), min((x for x in others if x > option.line), default=1 << 30)
        own: set[int] = set(option.anchor.words)
        result = PlacedRow(index, option.page)
        cells = [(leaf, value) for leaf in columns if (value := _value(rows[index], leaf)) is not None]
        for leaf, value in sorted(cells, key=lambda cell: -_weight(cell[1], cell[0])):
            near = [
                hit
                for hit in page.find(value, leaf.type, in_row=True)
                if _gap(option.anchor, hit) <= REACH * page.line_height and (above < page.line_of(hit) < below or hit == option.anchor)
            ]
            taken = {i for hit in result.cells.values() for i in hit.words}
            fresh = [hit for hit in near if hit == option.anchor or used[option.page].isdisjoint(hit.words)]
            # a number printed once may be two cells of its row (price and amount of one piece), never cells of two rows
            usable = [hit for hit in fresh if taken.isdisjoint(hit.words)] or fresh or [hit for hit in near if own.issuperset(hit.words)]
            if usable:
                weak_last = leaf.type == "amount"
                hit = min(usable, key=lambda hit: (weak_last and not hit.strong, _gap(option.anchor, hit), hit.words))
                result.cells[leaf.path] = hit
                own.update(hit.words)
        used[option.page].update(own)
        placed.append(result)
    return placed
