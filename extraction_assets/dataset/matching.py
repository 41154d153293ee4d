"""Where on a page a label's value stands: a tolerant search over the words of the text layer, by scoring type.

One PageMatcher per page, built once and asked for every value. Tolerant to spelling (date formats, separators, currency marks,
case, accents, ligatures, line breaks, hyphenation), strict in substance: 12 is not found inside 2012, 20.00 not inside 120.00.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cached_property
from typing import Any

from extraction_assets.dataset.printed_values import (
    DASHES,
    code_prints,
    date_readings,
    fold,
    is_currency,
    label_numbers,
    number_readings,
    printed_dates,
    printed_numbers,
)
from extraction_assets.documents.records import Word
from extraction_assets.schema import ScoringType

_NOT_ALNUM = re.compile(r"[\W_]+")
_JOINERS = "-/_."
"""characters that join the parts of one id: 501 does not stand in RE-2014/501"""
MANY = 200
"""more places than this are not looked at: the value is everywhere"""


@dataclass(frozen=True, slots=True)
class Hit:
    """One place where a value stands."""

    words: tuple[int, ...]
    """indices into the page's words"""
    top: float
    """px"""
    bottom: float
    strong: bool = True
    """False: bare digits that could as well be a count or a position (5), or carry a unit of measure (100ml)"""


class PageMatcher:
    """See the module's docstring. `words`: the page's words in reading order, boxes in px."""

    def __init__(self, words: Sequence[Word]) -> None:
        self.words = words
        self._folded = [fold(word.text) for word in words]
        self._squeezed = [_NOT_ALNUM.sub("", text) for text in self._folded]
        self._found: dict[tuple[str, str, bool], tuple[Hit, ...]] = {}
        heights = sorted(word.box[3] - word.box[1] for word in words)
        self.line_height = max(1.0, heights[len(heights) // 2]) if heights else 1.0
        """px, of the middle word"""

    def find(self, value: Any, scoring: ScoringType, in_row: bool = False) -> tuple[Hit, ...]:
        """Every place where the value stands, in reading order; at most MANY.

        in_row: the value is a cell. Its neighbours will tell 5 the quantity from 5 the page number, so bare integers count as
        amounts too; a header amount needs decimals, separators, a currency or three digits.
        """
        key = (repr(value), scoring, in_row)
        if key not in self._found:
            hits = {hit.words: hit for hit in self._search(value, scoring, in_row)}
            self._found[key] = tuple(sorted(hits.values(), key=lambda hit: hit.words))[:MANY]
        return self._found[key]

    def _search(self, value: Any, scoring: ScoringType, in_row: bool) -> list[Hit]:
        if scoring in ("amount", "number"):
            readings = label_numbers(value)
            for reading in readings:
                if hits := self._find_number(reading, scoring == "amount" and not in_row):
                    return hits
            if readings:
                return []
        elif scoring == "date":
            if days := date_readings(str(value)):
                found = [words for day in days for words in self._dates.get(day, ())]
                return [self._hit(words) for words in found]
        elif scoring == "code":
            return self._find_code(str(value))
        text = str(value)
        if scoring == "id":
            return self._find_id(text)
        return self._find_stream(text, self._text_breaks) or self._find_column(text) or self._find_symbols(text)

    # --- text and ids -------------------------------------------------------------------------------------------------------

    @cached_property
    def _stream(self) -> tuple[str, list[int]]:
        """Letters and digits of all words without anything between them, and where each word starts in it."""
        starts, at = [], 0
        for text in self._squeezed:
            starts.append(at)
            at += len(text)
        return "".join(self._squeezed), starts

    @cached_property
    def _text_breaks(self) -> frozenset[int]:
        """Offsets of the stream where a word of text may start or end: word boxes, and any mark inside them."""
        return self._breaks("")

    @cached_property
    def _id_breaks(self) -> frozenset[int]:
        return self._breaks(_JOINERS)

    def _breaks(self, joiners: str) -> frozenset[int]:
        stream, starts = self._stream
        breaks = {*starts, len(stream)}
        for text, squeezed, start in zip(self._folded, self._squeezed, starts, strict=True):
            if len(text) == len(squeezed):
                continue
            at = 0
            for char in text:
                if char.isalnum():
                    at += 1
                elif char not in joiners:
                    breaks.add(start + at)
        return frozenset(breaks)

    def _find_stream(self, value: str, breaks: frozenset[int]) -> list[Hit]:
        needle = _NOT_ALNUM.sub("", fold(value))
        if not needle:
            return []
        stream, starts = self._stream
        unspaced = any(char >= "\u2e80" for char in needle)  # Chinese and Japanese put no space between words
        hits: list[Hit] = []
        at = stream.find(needle)
        while at >= 0 and len(hits) < MANY:
            if unspaced or (at in breaks and at + len(needle) in breaks):
                first = bisect.bisect_right(starts, at) - 1
                last = bisect.bisect_left(starts, at + len(needle)) - 1
                hits.append(self._hit(tuple(i for i in range(first, last + 1) if self._squeezed[i])))
            at = stream.find(needle, at + 1)
        return hits

    def _find_id(self, value: str) -> list[Hit]:
        """Ids may be broken by spaces, hyphens and lines, but their pieces stand side by side."""
        hits = [hit for hit in self._find_stream(value, self._id_breaks) if self._adjacent(hit.words, len(value))]
        return hits or self._find_column(value)

    def _adjacent(self, words: tuple[int, ...], length: int) -> bool:
        reach = self.line_height * (2.0 if length >= 6 else 0.8)
        for left, right in itertools.pairwise(words):
            a, b = self.words[left].box, self.words[right].box
            beside = abs(a[1] - b[1]) < self.line_height * 0.6 and -reach < b[0] - a[2] < reach
            below = length >= 6 and 0 < b[1] - a[1] < self.line_height * 2.5 and b[0] < a[0] + self.line_height
            if not (beside or below):
                return False
        return True

    def _find_symbols(self, value: str) -> list[Hit]:
        """A value without letters or digits (a dash, a star) must be a word of its own."""
        wanted = value.strip()
        return [self._hit((i,)) for i, word in enumerate(self.words) if word.text == wanted] if wanted else []

    def _find_column(self, value: str) -> list[Hit]:
        """Text that is wrapped inside a table cell: the words of the other columns stand between its lines in reading order."""
        needle = _NOT_ALNUM.sub("", fold(value))
        if len(needle) < 6:
            return []
        hits = []
        for first, squeezed in enumerate(self._squeezed):
            if squeezed and len(squeezed) < len(needle) and needle.startswith(squeezed) and (len(squeezed) > 1 or needle[0].isdigit()):
                path = self._walk(needle[len(squeezed) :], (first,), self.words[first].box[0], self.words[first].box[2])
                if path:
                    hits.append(self._hit(path))
        return hits

    def _walk(self, rest: str, path: tuple[int, ...], left: float, right: float) -> tuple[int, ...] | None:
        """Words that spell `rest`, going right along the line or down to the next line of the same column (left..right, px)."""
        if not rest:
            return path
        if len(path) > 120:
            return None
        last = self.words[path[-1]].box
        beside, below = self._neighbours(path[-1], left, right)
        for word in (*beside, *below):
            squeezed = self._squeezed[word]
            if word in path or not squeezed or not rest.startswith(squeezed):
                continue
            box = self.words[word].box
            if found := self._walk(rest[len(squeezed) :], (*path, word), min(left, box[0]), max(right, box[2], last[2])):
                return found
        return None

    def _neighbours(self, word: int, left: float, right: float) -> tuple[list[int], list[int]]:
        """The next word on the line, past bare marks; the first words of the next three lines that begin near the column's left edge."""
        lines, line_of = self._lines
        number = line_of[word]
        line = lines[number]
        at = line.index(word) + 1
        while at < len(line) and not self._squeezed[line[at]]:
            at += 1
        beside = [line[at]] if at < len(line) and self.words[line[at]].box[0] - self.words[word].box[2] < 3 * self.line_height else []
        below = []
        for lower in lines[number + 1 : number + 4]:
            if self.words[lower[0]].box[1] - self.words[word].box[3] > 2 * self.line_height:
                break
            starts = [i for i in lower if left - 2 * self.line_height < self.words[i].box[0] < right and self._squeezed[i]]
            below += starts[:1]
        return beside, below

    # --- dates and numbers --------------------------------------------------------------------------------------------------

    @cached_property
    def _dates(self) -> dict[date, list[tuple[int, ...]]]:
        starts, at = [], 0
        for text in self._folded:
            starts.append(at)
            at += len(text) + 1
        found: dict[date, list[tuple[int, ...]]] = defaultdict(list)
        for start, end, readings in printed_dates(" ".join(self._folded)):
            first, last = bisect.bisect_right(starts, start) - 1, bisect.bisect_left(starts, end) - 1
            for reading in readings:
                found[reading].append(tuple(range(first, last + 1)))
        return found

    @cached_property
    def _numbers(self) -> dict[Decimal, list[tuple[tuple[int, ...], bool]]]:
        """Value -> places: (words, strong). See printed_numbers for strong."""
        found: dict[Decimal, list[tuple[tuple[int, ...], bool]]] = defaultdict(list)
        for index, word in enumerate(self.words):
            if not any(char.isdigit() for char in word.text):
                continue
            text = self._folded[index] if not word.text.isascii() else word.text
            for readings, strong, digits in printed_numbers(text):
                strong = strong or self._beside_currency(index)
                for reading in readings:
                    found[reading].append(((index,), strong))
                    if reading > 0 and index and self.words[index - 1].text.translate(DASHES) == "-":
                        found[-reading].append(((index - 1, index), strong))
                if digits.isdigit() and len(digits) <= 3 and text.endswith(digits):
                    self._add_spaced(index, digits, text, found)
        return found

    def _add_spaced(self, first: int, digits: str, text: str, found: dict[Decimal, list[tuple[tuple[int, ...], bool]]]) -> None:
        """Thousands set apart by spaces come as several words: 1 234 567,50."""
        last = first
        while last + 1 < len(self.words) and self._close(last, last + 1):
            group = re.match(r"\d{3}(?!\d)(?:[.,]\d{1,4})?", self._folded[last + 1])
            if group is None:
                return
            digits, last = f"{digits} {group[0]}", last + 1
            sign = -1 if text.translate(DASHES).startswith("-") or self._folded[last].endswith("-") else 1
            for reading in number_readings(digits):
                found[sign * reading].append((tuple(range(first, last + 1)), True))
            if len(group[0]) > 3:
                return

    def _close(self, left: int, right: int) -> bool:
        a, b = self.words[left].box, self.words[right].box
        return abs(a[1] - b[1]) < self.line_height * 0.5 and -1 <= b[0] - a[2] < self.line_height * 0.6

    def _beside_currency(self, index: int) -> bool:
        near = [i for i in (index - 1, index + 1) if 0 <= i < len(self.words) and self.words[i].line == self.words[index].line]
        return any((self._squeezed[i] and is_currency(self._squeezed[i])) or self.words[i].text in "€$£¥" for i in near)

    def _find_number(self, value: Decimal, as_amount: bool) -> list[Hit]:
        places = self._numbers.get(value, [])
        if as_amount:
            strong = [place for place in places if place[1]]
            places = strong or [place for place in places if abs(value) >= 100 or value != value.to_integral_value()]
        return [self._hit(words, strong) for words, strong in places]

    # --- codes --------------------------------------------------------------------------------------------------------------

    @cached_property
    def _cores(self) -> dict[str, list[int]]:
        """Letters and signs of each word without its digits and marks: "12,50€" has the core "€". Exact case and folded."""
        found: dict[str, list[int]] = defaultdict(list)
        for index, word in enumerate(self.words):
            raw = word.text.strip()
            whole = raw.strip(".,:;()[]/\"'")
            core = re.sub(r"[\d.,:;()\[\]'\"+\-/ ]", "", raw)
            for spelling in {whole, whole.casefold(), core, core.casefold()} - {""}:
                found[spelling].append(index)
        return found

    def _find_code(self, value: str) -> list[Hit]:
        """The code itself (in its own case where it is so short that it could be a word), or a usual print of it."""
        wanted = value.strip()
        spellings = [wanted] if len(wanted) <= 3 and not is_currency(wanted) else [wanted, wanted.casefold()]
        found = [index for spelling in (*spellings, *code_prints(wanted)) for index in self._cores.get(spelling, ())]
        return [self._hit((index,)) for index in found] or (self._find_id(wanted) if len(wanted) > 3 else [])

    # --- geometry -----------------------------------------------------------------------------------------------------------

    def _hit(self, words: tuple[int, ...], strong: bool = True) -> Hit:
        boxes = [self.words[i].box for i in words]
        return Hit(words, min(box[1] for box in boxes), max(box[3] for box in boxes), strong)

    @cached_property
    def _lines(self) -> tuple[list[list[int]], list[int]]:
        """Words by printed line, top to bottom and left to right (whatever the reading order), and the line of each word."""
        middle = [(word.box[1] + word.box[3]) / 2 for word in self.words]
        lines: list[list[int]] = []
        line_of = [0] * len(self.words)
        base = 0.0
        for index in sorted(range(len(self.words)), key=lambda i: (middle[i], self.words[i].box[0], i)):
            if not lines or middle[index] - base > 0.5 * self.line_height:
                lines.append([])
                base = middle[index]
            lines[-1].append(index)
            line_of[index] = len(lines) - 1
        for line in lines:
            line.sort(key=lambda i: (self.words[i].box[0], i))
        return lines, line_of

    def line_of(self, hit: Hit) -> int:
        """Number of the printed line on which a hit begins."""
        return self._lines[1][hit.words[0]]

    def boxes(self, hits: Sequence[Hit]) -> tuple[tuple[float, float, float, float], ...]:
        """Boxes (px) of the words of these hits, each once, in reading order."""
        return tuple(self.words[i].box for i in sorted({i for hit in hits for i in hit.words}))
