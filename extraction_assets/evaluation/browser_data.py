"""The error browser's data: every page that the main system did not get exactly right, as plain JSON, and its picture as JPEG."""

from __future__ import annotations

import io
import json
from typing import Any

from extraction_assets.evaluation.rows import RowScore, value_at
from extraction_assets.evaluation.run import Answer, ImageFile, ReportExample, ScoredRun, TypeExamples
from extraction_assets.evaluation.scoring import OUTCOMES, DocumentScore
from extraction_assets.schema import Leaf

_RAW_SHOWN = 6000
"""characters of a raw answer that is no strict JSON"""


def browser_pages(run: ScoredRun) -> tuple[list[dict[str, Any]], dict[str, ImageFile]]:
    """(pages, {image name: its file}) of every example that the main system did not get exactly right, worst first within its type."""
    pages: list[dict[str, Any]] = []
    images: dict[str, ImageFile] = {}
    names: dict[str, str] = {}
    for one in run.types:
        scores = run.details[one.type]
        wrong = [number for number, score in enumerate(scores[run.main]) if not score.document_exact]
        wrong.sort(key=lambda number: (_badness(scores[run.main][number]), one.examples[number].id))
        for number in wrong:
            example = one.examples[number]
            page = _page(one, example, {name: scores[name][number] for name in run.systems})
            if example.image is not None:
                page["image"] = name = names.setdefault(str(example.image), f"{len(names):05d}")
                images[name] = example.image
            pages.append(page)
    return pages, images


def as_jpeg(image: ImageFile, longest: int, quality: int = 72) -> bytes:
    """A page image as JPEG, at most `longest` px high or wide."""
    from PIL import Image

    with Image.open(io.BytesIO(image.read_bytes())) as picture:
        small = picture.convert("RGB")
        small.thumbnail((longest, longest))
        out = io.BytesIO()
        small.save(out, "JPEG", quality=quality)
        return out.getvalue()


def _badness(score: DocumentScore) -> tuple[float, float]:
    hits, asked = score.pooled("cell_f1")
    return score.field_accuracy, hits / asked if asked else 1.0


def _page(one: TypeExamples, example: ReportExample, scores: dict[str, DocumentScore]) -> dict[str, Any]:
    boxes = {pointer: [[round(x, 1) for x in box] for box in found] for pointer, found in example.value_boxes.items()}
    return {
        "id": example.id,
        "type": one.type,
        "vendor": example.vendor,
        "stratum": example.stratum,
        "document": example.document,
        "page": example.page,
        "what": example.what,
        "width": example.width,
        "height": example.height,
        "gold": example.gold,
        "boxes": boxes,
        "answers": {name: _answer(one, example, example.answers.get(name, Answer(None)), score) for name, score in scores.items()},
    }


def _answer(one: TypeExamples, example: ReportExample, answer: Answer, score: DocumentScore) -> dict[str, Any]:
    value = json.loads(answer.text) if score.strict_json and answer.text else {}
    told: dict[str, Any] = {
        "bucket": score.bucket,
        "exact": score.document_exact,
        "outcomes": [OUTCOMES.index(score.fields[leaf.name]) for leaf in one.schema.fields],
        "values": [value_at(value, leaf.path) for leaf in one.schema.fields],
        "rows": {
            array.name: _rows(array.path, [c.path for c in array.columns], score.rows[array.name], value) for array in one.schema.row_arrays
        },
    }
    if not score.strict_json:
        told |= {"problem": score.problem, "raw": _printable((answer.text or "")[:_RAW_SHOWN])}
    if score.extra_keys:
        told["extra_keys"] = list(score.extra_keys)
    if answer.tokens is not None:
        told["tokens"] = answer.tokens
    if answer.confidence is not None:
        told["confidence"] = round(answer.confidence, 4)
    return told


def _rows(path: tuple[str, ...], columns: list[tuple[str, ...]], score: RowScore, value: dict[str, Any]) -> dict[str, Any]:
    """pairs: [row of gold, row of answer, per column 1 if equal]; the answer's cells by column."""
    rows = value_at(value, path)
    cells = [[value_at(row, column) for column in columns] for row in rows] if isinstance(rows, list) else []
    return {"pairs": [[pair.gold, pair.answer, [int(same) for same in pair.equal]] for pair in score.pairs], "cells": cells}


def _printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def schema_outline(one: TypeExamples) -> dict[str, Any]:
    """What the browser must know of a schema: fields (name, path, type) and arrays with their columns."""
    return {
        "fields": [_outline(leaf) for leaf in one.schema.fields],
        "arrays": [
            {"name": rows.name, "path": list(rows.path), "columns": [_outline(column) for column in rows.columns]}
            for rows in one.schema.row_arrays
        ],
    }


def _outline(leaf: Leaf) -> dict[str, Any]:
    return {"name": leaf.name, "path": list(leaf.path), "type": leaf.type}
