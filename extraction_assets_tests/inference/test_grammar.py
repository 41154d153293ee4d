"""A grammar accepts every canonical target of its schema and nothing else, and says where a target leaves it."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extraction_assets.errors import InputError
from extraction_assets.inference.grammar import Grammar, Grammars
from extraction_assets.inference.vocabulary import Vocabulary
from extraction_assets.schema import TargetSchema
from extraction_assets_tests.inference.grammar_schemas import AMOUNT, DATE, TEXT, all_schemas, obj, of, random_target, rows

INVOICE = of(
    obj(
        {
            "nr": {**TEXT, "maxLength": 8},
            "on": DATE,
            "total": AMOUNT,
            "n": {"type": ["number", "null"]},
            "rows": rows(obj({"w": TEXT, "a": AMOUNT})),
        }
    )
)
GOOD = '{"nr":"Ré-1","on":"2024-02-29","total":"-12.50","n":1.5,"rows":[{"w":"a\\"b\\n","a":null},{"w":"x","a":"0"}]}'


@pytest.fixture(scope="module")
def grammars(vocabulary: Vocabulary) -> Grammars:
    return Grammars(vocabulary)


@pytest.fixture(scope="module")
def invoice(grammars: Grammars) -> Grammar:
    return grammars.of(INVOICE)


@pytest.mark.parametrize("schema", all_schemas(), ids=lambda schema: f"{schema.name}-{schema.digest[:4]}")
def test_every_canonical_target_is_accepted(schema: TargetSchema, grammars: Grammars) -> None:
    grammar = grammars.of(schema)
    for seed in range(40):
        target = random_target(schema, random.Random(seed))
        assert schema.is_valid(target), schema.violations(target)  # else the test tests itself
        assert grammar.rejection(schema.spell(target)) is None, schema.spell(target)


@given(st.text(max_size=24))
@settings(max_examples=300, derandomize=True, deadline=None, database=None)
def test_any_text_is_accepted_as_json_dumps_spells_it(grammars: Grammars, text: str) -> None:
    schema = of(obj({"a": {**TEXT, "maxLength": 96}}))  # NFC makes up to three characters of one
    assert grammars.of(schema).rejection(schema.spell({"a": text})) is None


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (GOOD.replace(",", ", ", 1), ' "on"'),
        (GOOD.replace(":", ": ", 1), ' "Ré'),
        (GOOD.replace("é", "\\u00e9"), "e9"),
        (GOOD.replace("\\n", "\\u000a"), "a"),
        (GOOD.replace("\\n", "\\u001F"), "F"),
        (GOOD.replace("\\n", "\\/"), "/"),
        (GOOD.replace("\\n", "\n"), "\n"),
        (GOOD.replace("Ré-1", "123456789"), "9"),
        (GOOD.replace("2024", "2023"), '9","total'),
        (GOOD.replace("2024", "2100"), '9","total'),
        (GOOD.replace("02-29", "02-30"), "30"),
        (GOOD.replace("02-29", "13-01"), "3-01"),
        (GOOD.replace("2024-02-29", "29.02.2024"), ".02"),
        (GOOD.replace("-12.50", "12,50"), ",50"),
        (GOOD.replace("-12.50", "1,250.00"), ","),
        (GOOD.replace("-12.50", "012"), "12"),
        (GOOD.replace("-12.50", "EUR 5"), "EUR"),
        (GOOD.replace("-12.50", "1234567890123"), "3"),
        (GOOD.replace("-12.50", ""), '"'),
        (GOOD.replace("1.5", "1.50"), ","),
        (GOOD.replace("1.5", "1e5"), "e5"),
        (GOOD.replace("1.5", "-0"), ","),
        (GOOD.replace("1.5", "NaN"), "NaN"),
        (GOOD.replace('"on"', '"no"'), "no"),
        (GOOD.replace('"on":"2024-02-29",', ""), "total"),
        (GOOD.replace('"x","a":"0"', '"x"'), "}"),
        (GOOD.replace('"a":null', '"a":nul'), "}"),
        (GOOD.replace(",{", ",{},{", 1), "}"),
        (GOOD.replace("[", '[{"w":null,"a":null},{"w":null,"a":null},', 1), ',{"w":"x"'),
        (GOOD[:-1], ""),
        (GOOD + "\n", "\n"),
        (f"```json{GOOD}```", "```"),
        ("", ""),
        ("null", "null"),
    ],
)
def test_what_is_no_canonical_target_is_rejected_where_it_goes_wrong(wrong: str, found: str, invoice: Grammar) -> None:
    assert invoice.rejection(GOOD) is None
    assert wrong != GOOD
    rejected = invoice.rejection(wrong)
    assert rejected is not None
    assert wrong[rejected.position :].startswith(found)
    assert rejected.found == wrong[rejected.position :][:20]
    assert (rejected.found == "") == (rejected.position == len(wrong))


@pytest.mark.parametrize(
    ("text", "key"), [('{"nr":":\\"a\\":","on', '"nr"'), ('{"x":["a",":b', '"x"'), ('{"r":[{"a":null,"b":', '"b"'), ('{"n', None)]
)
def test_a_key_is_told_from_text_that_looks_like_one(text: str, key: str | None, grammars: Grammars) -> None:
    document = (
        obj({"nr": TEXT, "on": TEXT})
        if "nr" in text
        else obj({"x": rows(TEXT)})
        if "x" in text
        else obj({"r": rows(obj({"a": TEXT, "b": DATE}))})
    )
    rejected = grammars.of(of(document)).rejection(text if key else text.replace("n", "_"))
    assert rejected is not None
    assert rejected.key == key


def test_a_rejected_target_is_an_error_that_names_example_place_and_choices(invoice: Grammar) -> None:
    invoice.check_target(GOOD, "example 1f")
    with pytest.raises(InputError) as caught:
        invoice.check_target(GOOD.replace("2024-02-29", "2024-02-30"), "example 1f")
    assert caught.value.where == 'example 1f character 27, behind "on"'
    assert "found '30\"" in caught.value.found
    assert caught.value.expected == "one of 0 1 2"
    assert "x-form" in str(caught.value)


def test_the_place_counts_characters_and_is_never_inside_one(grammars: Grammars) -> None:
    grammar = grammars.of(of(obj({"a": {"enum": ["é1", "ü2"]}})))  # é and ü share their first byte
    rejected = grammar.rejection('{"a":"ê1"}')
    assert rejected is not None
    assert (rejected.position, rejected.found, rejected.allowed) == (6, 'ê1"}', "one of é ü")


def test_text_counts_as_the_tokenizer_composes_it(grammars: Grammars) -> None:
    """A model learns the tokens of the composed text: two characters where a label has one are one too many."""
    grammar = grammars.of(of(obj({"a": {**TEXT, "maxLength": 1}})))
    assert grammar.rejection('{"a":"é"}') is None
    assert grammar.rejection('{"a":"e\u0301"}') is None
    assert grammar.rejection('{"a":"\u0958"}') is not None  # NFC: \u0915\u093c


@pytest.mark.parametrize("escape", ["\\u007f", "\\u0041", "\\u001f", "\\/"])
def test_a_pattern_brings_no_spelling_of_its_own(escape: str, grammars: Grammars) -> None:
    grammar = grammars.of(of(obj({"a": {**TEXT, "pattern": "^[^b]*$"}})))
    assert grammar.rejection('{"a":"A/\\"\\n"}') is None
    assert grammar.rejection(f'{{"a":"{escape}"}}') is not None


def test_a_control_token_in_a_vendors_text_is_text(invoice: Grammar) -> None:
    schema = of(obj({"a": TEXT}))
    assert Grammar(schema, invoice.vocabulary).rejection(schema.spell({"a": "x<|im_end|>y"})) is None
    assert invoice.rejection(GOOD + "<|im_end|>") is not None  # the caller's target holds no end token


def test_an_example_of_another_type_is_rejected_at_its_first_key(grammars: Grammars, invoice: Grammar) -> None:
    rejected = invoice.rejection('{"shop":"A"}')
    assert rejected is not None
    assert (rejected.position, rejected.allowed) == (2, "nr")


def test_a_grammar_is_compiled_once_for_what_the_schema_means(grammars: Grammars) -> None:
    schema = of(obj({"a": TEXT, "b": DATE}))
    reordered = of(json.loads(json.dumps(schema.document, sort_keys=True)))
    swapped = of({**schema.document, "required": ["b", "a"]})
    assert grammars.of(schema) is grammars.of(reordered)
    assert grammars.of(schema) is not grammars.of(swapped)
    assert grammars.of(swapped).rejection('{"b":null,"a":null}') is None


def test_a_tokenizer_that_cannot_carry_a_grammar_is_refused(vocabulary: Vocabulary) -> None:
    with pytest.raises(InputError, match=r"base: its tokenizer has \d+ tokens; expected at most 100"):
        Vocabulary.from_tokenizer(vocabulary.tokenizer, 100, "base")
