"""Ingest: brings documents and their labels from anywhere into landing/<type>/<vendor>/. The user's files are only read.

Every document is opened in the sandbox and every label checked against its type's schema before anything is copied. A label is
written before its document, both through a temporary name: a document never shows up without its label, nor half written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from extraction_assets.documents.digest_cache import DigestCache
from extraction_assets.documents.drawing import render_request
from extraction_assets.documents.ingest_source import Candidate, list_candidates
from extraction_assets.documents.label_file import read_label
from extraction_assets.documents.landed_names import LandingIndex
from extraction_assets.documents.names import check_vendor_name
from extraction_assets.documents.records import Refusal
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

    def as_json(self) -> dict[str, Any]:
        return {"added": self.added, "unchanged": self.unchanged, "refused": [refusal.model_dump() for refusal in self.refused]}


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
) -> IngestReport:
    """Copy what can be taken from `source` into `landing`.

    source: a document, a folder of documents with labels of the same stem (its sub-folders are vendors, unless `vendor` is
    given), or a manifest.jsonl or a folder that holds one: lines with file, label (path or null), type and vendor (or null).
    type_name, vendor: fill only what a manifest leaves open; a vendor that nobody names is "unknown". progress: candidates done,
    of how many.

    Raises InputError on a source that cannot be read, an unknown `type_name`, a bad `vendor`, and where landing cannot be written
    (what was copied before stays, and is whole).
    """
    if type_name is not None and type_name not in schemas:
        known = ", ".join(sorted(schemas)) or "none"
        raise InputError(f"--type {type_name}", "no such document type", f"one of: {known}", f"Or add schemas/{type_name}.schema.json")
    if vendor is not None:
        vendor = check_vendor_name(vendor, "--vendor")
    _refuse_overlap(source, landing)
    candidates = list_candidates(source, vendor)
    index = LandingIndex(landing, cache)
    counts = {"added": 0, "unchanged": 0}
    refused: list[Refusal] = []
    for number, outcome in enumerate(_outcomes(candidates, index, schemas, type_name, vendor, settings, workers)):
        if isinstance(outcome, Refusal):
            refused.append(outcome)
        else:
            counts[outcome] += 1
        if progress:
            progress(number + 1, len(candidates))
    cache.save()
    return IngestReport(counts["added"], counts["unchanged"], tuple(refused))


@dataclass(frozen=True)
class _Checked:
    """A candidate with a type, a vendor and a valid label. Its bytes are read when they are needed, and compared."""

    candidate: Candidate
    type: str
    vendor: str
    digest: str
    label: dict[str, Any] | None


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
) -> Iterator[str | Refusal]:
    """ "added", "unchanged" or a refusal of every candidate, in the order of the candidates, whatever the number of workers."""
    waiting: dict[int, _Checked | Refusal] = {}
    """answered, but not their turn yet"""
    turn = 0

    def tasks() -> Iterator[Task]:
        for number, candidate in enumerate(candidates):
            try:
                checked = _check(candidate, schemas, type_name, vendor)
            except _Refused as error:
                waiting[number] = _refusal(candidate, error.reason, error.detail)
                continue
            if index.knows(checked.digest):  # opened before; what is left to see is the label and where it lies
                waiting[number] = checked
                continue
            yield Task(checked.digest, partial(_read, candidate.path), _inspect_request(settings), (number, checked))

    def due() -> Iterator[str | Refusal]:
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
            if frame.kind in ("done", "died"):
                waiting[number] = failed.pop(number, checked)
            yield from due()
        yield from due()


def _reason(frame: Frame) -> tuple[str, str]:
    return str(frame.values["reason"]), str(frame.values["detail"])


def _refusal(candidate: Candidate, reason: str, detail: str) -> Refusal:
    return Refusal(file=candidate.name, reason=reason, detail=" ".join(detail.split()))


def _inspect_request(settings: RenderSettings) -> dict[str, Any]:
    return {**render_request(settings), "op": "inspect"}


# --- one candidate --------------------------------------------------------------------------------------------------------


def _check(candidate: Candidate, schemas: Mapping[str, TargetSchema], type_name: str | None, vendor: str | None) -> _Checked:
    """Everything that needs no engine. Raises _Refused."""
    if candidate.problem is not None:
        raise _Refused(*candidate.problem)
    kind = candidate.type or type_name
    if kind is None:
        raise _Refused("no_type", "its type is unknown: name it in the manifest, or with --type")
    if kind not in schemas:
        raise _Refused("unknown_type", f"the type {kind!r} has no schema; known: {', '.join(sorted(schemas)) or 'none'}")
    try:
        owner = check_vendor_name(candidate.vendor or vendor or UNKNOWN_VENDOR)
    except InputError as error:
        raise _Refused("bad_vendor_name", str(error)) from None
    try:
        digest = digest_file(candidate.path)
    except OSError as error:
        raise _Refused("unreadable", f"cannot be read: {error.strerror or error}") from None
    return _Checked(candidate, kind, owner, digest, _checked_label(candidate, schemas[kind]))


def _checked_label(candidate: Candidate, schema: TargetSchema) -> dict[str, Any] | None:
    """The label, if it follows the schema. A key left out counts as null; a key too many is a violation."""
    if candidate.label is None:
        return None
    try:
        label = read_label(candidate.label)
    except InputError as error:
        raise _Refused("bad_label", str(error)) from None
    problems = [f"{pointer}: the schema has no such key" for pointer in _unknown_keys(schema.document, label, "")]
    problems += [f"{violation.pointer or '/'}: {violation.message}" for violation in schema.violations(schema.complete(label))]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise _Refused("label_violates_schema", f"{candidate.label.name} {problems[0]}{more}")
    return label


def _unknown_keys(schema: dict[str, Any], value: Any, pointer: str) -> Iterator[str]:
    """JSON pointers of the keys that the schema does not name."""
    if isinstance(value, dict) and "properties" in schema:
        for key, item in value.items():
            here = f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}"
            if key not in schema["properties"]:
                yield here
            else:
                yield from _unknown_keys(schema["properties"][key], item, here)
    elif isinstance(value, list) and "items" in schema:
        for number, item in enumerate(value):
            yield from _unknown_keys(schema["items"], item, f"{pointer}/{number}")


def _land(checked: _Checked, index: LandingIndex) -> str | Refusal:
    """Copy one document with its label, unless landing has it. InputError where it cannot be written."""
    key = f"{checked.type}/{checked.vendor}"
    known = index.place_of(checked.digest)
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
        index.add(key, checked.candidate.path.name, checked.digest, data, checked.label)
        return "added"
    if checked.label is None or known.label == digest_of(checked.label):
        return "unchanged"
    index.relabel(known, checked.label)
    return "added"


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
