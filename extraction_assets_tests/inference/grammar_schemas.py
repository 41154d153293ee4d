"""Target schemas that a grammar must keep, shipped ones and odd ones, with random targets for each."""

from __future__ import annotations

import datetime
import random
import unicodedata
from typing import Any

from extraction_assets.home import PROJECT
from extraction_assets.schema import TargetSchema, key_order

TEXT = {"type": ["string", "null"], "maxLength": 24, "x-type": "text"}
DATE = {"type": ["string", "null"], "maxLength": 10, "x-type": "date"}
AMOUNT = {"type": ["string", "null"], "maxLength": 12, "x-type": "amount"}


def obj(properties: dict[str, Any], nullable: bool = False, **more: Any) -> dict[str, Any]:
    kind: Any = ["object", "null"] if nullable else "object"
    return {"type": kind, "additionalProperties": False, "required": list(properties), "properties": properties, **more}


def rows(item: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "array", "maxItems": 3, "items": item, **more}


def of(document: dict[str, Any], name: str = "x") -> TargetSchema:
    return TargetSchema(document, name, f"{name}.schema.json")


DOCUMENTS: dict[str, dict[str, Any]] = {
    "one text": obj({"a": TEXT}),
    "dates": obj({"from": DATE, "to": {"type": ["string", "null"], "format": "date"}, "all": rows(DATE)}),
    "amounts": obj({"a": AMOUNT, "b": {**AMOUNT, "maxLength": 1}, "c": {**AMOUNT, "x-type": "number", "minLength": 2}}),
    "as printed": obj({"when": {**DATE, "x-form": "printed"}, "much": {**AMOUNT, "x-form": "printed"}}),
    "numbers": obj({"n": {"type": ["number", "null"]}, "i": {"type": ["integer", "null"]}}),
    "bounded numbers": obj(
        {
            "share": {"type": ["number", "null"], "minimum": 0, "maximum": 100, "multipleOf": 0.01},
            "below": {"type": ["integer", "null"], "exclusiveMaximum": 0},
            "between": {"type": ["number", "null"], "exclusiveMinimum": -3, "exclusiveMaximum": 17},
            "rating": {"type": "integer", "minimum": 1, "maximum": 5},
        }
    ),
    "enums": obj(
        {"kind": {"enum": ["a/b", 'say "é"', "\\", None, 3, 1.5, True]}, "unit": {"type": "string", "enum": ["C62", "KGM", None]}}
    ),
    "constants": obj({"version": {"const": "1.0"}, "done": {"type": "boolean"}, "maybe": {"type": ["boolean", "null"]}}),
    "several types": obj({"any": {"type": ["number", "string", "boolean", "null"], "maxLength": 3}}),
    "nested": obj({"seller": obj({"name": TEXT, "address": obj({"city": TEXT, "zip": TEXT}, nullable=True)}), "paid": AMOUNT}),
    "all may be null": obj({"who": obj({"name": TEXT}, nullable=True), "rows": rows(obj({"a": TEXT}), type=["array", "null"])}),
    "rows of rows": obj({"pages": rows(obj({"lines": rows(obj({"a": AMOUNT, "tags": rows(TEXT)}))}))}),
    "at least two": obj({"rows": rows(obj({"a": DATE}), minItems=2), "one": rows(TEXT, minItems=1, maxItems=1)}),
    "no rows": obj({"rows": rows(TEXT, maxItems=0)}),
    "null rows": obj({"rows": rows(obj({"a": TEXT}, nullable=True))}),
    "odd keys": obj({'a"b\\c/d': TEXT, "Größe (m²)": TEXT, "名前": TEXT, "😀": TEXT, "line\nbreak\x01": TEXT, "": TEXT}),
    "keys that begin alike": obj({"total": AMOUNT, "total_net": AMOUNT, "total_net_eur": AMOUNT}),
    "another order": {**obj({"a": TEXT, "b": DATE, "c": AMOUNT, "d": TEXT}), "required": ["c", "a"]},
    "long text": obj({"note": {"type": ["string", "null"], "maxLength": 400}, "name": {"type": "string", "minLength": 3, "maxLength": 90}}),
    "no bounds": obj({"a": {"type": ["string", "null"]}, "b": {"type": "array", "items": {"type": "string", "maxLength": 2}}}),
    "patterns": obj(
        {
            "iban": {"type": ["string", "null"], "pattern": "^[A-Z]{2}[0-9]{2}", "maxLength": 9, "examples": ["DE12", 'DE99"\\é']},
            "lot": {"type": ["string", "null"], "pattern": '^x/["\\\\]?$', "examples": ["x/", 'x/"', "x/\\"]},
            "year": {"type": ["string", "null"], "pattern": "^20", "x-type": "date", "examples": ["2024-02-29"]},
        }
    ),
    "written with $ref": {
        **obj({"a": {"$ref": "#/$defs/place"}, "b": {"anyOf": [{"$ref": "#/$defs/place"}, {"type": "null"}]}}),
        "$defs": {"place": obj({"city": TEXT})},
    },
}


def all_schemas() -> list[TargetSchema]:
    files = [*sorted((PROJECT / "schemas").glob("*.json")), *sorted((PROJECT / "data" / "demo" / "schemas").glob("*.json"))]
    shipped = [TargetSchema.load(path) for path in files if "qwen_vl" not in path.name]
    return [*shipped, *(of(document, name) for name, document in DOCUMENTS.items())]


ODD = [
    "a",
    "Z",
    " ",
    "0",
    '"',
    "\\",
    "/",
    "\n",
    "\t",
    "\x00",
    "\x1f",
    "\x7f",
    "é",
    "e\u0301",
    "ß",
    "\u2028",
    "\ufeff",
    "株",
    "😀",
    "<|im_end|>",
    "{",
    "}",
    "null",
]


def random_target(schema: TargetSchema, chosen: random.Random) -> dict[str, Any]:
    """A valid target in canonical form; text is as odd as the schema allows."""
    return _random(schema.document, chosen)


def _random(schema: dict[str, Any], chosen: random.Random) -> Any:
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return chosen.choice([value for value in schema["enum"] if value is not None or "type" not in schema])
    types = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    kind = "null" if "null" in types and chosen.random() < 0.25 else chosen.choice([name for name in types if name != "null"])
    if kind == "object":
        return {key: _random(schema["properties"][key], chosen) for key in key_order(schema)}
    if kind == "array":
        return [
            _random(schema["items"], chosen) for _ in range(chosen.randint(schema.get("minItems", 0), min(schema.get("maxItems", 4), 4)))
        ]
    if kind == "string":
        return _text(schema, chosen)
    if kind == "boolean":
        return chosen.random() < 0.5
    if kind == "null":
        return None
    low, high = (
        schema.get("minimum", schema.get("exclusiveMinimum", -(10**6))),
        schema.get("maximum", schema.get("exclusiveMaximum", 10**6)),
    )
    inside = chosen.randint(low + ("exclusiveMinimum" in schema), high - ("exclusiveMaximum" in schema))
    return inside if kind == "integer" or chosen.random() < 0.5 else chosen.choice([float(inside), min(inside + 0.25, high)])


def _text(schema: dict[str, Any], chosen: random.Random) -> str:
    least, most = schema.get("minLength", 0), schema.get("maxLength", 60)
    if "examples" in schema:
        return str(chosen.choice(schema["examples"]))
    kind = schema.get("x-type") if schema.get("x-form") != "printed" else None
    if kind == "date" or schema.get("format") == "date":
        return datetime.date.fromordinal(chosen.randint(365243, 3652059)).isoformat()
    if kind in ("amount", "number"):
        digits = max(least, chosen.randint(1, most))
        if digits < 4 or chosen.random() < 0.3:
            return str(chosen.randint(10 ** (digits - 1), 10**digits - 1))
        return f"-{chosen.randint(0, 10 ** (digits - 4) - 1)}.{chosen.randint(0, 99):02}"[:most]
    text = "".join(chosen.choice(ODD) for _ in range(chosen.choice([1, 5, most])))[:most]
    return text + "x" * (least - len(unicodedata.normalize("NFC", text)))  # the length that the tokenizer leaves
