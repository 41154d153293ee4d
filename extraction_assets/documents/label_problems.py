"""What keeps a label from landing: keys and values that its type's schema does not allow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from extraction_assets.documents.label_provenance import page_parts
from extraction_assets.schema import TargetSchema


def label_problems(label: dict[str, Any], schema: TargetSchema) -> list[str]:
    """One line a problem, JSON pointer first. A key left out counts as null; a key too many is a problem. The label may be given
    page by page ({"pages": [{...}, ...]})."""
    pages = page_parts(label, schema)
    parts = [("", label)] if pages is None else [(f"/pages/{index}", part) for index, part in enumerate(pages)]
    problems: list[str] = []
    for prefix, part in parts:
        problems += [f"{prefix}{pointer}: the schema has no such key" for pointer in _unknown_keys(schema.document, part, "")]
        problems += [
            f"{prefix}{it.pointer}" + ("" if prefix or it.pointer else "/") + f": {it.message}"
            for it in schema.violations(schema.complete(part))
        ]
    if pages is not None:
        problems += [f"/{key}: stands beside pages" for key in label if key != "pages"]
    return problems


def _unknown_keys(schema: dict[str, Any], value: Any, pointer: str) -> Iterator[str]:
    """JSON pointers of the keys that the schema does not name."""
    if isinstance(value, dict) and "properties" in schema:
        for key, item in value.items():
            here = f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}"
            if key not in schema["properties"]:
                yield here
            else:
                yield from _unknown_keys(schema["properties"][key], item, here)
    elif isinstance(value, list) and "items" in schema:
        for number, item in enumerate(value):
            yield from _unknown_keys(schema["items"], item, f"{pointer}/{number}")
