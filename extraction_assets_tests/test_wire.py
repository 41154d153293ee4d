"""The wire: rows without their keys between the model and everybody else, and nothing lost or guessed on the way."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema_rs
import pytest

from extraction_assets.errors import InputError
from extraction_assets.inference.value_confidence import value_spans
from extraction_assets.schema import TargetSchema
from extraction_assets.wire import gold, object_pointer, read, wire_schema, write
from extraction_assets_tests.inference.grammar_schemas import TEXT, all_schemas, obj, of, random_target, rows

SCHEMAS = [schema.on_wire("rows_as_arrays") for schema in all_schemas()]
NAMED = {"argvalues": SCHEMAS, "ids": lambda schema: f"{schema.name}-{schema.digest[:4]}"}
LINES = of(obj({"nr": TEXT, "rows": rows(obj({"text": TEXT, "n": {"type": ["number", "null"]}}))})).on_wire("rows_as_arrays")


@pytest.mark.parametrize("schema", **NAMED)
def test_a_target_comes_back_as_it_went(schema: TargetSchema) -> None:
    follows = jsonschema_rs.validator_for(wire_schema(schema))
    for seed in range(40):
        target = schema.spell(random_target(schema, random.Random(seed)))
        written = write(schema, target)
        assert read(schema, written) == target
        assert gold(schema, written) == json.loads(target)
        assert follows.is_valid(json.loads(written))
        assert len(written) < len(target) if _has_rows(json.loads(target)) else written == target


def _has_rows(value: Any) -> bool:
    """Whether an array somewhere holds an object."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any((isinstance(value, list) and isinstance(item, dict)) or _has_rows(item) for item in inner)


def test_rows_are_arrays_of_their_columns_and_all_else_is_as_it_was() -> None:
    target = '{"nr":"1","rows":[{"text":"a","n":1.5},{"text":null,"n":null}]}'
    assert write(LINES, target) == '{"nr":"1","rows":[["a",1.5],[null,null]]}'
    assert wire_schema(LINES)["properties"]["rows"]["items"] == {
        "type": "array",
        "x-columns": ["text", "n"],
        "prefixItems": [TEXT, {"type": ["number", "null"]}],
        "items": False,
        "minItems": 2,
        "maxItems": 2,
    }


@pytest.mark.parametrize("schema", **NAMED)
def test_no_part_of_an_answer_is_read(schema: TargetSchema) -> None:
    for seed in range(4):
        written = write(schema, schema.spell(random_target(schema, random.Random(seed))))
        assert [at for at in range(len(written)) if read(schema, written[:at]) is not None] == []


@pytest.mark.parametrize(
    "wrong",
    [
        '{"nr":"1","rows":[["a"]]}',
        '{"nr":"1","rows":[["a",1,2]]}',
        '{"nr":"1","rows":[[]]}',
        '{"nr":"1","rows":[["a",1],{"text":"a","n":1}]}',
        '{"nr":"1","rows":["a",1]}',
        '{"nr":"1","rows":{"text":"a","n":1}}',
        '{"nr":"1","nr":"2","rows":[]}',
        '{"nr":NaN,"rows":[["a",1]]}',
        '{"nr":"\\ud800","rows":[["a",1]]}',
        '{"nr":"1","rows":[["a",1]]}}',
        '```json\n{"nr":"1","rows":[["a",1]]}\n```',
        '[["a",1]]',
        "null",
        "",
        "[" * 100_000,
    ],
)
def test_what_is_no_whole_answer_is_never_read(wrong: str) -> None:
    assert read(LINES, wrong) is None


@pytest.mark.parametrize("number", ["1.50", "-0.0", "123456789012345678.12345678901234567", "1e5", "0"])
def test_numbers_keep_their_spelling(number: str) -> None:
    assert read(LINES, f'{{"nr":"1","rows":[["a",{number}]]}}') == f'{{"nr":"1","rows":[{{"text":"a","n":{number}}}]}}'


@pytest.mark.parametrize("schema", **NAMED)
def test_pointers_lead_to_the_same_values(schema: TargetSchema) -> None:
    for seed in range(10):
        target = schema.spell(random_target(schema, random.Random(seed)))
        on_wire = {object_pointer(schema, pointer): value for pointer, value in _plain_values(write(schema, target)).items()}
        assert on_wire == _plain_values(target)


def _plain_values(text: str) -> dict[str, str]:
    """JSON pointer -> the value as it is spelled."""
    data = text.encode()
    spans = {pointer: data[start:end].decode() for pointer, start, end in value_spans(data)}
    return {pointer: value if value.startswith('"') else value[:-1] for pointer, value in spans.items()}


def test_the_wire_is_part_of_the_digest_and_objects_are_no_key_at_all() -> None:
    plain = of(obj({"rows": rows(obj({"a": TEXT}))}))
    arrays = plain.on_wire("rows_as_arrays")
    assert plain.wire == "objects"
    assert arrays.wire == "rows_as_arrays"
    assert arrays.digest != plain.digest
    assert arrays.on_wire("objects").digest == plain.on_wire("objects").digest == plain.digest
    assert TargetSchema(json.loads(json.dumps(arrays.document)), "x").wire == "rows_as_arrays"


def test_a_model_is_asked_on_the_wire_that_it_was_taught() -> None:
    plain = of(obj({"rows": rows(obj({"a": TEXT}))}))
    arrays = plain.on_wire("rows_as_arrays")
    for asked in (plain, arrays):
        assert asked.as_taught([plain.digest, "0" * 64]).digest == plain.digest
        assert asked.as_taught((arrays.digest,)).digest == arrays.digest
        assert asked.as_taught(()) is asked
        assert asked.as_taught({plain.digest, arrays.digest}) is asked


def test_an_unknown_wire_and_a_target_on_another_one_are_refused() -> None:
    with pytest.raises(InputError, match=r"x.schema.json /x-wire: found 'csv'; expected one of objects, rows_as_arrays"):
        of({**obj({"a": TEXT}), "x-wire": "csv"})
    with pytest.raises(InputError, match="on its wire"):
        gold(LINES, '{"nr":"1","rows":[{"text":"a","n":1}]}')
