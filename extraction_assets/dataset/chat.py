"""Chat records: one JSONL line an example, as schemas/qwen_vl_pdf_extract.schema.json describes it.

A split is one object of the store. Its image paths are relative to that object (objects/ab/<split>.jsonl names ../cd/<image>.png),
so the folder can be copied or mounted elsewhere whole. Every line is validated when it is written and again when it is read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import jsonschema_rs
from upath import UPath

from extraction_assets import wire
from extraction_assets.dataset.records import IndexRow, Split
from extraction_assets.documents.records import Record
from extraction_assets.errors import InputError
from extraction_assets.schema import SCHEMA_SUFFIX, TargetSchema
from extraction_assets.store import Store, canonical_json

ChatSchema = dict[str, Any] | Path
"""the parsed schema of a chat record, or the path of its file"""
_FETCHES = 8
"""page images at once; each waits for the network most of its time"""


class ImagePart(Record):
    type: Literal["image"] = "image"
    image: str
    """path relative to the JSONL file"""


class TextPart(Record):
    type: Literal["text"] = "text"
    text: str


class UserMessage(Record):
    role: Literal["user"] = "user"
    content: tuple[ImagePart, TextPart]


class AssistantMessage(Record):
    role: Literal["assistant"] = "assistant"
    content: tuple[TextPart]


class ChatMeta(Record):
    """Where the example comes from: enough to walk from an id back to the document, its page and its clean twin."""

    document: str
    page: int
    type: str
    vendor: str
    """type/vendor"""
    stratum: str
    twin: str | None
    split: Split
    schema_digest: str
    page_digest: str
    width: int
    height: int
    dpi: float


class ChatRecord(Record):
    """One line of a split."""

    id: str
    messages: tuple[UserMessage, AssistantMessage]
    meta: ChatMeta

    @property
    def image(self) -> str:
        """Path of the page image, relative to the JSONL file."""
        return self.messages[0].content[0].image

    @property
    def instruction(self) -> str:
        return self.messages[0].content[1].text

    @property
    def target(self) -> str:
        """The answer: compact JSON, keys in schema order."""
        return self.messages[1].content[0].text


def as_taught(rows: Iterable[IndexRow], store: Store) -> Iterator[IndexRow]:
    """The rows with their targets as the model is to write them: on the wire of the schemas that they name, which lie in the store."""
    schemas: dict[str, TargetSchema] = {}
    for row in rows:
        if row.schema_digest not in schemas:
            schemas[row.schema_digest] = TargetSchema(store.read_json(row.schema_digest), row.type, f"schemas/{row.type}{SCHEMA_SUFFIX}")
        yield row.model_copy(update={"target": wire.write(schemas[row.schema_digest], row.target)})


def write_split(rows: Iterable[IndexRow], split: Split, store: Store, schema: ChatSchema) -> str:
    """Store the split's chat records as one JSONL object; returns its digest. rows: those of this split, in any order.

    Lines are ordered by (type, vendor, document, page, stratum, id). Raises InputError naming the example that is not valid.
    """
    validator = _validator(schema)
    lines = []
    for row in sorted(rows, key=lambda row: (row.type, row.vendor, row.document, row.page, row.stratum, row.id)):
        value = _spell(row, split)
        problem = _problem(value, validator)
        if problem:
            pointer, found = problem
            raise InputError(f"{split} example {row.id} (page {row.page} of document {row.document}) {pointer}", found)
        lines.append(json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n")
    return store.put_bytes("".join(lines).encode(), ".jsonl")


def local_split(digest: str, store: Store) -> Path:
    """A split's JSONL as a local file whose page images lie where it says: what is in the shared store alone is fetched."""
    path = store.local_path(digest, ".jsonl")
    if store.shared is not None:
        with path.open(encoding="utf-8") as lines:
            images = {str(json.loads(line)["meta"]["page_digest"]) for line in lines}
        with ThreadPoolExecutor(max_workers=_FETCHES) as pool:
            for _ in pool.map(lambda image: store.path(image, ".png"), sorted(images)):
                pass
    return path


def load_split(path: Path | UPath, schema: ChatSchema) -> Iterator[ChatRecord]:
    """The records of a split's JSONL, one by one, each validated.

    Raises InputError naming file, line and JSON pointer at the first bad line: not strict JSON, not following the schema, or an
    answer that is not strict, compact JSON.
    """
    validator = _validator(schema)
    if not path.exists():
        raise InputError(str(path), "no such split", do="Run update")
    ids: dict[str, int] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                value = strict_json(line.decode("utf-8"))
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path}:{number}", f"not strict JSON: {error}") from None
            problem = _problem(value, validator)
            if problem:
                pointer, found = problem
                raise InputError(f"{path}:{number} {pointer or '/'}", found, do="Write the split again with update")
            if value["id"] in ids:
                raise InputError(f"{path}:{number} /id", f"{value['id']} stands on line {ids[value['id']]} already", "ids that are unique")
            ids[value["id"]] = number
            value["meta"]["schema_digest"] = value["meta"].pop("schema")
            yield ChatRecord.model_validate(value)


def strict_json(text: str) -> Any:
    """json.loads without its kindnesses: duplicate keys, NaN, Infinity, numbers out of range and lone surrogates are ValueErrors."""
    value = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant, parse_float=_finite)
    canonical_json(value).encode()  # UnicodeEncodeError, a ValueError, on half of a character
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        double = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {double!r} stands twice in one object")
    return result


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is out of range")
    return value


def _spell(row: IndexRow, split: Split) -> dict[str, Any]:
    return {
        "id": row.id,
        "messages": [
            {
                "role": "user",
                "content": [{"type": "image", "image": f"../{row.image[:2]}/{row.image}.png"}, {"type": "text", "text": row.instruction}],
            },
            {"role": "assistant", "content": [{"type": "text", "text": row.target}]},
        ],
        "meta": {
            "document": row.document,
            "page": row.page,
            "type": row.type,
            "vendor": row.vendor,
            "stratum": row.stratum,
            "twin": row.twin,
            "split": split,
            "schema": row.schema_digest,
            "page_digest": row.image,
            "width": row.width,
            "height": row.height,
            "dpi": row.dpi,
        },
    }


_ANSWER = "/messages/1/content/0/text"


def _problem(value: Any, validator: jsonschema_rs.Validator) -> tuple[str, str] | None:
    """(JSON pointer, what is wrong) of the first problem of one record, or None."""
    for error in validator.iter_errors(value):
        message = error.message if len(error.message) <= 200 else error.message[:197] + "..."
        return "".join(f"/{part}" for part in error.instance_path), message
    text = value["messages"][1]["content"][0]["text"]
    try:
        answer = strict_json(text)
    except (ValueError, RecursionError) as error:
        return _ANSWER, f"the answer is not strict JSON: {error}"
    if not isinstance(answer, dict):
        return _ANSWER, f"the answer is a JSON {type(answer).__name__}, not an object"
    if json.dumps(answer, ensure_ascii=False, separators=(",", ":")) != text:
        return _ANSWER, "the answer is not compact JSON (white space, escapes or spare digits)"
    image, digest = value["messages"][0]["content"][0]["image"], value["meta"]["page_digest"]
    if image.rsplit("/", 1)[-1].partition(".")[0] != digest:
        return "/messages/0/content/0/image", f"names another picture than meta.page_digest {digest}"
    return None


def _validator(schema: ChatSchema) -> jsonschema_rs.Validator:
    if isinstance(schema, Path):
        try:
            schema = json.loads(schema.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(str(schema), f"cannot be read as the chat record's schema: {error}") from None
    return _compiled(canonical_json(schema))


@lru_cache(maxsize=4)
def _compiled(schema: str) -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(json.loads(schema))
