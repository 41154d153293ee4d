"""What the eval report is made of, fetched from the store: test pages with gold, answers, pictures and boxes."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from extraction_assets.dataset.chat import ChatMeta, ChatRecord, load_split
from extraction_assets.dataset.records import CLEAN, PageTarget, Split, VendorTargets
from extraction_assets.documents.records import PageText
from extraction_assets.evaluation.run import Answer, ReportExample, ScoredRun, TypeExamples, score_examples
from extraction_assets.home import chat_record_schema_path
from extraction_assets.inference.label_rules import read_by_rules
from extraction_assets.inference.ocr import read_pages
from extraction_assets.schema import TargetSchema
from extraction_assets.store import Store
from extraction_assets.wire import gold

RULES = "rules"
"""a system of the report: no model at all"""
CONFIDENCES = "confidences.jsonl"
"""inference.predict writes it; named here too, since that would load torch"""


def score_split(store: Store, answered: Mapping[str, Any], split: Split, rules: bool = False, workers: int = 0) -> ScoredRun:
    """Score every system's answers to one split. rules: beside them what rules read (inference.label_rules) out of the text layers, and out of
    Tesseract's words where a page has none and Tesseract is installed; workers: pages that it reads at a time (0: one a core).

    answered: value of the predictions asset. It pins what belongs to the answers: the splits (vendors of the training split count as
              seen) and the page targets, which know where each value stands.
    """
    records = split_records(store, answered["splits"][split])
    systems = [name for name in ("base", "champion", "challenger") if split in answered["answers"].get(name, {})]
    answers = {name: answers_of_split(store, answered["answers"][name][split], answered["confidences"][name][split]) for name in systems}
    seen = {record.meta.vendor for record in split_records(store, answered["splits"]["train"])}
    boxes = _page_targets(store, answered["targets"], {record.meta.vendor for record in records})
    texts = _words_for_rules(store, answered, split, workers) if rules else {}
    by_type: dict[str, list[ReportExample]] = defaultdict(list)
    by_digest: dict[str, TargetSchema] = {}
    schemas: dict[str, TargetSchema] = {}
    for record in records:
        meta = record.meta
        if meta.schema_digest not in by_digest:
            by_digest[meta.schema_digest] = _schema(store, meta.schema_digest, meta.type)
        schemas.setdefault(meta.type, by_digest[meta.schema_digest])
        page = boxes.get((meta.document, meta.page)) if meta.stratum == CLEAN else None
        by_type[meta.type].append(
            ReportExample(
                id=record.id,
                vendor=meta.vendor,
                stratum=meta.stratum,
                document=meta.document,
                page=meta.page,
                gold=gold(by_digest[meta.schema_digest], record.target),
                answers={name: answers[name][record.id] for name in systems if record.id in answers[name]}
                | _by_rules(texts, meta, schemas),
                twin=meta.twin,
                seen=meta.vendor in seen,
                image=store.path(meta.page_digest, ".png"),
                width=meta.width,
                height=meta.height,
                value_boxes=page.value_boxes if page else {},
            )
        )
    types = [TypeExamples(name, schemas[name], by_type[name]) for name in sorted(by_type)]
    if rules:
        systems.insert(0, RULES)
    return score_examples(types, systems, conditions={"dataset": answered["splits"][split], "decoding": answered["decoding"]})


def _words_for_rules(store: Store, answered: Mapping[str, Any], split: Split, workers: int) -> dict[str, PageText]:
    texts = page_texts(store, answered["splits"][split], answered["targets"])
    images = {record.meta.page_digest for record in split_records(store, answered["splits"][split])}
    return texts | dict(read_pages(store, images - texts.keys(), workers))


def _by_rules(texts: Mapping[str, PageText], meta: ChatMeta, schemas: Mapping[str, TargetSchema]) -> dict[str, Answer]:
    if meta.page_digest not in texts:
        return {}
    answer = read_by_rules(texts[meta.page_digest], schemas[meta.type])
    return {RULES: Answer(json.dumps(answer, ensure_ascii=False, separators=(",", ":")), "stop")}


def split_schemas(store: Store, jsonl: str) -> dict[str, TargetSchema]:
    """The target schemas of a split's examples, by digest, as they were when its targets were made."""
    types = {record.meta.schema_digest: record.meta.type for record in split_records(store, jsonl)}
    return {digest: _schema(store, digest, type) for digest, type in types.items()}


def page_texts(store: Store, jsonl: str, targets: Mapping[str, str]) -> dict[str, PageText]:
    """The text layers of a split's pages, by digest of the page image; hard negatives and scans have none.

    targets: digest of each vendor's page targets.
    """
    records = split_records(store, jsonl)
    pages = _page_targets(store, targets, {record.meta.vendor for record in records}).values()
    wanted = {record.meta.page_digest for record in records}
    return {page.image: PageText.model_validate(store.read_json(page.text)) for page in pages if page.text and page.image in wanted}


def _schema(store: Store, digest: str, type: str) -> TargetSchema:
    return TargetSchema(store.read_json(digest), type, source=f"schemas/{type}.schema.json")


def point_to(link: Path, folder: Path) -> None:
    """Make `link` a link to `folder`, in one step."""
    temporary = link.with_name(f".{link.name}-{uuid.uuid4().hex}")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    temporary.symlink_to(folder.name, target_is_directory=True)
    os.replace(temporary, link)


def split_records(store: Store, jsonl: str) -> list[ChatRecord]:
    """The chat records of a split's JSONL, each one validated."""
    return list(load_split(store.path(jsonl, ".jsonl"), chat_record_schema_path()))


def answers_of_split(store: Store, jsonl: str, folder: str) -> dict[str, Answer]:
    """folder: name of that which holds the confidences."""
    sure = {line["id"]: line for line in _lines((store.folder(folder) / CONFIDENCES).read_bytes())}
    return {
        line["id"]: Answer(line["text"], line["finish_reason"], line["tokens"], sure[line["id"]]["mean"], sure[line["id"]]["values"])
        for line in _lines(store.read_bytes(jsonl, ".jsonl"))
    }


def _lines(data: bytes) -> Iterator[dict[str, Any]]:
    return (json.loads(line) for line in data.splitlines())


def _page_targets(store: Store, targets: Mapping[str, str], vendors: set[str]) -> dict[tuple[str, int], PageTarget]:
    pages = {}
    for vendor in sorted(vendors & targets.keys()):
        for target in VendorTargets.model_validate(store.read_json(targets[vendor])).targets:
            pages[target.document, target.page] = target
    return pages
