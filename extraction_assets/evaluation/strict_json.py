"""Is an answer exactly one JSON object, and if not, what can still be read of it?

Strict means RFC 8259 without the latitude that `json.loads` takes: no duplicate keys, no NaN or Infinity, no number beyond a double's
range (1e999), no lone surrogates, an object at the top, nothing before or behind it. What is recoverable is a separate rate and
never counts as strict; an answer that stops in the middle is truncated, a bucket of its own.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, Literal

Bucket = Literal["strict", "truncated", "recoverable", "unusable", "empty"]
BUCKETS: tuple[Bucket, ...] = ("strict", "truncated", "recoverable", "unusable", "empty")

MAX_DEPTH = 64
"""levels of nesting that are read; a target schema has a handful"""

_FENCE = re.compile(r"^\s*```[a-zA-Z0-9]*[ \t]*\n?")
_FENCE_END = re.compile(r"\n?[ \t]*```\s*$")
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_TRAILING_COMMA = re.compile(r",\s*$")


@dataclass(frozen=True)
class ParsedAnswer:
    """What a raw answer holds."""

    strict: bool
    value: dict[str, Any] | None
    """the object, if strict"""
    recoverable: bool
    """not strict, but an object could be read: fences or prose taken off, or the complete part of a truncated answer"""
    recovered: dict[str, Any] | None
    problem: str | None
    """why it is not strict"""
    truncated: bool = False
    """not strict, and it stops in the middle (or the decoder says that it ran out of tokens)"""
    empty: bool = False

    @property
    def bucket(self) -> Bucket:
        if self.strict:
            return "strict"
        if self.empty:
            return "empty"
        if self.truncated:
            return "truncated"
        return "recoverable" if self.recoverable else "unusable"


class _Refused(ValueError):
    pass


def parse_answer(text: str | bytes | None, finish_reason: str | None = None) -> ParsedAnswer:
    """Parse one raw answer. Never raises.

    finish_reason: what the decoder said; "length" (or "max_tokens") marks an answer that is not strict as truncated.
    """
    ran_out = finish_reason in ("length", "max_tokens")
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:
            return ParsedAnswer(False, None, False, None, f"not UTF-8 at byte {error.start}", truncated=ran_out)
    if text is None or not text.strip():
        return ParsedAnswer(False, None, False, None, "empty answer", truncated=ran_out and bool(text), empty=True)
    try:
        return ParsedAnswer(True, _parse_strictly(text), False, None, None)
    except (ValueError, RecursionError) as error:
        problem = _problem(error)
    recovered, unterminated = _recover(text)
    return ParsedAnswer(False, None, recovered is not None, recovered, problem, truncated=ran_out or unterminated)


def _parse_strictly(text: str) -> dict[str, Any]:
    value = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant, parse_float=_finite_float)
    if not isinstance(value, dict):
        raise _Refused(f"the top is {_json_type(value)}, not an object")
    if _SURROGATE_ESCAPE.search(text) or not text.isascii():
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise _Refused("a lone surrogate") from None
    if text.count("{") + text.count("[") > MAX_DEPTH and depth(value) > MAX_DEPTH:
        raise _Refused(f"nested deeper than {MAX_DEPTH} levels")
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Refused(f"the key {key[:80]!r} stands twice in one object")
            seen.add(key)
    return value


def _refuse_constant(name: str) -> Any:
    raise _Refused(f"{name} is not JSON")


def _finite_float(literal: str) -> float:
    value = float(literal)
    if math.isinf(value):
        raise _Refused(f"the number {literal[:40]} is beyond a double's range")
    return value


def _json_type(value: Any) -> str:
    if value is None:
        return "null"
    names = {list: "an array", str: "a string", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), type(value).__name__)


def depth(value: Any) -> int:
    """Levels of objects and arrays, however deep."""
    deepest, pending = 0, [(value, 1)]
    while pending:
        item, level = pending.pop()
        if isinstance(item, (dict, list)):
            deepest = max(deepest, level)
            pending.extend((child, level + 1) for child in (item.values() if isinstance(item, dict) else item))
    return deepest


def _problem(error: Exception) -> str:
    if isinstance(error, _Refused):
        return str(error)
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos}"
    if isinstance(error, RecursionError):
        return f"nested deeper than {MAX_DEPTH} levels"
    return "a number with too many digits"  # the one other ValueError of json.loads


def _recover(text: str) -> tuple[dict[str, Any] | None, bool]:
    """(the object that can be read, or None; whether the text stops inside it)."""
    body = _FENCE_END.sub("", _FENCE.sub("", text)) if "```" in text else text
    start = body.find("{")
    if start < 0:
        return None, False
    end, cut, closers = _scan(body, start)
    if end is not None:
        return _parse_leniently(body[start:end]), False
    head = _TRAILING_COMMA.sub("", body[start:cut])
    return _parse_leniently(head + closers), True


def _scan(text: str, start: int) -> tuple[int | None, int, str]:
    """Follow brackets and strings from `start`. (end of the object, or None; where its complete part ends; what closes that part)."""
    stack: list[str] = []
    in_string = escaped = False
    last = ""  # last character outside strings and white space
    cut, closers = start + 1, "}"
    for position in range(start, len(text)):
        c = text[position]
        if in_string:
            if escaped:
                escaped = False
            elif c == "\\":
                escaped = True
            elif c == '"':
                in_string = False
                if last == ":" or (stack and stack[-1] == "]"):
                    cut, closers = position + 1, "".join(reversed(stack))
                last = c
            continue
        if c == '"':
            in_string = True
        elif c in "{[":
            stack.append("}" if c == "{" else "]")
            if len(stack) > MAX_DEPTH:
                return None, cut, closers
            last = c
        elif c in "}]":
            if not stack or stack.pop() != c:
                return None, cut, closers
            if not stack:
                return position + 1, position + 1, ""
            cut, closers, last = position + 1, "".join(reversed(stack)), c
        elif c == ",":
            cut, closers, last = position, "".join(reversed(stack)), c
        elif not c.isspace():
            last = c
    return None, cut, closers


def _parse_leniently(text: str) -> dict[str, Any] | None:
    """An object by `json.loads` with trailing commas taken out; the last of duplicate keys wins, NaN and 1e999 become null."""
    for candidate in (text, re.sub(r",(\s*[}\]])", r"\1", text)):
        try:
            value = json.loads(candidate, parse_constant=lambda _: None, parse_float=_float_or_none, strict=False)
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except (ValueError, RecursionError):
            continue
        return value if isinstance(value, dict) and depth(value) <= MAX_DEPTH else None
    return None


def _float_or_none(literal: str) -> float | None:
    value = float(literal)
    return None if math.isinf(value) else value
