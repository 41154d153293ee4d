"""Target schemas: what a page's JSON looks like, and whether a model can be trained on it.

A target schema is a JSON Schema (draft 2020-12) of one object: header fields (leaves), nested objects, and arrays of row objects.
Ours declare per leaf `"x-type"` (how it is scored): id, text, date, amount, number or code. Dates are answered as YYYY-MM-DD, amounts
and numbers as plain decimals, or all three as the page prints them where a leaf says `"x-form": "printed"`.
`"x-instruction"` is the short instruction beside the page image; it belongs to the schema's digest.

Key order of a target: the order of `required`, then any other property by name. It comes from an array because the order of an
object's keys carries no meaning in JSON: re-sorting `properties` changes no digest and therefore no target.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import jsonschema_rs

from extraction_assets.errors import InputError
from extraction_assets.store import digest_of

ScoringType = Literal["id", "text", "date", "amount", "number", "code"]
Wire = Literal["objects", "rows_as_arrays"]
"""how a model writes rows (wire.py)"""
WIRE = "x-wire"
ROWS_AS_ARRAYS: Wire = "rows_as_arrays"
SCHEMA_SUFFIX = ".schema.json"
CHAT_RECORD_SCHEMA = "qwen_vl_pdf_extract"

_UNTRAINABLE = {
    "uniqueItems": "cannot be kept while a model writes token by token",
    "if": "conditions cannot be enforced while a model writes",
    "then": "conditions cannot be enforced while a model writes",
    "else": "conditions cannot be enforced while a model writes",
    "not": "cannot be enforced while a model writes",
    "patternProperties": "key names must be fixed",
    "propertyNames": "key names must be fixed",
    "dependentSchemas": "conditions cannot be enforced while a model writes",
    "dependentRequired": "conditions cannot be enforced while a model writes",
    "unevaluatedProperties": "key names must be fixed",
}
_COMPOSITIONS = ("oneOf", "anyOf", "allOf")


@dataclass(frozen=True)
class Violation:
    """One place where a value does not follow its schema."""

    pointer: str
    """JSON pointer into the value, e.g. /line_items/2/amount"""
    message: str


@dataclass(frozen=True)
class Leaf:
    """A field: a leaf of the schema."""

    path: tuple[str, ...]
    """keys from the object that holds it: ("seller", "name"); for a column, from the row"""
    type: ScoringType
    json_types: tuple[str, ...]
    """string, number, integer, boolean, null"""

    @property
    def name(self) -> str:
        return ".".join(self.path)


@dataclass(frozen=True)
class RowArray:
    """An array field whose items are line items."""

    path: tuple[str, ...]
    columns: tuple[Leaf, ...]

    @property
    def name(self) -> str:
        return ".".join(self.path)


class TargetSchema:
    """One document type's schema, parsed, checked and ready to order, validate and spell targets."""

    def __init__(self, document: dict[str, Any], name: str, source: str = "<memory>") -> None:
        """Raises InputError (file and JSON pointer) on a schema that is not valid or cannot be trained on."""
        self.name, self.source = name, source
        try:
            jsonschema_rs.validator_for(document, retriever=_refuse_to_fetch)
        except ValueError as error:
            pointer = "".join(f"/{part}" for part in getattr(error, "instance_path", ()))
            raise InputError(f"{source} {pointer}".strip(), f"not a valid JSON Schema: {str(error).splitlines()[0]}") from None
        document = self.document = _written_out(document, document.get("$defs", {}), source, "", ())
        _lint(document, source, "")
        if document.get(WIRE, "objects") not in get_args(Wire):
            raise InputError(f"{source} /{WIRE}", f"found {document[WIRE]!r}", f"one of {', '.join(get_args(Wire))}")
        self._validator = jsonschema_rs.validator_for(document)
        if "object" not in _types(document):
            raise InputError(f"{source} /type", f"found {document.get('type')!r}", '"object" at the top')

    @classmethod
    def load(cls, path: Path) -> TargetSchema:
        try:
            document = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_with_each_key_once)
        except FileNotFoundError:
            raise InputError(str(path), "no such schema", do="Put the type's schema there") from None
        except json.JSONDecodeError as error:
            raise InputError(f"{path}:{error.lineno}", f"not valid JSON: {error.msg}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(str(path), f"cannot be read: {error}") from None
        except (ValueError, RecursionError) as error:  # a key twice, a number of thousands of digits, bottomless nesting
            raise InputError(str(path), f"cannot be used: {error}", "a plain JSON Schema object") from None
        if not isinstance(document, dict):
            raise InputError(str(path), f"holds a JSON {type(document).__name__}", "a JSON Schema object")
        return cls(document, path.name.removesuffix(SCHEMA_SUFFIX), str(path))

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the parsed schema; white space and key order do not count, the order of `required` does."""
        return digest_of(self.document)

    @property
    def wire(self) -> Wire:
        """How a model is taught to write rows under this schema."""
        return self.document.get(WIRE, "objects")

    def on_wire(self, wire: Wire) -> TargetSchema:
        """The same schema for a model that writes rows in this way. What stands for objects, the default, is no key at all."""
        document = {key: value for key, value in self.document.items() if key != WIRE}
        return TargetSchema(document if wire == "objects" else {**document, WIRE: wire}, self.name, self.source)

    def as_taught(self, digests: Collection[str]) -> TargetSchema:
        """The schema on the wire of a model that was taught schemas of these digests; as it is where that model knows neither form of it."""
        forms = [self, *(self.on_wire(wire) for wire in get_args(Wire) if wire != self.wire)]
        return next((form for form in forms if form.digest in digests), self)

    @property
    def instruction(self) -> str:
        """`x-instruction`, else the keys by name: `Extract as JSON: number, date, line_items[description, amount]`."""
        return str(self.document.get("x-instruction") or f"Extract as JSON: {_key_list(self.document)}")

    @cached_property
    def fields(self) -> tuple[Leaf, ...]:
        """Header fields: every leaf outside arrays of objects, in target order. A list of plain values is one field."""
        return tuple(item for item in _walk(self.document, ()) if isinstance(item, Leaf))

    @cached_property
    def row_arrays(self) -> tuple[RowArray, ...]:
        return tuple(item for item in _walk(self.document, ()) if isinstance(item, RowArray))

    def violations(self, value: Any) -> list[Violation]:
        """Every place where `value` does not follow the schema; empty if it does."""
        return [
            Violation("".join(f"/{part}" for part in error.instance_path), error.message) for error in self._validator.iter_errors(value)
        ]

    def is_valid(self, value: Any) -> bool:
        return self._validator.is_valid(value)

    def complete(self, value: dict[str, Any]) -> dict[str, Any]:
        """The same value with keys in target order, absent keys as null (rows: []) and unknown keys left out."""
        return _complete(self.document, value)

    def empty(self) -> dict[str, Any]:
        """The target of a page that holds nothing: all null, no rows."""
        return _complete(self.document, {})

    def spell(self, value: dict[str, Any]) -> str:
        """The one spelling of a target: compact JSON, keys in target order, no escapes of printable characters."""
        return json.dumps(self.complete(value), separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _refuse_to_fetch(address: str) -> Any:
    """A schema is what its file says: the same today and tomorrow, with a network and without."""
    raise ValueError(f"{address} is another document; write its content into $defs")


def _with_each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice in one object")
    return value


def key_order(schema: dict[str, Any]) -> list[str]:
    """Property names in target order (see the module's docstring)."""
    properties = schema.get("properties", {})
    required = [key for key in schema.get("required", []) if key in properties]
    return required + sorted(key for key in properties if key not in set(required))


def is_row(schema: dict[str, Any]) -> bool:
    """Whether the items of an array are line items: objects, or null."""
    return "properties" in schema and {"object"} <= set(_types(schema)) <= {"object", "null"}


def _key_list(schema: dict[str, Any]) -> str:
    parts = []
    for key in key_order(schema):
        child = schema["properties"][key]
        if "properties" in child:
            parts.append(f"{key}{{{_key_list(child)}}}")
        elif "properties" in child.get("items", {}):
            parts.append(f"{key}[{_key_list(child['items'])}]")
        else:
            parts.append(key)
    return ", ".join(parts)


def _types(schema: dict[str, Any]) -> tuple[str, ...]:
    declared = schema.get("type", ())
    return (declared,) if isinstance(declared, str) else tuple(declared)


def _complete(schema: dict[str, Any], value: Any) -> Any:
    if "properties" in schema and (isinstance(value, dict) or (value is None and "null" not in _types(schema))):
        value = value or {}
        return {key: _complete(schema["properties"][key], value.get(key)) for key in key_order(schema)}
    if "items" in schema and (isinstance(value, list) or value is None):
        return [_complete(schema["items"], item) for item in value or []]
    return value


def _walk(schema: dict[str, Any], path: tuple[str, ...]) -> Iterator[Leaf | RowArray]:
    for key in key_order(schema):
        child = schema["properties"][key]
        here = (*path, key)
        if "properties" in child:
            yield from _walk(child, here)
        elif "properties" in child.get("items", {}):
            yield RowArray(here, tuple(leaf for leaf in _walk(child["items"], ()) if isinstance(leaf, Leaf)))
        else:
            yield Leaf(here, _scoring_type(child), _types(child))


def _scoring_type(schema: dict[str, Any]) -> ScoringType:
    """Declared `x-type`, else what the JSON type suggests."""
    if "x-type" in schema:
        return schema["x-type"]
    types = _types(schema.get("items", schema))
    if "number" in types or "integer" in types:
        return "number"
    if schema.get("format") == "date":
        return "date"
    return "code" if "enum" in schema or "boolean" in types else "text"


def _written_out(schema: Any, definitions: dict[str, Any], source: str, pointer: str, inside: tuple[str, ...]) -> Any:
    """The schema with every shape in its place: local $ref followed, a nullable anyOf/oneOf told as a type list, a lone allOf opened.

    This is how pydantic and others spell optional and nested fields; what remains of such keywords is refused by _lint.
    """
    if not isinstance(schema, dict):
        return schema
    schema = {key: value for key, value in schema.items() if key != "$defs"}
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/$defs/") and isinstance(definitions.get(reference[8:]), dict):
        if reference in inside:
            raise InputError(f"{source} {pointer}/$ref", f"{reference} holds itself", "a shape of fixed depth")
        own = {key: value for key, value in schema.items() if key != "$ref"}
        return _written_out({**definitions[reference[8:]], **own}, definitions, source, pointer, (*inside, reference))
    for key in _COMPOSITIONS:
        branches = schema.get(key)
        if not isinstance(branches, list):
            continue
        real = [branch for branch in branches if branch != {"type": "null"}]
        if len(real) == 1 and isinstance(real[0], dict) and (key != "allOf" or len(branches) == 1):
            own = {name: value for name, value in schema.items() if name != key}
            merged = _written_out({**real[0], **own}, definitions, source, pointer, inside)
            if len(real) < len(branches):
                merged["type"] = [*_types(merged), "null"] if "null" not in _types(merged) else merged["type"]
                if "enum" in merged and None not in merged["enum"]:
                    merged["enum"] = [*merged["enum"], None]
            return merged
    if isinstance(schema.get("properties"), dict):
        schema["properties"] = {
            name: _written_out(child, definitions, source, f"{pointer}/properties/{name}", inside)
            for name, child in schema["properties"].items()
        }
    if "items" in schema:
        schema["items"] = _written_out(schema["items"], definitions, source, f"{pointer}/items", inside)
    return schema


def _lint(schema: Any, source: str, pointer: str) -> None:
    """Refuse what a model cannot be trained to write, with the JSON pointer."""
    if not isinstance(schema, dict):
        raise InputError(f"{source} {pointer or '/'}", f"found {schema!r}", "a schema object")
    for key, why in _UNTRAINABLE.items():
        if key in schema:
            raise InputError(f"{source} {pointer}/{key}", f"this schema cannot be trained on: {why}", do="Remove it")
    for key in (*_COMPOSITIONS, "$ref"):
        if key in schema:
            raise InputError(
                f"{source} {pointer}/{key}", "targets need one fixed shape", do='Use "type": [..., "null"] or write the shape out'
            )
    if "x-type" in schema and schema["x-type"] not in get_args(ScoringType):
        raise InputError(f"{source} {pointer}/x-type", f"found {schema['x-type']!r}", f"one of {', '.join(get_args(ScoringType))}")
    types = _types(schema)
    if not types and "enum" not in schema and "const" not in schema:
        raise InputError(f"{source} {pointer}/type", "no type is given, so any JSON could stand here", 'a type such as ["string", "null"]')
    if "object" in types:
        if not schema.get("properties"):
            raise InputError(f"{source} {pointer or '/'}", "an object without named properties has unbounded free keys", "properties")
        if schema.get("additionalProperties", False) is not False:
            raise InputError(f"{source} {pointer}/additionalProperties", "free keys are unbounded", "false")
        for key, child in schema["properties"].items():
            _lint(child, source, f"{pointer}/properties/{key}")
    if "array" in types:
        if "items" not in schema:
            raise InputError(f"{source} {pointer}/items", "an array needs the shape of its items")
        _lint(schema["items"], source, f"{pointer}/items")
