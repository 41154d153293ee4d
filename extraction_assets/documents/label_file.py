"""Label files: one strict JSON object each. What JSON leaves open (keys twice, NaN) is an error with its line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from extraction_assets.errors import InputError

MAX_LABEL_BYTES = 16 << 20
_MAX_DEPTH = 64


def parse_label(data: bytes, where: str) -> dict[str, Any]:
    """The label in a file's bytes. where: the file, for errors. Raises InputError with file and line."""
    if len(data) > MAX_LABEL_BYTES:
        raise InputError(where, f"has {len(data) >> 20} MB", f"a label of at most {MAX_LABEL_BYTES >> 20} MB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{where}:{line}", "is not UTF-8 text", do="Save the label as UTF-8") from None
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}:{error.lineno}", f"not valid JSON: {error.msg}") from None
    except _NotStrict as error:
        raise InputError(f"{where}:{error.line_in(text)}", error.found, do=error.do) from None
    except (RecursionError, ValueError):  # ValueError: a number of thousands of digits
        raise InputError(where, "is nested too deeply or holds a number that is too long", "a plain JSON object") from None
    if not isinstance(value, dict):
        raise InputError(f"{where}:1", f"holds a JSON {_kind(value)}", "one JSON object: the label's fields")
    _check(value, where)
    return value


def read_label(path: Path, where: str | None = None) -> dict[str, Any]:
    """parse_label of a file. Raises InputError, also where it cannot be read."""
    try:
        return parse_label(path.read_bytes(), where or str(path))
    except OSError as error:
        raise InputError(where or str(path), f"cannot be read: {error.strerror or error}") from None


class _NotStrict(Exception):
    def __init__(self, found: str, do: str, pattern: str, occurrence: int) -> None:
        super().__init__(found)
        self.found, self.do, self._pattern, self._occurrence = found, do, pattern, occurrence

    def line_in(self, text: str) -> int:
        """1-based line of the given occurrence of what was found, outside strings as well as can be told."""
        places = [match.start() for match in re.finditer(self._pattern, text)]
        at = places[min(self._occurrence, len(places)) - 1] if places else 0
        return text.count("\n", 0, at) + 1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                spelled = re.escape(json.dumps(key, ensure_ascii=False)) + r"\s*:"
                raise _NotStrict(f"the key {key!r} stands twice in one object", "Keep one", spelled, 2)
            seen.add(key)
    return result


def _constant(name: str) -> Any:
    raise _NotStrict(f"{name} is no JSON value", "Write a number or null", rf"(?<![\w\"]){re.escape(name)}(?![\w\"])", 1)


def _check(value: dict[str, Any], where: str) -> None:
    """No lone surrogates (they cannot be stored as UTF-8), no infinite numbers such as 1e999, no bottomless nesting."""
    for depth, leaf in _leaves(value, 0):
        if depth > _MAX_DEPTH:
            raise InputError(where, f"is nested more than {_MAX_DEPTH} levels deep", "a plain JSON object")
        if isinstance(leaf, str) and any("\ud800" <= char <= "\udfff" for char in leaf):
            raise InputError(where, f"holds half a character (a lone surrogate) in {leaf[:40]!a}", do="Write the character out")
        if isinstance(leaf, float) and leaf in (float("inf"), float("-inf")):
            raise InputError(where, "holds a number that is too large", "a number that fits 64 bits, or a string")


def _leaves(value: Any, depth: int) -> Iterator[tuple[int, Any]]:
    if depth > _MAX_DEPTH:
        yield depth, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield depth, key
            yield from _leaves(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, depth + 1)
    else:
        yield depth, value


def _kind(value: Any) -> str:
    return {list: "array", str: "string", bool: "boolean", type(None): "null"}.get(type(value), "number")
