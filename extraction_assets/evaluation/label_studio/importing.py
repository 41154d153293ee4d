"""Judged labels from Label Studio, back into landing/: checked against their schema, each replacing only the label that was judged."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from extraction_assets.documents.digest_cache import DigestCache
from extraction_assets.documents.ingest import IngestReport
from extraction_assets.documents.label_file import read_label
from extraction_assets.documents.label_problems import label_problems
from extraction_assets.documents.label_provenance import page_parts
from extraction_assets.documents.landed_names import LandingIndex, Place
from extraction_assets.documents.records import Refusal, Review
from extraction_assets.documents.relabelling import Outcome, Replacement, relabel
from extraction_assets.errors import InputError
from extraction_assets.evaluation.label_studio.controls import label_of
from extraction_assets.evaluation.label_studio.judgements import Judgement, read_export
from extraction_assets.schema import TargetSchema
from extraction_assets.store import digest_file


def import_judgements(path: Path, landing: Path, schemas: Mapping[str, TargetSchema], cache: DigestCache) -> tuple[IngestReport, int]:
    """(what became of every judged document, how many tasks nobody has judged). One refused task keeps no other from landing.

    Raises InputError where the file is no export, or landing/ cannot be written.
    """
    judged, unjudged, errors = read_export(path)
    index = LandingIndex(landing, cache)
    by_document: dict[str, list[Judgement]] = {}
    for one in judged:
        by_document.setdefault(one.data.document, []).append(one)
    counts: Counter[Outcome] = Counter()
    replaced: list[Replacement] = []
    digest = digest_file(path)
    for document, its in by_document.items():
        try:
            outcome, replacement = _land(document, its, index, landing, schemas, f"{path.name}", digest)
        except InputError as error:
            errors.append(error)
            continue
        counts[outcome] += 1
        replaced += [replacement] if replacement else []
    cache.save()
    refused = tuple(Refusal(file=error.where, reason="bad_judgement", detail=_after(error)) for error in errors)
    added = counts["labelled"] + counts["replaced"]
    return IngestReport(added, counts["unchanged"], refused, tuple(replaced), counts["confirmed"]), unjudged


def _after(error: InputError) -> str:
    return str(error).removeprefix(f"{error.where}: ")


def _land(
    document: str,
    judged: Sequence[Judgement],
    index: LandingIndex,
    landing: Path,
    schemas: Mapping[str, TargetSchema],
    source: str,
    source_digest: str,
) -> tuple[Outcome, Replacement | None]:
    first = judged[0]
    place = index.place_of(document)
    if place is None:
        raise InputError(first.where, f"the document {document[:12]} does not lie in landing", do="Ingest it again, or leave the task out")
    schema = schemas.get(first.data.type)
    if schema is None or place.key != f"{first.data.type}/{first.data.vendor}":
        raise InputError(first.where, f"found the type and vendor {first.data.type}/{first.data.vendor}", place.key)
    present = read_label(index.label_path(place)) if place.label is not None else {}
    label = _judged_label(judged, place, present, schema)
    problems = label_problems(label, schema)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InputError(first.where, f"{problems[0]}{more}", f"a label that follows the schema of {schema.name}")
    review = Review(
        origin="label-studio",
        by=", ".join(dict.fromkeys(one.by for one in judged)),
        at=max(one.at for one in judged),
        source=source,
        source_digest=source_digest,
        details={"tasks": [{"task": one.task, "annotation": one.annotation, "judged": one.data.label} for one in judged]},
    )
    return relabel(index, place, document, label, review, schema, judged=first.data.label)


def _judged_label(judged: Sequence[Judgement], place: Place, present: dict[str, Any], schema: TargetSchema) -> dict[str, Any]:
    """The whole label, or the present one with the judged pages' parts in place of theirs."""
    parts = page_parts(present, schema)
    whole = copy.deepcopy(present)
    seen: set[int | None] = set()
    for one in judged:
        part = one.data.part
        if part in seen:
            raise InputError(one.where, "is about a label that another task of this file judges too", "one task a label")
        seen.add(part)
        if (part is None) != (parts is None) or (parts is not None and not 0 <= (part or 0) < len(parts)):
            raise InputError(one.where, f"found part {part}", "a part of the label that lies there", "Hand it out and judge it again")
        before = present if parts is None else parts[part or 0]
        if not any(text.strip() for texts in one.texts.values() for text in texts) and any(schema.complete(before).values()):
            do = "Start from the prediction 'label'; a document whose label is to be empty is corrected in landing/"
            raise InputError(one.where, "every field is empty, while the label holds values", "the label's fields as they should be", do)
        spelled = label_of(one.texts, schema, before, one.where)
        odd = [problem for problem in label_problems(spelled, schema) if "no such key" in problem]
        if odd:  # before completing it, which would drop such a key in silence
            raise InputError(one.where, odd[0], "the schema's columns")
        given = schema.complete(spelled)
        if parts is None:
            whole = given
        else:
            whole["pages"][part] = given
    return whole
