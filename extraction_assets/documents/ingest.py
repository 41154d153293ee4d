"""Ingest: brings documents and their labels from anywhere into landing/<type>/<vendor>/. The user's files are only read.

Every document is opened in the sandbox and every label checked against its type's schema before anything is copied. A label is
written before its document, both through a temporary name: a document never shows up without its label, nor half written.
A label that replaces another one is told (see relabelling), and an earlier source never undoes what a review has corrected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from extraction_assets.documents.digest_cache import DigestCache
from extraction_assets.documents.drawing import render_request
from extraction_assets.documents.ingest_source import Candidate, list_candidates
from extraction_assets.documents.label_file import read_label
from extraction_assets.documents.label_problems import label_problems
from extraction_assets.documents.landed_names import LandingIndex
from extraction_assets.documents.names import check_vendor_name
from extraction_assets.documents.records import Refusal
from extraction_assets.documents.relabelling import Outcome, Replacement, relabel, replace_by_file
from extraction_assets.documents.sandbox import Frame, Task, warm_sandbox
from extraction_assets.errors import InputError
from extraction_assets.schema import TargetSchema
from extraction_assets.settings import RenderSettings
from extraction_assets.store import digest_bytes, digest_file, digest_of

Progress = Callable[[int, int], None]

UNKNOWN_VENDOR = "unknown"


@dataclass(frozen=True)
class IngestReport:
    """What became of a source. Every candidate is counted once, or refused."""

    added: int
    """documents that are new, or whose label is"""
    unchanged: int
    refused: tuple[Refusal, ...]
    """in the order of the source; `file` is the path below it"""
    replaced: tuple[Replacement, ...] = ()
    """labels that lay there and said something else; their documents count as added"""
    confirmed: int = 0
    """documents whose label a review found right"""

    def as_json(self) -> dict[str, Any]:
        return {
            "added": self.added,
            "unchanged": self.unchanged,
            "confirmed": self.confirmed,
            "refused": [refusal.model_dump(mode="json") for refusal in self.refused],
            "replaced": [replacement.as_json() for replacement in self.replaced],
        }


def ingest(
    source: Path,
    landing: Path,
    schemas: Mapping[str, TargetSchema],
    type_name: str | None,
    vendor: str | None,
    settings: RenderSettings,
    cache: DigestCache,
    progress: Progress | None = None,
    workers: int = 0,
    list_them: Callable[[Path, str | None], list[Candidate]] | None = None,
) -> IngestReport:
    """Copy what can be taken from `source` into `landing`.

    source: a document, a folder of documents with labels of the same stem (its sub-folders are vendors, unless `vendor` is
    given), or a manifest.jsonl or a folder that holds one: lines with file, label (path or null), type and vendor (or null).
    type_name, vendor: fill only what a manifest leaves open; a vendor that nobody names is "unknown". progress: candidates done,
    of how many. list_them: what `source` offers, where it is of another kind (default: list_candidates).

    Raises InputError on a source that cannot be read, an unknown `type_name`, a bad `vendor`, and where landing cannot be written
    (what was copied before stays, and is whole).
    """
    if type_name is not None and type_name not in schemas:
        known = ", ".join(sorted(schemas)) or "none"
        raise InputError(f"--type {type_name}", "no such document type", f"one of: {known}", f"Or add schemas/{type_name}.schema.json")
    if vendor is not None:
        vendor = check_vendor_name(vendor, "--vendor")
    _refuse_overlap(source, landing)
    candidates = (list_them or list_candidates)(source, vendor)
    index = LandingIndex(landing, cache)
    counts: Counter[Outcome] = Counter()
    refused: list[Refusal] = []
    replaced: list[Replacement] = []
    for number, outcome in enumerate(_outcomes(candidates, index, schemas, type_name, vendor, settings, workers)):
        if isinstance(outcome, Refusal):
            refused.append(outcome)
        else:
            counts[outcome[0]] += 1
            replaced += [outcome[1]] if outcome[1] else []
        if progress:
            progress(number + 1, len(candidates))
    cache.save()
    added = counts["labelled"] + counts["replaced"]
    return IngestReport(added, counts["unchanged"], tuple(refused), tuple(replaced), counts["confirmed"])


@dataclass(frozen=True)
class _Checked:
    """A candidate with a type, a vendor and a valid label. Its bytes are read when they are needed, and compared."""

    candidate: Candidate
    type: str
    vendor: str
    digest: str
    label: dict[str, Any] | None
    schema: TargetSchema


_Landed = tuple[Outcome, Replacement | None]


class _Refused(Exception):
    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def _outcomes(
    candidates: list[Candidate],
    index: LandingIndex,
    schemas: Mapping[str, TargetSchema],
    type_name: str | None,
    vendor: str | None,
    settings: RenderSettings,
    workers: int,
) -> Iterator[_Landed | Refusal]:
    """What became of every candidate, in the order of the candidates, whatever the number of workers."""
    waiting: dict[int, _Checked | Refusal] = {}
    """answered, but not their turn yet"""
    turn = 0

    def tasks() -> Iterator[Task]:
        for number, candidate in enumerate(candidates):
            try:
                checked = _check(candidate, index, schemas, type_name, vendor)
            except _Refused as error:
                waiting[number] = _refusal(candidate, error.reason, error.detail)
                continue
            pages_count = candidate.reviewed is not None and candidate.reviewed.pages is not None
            if index.knows(checked.digest) and not pages_count:  # opened before; what is left to see is the label and where it lies
                waiting[number] = checked
                continue
            yield Task(checked.digest, partial(_read, candidate.path), _inspect_request(settings), (number, checked))

    def due() -> Iterator[_Landed | Refusal]:
        nonlocal turn
        while turn in waiting:
            item = waiting.pop(turn)
            turn += 1
            yield item if isinstance(item, Refusal) else _land(item, index)

    with warm_sandbox(settings, workers) as sandbox:
        failed: dict[int, Refusal] = {}
        for frame in sandbox.frames(tasks()):
            number, checked = frame.task.tag
            if frame.kind in ("refused", "died"):
                failed[number] = _refusal(checked.candidate, *_reason(frame))
            elif frame.kind == "inspected" and (problem := _other_pages(checked, frame.values["pages"])):
                failed[number] = problem
            if frame.kind in ("done", "died"):
                waiting[number] = failed.pop(number, checked)
            yield from due()
        yield from due()


def _other_pages(checked: _Checked, pages: int) -> Refusal | None:
    given = checked.candidate.reviewed.pages if checked.candidate.reviewed else None
    if given is None or given == pages:
        return None
    return _refusal(
        checked.candidate, "other_pages", f"the reviews speak of pages 1 to {given}; expected 1 to {pages}, as the document has"
    )


def _reason(frame: Frame) -> tuple[str, str]:
    return str(frame.values["reason"]), str(frame.values["detail"])


def _refusal(candidate: Candidate, reason: str, detail: str) -> Refusal:
    return Refusal(file=candidate.name, reason=reason, detail=" ".join(detail.split()))


def _inspect_request(settings: RenderSettings) -> dict[str, Any]:
    return {**render_request(settings), "op": "inspect"}


# --- one candidate --------------------------------------------------------------------------------------------------------


def _check(
    candidate: Candidate, index: LandingIndex, schemas: Mapping[str, TargetSchema], type_name: str | None, vendor: str | None
) -> _Checked:
    """Everything that needs no engine. Raises _Refused."""
    if candidate.problem is not None:
        raise _Refused(*candidate.problem)
    try:
        digest = digest_file(candidate.path)
    except OSError as error:
        raise _Refused("unreadable", f"cannot be read: {error.strerror or error}") from None
    kind, owner = candidate.type or type_name, candidate.vendor or vendor
    if candidate.reviewed is not None and (place := index.place_of(digest)) is not None:
        lies = place.key.split("/", 1)  # a reviewed answer need not know where its document lies
        kind, owner = kind or lies[0], owner or lies[1]
    if kind is None:
        raise _Refused("no_type", "its type is unknown: name it in the manifest, or with --type")
    if kind not in schemas:
        raise _Refused("unknown_type", f"the type {kind!r} has no schema; known: {', '.join(sorted(schemas)) or 'none'}")
    try:
        owner = check_vendor_name(owner or UNKNOWN_VENDOR)
    except InputError as error:
        raise _Refused("bad_vendor_name", str(error)) from None
    return _Checked(candidate, kind, owner, digest, _checked_label(candidate, schemas[kind]), schemas[kind])


def _checked_label(candidate: Candidate, schema: TargetSchema) -> dict[str, Any] | None:
    """The label, if it follows the schema. A key left out counts as null; a key too many is a violation."""
    if candidate.reviewed is not None:
        label, name = candidate.reviewed.value, "its label"
    elif candidate.label is not None:
        name = candidate.label.name
        try:
            label = read_label(candidate.label)
        except InputError as error:
            raise _Refused("bad_label", str(error)) from None
    else:
        return None
    problems = label_problems(label, schema)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise _Refused("label_violates_schema", f"{name} {problems[0]}{more}")
    return label


def _land(checked: _Checked, index: LandingIndex) -> _Landed | Refusal:
    """Copy one document with its label, unless landing has it. InputError where it cannot be written."""
    key = f"{checked.type}/{checked.vendor}"
    known, reviewed = index.place_of(checked.digest), checked.candidate.reviewed
    if known is not None and known.key != key:
        return _refusal(checked.candidate, "duplicate", f"the same bytes already lie in landing as {known.file}")
    twin = index.twin_folder(checked.type, checked.vendor)
    if twin is not None:
        return _refusal(
            checked.candidate, "bad_vendor_name", f"landing has the folder {twin}, the same name in another spelling: use that one"
        )
    if known is None:
        data = _read(checked.candidate.path)
        if digest_bytes(data) != checked.digest:
            return _refusal(checked.candidate, "changed", "changed while it was being read; ingest it again")
        index.add(key, checked.candidate.path.name, checked.digest, data, checked.label, reviewed.review if reviewed else None)
        return "labelled", None
    try:
        if reviewed is not None:
            return relabel(index, known, checked.digest, reviewed.value, reviewed.review, checked.schema)
        if checked.label is None or known.label == digest_of(checked.label):
            return "unchanged", None
        return replace_by_file(index, known, checked.digest, checked.label, checked.candidate.label, checked.schema)
    except InputError as error:
        return _refusal(checked.candidate, "label_not_replaced", str(error))


def _read(path: Path) -> bytes:
    """The file's bytes; none if it has just gone, which the digest will tell."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _refuse_overlap(source: Path, landing: Path) -> None:
    here, there = source.resolve(), landing.resolve()
    if here == there or there in here.parents:
        raise InputError(str(source), "lies in landing already", "a source outside it", "Run update: what lies in landing is taken")
    if here in there.parents and here.is_dir() and not (here / "manifest.jsonl").exists():
        raise InputError(str(source), f"holds the landing folder {landing} itself", "a source without it")
