"""How rows are written between the model and everybody else: as objects, or as arrays without their keys, for fewer tokens.

    objects          {"line_items":[{"text":"Bolt","amount":"1.50"}]}
    rows_as_arrays   {"line_items":[["Bolt","1.50"]]}

The wire is a key of the schema's document (`x-wire`, stamped by page_targets from targets.wire), so it travels wherever the schema does, and
is part of its digest. Only here the two forms meet: a target is written on the wire as it goes into a chat record, and an answer is read off
it as it leaves the decoding loop. Labels, page targets, gold, answers and their pointers are always objects.
"""

from __future__ import annotations

import json
from typing import Any

from extraction_assets.errors import InputError
from extraction_assets.schema import ROWS_AS_ARRAYS, TargetSchema, is_row, key_order

COLUMNS = "x-columns"
"""of a row written as an array, in wire_schema: the keys that its places stand for"""


def wire_schema(schema: TargetSchema) -> dict[str, Any]:
    """The JSON Schema of what stands on the wire: where rows are arrays, each is a tuple (prefixItems) of its columns in target order."""
    return schema.document if schema.wire != ROWS_AS_ARRAYS else _wire_schema(schema.document)


def write(schema: TargetSchema, target: str) -> str:
    """A spelled target (TargetSchema.spell) as the model is taught to write it."""
    return target if schema.wire != ROWS_AS_ARRAYS else _spelled(_written(schema.document, _parsed(target)))


def read(schema: TargetSchema, text: str) -> str | None:
    """What is on the wire with its rows as objects, numbers as they are spelled there.

    None: no whole JSON object, or a row that has not exactly its columns. Such a text says nothing that could be taken for an answer, so
    nobody guesses which key a value belongs to.
    """
    if schema.wire != ROWS_AS_ARRAYS:
        return text
    try:
        value = _parsed(text)
        if not isinstance(value, dict):
            return None
        told = _spelled(_read(schema.document, value))
        told.encode()  # half of a character, from \ud800
    except (ValueError, RecursionError):
        return None
    return told


def gold(schema: TargetSchema, target: str) -> dict[str, Any]:
    """The target of a chat record, which `write` wrote, as evaluation takes it. Raises InputError where it is on another wire."""
    told = read(schema, target)
    value = None if told is None else json.loads(told)
    if not isinstance(value, dict):
        found = f"a target is not on its wire ({schema.wire}): {target[:60]!r}"
        raise InputError(schema.source, found, do="Materialize the splits again")
    return value


def object_pointer(schema: TargetSchema, pointer: str) -> str:
    """JSON pointer of a value on the wire, which `read` has read -> of the same value where rows are objects."""
    if schema.wire != ROWS_AS_ARRAYS:
        return pointer
    parts: list[str] = []
    node: dict[str, Any] = schema.document
    in_row = False
    for part in pointer.split("/")[1:]:
        if in_row:
            part = key_order(node)[int(part)].replace("~", "~0").replace("/", "~1")
        parts.append(part)
        if "properties" in node:
            node, in_row = node["properties"].get(part.replace("~1", "/").replace("~0", "~"), {}), False
        else:
            node = node.get("items", {})
            in_row = is_row(node)
    return "".join(f"/{part}" for part in parts)


def _wire_schema(node: dict[str, Any]) -> dict[str, Any]:
    told = dict(node)
    if "properties" in node:
        told["properties"] = {key: _wire_schema(child) for key, child in node["properties"].items()}
    if "items" in node:
        told["items"] = _row_schema(node["items"]) if is_row(node["items"]) else _wire_schema(node["items"])
    return told


def _row_schema(row: dict[str, Any]) -> dict[str, Any]:
    columns = key_order(row)
    return {
        "type": ["array", "null"] if "null" in row["type"] else "array",
        COLUMNS: columns,
        "prefixItems": [_wire_schema(row["properties"][key]) for key in columns],
        "items": False,
        "minItems": len(columns),
        "maxItems": len(columns),
    }


def _written(node: dict[str, Any], value: Any) -> Any:
    if "properties" in node and isinstance(value, dict):
        return {key: _written(node["properties"][key], item) for key, item in value.items()}
    if "items" in node and isinstance(value, list):
        row = node["items"]
        if not is_row(row):
            return [_written(row, item) for item in value]
        return [item and [_written(row["properties"][key], item[key]) for key in key_order(row)] for item in value]
    return value


def _read(node: dict[str, Any], value: Any) -> Any:
    if "properties" in node and isinstance(value, dict):
        return {key: _read(node["properties"].get(key, {}), item) for key, item in value.items()}
    if "items" in node and isinstance(value, dict):
        raise ValueError("an object where rows belong")
    if "items" in node and isinstance(value, list):
        return [_read_row(node["items"], item) if is_row(node["items"]) else _read(node["items"], item) for item in value]
    return value


def _read_row(row: dict[str, Any], item: Any) -> Any:
    if item is None:
        return None
    columns = key_order(row)
    if not isinstance(item, list) or len(item) != len(columns):
        raise ValueError("a row has not exactly its columns")
    return {key: _read(row["properties"][key], cell) for key, cell in zip(columns, item, strict=True)}


# --- JSON whose numbers stay as they are spelled ------------------------------------------------------------------------------


class _Number(str):
    """As it is spelled: 1.50 and 18 digits behind a point are no double's own spelling."""


def _parsed(text: str) -> Any:
    """Raises ValueError where it is not JSON, NaN and repeated keys included."""
    return json.loads(text, object_pairs_hook=_unique, parse_int=_Number, parse_float=_Number, parse_constant=_refuse)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _spelled(value: Any) -> str:
    """Compact, as TargetSchema.spell does it."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key, ensure_ascii=False)}:{_spelled(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_spelled, value)) + "]"
    return str(value) if isinstance(value, _Number) else json.dumps(value, ensure_ascii=False)
