"""Reviewed answers: what the endpoint read and a person has judged, on its way back into landing/ as labels.

A record is the endpoint's response as it came, and what the review adds:

    {"file": "0815.png",                  the page picture that was sent, or its PDF; a path relative to this file
     "label": {...},                      the page's values as the reviewer left them
     "reviewer": "anna", "reviewed_at": "2026-11-26T10:00:00Z",
     "request_id": "...",                 the response's x-request-id
     "response": {...},                   the body of the 200 from /score, unchanged: answer, confidence, decision, model, schema, ...
     "page": 2,                           only where `file` has several pages: which one; every page needs its record
     "vendor": "acme", "type": "invoice"} both may be left out: where the document lies already, --vendor, the response's schema

One record a line of reviewed.jsonl, or one a file named <anything>.review.json.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from extraction_assets.documents.ingest_source import Candidate, ReviewedLabel
from extraction_assets.documents.label_file import parse_label
from extraction_assets.documents.label_provenance import changed_pointers
from extraction_assets.documents.records import Review
from extraction_assets.errors import InputError
from extraction_assets.serving.contract import ScoreResponse
from extraction_assets.store import digest_bytes, digest_of

REVIEWED = "reviewed.jsonl"
REVIEW_SUFFIX = ".review.json"


class ReviewedAnswer(BaseModel):
    """One record; see the module."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str = Field(min_length=1)
    label: dict[str, Any]
    reviewer: str = Field(min_length=1)
    reviewed_at: AwareDatetime
    request_id: str = Field(min_length=1)
    response: ScoreResponse
    page: int | None = Field(default=None, ge=1)
    vendor: str | None = None
    type: str | None = None

    def details(self) -> dict[str, Any]:
        """What the endpoint said, without the page's values: those are in the label."""
        said = self.response
        return {
            "request_id": self.request_id,
            "model": said.model.model_dump(),
            "schema": said.schema_.model_dump(),
            "decision": said.decision.model_dump(),
            "confidence": said.confidence.mean,
            "answer": digest_of(said.answer),
            "corrected": list(changed_pointers(said.answer, self.label)),
        }


@dataclass(frozen=True)
class _Placed:
    """A record and where it stands."""

    answer: ReviewedAnswer
    name: str
    path: Path
    """of the document"""
    source_digest: str


def list_reviewed(source: Path, vendor: str | None = None) -> list[Candidate]:
    """One candidate a reviewed document, and one a record that says nothing usable, in the order of the source.

    source: reviewed.jsonl or a folder that holds one, else a folder of .review.json files. Raises InputError where there is neither.
    """
    candidates: list[Candidate] = []
    of_document: dict[Path, list[_Placed]] = defaultdict(list)
    for name, place, data in _records(source):
        try:
            answer = _parse(data, place)
        except InputError as error:
            candidates.append(Candidate(name, source, problem=("bad_review", str(error))))
            continue
        path = place.parent / answer.file
        of_document[path].append(_Placed(answer, name, path, digest_bytes(data)))
    for path, placed in of_document.items():
        candidates += _of_document(path, placed)
    return candidates


def _of_document(path: Path, placed: Sequence[_Placed]) -> Iterator[Candidate]:
    """Reviews of a document as a whole one by one, the earliest first; those of its pages as one label."""
    paged = [one for one in placed if one.answer.page is not None]
    for one in sorted((one for one in placed if one.answer.page is None), key=lambda one: one.answer.reviewed_at):
        yield _candidate(one.name, path, [one], one.answer.label, one.answer.details(), None)
    latest = {one.answer.page: one for one in sorted(paged, key=lambda one: one.answer.reviewed_at)}
    if not latest:
        return
    pages = sorted(latest.values(), key=lambda one: one.answer.page or 0)
    missing = next((page for page in range(1, len(pages) + 1) if page not in latest), None)
    if missing is not None:
        yield Candidate(pages[0].name, path, problem=("other_pages", f"no review of page {missing}; expected one of every page"))
        return
    label: dict[str, Any] = pages[0].answer.label if len(pages) == 1 else {"pages": [one.answer.label for one in pages]}
    details = {"pages": [{"page": one.answer.page, "by": one.answer.reviewer, **one.answer.details()} for one in pages]}
    yield _candidate(pages[0].name, path, pages, label, details, len(pages))


def _candidate(
    name: str, path: Path, placed: Sequence[_Placed], label: dict[str, Any], details: dict[str, Any], pages: int | None
) -> Candidate:
    answers = [one.answer for one in placed]
    types = {answer.type or answer.response.schema_.type for answer in answers}
    vendors = {answer.vendor for answer in answers if answer.vendor}
    problem = None
    if not path.is_file():
        problem = "missing_file", f"{path.name}: no such file; expected the picture or PDF that was reviewed"
    elif len(types) > 1 or len(vendors) > 1:
        found = " and ".join(sorted(types if len(types) > 1 else vendors))
        problem = "bad_review", f"the reviews of its pages name {found}; expected one type and one vendor"
    review = Review(
        origin="endpoint",
        by=", ".join(dict.fromkeys(answer.reviewer for answer in answers)),
        at=max(answer.reviewed_at for answer in answers),
        source=name,
        source_digest=placed[0].source_digest,
        details=details,
    )
    vendor = next(iter(vendors), None)
    return Candidate(f"{name} {path.name}", path, None, min(types), vendor, problem, ReviewedLabel(label, review, pages))


# --- reading --------------------------------------------------------------------------------------------------------------


def _records(source: Path) -> Iterator[tuple[str, Path, bytes]]:
    """(name for reports, the file it stands in, its bytes) of every record."""
    if source.is_dir() and (source / REVIEWED).is_file():
        source = source / REVIEWED
    if source.is_file():
        for number, line in enumerate(_read(source).split(b"\n"), 1):
            if line.strip():
                yield f"{source.name}:{number}", source, line
        return
    found = sorted(source.rglob(f"*{REVIEW_SUFFIX}")) if source.is_dir() else []
    if not found:
        raise InputError(str(source), "holds no reviewed answer", f"{REVIEWED}, or files named *{REVIEW_SUFFIX}")
    for path in found:
        yield path.relative_to(source).as_posix(), path, _read(path)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(str(path), f"cannot be read: {error.strerror or error}") from None


def _parse(data: bytes, place: Path) -> ReviewedAnswer:
    value = parse_label(data, place.name)  # as strict as a label: no key twice, no NaN
    try:
        return ReviewedAnswer.model_validate_json(json.dumps(value))
    except ValidationError as error:
        first = error.errors()[0]
        pointer = "".join(f"/{part}" for part in first["loc"])
        found = json.dumps(first["input"], default=str)[:60] if first["type"] != "missing" else "nothing"
        raise InputError(pointer or "/", f"found {found}", f"{first['msg'][:1].lower()}{first['msg'][1:]}") from None
