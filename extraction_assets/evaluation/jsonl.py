"""Predictions and gold as files of JSON lines: found by id, read one at a time, every bad line named by file, line and JSON pointer."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from extraction_assets.errors import InputError
from extraction_assets.schema import TargetSchema

DEFAULT_STRATUM = "clean"
NO_VENDOR = "(no vendor)"


@dataclass(frozen=True)
class Prediction:
    """One line of predictions: `{"id", "text"}`, and if known `"finish_reason"`."""

    id: str
    text: str | None
    finish_reason: str | None = None


@dataclass(frozen=True)
class Gold:
    """One line of gold: `{"id", "target"}`, and if known `"vendor"`, `"stratum"`, `"document"`, `"twin"`, `"locale"`."""

    id: str
    target: dict[str, Any]
    vendor: str
    stratum: str
    document: str
    """what the bootstrap draws together; the id where none is given"""
    twin: str | None
    locale: str | None
    odd: str | None
    """the first place where the target bends its schema (a missing key, a number for a string) and could be scored all the same"""


@dataclass(frozen=True)
class Lines:
    """Where each id's line is: {id: (byte offset, line number)}, in file order."""

    path: Path
    places: dict[str, tuple[int, int]]

    def read(self, file: BinaryIO, id: str) -> tuple[dict[str, Any], int]:
        """(the line's object, its line number); `file` is the open file."""
        offset, number = self.places[id]
        file.seek(offset)
        return _parse(self.path, number, file.readline()), number


def find_lines(path: Path) -> Lines:
    """Index a file by id. Raises InputError for a line that is no JSON object with an id, or an id that stands twice."""
    places: dict[str, tuple[int, int]] = {}
    for offset, number, line in _each_line(path):
        id = _parse(path, number, line).get("id")
        if not isinstance(id, str) or not id:
            raise InputError(f"{path}:{number} /id", f"found {_short(id)}", "the example's id, a string that is not empty")
        if not _is_writable(id):
            raise InputError(f"{path}:{number} /id", "holds a lone surrogate", "text that can be written as UTF-8")
        if id in places:
            raise InputError(f"{path}:{number} /id", f"{id!r} already stands in line {places[id][1]}", "each id once", "Keep one")
        places[id] = (offset, number)
    return Lines(path, places)


def read_prediction(path: Path, number: int, line: dict[str, Any]) -> Prediction:
    text, finish = line.get("text"), line.get("finish_reason")
    if "text" not in line:
        raise InputError(f"{path}:{number}", "has no /text", '{"id": ..., "text": the raw answer}')
    if text is not None and not isinstance(text, str):
        raise InputError(
            f"{path}:{number} /text", f"holds a JSON {_json_type(text)}", "the raw answer as one string", "Put json.dumps(answer) there"
        )
    if finish is not None and not isinstance(finish, str):
        raise InputError(f"{path}:{number} /finish_reason", f"found {_short(finish)}", "a string such as stop or length")
    return Prediction(str(line["id"]), text, finish)


def read_gold(path: Path, number: int, line: dict[str, Any], schema: TargetSchema) -> Gold:
    target = line.get("target")
    if not isinstance(target, dict):
        found = f"holds a JSON {_json_type(target)}" if "target" in line else "is missing"
        raise InputError(f"{path}:{number} /target", found, "the gold JSON object")
    refuse_unscorable(target, schema.document, f"{path}:{number} /target", schema)
    values: dict[str, str | None] = {}
    for key in ("vendor", "stratum", "document", "twin", "locale"):
        value = line.get(key)
        if value is not None and (not isinstance(value, str) or not _is_writable(value)):
            raise InputError(f"{path}:{number} /{key}", f"found {_short(value)}", "a string")
        values[key] = value
    violations = [] if schema.is_valid(target) else schema.violations(target)
    odd = f"{path}:{number} /target{violations[0].pointer}: {violations[0].message}" if violations else None
    id = str(line["id"])
    return Gold(
        id=id,
        target=target,
        vendor=values["vendor"] or NO_VENDOR,
        stratum=values["stratum"] or DEFAULT_STRATUM,
        document=values["document"] or id,
        twin=values["twin"],
        locale=values["locale"],
        odd=odd,
    )


def refuse_unscorable(value: Any, node: dict[str, Any], where: str, schema: TargetSchema) -> None:
    """InputError where a gold target has another shape than the schema: a key that would silently not be scored, an object for a value."""
    if "properties" in node:
        if value is None:
            return
        if not isinstance(value, dict):
            raise InputError(where, f"holds a JSON {_json_type(value)}", "an object")
        for key, child in value.items():
            if key not in node["properties"]:
                raise InputError(
                    f"{where}/{key}",
                    f"the schema {schema.name} has no such key, so it would not be scored",
                    do="Add it to the schema or leave it out",
                )
            refuse_unscorable(child, node["properties"][key], f"{where}/{key}", schema)
    elif "items" in node:
        if value is None:
            return
        if not isinstance(value, list):
            raise InputError(where, f"holds a JSON {_json_type(value)}", "an array")
        for number, item in enumerate(value):
            refuse_unscorable(item, node["items"], f"{where}/{number}", schema)
    elif isinstance(value, (dict, list)):
        raise InputError(where, f"holds a JSON {_json_type(value)}", "a plain value")
    elif isinstance(value, float) and not math.isfinite(value):
        raise InputError(where, f"found {value}, which JSON cannot hold", "a number or null")
    elif isinstance(value, str) and not _is_writable(value):
        raise InputError(where, "holds a lone surrogate", "text that can be written as UTF-8")


def _each_line(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """(byte offset, line number from 1, line) of every line that is not blank."""
    try:
        with path.open("rb") as file:
            offset = 0
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield offset, number, line
                offset += len(line)
    except OSError as error:
        raise InputError(str(path), f"cannot be read: {error.strerror or error}", "a file of JSON lines") from None


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}:{number}", f"not UTF-8 at byte {error.start} of the line", "one JSON object a line") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{number}", f"not JSON: {error.msg} at character {error.pos}", "one JSON object a line") from None
    except (ValueError, RecursionError):
        raise InputError(
            f"{path}:{number}", "JSON that cannot be read: nested too deeply or a number too long", "one JSON object a line"
        ) from None
    if not isinstance(value, dict):
        raise InputError(f"{path}:{number}", f"holds a JSON {_json_type(value)}", "one JSON object a line")
    return value


def _is_writable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _json_type(value: Any) -> str:
    if value is None:
        return "null"
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), type(value).__name__)


def _short(value: Any) -> str:
    spelled = ascii(value)
    return spelled if len(spelled) <= 60 else spelled[:57] + "..."
