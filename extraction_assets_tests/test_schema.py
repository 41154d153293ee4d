"""Target schemas: shipped ones can be trained on, untrainable ones are refused with the pointer, targets have one spelling."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from extraction_assets.errors import InputError
from extraction_assets.home import PROJECT
from extraction_assets.schema import TargetSchema

STRING = {"type": ["string", "null"]}


def schema(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False, **more}


@pytest.mark.parametrize("name", ["invoice", "receipt", "ad_order", "purchase_order"])
def test_every_shipped_schema_accepts_its_own_empty_target(name: str) -> None:
    shipped = TargetSchema.load(PROJECT / "schemas" / f"{name}.schema.json")
    assert shipped.is_valid(shipped.empty())
    assert all(leaf.type for leaf in shipped.fields)


@pytest.mark.parametrize(
    ("document", "pointer"),
    [
        (schema({"tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": True}}), "/properties/tags/uniqueItems"),
        (schema({"a": STRING}, **{"if": {"required": ["a"]}}), "/if"),
        (schema({"a": STRING}, additionalProperties=True), "/additionalProperties"),
        (schema({"a": {"type": "object"}}), "/properties/a"),
        (schema({"a": {"type": "object", "patternProperties": {".*": STRING}}}), "/properties/a/patternProperties"),
        (schema({"a": {}}), "/properties/a/type"),
        (schema({"a": {"type": "array"}}), "/properties/a/items"),
        (schema({"a": {"type": "string", "x-type": "money"}}), "/properties/a/x-type"),
        ({"type": "array", "items": STRING}, "/type"),
        ({"type": "object", "properties": 3}, "/properties: not a valid JSON Schema"),
        (schema({"a": {"type": "money"}}), "/properties/a/type: not a valid JSON Schema"),
        ({"type": "object"}, "x.schema.json /: "),
        (schema({"a": {"anyOf": [True, {"type": "null"}]}}), "/properties/a/anyOf"),
        (schema({"a": {"$ref": "#/$defs/b"}}, **{"$defs": {"b": True}}), "/properties/a/$ref"),
        (schema({"a": {"$ref": "http://127.0.0.1:9/b.json"}}), "is another document"),
    ],
)
def test_a_schema_that_cannot_be_trained_on_is_refused_with_its_pointer(document: dict[str, Any], pointer: str) -> None:
    with pytest.raises(InputError) as caught:
        TargetSchema(document, "x", "x.schema.json")
    assert pointer in str(caught.value)


def test_key_order_comes_from_required_and_not_from_the_order_of_properties() -> None:
    one = TargetSchema(schema({"b": STRING, "a": STRING, "c": STRING}, required=["c", "a"]), "x")
    two = TargetSchema(schema({"c": STRING, "a": STRING, "b": STRING}, required=["c", "a"]), "x")
    assert one.digest == two.digest
    assert one.spell({"a": "1"}) == two.spell({"a": "1"}) == '{"c":null,"a":"1","b":null}'
    swapped = TargetSchema(schema({"b": STRING, "a": STRING, "c": STRING}, required=["a", "c"]), "x")
    assert swapped.digest != one.digest


def test_nested_objects_and_rows_are_completed_in_order_and_unknown_keys_left_out() -> None:
    nested = TargetSchema(
        schema(
            {
                "seller": schema({"name": STRING, "city": STRING}, required=["name", "city"]),
                "rows": {"type": "array", "items": schema({"x": STRING, "y": STRING}, required=["y", "x"])},
            },
            required=["seller", "rows"],
        ),
        "x",
    )
    assert nested.spell({"rows": [{"x": "ü"}], "junk": 1}) == '{"seller":{"name":null,"city":null},"rows":[{"y":null,"x":"ü"}]}'
    assert [leaf.name for leaf in nested.fields] == ["seller.name", "seller.city"]
    assert [column.name for column in nested.row_arrays[0].columns] == ["y", "x"]
    assert nested.instruction == "Extract as JSON: seller{name, city}, rows[y, x]"


def test_violations_name_their_place() -> None:
    invoice = TargetSchema.load(PROJECT / "schemas" / "invoice.schema.json")
    bad = {
        **invoice.empty(),
        "line_items": [{**dict.fromkeys(["description", "quantity", "unit", "unit_price", "amount", "tax_rate"]), "amount": 3}],
    }
    assert [violation.pointer for violation in invoice.violations(bad)] == ["/line_items/0/amount"]


def test_a_schema_file_with_a_json_error_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "x.schema.json"
    path.write_text('{"type": "object",\n oops}')
    with pytest.raises(InputError, match=r"x\.schema\.json:2"):
        TargetSchema.load(path)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"type": "object", "type": "string"}', "the key 'type' stands twice"),
        ('{"maxProperties": ' + "9" * 5000 + "}", "cannot be used"),
        ("[" * 100_000, "cannot be used"),
    ],
)
def test_a_schema_file_beyond_plain_json_is_one_clear_line(tmp_path: Path, text: str, found: str) -> None:
    path = tmp_path / "x.schema.json"
    path.write_text(text)
    with pytest.raises(InputError, match=found) as caught:
        TargetSchema.load(path)
    assert str(path) in str(caught.value)


def test_a_schema_saved_with_a_byte_order_mark_is_the_same_schema(tmp_path: Path) -> None:
    plain, marked = tmp_path / "a.schema.json", tmp_path / "b.schema.json"
    plain.write_text(json.dumps(schema({"a": STRING})))
    marked.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes())
    assert TargetSchema.load(marked).digest == TargetSchema.load(plain).digest


def test_the_chat_record_schema_is_valid_json_schema() -> None:
    import jsonschema_rs

    jsonschema_rs.validator_for(json.loads((PROJECT / "schemas" / "qwen_vl_pdf_extract.schema.json").read_text()))


def test_a_schema_as_pydantic_writes_it_is_the_same_as_one_written_out() -> None:
    from pydantic import BaseModel

    class Line(BaseModel):
        what: str | None
        amount: str | None

    class Paper(BaseModel):
        number: str | None
        first: Line
        lines: list[Line]

    written = TargetSchema(Paper.model_json_schema(), "paper")
    assert written.spell({"number": "1", "lines": [{"amount": "2"}]}) == (
        '{"number":"1","first":{"what":null,"amount":null},"lines":[{"what":null,"amount":"2"}]}'
    )
    assert written.is_valid(written.empty())
    assert [array.name for array in written.row_arrays] == ["lines"]


def test_a_shape_that_holds_itself_is_refused() -> None:
    node = {"type": "object", "properties": {"child": {"$ref": "#/$defs/Node"}}, "required": ["child"]}
    with pytest.raises(InputError, match="holds itself"):
        TargetSchema({**node, "$defs": {"Node": node}}, "x")
