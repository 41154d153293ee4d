"""landing/: what lies in it, by content. landing/<type>/<vendor>/ holds PDFs, JPEG, PNG and labels named <stem>.json.

Every file that is neither hidden nor a .json is a document or wants to be one: what it is, its bytes decide (intake). The scan
reads only what has changed since the last one, and nothing it reports hangs on times or on the order of a folder.
<stem>.provenance.json says who has judged a label (label_provenance); it is no label and needs no document.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from extraction_assets.documents.digest_cache import DigestCache
from extraction_assets.documents.label_provenance import LABEL_SUFFIX, PROVENANCE_SUFFIX, is_provenance, provenance_stem
from extraction_assets.documents.names import check_vendor_name, fold, partition_key, split_key
from extraction_assets.errors import InputError
from extraction_assets.store import digest_of

__all__ = [
    "LABEL_SUFFIX",
    "DigestCache",
    "LandedFile",
    "LandingScan",
    "check_vendor_name",
    "documents_digest",
    "labels_digest",
    "partition_key",
    "scan_landing",
    "scan_vendor",
]

_IGNORED_NAMES = frozenset({"thumbs.db", "desktop.ini", "__macosx", "icon\r"})
_IGNORED_SUFFIXES = (".native.json", "~")
"""another tool's expected values; an editor's back-up"""


@dataclass(frozen=True)
class LandedFile:
    """One document and its label."""

    file: str
    """path below landing/ as it lies there: invoice/acme/0815.pdf"""
    document: str
    """SHA-256 of its bytes"""
    label_file: str | None = None
    """path below landing/ of its label"""
    label: str | None = None
    """digest of the label's parsed value"""
    provenance: str | None = None
    """digest of what its provenance file says"""


@dataclass(frozen=True)
class LandingScan:
    """What landing/ holds. Vendors without a document are not in it."""

    vendors: dict[str, tuple[LandedFile, ...]]
    """partition key -> documents, by file name"""
    problems: tuple[InputError, ...]
    """what is wrong, by place; the files concerned are left out, everything else stands"""


def scan_landing(landing: Path, cache: DigestCache) -> LandingScan:
    """Everything below landing/. Raises InputError only where landing/ itself cannot be read; no folder at all is an empty one."""
    problems: list[InputError] = []
    vendors: dict[str, tuple[LandedFile, ...]] = {}
    for key, folder in _vendor_folders(landing, problems):
        files = _scan_folder(landing, folder, cache, problems)
        if files:
            vendors[key] = files
    cache.save()
    return LandingScan(dict(sorted(vendors.items())), tuple(sorted(problems, key=str)))


def scan_vendor(landing: Path, key: str, cache: DigestCache) -> tuple[LandedFile, ...]:
    """The documents of one vendor. Raises InputError on its first problem, so that nothing is built on half of it."""
    problems: list[InputError] = []
    folder = vendor_folder(landing, key)
    files = _scan_folder(landing, folder, cache, problems)
    if problems:
        raise min(problems, key=str)
    cache.save()
    return files


def vendor_folder(landing: Path, key: str) -> Path:
    """The folder of a partition key, however its name is composed on disk (NFC or NFD). It may not be there yet."""
    type_name, vendor = split_key(key)
    return _same_name(_same_name(landing, type_name), vendor)


def documents_digest(files: Iterable[LandedFile]) -> str:
    """Digest of a vendor's documents by content alone: renaming or touching a file changes nothing."""
    return digest_of(sorted({file.document for file in files}))


def labels_digest(files: Iterable[LandedFile]) -> str:
    """Digest of a vendor's labels by parsed value. Documents without a label file count too: their XML may carry the label."""
    return digest_of(sorted({(file.document, file.label or "", *((file.provenance,) if file.provenance else ())) for file in files}))


# --- folders ------------------------------------------------------------------------------------------------------------


def _vendor_folders(landing: Path, problems: list[InputError]) -> Iterator[tuple[str, Path]]:
    for type_name, type_folder in _named_folders(landing, "a folder named by document type", problems):
        for vendor, folder in _named_folders(type_folder, "a folder named by vendor", problems):
            yield f"{type_name}/{vendor}", folder


def _named_folders(parent: Path, expected: str, problems: list[InputError]) -> list[tuple[str, Path]]:
    """Sub-folders with a good name of their own, (NFC name, path) in order."""
    good: dict[str, list[tuple[str, Path]]] = {}
    for entry in _entries(parent):
        path = parent / entry.name
        if not _is_folder(entry):
            problems.append(
                InputError(_where(path), "a file lies here", expected, "Move it into a vendor's folder: landing/<type>/<vendor>/")
            )
            continue
        try:
            name = check_vendor_name(entry.name, _where(path))
        except InputError as error:
            problems.append(error)
            continue
        good.setdefault(fold(name), []).append((name, path))
    for twins in good.values():
        if len(twins) > 1:
            names = " and ".join(repr(path.name) for _, path in twins)
            problems.append(
                InputError(_where(parent), f"the folders {names} have one name in other spellings", "one folder", "Merge them into one")
            )
    return sorted(twins[0] for twins in good.values() if len(twins) == 1)


def _scan_folder(landing: Path, folder: Path, cache: DigestCache, problems: list[InputError]) -> tuple[LandedFile, ...]:
    documents: list[tuple[str, str]] = []  # name, digest
    labels: dict[str, tuple[str, str]] = {}  # stem -> name, digest
    provenances: dict[str, str] = {}  # stem -> digest
    present: set[str] = set()
    base = os.path.abspath(folder)
    stems: set[str] = set()
    relative = folder.relative_to(landing).as_posix()
    for entry in _entries(folder, with_provenance=True):
        path = f"{base}{os.sep}{entry.name}"
        if _is_folder(entry):
            problems.append(
                InputError(_where(folder / entry.name), "a folder inside a vendor's folder", "files", "Move its files one level up")
            )
            continue
        if not _is_utf8(entry.name):
            problems.append(InputError(_where(folder / entry.name), "a file name that is not UTF-8", do="Rename the file"))
            continue
        present.add(path)
        is_history = is_provenance(entry.name)
        is_label = entry.name.lower().endswith(LABEL_SUFFIX) and not is_history
        stem = provenance_stem(entry.name) if is_history else _stem(entry.name)
        if not is_label and not is_history:
            stems.add(stem)
        try:
            stat = entry.stat()
            if not S_ISREG(stat.st_mode):  # reading a pipe would wait for ever
                raise InputError(_where(folder / entry.name), "is no regular file", do="Remove it")
            if is_history:
                provenances[stem] = cache.label(path, stat, _where(folder / entry.name))
            elif is_label:
                labels[stem] = (entry.name, cache.label(path, stat, _where(folder / entry.name)))
            else:
                documents.append((entry.name, cache.document(path, stat)))
        except InputError as error:
            problems.append(error)
            labels.pop(stem, None)
        except OSError as error:
            problems.append(InputError(_where(folder / entry.name), f"cannot be read: {error.strerror or error}"))
    cache.forget_missing(folder, present)
    for stem, (name, _) in sorted(labels.items()):
        if stem not in stems:
            problems.append(
                InputError(
                    _where(folder / name),
                    "a label without a document",
                    "a PDF, JPEG or PNG of the same name",
                    "Add it, or remove the label",
                )
            )
    files = []
    for name, digest in sorted(documents):
        label, label_digest = labels.get(_stem(name), (None, None))
        provenance = provenances.get(_stem(name)) if label else None
        files.append(LandedFile(f"{relative}/{name}", digest, f"{relative}/{label}" if label else None, label_digest, provenance))
    return tuple(files)


def _entries(folder: Path, with_provenance: bool = False) -> list[os.DirEntry[str]]:
    """What lies in a folder, by name; hidden and left-over files are not seen."""
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not is_ignored(entry.name) or (with_provenance and _is_visible_provenance(entry.name))]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(_where(folder), f"cannot be read: {error.strerror or error}", "a folder") from None
    return sorted(found, key=lambda entry: entry.name)


def is_ignored(name: str) -> bool:
    lowered = name.lower()
    return name.startswith(".") or lowered in _IGNORED_NAMES or lowered.endswith((*_IGNORED_SUFFIXES, PROVENANCE_SUFFIX))


def _is_visible_provenance(name: str) -> bool:
    return is_provenance(name) and not name.startswith(".")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _same_name(parent: Path, name: str) -> Path:
    if (parent / name).exists():
        return parent / name
    return next((parent / entry.name for entry in _entries(parent) if unicodedata.normalize("NFC", entry.name) == name), parent / name)


def _stem(name: str) -> str:
    """What a label and its document have in common. Composed (NFC): a label may come from a system that decomposes names."""
    return unicodedata.normalize("NFC", os.path.splitext(name)[0])


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _where(path: Path) -> str:
    return str(path).encode("utf-8", "backslashreplace").decode()
