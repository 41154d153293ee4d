"""Drafts: what the page's own text layer says a value may go on with, for the model to accept or refuse many tokens a pass.

The text never enters the prompt. A draft is a guess about the answer's next tokens; the loop (answers.py) reads it together with the last
chosen token and keeps what the model would have chosen itself, so an answer is the same with drafts, without, and with wrong ones.
Drafted are the words of a line, and dates and numbers in the form that targets have (2024-05-03, 1234.50) wherever the page prints
them in another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from extraction_assets.documents.records import PageText
from extraction_assets.evaluation.normalise import normalise
from extraction_assets.inference.vocabulary import Vocabulary

MOST_DRAFTED = 24
"""tokens of one draft; a longer one is rarely right to its end, and each costs a little"""
_OPEN_STRING = re.compile(r'[:\[,]"([^"\\]+)$')
_OPEN_NUMBER = re.compile(r"[:\[,](-?[\d.]+)$")
_DATE_WORDS = 4
""""den 3. März 2024": so many words may be one date"""


@dataclass(frozen=True)
class _Candidate:
    place: int
    """number of its first word"""
    text: str
    ends: bool
    """the value ends with it, as far as one can know"""


@dataclass
class Drafter:
    """The drafts of one page. Remembers where on the page the answer stands: values follow each other in reading order."""

    vocabulary: Vocabulary
    candidates: Sequence[_Candidate]
    _place: int = 0
    _tokens: dict[str, list[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, text: PageText, vocabulary: Vocabulary) -> Drafter:
        return cls(vocabulary, list(_candidates(text)))

    def propose(self, written: str, most: int) -> list[int]:
        """Up to `most` tokens that may follow the answer written so far; [] outside a value, and where the page does not help."""
        quoted = _OPEN_STRING.search(written)
        begun = quoted or _OPEN_NUMBER.search(written)
        if begun is None or most < 1:
            return []
        partial = begun[1]
        fitting = [one for one in self.candidates if one.text.startswith(partial) and (len(one.text) > len(partial) or one.ends)]
        if not fitting:
            return []
        # the next one in reading order; behind the last one, the first of all
        chosen = min(fitting, key=lambda one: (one.place < self._place, one.place))
        self._place = chosen.place
        return self._rest(chosen.text + ('"' if chosen.ends and quoted else ""), partial)[: min(most, MOST_DRAFTED)]

    def _rest(self, text: str, partial: str) -> list[int]:
        """Tokens behind `partial`, as the tokenizer splits the whole where that has a boundary there."""
        if text not in self._tokens:
            self._tokens[text] = self._encode(text)
        spelled = 0
        wanted = len(partial.encode())
        for number, token in enumerate(self._tokens[text]):
            if spelled == wanted:
                return self._tokens[text][number:]
            spelled += len(self.vocabulary.bytes_of([token]))
        return self._encode(text[len(partial) :])

    def _encode(self, text: str) -> list[int]:
        return list(self.vocabulary.tokenizer(text, add_special_tokens=False).input_ids)


def _candidates(text: PageText) -> Iterator[_Candidate]:
    words = text.words
    for first, word in enumerate(words):
        line = [word.text]
        for following in words[first + 1 :]:
            if following.line != word.line:
                break
            line.append(following.text)
        yield from _in_target_form(first, line)
        yield _Candidate(first, " ".join(line), ends=False)


def _in_target_form(place: int, line: Sequence[str]) -> Iterator[_Candidate]:
    """Dates and numbers that begin with the line's first word."""
    for count in range(min(_DATE_WORDS, len(line)), 0, -1):
        printed = " ".join(line[:count]).strip(",;:")
        date = normalise(printed, "date")
        if date is not None and date != printed and re.fullmatch(r"\d{4}-\d{2}-\d{2}", date):
            yield _Candidate(place, date, ends=True)
            break
    for count in (1, 2):
        printed = " ".join(line[:count])
        number = normalise(printed, "amount") if any(map(str.isdigit, printed)) else None
        if number is not None and re.fullmatch(r"-?\d+(\.\d+)?", number):
            whole, _, fraction = number.partition(".")
            for text in dict.fromkeys((f"{whole}.{fraction.ljust(2, '0')}", number)):
                yield _Candidate(place, text, ends=True)
