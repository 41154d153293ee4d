"""Answers of a model that writes rows as arrays: objects for everybody else, or the text as it was written."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from extraction_assets.errors import InputError
from extraction_assets.evaluation.strict_json import parse_answer
from extraction_assets.inference.answers import Answerer
from extraction_assets.inference.grammar import Grammars
from extraction_assets.inference.value_confidence import value_spans
from extraction_assets.inference.vocabulary import Vocabulary
from extraction_assets.model.base import Base
from extraction_assets.schema import TargetSchema
from extraction_assets.wire import read, write
from extraction_assets_tests.inference.grammar_schemas import AMOUNT, DATE, all_schemas, obj, of, random_target, rows
from extraction_assets_tests.inference.test_constrained_answers import SETTINGS, pages_for
from extraction_assets_tests.inference.test_grammar_fuzz import longest, random_answer

LINES = of(obj({"nr": DATE, "rows": rows(obj({"sum": AMOUNT, "when": DATE}), minItems=1), "end": DATE})).on_wire("rows_as_arrays")
NAMED = {"argvalues": [schema.on_wire("rows_as_arrays") for schema in all_schemas()], "ids": lambda it: f"{it.name}-{it.digest[:4]}"}


@pytest.fixture(scope="module")
def answerer(base: Base) -> Answerer:
    return Answerer.of(base)


@pytest.fixture(scope="module")
def grammars(vocabulary: Vocabulary) -> Grammars:
    return Grammars(vocabulary)


@pytest.mark.parametrize("schema", **NAMED)
def test_the_grammar_is_that_of_the_wire(schema: TargetSchema, grammars: Grammars) -> None:
    grammar = grammars.of(schema)
    for seed in range(20):
        target = schema.spell(random_target(schema, random.Random(seed)))
        written = write(schema, target)
        assert grammar.rejection(written) is None, written
        assert (grammar.rejection(target) is None) == (target == written)


@pytest.mark.parametrize("schema", **NAMED)
def test_whatever_the_grammar_lets_through_is_read_as_valid_objects(schema: TargetSchema, grammars: Grammars) -> None:
    for seed in range(20):
        text = random_answer(grammars.of(schema), random.Random(seed), longest(schema.document))
        told = read(schema, text)
        assert told is not None
        parsed = parse_answer(told)
        assert parsed.strict
        assert schema.violations(parsed.value) == []


def test_errors_of_a_grammar_name_the_place_in_the_schemas_file(vocabulary: Vocabulary) -> None:
    schema = of(obj({"rows": rows(obj({"a": {**DATE, "maxLength": 3}}))})).on_wire("rows_as_arrays")
    with pytest.raises(InputError, match=r"x.schema.json /properties/rows/items/properties/a/maxLength"):
        Grammars(vocabulary).of(schema)


@pytest.mark.parametrize("batch", [1, 4])
def test_answers_are_objects_and_so_are_their_pointers(answerer: Answerer, batch: int) -> None:
    answers = answerer.answer(pages_for(LINES), SETTINGS.model_copy(update={"batch_size": batch}))
    assert {answer.finish_reason for answer in answers} == {"stop"}
    for answer in answers:
        value = json.loads(answer.text)
        assert LINES.violations(value) == []
        assert answer.text == LINES.spell(value)
        assert all(set(row) == {"sum", "when"} for row in value["rows"])
        assert set(answer.values) == {pointer for pointer, _, _ in value_spans(answer.text.encode())}
        assert "/rows/0/sum" in answer.values


def test_an_answer_that_was_cut_short_stands_as_it_was_written(answerer: Answerer) -> None:
    page = pages_for(LINES)[:1]
    (whole,) = answerer.answer(page, SETTINGS)
    written = write(LINES, whole.text)
    for most in range(1, whole.tokens - 1):
        (answer,) = answerer.answer(page, SETTINGS.model_copy(update={"max_output_tokens": most}))
        assert answer.finish_reason == "length"
        assert written.startswith(answer.text)
        assert not parse_answer(answer.text, answer.finish_reason).strict
        assert not answer.values


def test_free_text_is_left_alone(answerer: Answerer) -> None:
    pages = pages_for(LINES)
    few = SETTINGS.model_copy(update={"max_output_tokens": 40, "constrained": False})
    told = answerer.answer(pages, few)
    assert [answer.text for answer in told] == [answer.text for answer in answerer.answer([replace(p, schema=None) for p in pages], few)]
