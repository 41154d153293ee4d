"""Predictions: a whole split's answers as one deterministic JSONL, resumable; and answers for pages that belong to no split."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extraction_assets.documents.records import PageText
from extraction_assets.errors import InputError
from extraction_assets.inference.answers import Answerer
from extraction_assets.inference.page_answer import Answer, PagePrompt
from extraction_assets.model.base import Base, base_digest, load_base
from extraction_assets.model.examples import read_examples
from extraction_assets.schema import TargetSchema
from extraction_assets.settings import DecodingSettings
from extraction_assets.store import digest_file, digest_folder, digest_of, write_atomically

PARTIAL = "answers.partial.jsonl"
CONFIDENCES = "confidences.jsonl"
"""beside the answers: how sure the model was of each value. Apart from them, since its last digits depend on which pages were answered together"""
_PREDICTION = ("id", "text", "finish_reason", "tokens")
_CONFIDENCE = ("id", "mean", "values")


@dataclass(frozen=True)
class RenderedPage:
    """A page image that belongs to no split."""

    file: str
    """for people"""
    page: int
    """1 is the first"""
    png: bytes
    width: int
    height: int
    text: PageText | None = None
    """the page's words, where it has a text layer; not part of the prompt, only drafted from"""


@dataclass(frozen=True)
class PageAnswer:
    file: str
    page: int
    answer: Answer


def predict_split(
    split_jsonl: Path,
    base: str | Path,
    adapter: Path | None,
    settings: DecodingSettings,
    out: Path,
    work: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    loaded: Base | None = None,
    schemas: Mapping[str, TargetSchema] | None = None,
    texts: Mapping[str, PageText] | None = None,
) -> Path:
    """Answer every example of a split; `out` holds one line {"id", "text", "finish_reason", "tokens"} each, in the split's order, and
    CONFIDENCES beside it a line {"id", "mean", "values"} each.

    adapter: None answers with the base alone. work: folder of the answers done so far (default: beside `out`); a killed call
    goes on from there, an answer that was cut short while it was written is given again. loaded: the base, if the caller has it in memory.
    schemas: by digest, those of the split's examples, on the wire of the model that answers; their grammars hold the answers where
    settings.constrained. None: free text.
    texts: by digest of the page image, the words to draft from; without them the answers are the same and take more passes.
    Raises InputError as read_examples, load_base and Answerer do.
    """
    examples = read_examples(split_jsonl)
    adapter_digest = digest_folder(adapter) if adapter else None
    question = digest_of([digest_file(split_jsonl), base_digest(base), adapter_digest, settings.model_dump(mode="json")])
    partial = (work or out.parent / f".{out.name}.work") / PARTIAL
    records = _answers_so_far(partial, question, {example.id for example in examples})
    known, words = schemas or {}, texts or {}
    todo = [PagePrompt.of(one, known.get(one.schema), words.get(one.page_digest)) for one in examples if one.id not in records]
    if todo:
        answerer = Answerer.of(loaded or load_base(base), adapter)
        with partial.open("a", encoding="utf-8") as file:
            for _, answer in answerer.answer_each(todo, settings):
                records[answer.id] = {**_prediction(answer), "mean": round(answer.confidence, 6), "values": dict(answer.values)}
                file.write(json.dumps(records[answer.id], ensure_ascii=False) + "\n")
                file.flush()
                if progress:
                    progress(len(records), len(examples))
    for path, keys in ((out.parent / CONFIDENCES, _CONFIDENCE), (out, _PREDICTION)):  # the answers last: with them the folder is complete
        lines = (_spelled({key: records[example.id][key] for key in keys}) + "\n" for example in examples)
        write_atomically(path, "".join(lines).encode())
    partial.unlink()
    return out


def predict_pages(
    pages: Sequence[RenderedPage],
    schema: TargetSchema,
    answerer: Answerer,
    settings: DecodingSettings,
    progress: Callable[[int, int], None] | None = None,
) -> list[PageAnswer]:
    """Answers for rendered pages, in the order given. Raises InputError naming file and page of one that is off the grid or too long."""
    prompts = [
        PagePrompt(f"{page.file} p{page.page}", schema.instruction, page.png, page.width, page.height, schema=schema, text=page.text)
        for page in pages
    ]
    answers = answerer.answer(prompts, settings, progress)
    return [PageAnswer(page.file, page.page, answer) for page, answer in zip(pages, answers, strict=True)]


def prediction_line(answer: Answer) -> str:
    """One line of a predictions file: nothing in it depends on time or on the machine."""
    return _spelled(_prediction(answer))


def _prediction(answer: Answer) -> dict[str, Any]:
    return {"id": answer.id, "text": answer.text, "finish_reason": answer.finish_reason, "tokens": answer.tokens}


def _spelled(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def _answers_so_far(partial: Path, question: str, ids: set[str]) -> dict[str, dict[str, Any]]:
    """The valid prefix of an earlier call's answers to the same question; the file is cut behind it (or begun)."""
    partial.parent.mkdir(parents=True, exist_ok=True)
    header = json.dumps({"question": question})
    records: dict[str, dict[str, Any]] = {}
    kept: list[str] = []
    try:
        found = partial.read_bytes().split(b"\n")[:-1] if partial.exists() else []  # a line without its end was being written
    except OSError as error:
        raise InputError(str(partial), f"cannot be read: {error.strerror}") from None
    if found and found[0] == header.encode():
        for raw in found[1:]:
            record = _record(raw)
            if record is None or record["id"] not in ids:
                break
            records[record["id"]] = record
            kept.append(raw.decode("utf-8"))
    write_atomically(partial, "".join(line + "\n" for line in (header, *kept)).encode())
    return records


def _record(raw: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(raw.decode("utf-8"))
    except ValueError:
        return None
    return record if isinstance(record, dict) and set(record) == {*_PREDICTION, *_CONFIDENCE} else None
