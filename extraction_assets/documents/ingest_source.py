"""What a source offers: its documents, each with the label, type and vendor that it states. Nothing is opened but a few bytes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extraction_assets.documents import media
from extraction_assets.documents.landing import LABEL_SUFFIX, is_ignored
from extraction_assets.documents.records import Review
from extraction_assets.errors import InputError

MANIFEST = "manifest.jsonl"

_DOCUMENT_SUFFIXES = frozenset({".pdf", ".jpg", ".jpeg", ".png", ".webp"})
_OTHER_DOCUMENT_SUFFIXES = frozenset(
    {".tif", ".tiff", ".heic", ".heif", ".webp", ".bmp", ".gif", ".avif", ".doc", ".docx", ".odt", ".xls", ".xlsx", ".eml", ".msg", ".xps"}
)
"""what people keep documents in and we cannot take: listed as refused, so that nobody believes them ingested"""


@dataclass(frozen=True)
class ReviewedLabel:
    """A label with the review that it comes from."""

    value: dict[str, Any]
    review: Review
    pages: int | None = None
    """how many pages the document must have: the label is given page by page"""


@dataclass(frozen=True)
class Candidate:
    """One file that is a document, or is meant to be one."""

    name: str
    """path below the source, for reports"""
    path: Path
    label: Path | None = None
    type: str | None = None
    vendor: str | None = None
    problem: tuple[str, str] | None = None
    """reason and detail, where it is clear already that it cannot be taken"""
    reviewed: ReviewedLabel | None = None
    """a label that a person has judged, instead of a label file"""


def list_candidates(source: Path, vendor: str | None) -> list[Candidate]:
    """Every candidate of a source, manifest lines in their order, files by path. Raises InputError."""
    if source.is_file():
        if source.suffix.lower() == ".jsonl":
            return _of_manifest(source)
        label = source.with_suffix(LABEL_SUFFIX)
        return [Candidate(source.name, source, label if label.is_file() else None)]
    if not source.is_dir():
        raise InputError(str(source), "no such file or folder", "a folder of documents, or a manifest.jsonl")
    if (source / MANIFEST).is_file():
        named = _of_manifest(source / MANIFEST)
        return named + _unnamed(source, named)
    return list(_of_folder(source, vendor))


# --- a folder -------------------------------------------------------------------------------------------------------------


def _of_folder(source: Path, vendor: str | None) -> Iterator[Candidate]:
    """Files of a folder and below. Without `vendor`, a file belongs to the first sub-folder, or to the source by its name."""
    for path in _files(source):
        relative = path.relative_to(source)
        owner = vendor or (relative.parts[0] if len(relative.parts) > 1 else source.resolve().name)
        name = _printable(relative.as_posix())
        if path.suffix.lower() == LABEL_SUFFIX:
            continue
        suffix = path.suffix.lower()
        if path.exists() and not path.is_file():
            yield Candidate(name, path, None, None, owner, ("unreadable", "is no regular file"))  # a pipe would be read for ever
        elif suffix in _DOCUMENT_SUFFIXES or _is_document(path):
            yield Candidate(name, path, _label_of(path), None, owner)
        elif suffix in _OTHER_DOCUMENT_SUFFIXES:
            yield Candidate(name, path, None, None, owner, ("unsupported_format", f"is {_described(path)}; PDF, JPEG and PNG are taken"))


def _label_of(path: Path) -> Path | None:
    stem = path.name[: len(path.name) - len(path.suffix)] if path.suffix else path.name
    for suffix in (LABEL_SUFFIX, LABEL_SUFFIX.upper()):
        label = path.with_name(stem + suffix)
        if label.is_file():
            return label
    return None


def _files(folder: Path) -> Iterator[Path]:
    """Every visible file below a folder, by path; links to folders are not followed (they may lead in circles)."""

    def fail(error: OSError) -> None:
        raise InputError(str(error.filename or folder), f"cannot be read: {error.strerror or error}")

    for parent, folders, names in os.walk(folder, onerror=fail):
        folders[:] = sorted(name for name in folders if not is_ignored(name))
        for name in sorted(names):
            if not is_ignored(name):
                yield Path(parent, name)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(media.SNIFF_BYTES)
    except OSError:
        return b""


def _is_document(path: Path) -> bool:
    return path.is_file() and media.sniff(_head(path)) is not None


def _described(path: Path) -> str:
    return media.describe(_head(path))


def _printable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


# --- a manifest -----------------------------------------------------------------------------------------------------------


def _of_manifest(manifest: Path) -> list[Candidate]:
    """One candidate a line. Raises InputError (file and line) on a line that says nothing usable: nothing has been copied yet."""
    try:
        text = manifest.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(str(manifest), f"cannot be read as UTF-8 text: {error}") from None
    return [
        _of_line(manifest, f"{manifest}:{number}", line)
        for number, line in enumerate(text.split("\n"), 1)  # not splitlines: U+2028 may stand inside a JSON string
        if line.strip()
    ]


def _of_line(manifest: Path, where: str, line: str) -> Candidate:
    try:
        values = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(where, f"not valid JSON: {error.msg}") from None
    except (RecursionError, ValueError):  # ValueError: a number of thousands of digits
        raise InputError(where, "is nested too deeply or holds a number that is too long") from None
    if not isinstance(values, dict):
        raise InputError(where, "holds no JSON object", 'an object such as {"file": "a.pdf", "label": null, "type": null, "vendor": null}')
    file = _string(values, "file", where)
    if not file:
        raise InputError(where, "names no file", '"file": a path relative to the manifest')
    label = _string(values, "label", where)
    path, label_path = manifest.parent / file, manifest.parent / label if label else None
    problem = None
    if not _is_file(path):
        problem = "missing_file", "the manifest names it, but there is no such file"
    elif label_path is not None and not _is_file(label_path):
        problem = "missing_label", f"its label {label} does not exist"
    return Candidate(_printable(file), path, label_path, _string(values, "type", where), _string(values, "vendor", where), problem)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or that no encoding has
        return False


def _string(values: dict[str, Any], key: str, where: str) -> str | None:
    value = values.get(key)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{where} /{key}", f"found {json.dumps(value)[:60]}", "a string or null")
    return value or None


def _unnamed(source: Path, named: list[Candidate]) -> list[Candidate]:
    """Documents in a manifest's folder that it does not name: listed, so that nobody believes them ingested."""
    known = {os.path.abspath(candidate.path) for candidate in named}
    return [
        Candidate(_printable(path.relative_to(source).as_posix()), path, problem=("not_in_manifest", f"{MANIFEST} does not name it"))
        for path in _files(source)
        if os.path.abspath(path) not in known and path.suffix.lower() in _DOCUMENT_SUFFIXES | _OTHER_DOCUMENT_SUFFIXES
    ]
