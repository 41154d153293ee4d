"""Labels to look at first, as Label Studio tasks: one task a label, the most doubtful first, with the reasons and two predictions.

    DIR/pages/<digest>.png            page images, shared by all types
    DIR/<type>/label_config.xml       the project's labelling config
    DIR/<type>/tasks.json             to import into that project

A label that is given page by page is one task a page. Images are served by Label Studio itself
(LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT is DIR's parent), or stand in the tasks as data URIs.
"""

from __future__ import annotations

import base64
import json
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extraction_assets.evaluation.label_audit import DoubtfulLabel
from extraction_assets.evaluation.label_studio.controls import BOXES, IMAGE, control_of, labelling_config, results
from extraction_assets.schema import TargetSchema
from extraction_assets.store import Store, write_atomically


@dataclass(frozen=True)
class TaskPage:
    image: str
    """digest of the PNG in the store"""
    width: int
    height: int
    boxes: Mapping[str, Sequence[tuple[float, float, float, float]]]
    """JSON pointer of a value -> boxes (px) of the words that show it"""


@dataclass(frozen=True)
class TaskLabel:
    """One label, or one page's part of it, to be judged."""

    document: str
    file: str
    type: str
    vendor: str
    label: str
    """digest of the document's whole label as it is handed out"""
    origin: str
    value: Mapping[str, Any]
    part: int | None
    """0 for the first page, where the label is given page by page"""
    pages: tuple[TaskPage, ...]
    doubtful: DoubtfulLabel
    answer: Mapping[str, Any] | None
    """what the champion reads"""
    champion: str | None


def write_export(labels: Sequence[TaskLabel], schemas: Mapping[str, TargetSchema], store: Store, out: Path, inline: bool) -> list[Path]:
    """Write the tasks of every type, in the order given; returns the tasks files. inline: images as data URIs, no pages/."""
    written = []
    for name in sorted({label.type for label in labels}):
        tasks = [_task(label, schemas[name], store, out, inline) for label in labels if label.type == name]
        write_atomically(out / name / "label_config.xml", labelling_config(schemas[name]).encode())
        path = out / name / "tasks.json"
        write_atomically(path, (json.dumps(tasks, ensure_ascii=False, indent=1) + "\n").encode())
        written.append(path)
    return written


def _task(label: TaskLabel, schema: TargetSchema, store: Store, out: Path, inline: bool) -> dict[str, Any]:
    doubts = [f"{doubt.field}: {doubt.why} ({doubt.sign})" for doubt in label.doubtful.doubts]
    data = {
        "pages": [_address(page, store, out, inline) for page in label.pages],
        "file": label.file,
        "why": "\n".join(doubts),
        "weight": round(label.doubtful.weight, 6),
        "type": label.type,
        "vendor": label.vendor,
        "document": label.document,
        "label": label.label,
        "origin": label.origin,
        "schema": schema.digest,
        "part": label.part,
    }
    predictions = [{"model_version": "label", "result": [*results(label.value, schema), *_boxes(label.pages, schema)]}]
    if label.answer is not None:
        predictions.append({"model_version": f"champion {(label.champion or '')[:12]}", "result": results(label.answer, schema)})
    return {"data": data, "predictions": predictions}


def _address(page: TaskPage, store: Store, out: Path, inline: bool) -> str:
    data = store.read_bytes(page.image, ".png")
    if inline:
        return f"data:image/png;base64,{base64.b64encode(data).decode()}"
    write_atomically(out / "pages" / f"{page.image}.png", data)
    return f"/data/local-files/?d={urllib.parse.quote(out.resolve().name)}/pages/{page.image}.png"


def _boxes(pages: Sequence[TaskPage], schema: TargetSchema) -> list[dict[str, Any]]:
    """Where values stand, in percent of the page image."""
    found = []
    for index, page in enumerate(pages):
        for pointer, boxes in page.boxes.items():
            for number, (x0, y0, x1, y1) in enumerate(boxes):
                left, top = 100 * x0 / page.width, 100 * y0 / page.height
                value = {"x": left, "y": top, "width": 100 * x1 / page.width - left, "height": 100 * y1 / page.height - top, "rotation": 0}
                found.append(
                    {
                        "id": f"{index}{pointer}#{number}",
                        "from_name": BOXES,
                        "to_name": IMAGE,
                        "type": "rectanglelabels",
                        "item_index": index,
                        "original_width": page.width,
                        "original_height": page.height,
                        "image_rotation": 0,
                        "value": {**value, "rectanglelabels": [control_of(pointer, schema)]},
                    }
                )
    return found
