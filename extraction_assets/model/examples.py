"""Examples as training and inference read them: one line of a split's JSONL each. No image is opened here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extraction_assets.errors import InputError


@dataclass(frozen=True)
class Example:
    """One page image, its instruction and its target."""

    id: str
    image: Path
    """absolute path of the page's PNG"""
    page_digest: str
    """SHA-256 of the PNG's bytes"""
    width: int
    """px"""
    height: int
    instruction: str
    target: str
    schema: str
    """digest of the target schema"""


def read_examples(jsonl: Path) -> tuple[Example, ...]:
    """Every line of a split, in order. Raises InputError naming file and line on a missing file, a bad line or a repeated id."""
    try:
        lines = jsonl.read_text(encoding="utf-8").split("\n")  # not splitlines: JSON text may hold U+2028
    except FileNotFoundError:
        raise InputError(str(jsonl), "no such split", do="Materialize the splits first") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(str(jsonl), f"cannot be read: {error}") from None
    examples = tuple(_example(line, f"{jsonl}:{number}", jsonl.parent) for number, line in enumerate(lines, 1) if line.strip())
    seen: set[str] = set()
    for example in examples:
        if example.id in seen:
            raise InputError(str(jsonl), f"id {example.id} stands there twice", do="Materialize the splits again")
        seen.add(example.id)
    return examples


def _example(line: str, where: str, folder: Path) -> Example:
    try:
        record = json.loads(line)
        user, assistant = record["messages"]
        image, instruction = user["content"]
        (target,) = assistant["content"]
        meta: dict[str, Any] = record["meta"]
        return Example(
            id=_text(record["id"]),
            image=(folder / _text(image["image"])).absolute(),
            page_digest=_text(meta["page_digest"]),
            width=int(meta["width"]),
            height=int(meta["height"]),
            instruction=_text(instruction["text"]),
            target=_text(target["text"]),
            schema=_text(meta["schema"]),
        )
    except json.JSONDecodeError as error:
        raise InputError(where, f"not valid JSON: {error.msg}", do="Materialize the splits again") from None
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(where, f"not a chat record: {type(error).__name__} {error}", "qwen_vl_pdf_extract.schema.json") from None


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"{value!r} is no text")
    return value
