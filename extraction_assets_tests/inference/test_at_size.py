"""Small versions of the two commands at size: python -m extraction_assets_tests.inference.fuzz, and ....same_answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from extraction_assets.documents.records import PageText
from extraction_assets.inference.answers import Answerer
from extraction_assets.inference.page_answer import Answer
from extraction_assets.model.base import Base, load_base
from extraction_assets_tests.inference.fuzz import BATCH, Outcome, fuzz, judge
from extraction_assets_tests.inference.grammar_schemas import DOCUMENTS, all_schemas, of
from extraction_assets_tests.inference.same_answers import WAYS, compare, demo_pages, shuffled
from extraction_assets_tests.inference.test_constrained_answers import pages_for
from extraction_assets_tests.inference.test_drafts import text_of


@pytest.fixture
def own_base(base_folder: Path) -> Base:
    """A base whose weights may be overwritten."""
    return load_base(base_folder, dtype=torch.float32)


def test_models_that_know_nothing_answer_with_valid_json_or_say_that_they_were_cut_off(own_base: Base) -> None:
    schemas = all_schemas()
    schemas += [schema.on_wire("rows_as_arrays") for schema in schemas if schema.row_arrays]
    outcome = fuzz(own_base, schemas, 2 * BATCH * len(schemas))
    assert outcome.faults == []
    assert outcome.answers == 2 * BATCH * len(schemas)
    assert min(outcome.valid, outcome.truncated, outcome.distinct) > BATCH


@pytest.mark.parametrize(
    "answer",
    [
        Answer("a", '{"a":1}', "stop", 3, 1.0),
        Answer("a", '{"a":"x"', "stop", 3, 1.0),
        Answer("a", '{"a":"x"}', "stop", 11, 1.0),
        Answer("a", '{"a":"', "length", 9, 1.0),
        Answer("a", '{"a":"x"}', "stop", 3, 1.0, seconds=1e4),
    ],
    ids=["against the schema", "no JSON", "too long", "cut off before its limit", "a hang"],
)
def test_the_fuzz_sees_a_fault(answer: Answer) -> None:
    outcome = Outcome(1)
    judge(answer, of(DOCUMENTS["one text"]), 10, outcome)
    assert len(outcome.faults) == 1
    assert outcome.valid == outcome.truncated == 0


def test_every_way_to_compute_an_answer_gives_the_same(base: Base) -> None:
    lines = ["12.50 2024-01-31", "Summe 1.234,50 EUR am 3. März 2024", "99 98 97"]
    pages = [replace(page, text=text_of(*lines[number % 3 :])) for number, page in enumerate(pages_for(of(DOCUMENTS["amounts"])))]
    plain, told = compare(Answerer.of(base), pages, 120)
    assert plain.same == len(pages)
    for way in WAYS:
        one = told[way.name]
        assert one.holds, (way.name, one.different, one.farthest)
        assert one.same == len(pages)
        assert one.logits > 0
        assert one.passes <= plain.passes
        assert not way.forced or one.passes < plain.passes


def test_demo_pages_have_text_and_shuffling_leaves_no_line_as_it_was() -> None:
    pages = demo_pages(3, seed=5)
    assert len({page.schema.name for page in pages if page.schema}) == 3
    for number, page in enumerate(pages):
        mixed = shuffled(pages, number)
        assert page.text is not None
        assert mixed is not None
        assert sorted(word.text for word in mixed.words) == sorted(word.text for word in page.text.words)
        assert _lines(mixed) != _lines(page.text)


def _lines(text: PageText) -> list[tuple[int, str]]:
    return [(word.line, word.text) for word in text.words]
