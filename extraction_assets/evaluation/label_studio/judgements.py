"""What comes back from Label Studio: its JSON export, or JSON-MIN, read as one judgement a task."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from extraction_assets.errors import InputError


class TaskData(BaseModel):
    """What a task carried out and brings back (export.py wrote it)."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    document: str
    label: str
    type: str
    vendor: str
    part: int | None = None


@dataclass(frozen=True)
class Judgement:
    """One task that a person has judged."""

    where: str
    """file and task, for people"""
    data: TaskData
    texts: Mapping[str, tuple[str, ...]]
    """control -> its texts; a control that was left or made empty has none"""
    by: str
    at: datetime
    task: Any
    annotation: Any


def read_export(path: Path) -> tuple[list[Judgement], int, list[InputError]]:
    """(judged tasks in the order of the file, tasks that nobody judged or that were skipped, one error a task that says nothing usable).

    Raises InputError where the file is no export of Label Studio.
    """
    try:
        tasks = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(str(path), f"cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(str(path), f"not valid JSON: {error}"[:200], "what Label Studio exports as JSON or JSON-MIN") from None
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise InputError(str(path), "holds no list of tasks", "what Label Studio exports as JSON or JSON-MIN")
    judged: list[Judgement] = []
    refused: list[InputError] = []
    unjudged = 0
    for number, task in enumerate(tasks, 1):
        where = f"{path.name} task {task.get('id', f'number {number}')}"
        try:
            found = _of_task(task, where) if "annotations" in task else _of_row(task, where)
        except InputError as error:
            refused.append(error)
            continue
        unjudged += found is None
        judged += [found] if found else []
    return judged, unjudged, refused


def _of_task(task: dict[str, Any], where: str) -> Judgement | None:
    """A task of the full JSON export."""
    annotations = task["annotations"]
    if not isinstance(annotations, list) or not all(isinstance(it, dict) and isinstance(it.get("result"), list) for it in annotations):
        raise InputError(f"{where} /annotations", "found something else than annotations", "a list of objects with a result")
    kept = [annotation for annotation in annotations if not annotation.get("was_cancelled")]
    kept = [annotation for annotation in kept if annotation.get("ground_truth")] or kept
    if not kept:
        return None
    readings = [_texts(annotation["result"], where) for annotation in kept]
    if any(reading != readings[0] for reading in readings):
        raise InputError(
            where, f"found {len(kept)} annotations that differ", "one", "Mark the right one as ground truth, or remove the others"
        )
    chosen = max(kept, key=lambda annotation: str(annotation.get("updated_at") or annotation.get("created_at") or ""))
    return _judgement(task.get("data"), readings[0], chosen, chosen.get("completed_by"), chosen.get("id"), task.get("id"), where)


def _texts(result: Sequence[Any], where: str) -> dict[str, tuple[str, ...]]:
    texts: dict[str, tuple[str, ...]] = {}
    for number, region in enumerate(result):
        name = region.get("from_name") if isinstance(region, dict) else None
        value = region.get("value") if isinstance(region, dict) else None
        if isinstance(name, str) and name.startswith("/") and isinstance(value, dict):
            texts[name] = texts.get(name, ()) + _strings(value, f"{where} /result/{number}")
    return texts


def _of_row(row: dict[str, Any], where: str) -> Judgement | None:
    """A row of JSON-MIN: the task's data and the controls' values side by side."""
    if row.get("annotation_id") is None:
        return None
    texts = {name: _strings(value, f"{where} {name}") for name, value in row.items() if name.startswith("/")}
    return _judgement(row, texts, row, row.get("annotator"), row["annotation_id"], row.get("id"), where)


def _strings(value: Any, where: str) -> tuple[str, ...]:
    """The texts of one control, in any of the spellings that Label Studio has for them."""
    if isinstance(value, dict):
        value = value.get("text", value.get("choices"))
    if isinstance(value, list):
        return tuple(text for item in value for text in _strings(item, where))
    if not isinstance(value, str):
        raise InputError(where, f"found {json.dumps(value)[:60]}", "a text or a choice")
    return (value,)


def _judgement(
    data: Any, texts: Mapping[str, tuple[str, ...]], times: Mapping[str, Any], by: Any, annotation: Any, task: Any, where: str
) -> Judgement:
    try:
        carried = TaskData.model_validate(data)
    except ValidationError as error:
        pointer = "".join(f"/{part}" for part in error.errors()[0]["loc"])
        raise InputError(f"{where} /data{pointer}", error.errors()[0]["msg"], "a task that `extraction audit --export` wrote") from None
    stamp = times.get("updated_at") or times.get("created_at")
    try:
        at = datetime.fromisoformat(str(stamp))
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise InputError(f"{where} updated_at", f"found {stamp!r}", "a time with its zone")
    person = by.get("email") or by.get("id") if isinstance(by, dict) else by
    return Judgement(where, carried, texts, person if isinstance(person, str) else f"user {person}", at, task, annotation)
