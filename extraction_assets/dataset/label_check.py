"""Whether a label follows its schema. Schemas change after labels were written, so this is asked at every build."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterator
from typing import Any

from extraction_assets.errors import InputError
from extraction_assets.schema import TargetSchema, key_order
from extraction_assets.settings import TargetSettings

RESEMBLES = 0.8
"""difflib ratio from which an unknown key is taken for a misspelt one"""


def check_nulls_allowed(schema: TargetSchema) -> None:
    """A page that does not hold a field answers null: every field must allow it. Raises InputError with the schema's JSON pointer."""
    for pointer, leaf in _leaves(schema.document, ""):
        types = leaf.get("type", ())
        allows = "null" in ([types] if isinstance(types, str) else types) if types else None in leaf.get("enum", [leaf.get("const", "")])
        if not allows or ("enum" in leaf and None not in leaf["enum"]):
            raise InputError(
                f"{schema.source} {pointer}", "does not allow null, so a page without this value has no valid target", do='Add "null"'
            )
    for violation in schema.violations(schema.empty()):
        raise InputError(f"{schema.source} {violation.pointer or '/'}", f"a page that holds nothing would be invalid: {violation.message}")


def check_label(label: dict[str, Any], schema: TargetSchema, settings: TargetSettings, where: str) -> tuple[dict[str, Any], set[str]]:
    """The label completed in schema order, and the keys that the schema does not have (JSON pointers without row numbers).

    Raises InputError: a violation, an unknown key that looks misspelt, or any unknown key where the settings say so.
    where: label file, and a pointer where the label is only a part of it, for the error.
    """
    unknown: set[str] = set()
    for pointer, key, siblings, present in _unknown_keys(schema.document, label, ""):
        missing = [name for name in siblings if name not in present]
        close = [name for name in missing if difflib.SequenceMatcher(None, key.casefold(), name.casefold()).ratio() >= RESEMBLES]
        if close:
            best = max(close, key=lambda name: difflib.SequenceMatcher(None, key.casefold(), name.casefold()).ratio())
            raise InputError(f"{where} {pointer}/{key}", "unknown key", do=f"Did you mean {best}?")
        if settings.unknown_label_keys == "error":
            do = "Remove it, add it to the schema, or set targets.unknown_label_keys to ignore"
            raise InputError(f"{where} {pointer}/{key}", "the schema has no such key", f"one of {', '.join(siblings)}", do)
        unknown.add("/".join(part for part in f"{pointer}/{key}".split("/") if not part.isdigit()))
    complete = _without_blanks(schema.complete(label))
    for pointer, value in _plain_values(complete, ""):
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{where} {pointer}", f"found {value}, which JSON cannot hold")
        if isinstance(value, str) and any("\ud800" <= char <= "\udfff" for char in value):
            raise InputError(f"{where} {pointer}", "holds half of a character (a lone surrogate)", "text")
    violations = schema.violations(complete)
    if violations:
        first = violations[0]
        more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
        found = json.dumps(_at(label, first.pointer), ensure_ascii=False)
        raise InputError(
            f"{where} {first.pointer or '/'}",
            f"{_shorten(first.message)}{more}",
            do=f"Correct the label or the schema; found {_shorten(found)}",
        )
    return complete, unknown


def _leaves(schema: dict[str, Any], pointer: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for key in key_order(schema):
        child = schema["properties"][key]
        here = f"{pointer}/properties/{key}"
        if "properties" in child:
            yield from _leaves(child, here)
        elif "items" in child:
            if "properties" in child["items"]:
                yield from _leaves(child["items"], f"{here}/items")
        else:
            yield here, child


def _unknown_keys(schema: dict[str, Any], value: Any, pointer: str) -> Iterator[tuple[str, str, list[str], set[str]]]:
    """(pointer of the object, unknown key, keys the schema has there, keys the label has there)"""
    if "properties" in schema and isinstance(value, dict):
        known = key_order(schema)
        for key, child in value.items():
            if key in schema["properties"]:
                yield from _unknown_keys(schema["properties"][key], child, f"{pointer}/{key}")
            else:
                yield pointer, key, known, set(value)
    elif "items" in schema and isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unknown_keys(schema["items"], item, f"{pointer}/{index}")


def _without_blanks(value: Any) -> Any:
    """Blank text is an absent value: a target says null."""
    if isinstance(value, dict):
        return {key: _without_blanks(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_blanks(item) for item in value]
    return None if isinstance(value, str) and not value.strip() else value


def _plain_values(value: Any, pointer: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _plain_values(item, f"{pointer}/{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _plain_values(item, f"{pointer}/{index}")
    else:
        yield pointer, value


def _at(value: Any, pointer: str) -> Any:
    for part in pointer.split("/")[1:]:
        if isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return value


def _shorten(text: str) -> str:
    return text if len(text) <= 160 else text[:157] + "..."
