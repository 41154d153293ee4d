"""What the label audit looks at, fetched from the record: every labelled document, its pages, and what the champion reads on them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from extraction_assets.assets.report_source import answers_of_split, split_records
from extraction_assets.dataset.records import CLEAN, PageTarget, VendorTargets
from extraction_assets.documents.label_provenance import page_parts
from extraction_assets.documents.records import Label, PageImage, VendorDocuments, VendorLabels, VendorPages
from extraction_assets.evaluation.label_audit import DoubtfulLabel, LabelledDocument, Reading
from extraction_assets.evaluation.label_studio.export import TaskLabel, TaskPage
from extraction_assets.evaluation.strict_json import parse_answer
from extraction_assets.inference.documents import merge_pages
from extraction_assets.record import Record
from extraction_assets.schema import TargetSchema
from extraction_assets.store import digest_of


@dataclass(frozen=True)
class AuditedDocument:
    """A labelled document and all that a reviewer needs to judge its label."""

    type: str
    vendor: str
    label: Label
    pages: tuple[PageImage, ...]
    boxes: Mapping[int, PageTarget]
    """page number -> its target, which knows where its values stand"""
    labelled: LabelledDocument


@dataclass(frozen=True)
class AuditSource:
    documents: tuple[AuditedDocument, ...]
    champion: str | None
    """digest of the adapter whose answers are heard; None: nothing has been answered by a champion yet"""
    read_pages: int
    """pages that it has answered"""


def audit_source(record: Record, schemas: Mapping[str, TargetSchema]) -> AuditSource:
    """Every labelled document of the record's latest state. Raises InputError where the store lacks something."""
    champion, answers = _champion_answers(record)
    found: list[AuditedDocument] = []
    latest = {name: record.latest_versions(name, True) for name in ("raw_documents", "document_labels", "page_images", "page_targets")}
    store = record.home.store
    for vendor in record.vendors():
        if any(vendor not in versions for versions in latest.values()) or vendor.split("/")[0] not in schemas:
            continue
        documents = VendorDocuments.model_validate(store.read_json(latest["raw_documents"][vendor]))
        labels = VendorLabels.model_validate(store.read_json(latest["document_labels"][vendor]))
        pages = VendorPages.model_validate(store.read_json(latest["page_images"][vendor]))
        targets = VendorTargets.model_validate(store.read_json(latest["page_targets"][vendor]))
        found += _of_vendor(documents, labels, pages, targets, schemas[labels.type], answers)
    return AuditSource(tuple(_with_twins(found)), champion, len(answers))


def _of_vendor(
    documents: VendorDocuments,
    labels: VendorLabels,
    pages: VendorPages,
    targets: VendorTargets,
    schema: TargetSchema,
    answers: Mapping[tuple[str, int], Any],
) -> list[AuditedDocument]:
    files = {document.document: document.file for document in documents.documents}
    images: dict[str, list[PageImage]] = defaultdict(list)
    for page in pages.pages:
        images[page.document].append(page)
    placed: dict[str, dict[int, PageTarget]] = defaultdict(dict)
    for target in targets.targets:
        placed[target.document][target.page] = target
    unplaced: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for value in targets.unplaced:
        unplaced[value.document].append((value.pointer, value.value))
    found = []
    for label in labels.labels:
        readings = []
        for number, target in placed[label.document].items():
            answer = answers.get((label.document, number))
            parsed = parse_answer(answer.text, answer.finish_reason) if answer else None
            if answer and parsed and parsed.strict and schema.is_valid(parsed.value):
                readings.append(Reading(number, json.loads(target.target), parsed.value or {}, answer.confidence, answer.values or {}))
        labelled = LabelledDocument(
            id=files.get(label.document, label.file),
            vendor=f"{labels.type}/{labels.vendor}",
            label=_whole(label.label, schema),
            unplaced=unplaced[label.document],
            readings=readings,
        )
        found.append(AuditedDocument(labels.type, labels.vendor, label, tuple(images[label.document]), placed[label.document], labelled))
    return found


def _whole(label: dict[str, Any], schema: TargetSchema) -> dict[str, Any]:
    parts = page_parts(label, schema)
    return schema.complete(label) if parts is None else merge_pages(list(enumerate(parts, 1)), schema).answer


def _with_twins(documents: list[AuditedDocument]) -> list[AuditedDocument]:
    """Documents whose pages have the same pictures, or the same words, share their content."""

    def same(document: AuditedDocument) -> str | None:
        if not document.pages:
            return None
        texts = [page.text for page in document.pages]
        return digest_of([document.type, texts if all(texts) else [page.image for page in document.pages]])

    return [replace(it, labelled=replace(it.labelled, same_as=same(it))) for it in documents]


def _champion_answers(record: Record) -> tuple[str | None, dict[tuple[str, int], Any]]:
    """(digest of the champion, its answer to each clean page of val and test by document and page)."""
    answered: dict[str, Any] = record.latest_value("predictions") or {}
    adapter = (record.latest_value("champion_adapter") or {}).get("adapter")
    system = next((name for name, its in answered.get("adapters", {}).items() if adapter and its == adapter), None)
    if system is None:
        return None, {}
    found: dict[tuple[str, int], Any] = {}
    for split, jsonl in answered["answers"][system].items():
        answers = answers_of_split(record.home.store, jsonl, answered["confidences"][system][split])
        for row in split_records(record.home.store, answered["splits"][split]):
            if row.meta.stratum == CLEAN and row.id in answers:
                found[row.meta.document, row.meta.page] = answers[row.id]
    return adapter, found


def task_labels(document: AuditedDocument, doubtful: DoubtfulLabel, champion: str | None, schema: TargetSchema) -> list[TaskLabel]:
    """What a reviewer is asked about one label: all of it, or page by page where it is given so."""
    parts = page_parts(document.label.label, schema)
    answers = {reading.page: reading.answer for reading in document.labelled.readings}
    pages = {
        page.page: TaskPage(
            page.image, page.width, page.height, document.boxes[page.page].value_boxes if page.page in document.boxes else {}
        )
        for page in document.pages
    }

    def task(value: Mapping[str, Any], part: int | None, shown: tuple[TaskPage, ...], answer: Mapping[str, Any] | None) -> TaskLabel:
        return TaskLabel(
            document=document.label.document,
            file=document.labelled.id,
            type=document.type,
            vendor=document.vendor,
            label=digest_of(document.label.label),
            origin=document.label.origin,
            value=value,
            part=part,
            pages=shown,
            doubtful=doubtful,
            answer=answer,
            champion=champion,
        )

    if parts is not None:
        found = enumerate(parts)
        return [task(part, index, (pages[index + 1],), answers.get(index + 1)) for index, part in found if index + 1 in pages]
    whole = merge_pages(list(answers.items()), schema).answer if answers and answers.keys() >= document.boxes.keys() else None
    return [task(document.label.label, None, tuple(pages[number] for number in sorted(pages)), whole)]
