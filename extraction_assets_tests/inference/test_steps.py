"""Steps in fixed shapes answer as steps in shapes that fit. On a GPU they are recorded; here they run unrecorded."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from extraction_assets.documents.records import PageText, Word
from extraction_assets.inference.answers import Answerer
from extraction_assets.inference.page_answer import Answer, PagePrompt
from extraction_assets.inference.steps import MOST_SLOTS
from extraction_assets.model.base import Base
from extraction_assets.settings import DecodingSettings
from extraction_assets_tests.inference.grammar_schemas import DOCUMENTS, of
from extraction_assets_tests.inference.test_constrained_answers import NAMES, SETTINGS, pages_for


@pytest.fixture(scope="module")
def fitting(base: Base) -> Answerer:
    return Answerer(base.model, base.format)


@pytest.fixture(scope="module")
def fixed(base: Base) -> Answerer:
    return Answerer(base.model, base.format, graphs=True)


def _told(answers: list[Answer]) -> list[tuple[str, str, int, int]]:
    return [(answer.text, answer.finish_reason, answer.tokens, answer.passes) for answer in answers]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)
    elif isinstance(value, str):
        yield value


def _text_of(answer: Answer) -> PageText:
    values = _strings(json.loads(answer.text)) if answer.finish_reason == "stop" else [answer.text]
    words = [(word, line) for line, value in enumerate(values) for word in value.split()]
    return PageText(words=tuple(Word(text=word, box=(0, 0, 1, 1), line=line) for word, line in words))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch", [1, 3])
def test_answers_and_passes_are_the_same(fitting: Answerer, fixed: Answerer, name: str, batch: int) -> None:
    settings = SETTINGS.model_copy(update={"batch_size": batch})
    pages = pages_for(of(DOCUMENTS[name]))
    expected = fitting.answer(pages, settings)
    assert _told(fixed.answer(pages, settings)) == _told(expected)
    drafted = [PagePrompt(**{**vars(page), "text": _text_of(answer)}) for page, answer in zip(pages, expected, strict=True)]
    assert _told(fixed.answer(drafted, settings)) == _told(fitting.answer(drafted, settings))


def test_a_stream_answers_the_same(fitting: Answerer, fixed: Answerer) -> None:
    pages = pages_for(of(DOCUMENTS[NAMES[0]]))
    expected = fitting.answer(pages, SETTINGS)
    waiting = iter(pages)
    longest = fixed.room(SETTINGS)
    answered = dict(fixed.answer_stream(lambda _: next(waiting, None), SETTINGS, min(longest, 200)))
    assert _told([answered[page] for page in pages]) == _told(expected)  # type: ignore[misc]


def test_recorded_steps_are_kept_for_the_next_loop_and_never_shared(fixed: Answerer) -> None:
    pages = pages_for(of(DOCUMENTS[NAMES[0]]))
    alone = _told(fixed.answer(pages, SETTINGS))
    kept = fixed._kept
    assert kept is not None
    both = zip(fixed.answer_each(pages, SETTINGS), fixed.answer_each(pages, SETTINGS), strict=True)
    one, other = (dict(pairs) for pairs in zip(*both, strict=True))
    assert _told([one[index] for index in range(len(pages))]) == _told([other[index] for index in range(len(pages))]) == alone


def test_a_loop_of_another_size_has_steps_of_its_own(fixed: Answerer) -> None:
    pages = list(itertools.islice(itertools.cycle(pages_for(of(DOCUMENTS[NAMES[0]]))), MOST_SLOTS + 1))
    settings = DecodingSettings(max_output_tokens=4, batch_size=2)
    fixed.answer(pages, settings)
    small = fixed._kept
    assert small is not None
    assert small.cache.slots == 2
    fixed.answer(pages, settings)
    assert fixed._kept is small
    fixed.answer(pages, settings.model_copy(update={"batch_size": MOST_SLOTS + 1}))  # too many to be worth recording
    assert fixed._kept is small
