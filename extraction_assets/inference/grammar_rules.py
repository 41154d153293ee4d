"""From a target schema to the rules of its answers, in llguidance's Lark dialect: compact JSON, every key, keys in schema order.

What a schema says is kept or refused, never dropped in silence. Kept: types, enum, const, minLength, maxLength, pattern, minItems,
maxItems, minimum and maximum (whole ones), multipleOf (powers of ten). Of `format`, only date says something (x-type date); the
others are annotations, as in JSON Schema itself. x-type date, amount and number ask for the canonical form in text: YYYY-MM-DD of a day that exists, a plain decimal with a point;
`"x-form": "printed"` takes the text as the page has it.

The rules are ours because llguidance's own JSON Schema compiler lets numbers run on without end, takes 1e5 for a number and
2023-02-29 for a date, and escapes characters that json.dumps leaves alone. It is used for `pattern` alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, NoReturn

import jsonschema_rs
from llguidance import LLMatcher

from extraction_assets.errors import InputError
from extraction_assets.inference import spelling
from extraction_assets.schema import TargetSchema, key_order
from extraction_assets.wire import COLUMNS, wire_schema

MAX_LENGTH = 1000
"""characters of a string whose schema has no maxLength: an answer must end"""
MAX_ITEMS = 200
"""rows of an array whose schema has no maxItems"""

_BETWEEN = ' "," '
_FORMS = ("canonical", "printed")
_TYPES_WITH_FORM = ("date", "amount", "number")
_DATE_LENGTH = len("2024-12-31")
_NOT_KEPT = {
    "prefixItems": ("all rows have one shape", "Use items"),
    "contains": ("a condition on some of the rows cannot be kept while a model writes", "Remove it"),
    "unevaluatedItems": ("all rows have one shape", "Use items"),
    "minProperties": ("an answer always has every key", "Remove it"),
    "maxProperties": ("an answer always has every key", "Remove it"),
}


def lint(schema: TargetSchema) -> None:
    """Raise InputError (JSON pointer, found, expected, what to do) at what a grammar cannot keep, beyond what schema.py refuses."""
    rules(schema)


def rules(schema: TargetSchema) -> str:
    """The rules, with start symbol `start`. Raises InputError as lint does."""
    writer = _Writer(schema.source)
    start = writer.value(wire_schema(schema), "")
    named = [f"{name}: {body}\n" for body, name in writer.names.items()]
    return f"start: {start}\nCHARACTER: /{spelling.CHARACTER}/\nDATE: /{spelling.CALENDAR_DATE}/\n{''.join(named)}"


@dataclass
class _Writer:
    source: str
    """the schema's file, for errors"""
    names: dict[str, str] = field(default_factory=dict)
    """body -> name: equal bodies are written once. Terminals have upper-case names, as Lark wants it."""

    def value(self, schema: dict[str, Any], pointer: str) -> str:
        """What may stand where `schema` describes a value, as an expression within a rule."""
        self._refuse_what_is_not_kept(schema, pointer)
        if "enum" in schema or "const" in schema:
            return self._name("V", self._literals(schema, pointer))
        types = [schema["type"]] if isinstance(schema["type"], str) else list(schema["type"])
        if "array" in types and not _is_tuple(schema):
            # a target says [] where it has no rows, also where the schema would allow null (TargetSchema.complete)
            types = [kind for kind in types if kind != "null"]
        nested, plain = [], []
        for kind in types:
            if kind == "object":
                nested.append(self._object(schema, pointer))
            elif kind == "array":
                nested.append(self._array(schema, pointer))
            elif kind == "string" and "pattern" in schema:
                nested.append(self._pattern(schema, pointer))
            else:
                plain.append(self._plain(kind, schema, pointer))
        if plain:  # one terminal for all: the lexer is what masks cheaply
            nested.append(self._name("V", " | ".join(plain)))
        return nested[0] if len(nested) == 1 else f"({' | '.join(nested)})"

    # --- objects and arrays: rules -----------------------------------------------------------------------------------------

    def _object(self, schema: dict[str, Any], pointer: str) -> str:
        properties = schema["properties"]
        if unknown := [key for key in schema.get("required", []) if key not in properties]:
            self._refuse(f"{pointer}/required", f"{unknown[0]!r} is not among the properties", do="Add its shape or remove it")
        parts = []
        for index, key in enumerate(key_order(schema)):
            before = "," if index else "{"
            parts += [_literal(f"{before}{_spelled(key)}:"), self.value(properties[key], f"{pointer}/properties/{key}")]
        return self._name("o", " ".join([*parts, _literal("}")]))

    def _tuple(self, schema: dict[str, Any], pointer: str) -> str:
        """A row on the wire, written without its keys (wire.py). Errors speak of the schema's file, where it is an object."""
        columns = zip(schema[COLUMNS], schema["prefixItems"], strict=True)
        cells = [self.value(column, f"{pointer}/properties/{key}") for key, column in columns]
        return self._name("t", f'"[" {_BETWEEN.join(cells)} "]"')

    def _array(self, schema: dict[str, Any], pointer: str) -> str:
        if _is_tuple(schema):
            return self._tuple(schema, pointer)
        least, most = self._bounds(schema, pointer, "minItems", "maxItems", MAX_ITEMS)
        of_list = {key: value for key, value in schema.items() if key in ("x-type", "x-form")}  # a list of plain values is one field
        item = self.value({**of_list, **schema["items"]}, f"{pointer}/items")
        if most == 0:
            return _literal("[]")
        rows = f'{item} ("," {item}){{{max(least - 1, 0)},{most - 1}}}' if most > 1 else item
        return self._name("a", f'"[" {rows if least else f"({rows})?"} "]"')

    # --- leaves: terminals -------------------------------------------------------------------------------------------------

    def _literals(self, schema: dict[str, Any], pointer: str) -> str:
        """The values of enum or const that the rest of the schema allows."""
        keyword = "enum" if "enum" in schema else "const"
        values = schema["enum"] if keyword == "enum" else [schema["const"]]
        if nested := [value for value in values if isinstance(value, (dict, list))]:
            self._refuse(f"{pointer}/{keyword}", f"found {json.dumps(nested[0])[:80]}", "plain values", "Describe its shape instead")
        validator = jsonschema_rs.validator_for(schema)
        spelled = dict.fromkeys(_literal(_spelled(value)) for value in values if validator.is_valid(value))
        if not spelled:
            self._refuse(f"{pointer}/{keyword}", "none of its values is valid here", "values of the field's type")
        return " | ".join(spelled)

    def _plain(self, kind: str, schema: dict[str, Any], pointer: str) -> str:
        if kind == "null":
            return '"null"'
        if kind == "boolean":
            return '"true" | "false"'
        if kind in ("number", "integer"):
            return self._number(schema, pointer, whole_only=kind == "integer")
        return rf'"\"" {self._text(schema, pointer)} "\""'

    def _text(self, schema: dict[str, Any], pointer: str) -> str:
        """What stands between the quotes."""
        least, most = self._bounds(schema, pointer, "minLength", "maxLength", MAX_LENGTH)
        form = self._form(schema, pointer)
        if form == "date":
            if not least <= _DATE_LENGTH <= most:
                found = f"has no room for a date: {least} to {most} characters"
                self._refuse(f"{pointer}/maxLength", found, f"{_DATE_LENGTH}, for YYYY-MM-DD", 'Or set "x-form": "printed"')
            return "DATE"
        if form == "decimal":
            return self._name("N", f"/{spelling.plain_decimal(most)}/ & /.{{{max(least, 1)},{max(most, 1)}}}/")
        return f"CHARACTER{{{least},{most}}}"

    def _pattern(self, schema: dict[str, Any], pointer: str) -> str:
        """A string that matches `pattern`, by llguidance's own compiler: it escapes as json.dumps does, control characters left out."""
        least, most = self._bounds(schema, pointer, "minLength", "maxLength", MAX_LENGTH)
        form = self._form(schema, pointer)
        inner: dict[str, Any] = {"type": "string", "pattern": schema["pattern"], "minLength": least, "maxLength": most}
        if form is not None:
            shape = spelling.CALENDAR_DATE if form == "date" else spelling.plain_decimal(most)
            inner["allOf"] = [{"pattern": f"^(?:{shape})$"}]
        inner["x-guidance"] = {"whitespace_flexible": False, "json_allowed_escapes": 'nrbtf\\"'}
        if error := LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(inner)):
            reason = error.strip().splitlines()[0][:200]
            self._refuse(f"{pointer}/pattern", f"llguidance cannot keep it: {reason}", "a pattern without look-around", "Simplify it")
        return f"%json {json.dumps(inner)}"

    def _form(self, schema: dict[str, Any], pointer: str) -> str | None:
        """date, decimal, or None for any text."""
        scoring = schema.get("x-type", "date" if schema.get("format") == "date" else None)
        if scoring not in _TYPES_WITH_FORM or schema.get("x-form") == "printed":
            return None
        return "date" if scoring == "date" else "decimal"

    def _number(self, schema: dict[str, Any], pointer: str, whole_only: bool) -> str:
        low, low_open = self._limit(schema, pointer, "minimum", "exclusiveMinimum", highest=True)
        high, high_open = self._limit(schema, pointer, "maximum", "exclusiveMaximum", highest=False)
        decimals = self._decimals(schema, pointer)
        numbers = spelling.number(low, low_open, high, high_open, decimals, whole_only or decimals == 0)
        if numbers is None:
            self._refuse(f"{pointer}/maximum", "no number is allowed here", "a maximum above the minimum")
        return f"/{numbers}/"

    def _limit(self, schema: dict[str, Any], pointer: str, closed: str, opened: str, highest: bool) -> tuple[int | None, bool]:
        """(bound, whether it is left out): the tighter of the two keywords."""
        found: list[tuple[int, bool]] = []
        for keyword in (closed, opened):
            if keyword in schema:
                if schema[keyword] != int(schema[keyword]):
                    self._refuse(f"{pointer}/{keyword}", f"found {schema[keyword]}", "a whole number", "Widen the bound to one")
                found.append((int(schema[keyword]), keyword == opened))
        if not found:
            return None, False
        return max(found) if highest else min(found, key=lambda item: (item[0], not item[1]))

    def _decimals(self, schema: dict[str, Any], pointer: str) -> int:
        """Digits behind the point that multipleOf leaves."""
        step = schema.get("multipleOf")
        if step is None:
            return spelling.DECIMALS
        decimals = next((count for count in range(10) if step == float(f"1e-{count}")), None)
        if decimals is None:
            self._refuse(f"{pointer}/multipleOf", f"found {step}", "1, 0.1, 0.01, ...", "Remove it")
        return decimals

    # --- shared ------------------------------------------------------------------------------------------------------------

    def _bounds(self, schema: dict[str, Any], pointer: str, lower: str, upper: str, default: int) -> tuple[int, int]:
        least = int(schema.get(lower, 0))
        most = int(schema.get(upper, max(default, least)))
        if least > most:
            self._refuse(f"{pointer}/{upper}", f"found {most}", f"at least {lower}, {least}")
        return least, most

    def _refuse_what_is_not_kept(self, schema: dict[str, Any], pointer: str) -> None:
        for keyword, (why, do) in _NOT_KEPT.items():
            if keyword in schema and not _is_tuple(schema):
                self._refuse(f"{pointer}/{keyword}", f"this schema cannot be kept by a grammar: {why}", do=do)
        if "x-form" in schema and "items" not in schema:
            if schema["x-form"] not in _FORMS:
                self._refuse(f"{pointer}/x-form", f"found {schema['x-form']!r}", f"one of {', '.join(_FORMS)}")
            if "string" not in schema.get("type", ()) or schema.get("x-type") not in _TYPES_WITH_FORM:
                self._refuse(
                    f"{pointer}/x-form", "stands on another kind of field", f"text of x-type {', '.join(_TYPES_WITH_FORM)}", "Remove it"
                )

    def _refuse(self, pointer: str, found: str, expected: str | None = None, do: str | None = None) -> NoReturn:
        raise InputError(f"{self.source} {pointer}", found, expected, do)

    def _name(self, kind: str, body: str) -> str:
        return self.names.setdefault(body, f"{kind}{len(self.names)}")


def _is_tuple(schema: dict[str, Any]) -> bool:
    """Made by wire_schema: a schema's own arrays have items, or are refused."""
    return schema.get("items") is False


def _spelled(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _literal(text: str) -> str:
    """A text as a Lark string, which is spelled like a JSON one."""
    return json.dumps(text, ensure_ascii=False)
