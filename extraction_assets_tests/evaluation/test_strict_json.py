from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extraction_assets.evaluation.strict_json import parse_answer
from extraction_assets_tests.evaluation.cases import JSON


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"a":1,"a":2}', "twice"),
        ('{"a":{"b":1,"b":1}}', "twice"),
        ('{"a":NaN}', "NaN"),
        ('{"a":-Infinity}', "-Infinity"),
        ('{"a":1e999}', "beyond"),
        ('{"a":"\\ud800"}', "surrogate"),
        ('{"\\udc00":1}', "surrogate"),
        ('{"a":"\ud800"}', "surrogate"),
        ('[{"a":1}]', "array"),
        ("null", "null"),
        ('"text"', "string"),
        ("7", "number"),
        ('{"a":1} and more', "Extra data"),
        ('Here it is: {"a":1}', "Expecting value"),
        ('```json\n{"a":1}\n```', "Expecting value"),
        ("\ufeff{}", "BOM"),
        ("{'a':1}", "Expecting property name"),
        ('{"a":1,}', "double quotes"),
        ('{"a":"tab\there"}', "control character"),
        ('{"a":' + "9" * 5000 + "}", "digits"),
        ('{"a":' + "[" * 100 + "]" * 100 + "}", "deeper"),
        ("[" * 100_000, "deeper"),
        ("", "empty"),
        ("  \n", "empty"),
        (None, "empty"),
        (b"\xff{}", "UTF-8"),
    ],
)
def test_everything_but_one_json_object_is_refused(text: str | bytes | None, problem: str) -> None:
    parsed = parse_answer(text)
    assert not parsed.strict
    assert parsed.value is None
    assert problem in (parsed.problem or "")


@pytest.mark.parametrize(
    "text", ["{}", ' \n{"a": 1}\n', '{"a":"null"}', '{"a":"\\ud83d\\ude00"}', '{"a":"\U0001f600"}', b'{"a":"\xc3\xa9"}', '{"a":1e300}']
)
def test_plain_json_objects_are_strict(text: str | bytes) -> None:
    parsed = parse_answer(text, finish_reason="length")  # complete all the same
    assert (parsed.strict, parsed.bucket, parsed.truncated) == (True, "strict", False)
    assert parsed.value == json.loads(text)


@pytest.mark.parametrize(
    ("text", "recovered"),
    [
        ('```json\n{"a":1}\n```', {"a": 1}),
        ('Sure! {"a":{"b":"}"}} Anything else?', {"a": {"b": "}"}}),
        ('{"a":[1,2,],}', {"a": [1, 2]}),
        ('{"a":NaN,"b":1e999}', {"a": None, "b": None}),
        ('{"a":1,"a":2}', {"a": 2}),
    ],
)
def test_what_holds_an_object_is_recoverable_and_not_strict(text: str, recovered: object) -> None:
    parsed = parse_answer(text)
    assert (parsed.strict, parsed.recoverable, parsed.bucket, parsed.recovered) == (False, True, "recoverable", recovered)


@pytest.mark.parametrize(
    ("text", "recovered"),
    [
        ('{"a":"x","b":"yy', {"a": "x"}),
        ('{"a":"x","rows":[{"c":"1","d":"2"},{"c":"3","d', {"a": "x", "rows": [{"c": "1", "d": "2"}, {"c": "3"}]}),
        ('{"a":"x"', {"a": "x"}),
        ('{"a":"x",', {"a": "x"}),
        ('{"a":', {}),
        ('{"a', {}),
        ("{", {}),
        ('{"a":"x\\', {}),
        ('{"a":tru', {}),
        ('{"a":1,"b":-', {"a": 1}),
        ('```json\n{"a":"x","b', {"a": "x"}),
    ],
)
def test_an_answer_that_stops_in_the_middle_is_truncated_and_keeps_its_complete_part(text: str, recovered: object) -> None:
    parsed = parse_answer(text)
    assert (parsed.strict, parsed.truncated, parsed.bucket, parsed.recovered) == (False, True, "truncated", recovered)


def test_running_out_of_tokens_is_truncation_whatever_the_text_is() -> None:
    assert parse_answer("I think that the", finish_reason="length").bucket == "truncated"
    assert parse_answer("I think that the", finish_reason="stop").bucket == "unusable"


@given(st.text() | st.binary() | st.text(alphabet='{}[]",:\\ntrue1e9-. \ud800'), st.sampled_from([None, "stop", "length"]))
def test_no_bytes_and_no_text_raise(text: str | bytes, finish_reason: str | None) -> None:
    parsed = parse_answer(text, finish_reason)
    assert (parsed.value is not None) == parsed.strict
    assert (parsed.recovered is not None) == parsed.recoverable
    assert not (parsed.strict and (parsed.recoverable or parsed.truncated))


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), JSON, max_size=4), st.data())
def test_every_prefix_of_an_object_is_truncated_and_recovers_to_an_object(value: dict[str, object], data: st.DataObject) -> None:
    text = json.dumps(value)
    cut = data.draw(st.integers(1, len(text) - 1)) if len(text) > 2 else 1
    parsed = parse_answer(text[:cut])
    assert parsed.truncated
    assert parsed.recoverable
