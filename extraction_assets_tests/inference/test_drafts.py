"""Drafts from the page text change how many passes an answer takes, and nothing else, however wrong they are."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from extraction_assets.documents.records import PageText, Word
from extraction_assets.inference.answers import Answerer
from extraction_assets.inference.drafts import Drafter
from extraction_assets.inference.page_answer import Answer, PagePrompt
from extraction_assets.inference.vocabulary import Vocabulary
from extraction_assets.model.base import Base
from extraction_assets_tests.inference.grammar_schemas import DOCUMENTS, of
from extraction_assets_tests.inference.test_constrained_answers import NAMES, SETTINGS, pages_for


def text_of(*lines: str) -> PageText:
    words = [(word, number) for number, line in enumerate(lines) for word in line.split()]
    return PageText(words=tuple(Word(text=word, box=(0, 0, 1, 1), line=number) for word, number in words))


def _values(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _values(item)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def _same(answers: list[Answer]) -> list[tuple[str, str, int]]:
    return [(answer.text, answer.finish_reason, answer.tokens) for answer in answers]


@pytest.fixture(scope="module")
def answerer(base: Base) -> Answerer:
    return Answerer.of(base)


@pytest.fixture(scope="module")
def vocabulary(base: Base) -> Vocabulary:
    return Vocabulary.of(base.format)


def _oracle(answer: Answer) -> PageText:
    try:
        return text_of(*_values(json.loads(answer.text)))
    except ValueError:  # cut short
        return text_of(answer.text)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch", [1, 4])
def test_answers_are_the_same_with_true_and_with_wrong_drafts(answerer: Answerer, name: str, batch: int) -> None:
    settings = SETTINGS.model_copy(update={"batch_size": batch})
    pages = pages_for(of(DOCUMENTS[name]))
    plain = answerer.answer(pages, settings)
    true = [replace(page, text=_oracle(answer)) for page, answer in zip(pages, plain, strict=True)]
    turned = [replace(page, text=true[index - 1].text) for index, page in enumerate(pages)]
    mixed = [replace(page, text=text_of(*random.Random(0).sample(list(_words(page)), len(list(_words(page)))))) for page in true]
    for drafted in (true, turned, mixed):
        answers = answerer.answer(drafted, settings)
        assert _same(answers) == _same(plain)
        assert all(one.passes <= other.passes for one, other in zip(answers, plain, strict=True))
        for one, other in zip(answers, plain, strict=True):
            assert one.values == pytest.approx(other.values, abs=1e-3)


def _words(page: PagePrompt) -> Iterator[str]:
    assert page.text is not None
    return (word.text for word in page.text.words)


def test_a_page_that_says_what_the_model_says_takes_far_fewer_passes(answerer: Answerer) -> None:
    pages = pages_for(of(DOCUMENTS["amounts"]))
    plain = answerer.answer(pages, SETTINGS)
    drafted = answerer.answer([replace(p, text=_oracle(a)) for p, a in zip(pages, plain, strict=True)], SETTINGS)
    assert sum(a.passes for a in drafted) < 0.8 * sum(a.passes for a in plain)


def test_free_text_is_drafted_too(answerer: Answerer) -> None:
    pages = [replace(page, schema=None) for page in pages_for(of(DOCUMENTS["dates"]))]
    few = SETTINGS.model_copy(update={"max_output_tokens": 60})
    plain = answerer.answer(pages, few)
    drafted = answerer.answer([replace(page, text=text_of(answer.text)) for page, answer in zip(pages, plain, strict=True)], few)
    assert _same(drafted) == _same(plain)


def _proposed(vocabulary: Vocabulary, text: PageText, written: str, most: int = 50) -> str:
    return vocabulary.bytes_of(Drafter.of(text, vocabulary).propose(written, most)).decode()


@pytest.mark.parametrize(
    ("line", "written", "rest"),
    [
        ("Rechnung RE-2024/17 vom", '{"number":"RE', "-2024/17 vom"),
        ("Datum 3. März 2024 Köln", '{"date":"2', '024-03-03"'),
        ("Datum: 03.05.2024", '{"date":"2024-', '05-03"'),
        ("Summe 1.234,50 €", '{"total":"1', '234.50"'),
        ("Summe 1 234,50 EUR", '{"total":"12', '34.50"'),
        ("Menge 12,5 kg", '{"quantity":12', ".50"),
        ("Menge 12,5 kg", '[{"a":1,"b":-1', ""),
        ("Müller & Söhne GmbH", '{"a":"x","seller":"Mü', "ller & Söhne G"),
        ("Müller", '{"seller":"Müller"', ""),
        ("Müller", '{"seller":"', ""),
        ("a 7", '{"rows":[{"text":"a","n":7', ".00"),
    ],
)
def test_what_is_drafted(vocabulary: Vocabulary, line: str, written: str, rest: str) -> None:
    proposed = _proposed(vocabulary, text_of(line), written)
    assert proposed.startswith(rest) if rest else not proposed


def test_values_follow_each_other_in_reading_order(vocabulary: Vocabulary) -> None:
    drafter = Drafter.of(text_of("Bolt 10", "Nut 11", "Bolt 12"), vocabulary)
    said = [vocabulary.bytes_of(drafter.propose(f'{{"a":"{begun}', 50)).decode() for begun in ("Bo", "N", "Bo", "Bo")]
    assert said == ["lt 10", "ut 11", "lt 12", "lt 12"]


def test_a_draft_is_no_longer_than_asked_for(vocabulary: Vocabulary) -> None:
    drafter = Drafter.of(text_of("Müller & Söhne GmbH & Co. KG, Köln am Rhein, Deutschland"), vocabulary)
    assert len(drafter.propose('{"a":"M', 5)) == 5
    assert drafter.propose('{"a":"M', 0) == []
    assert Drafter.of(PageText(words=()), vocabulary).propose('{"a":"M', 5) == []
