"""Where documents lie in landing/, by content, and under which names new ones come to lie there."""

from __future__ import annotations

import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extraction_assets.documents import media
from extraction_assets.documents.digest_cache import DigestCache
from extraction_assets.documents.label_provenance import LabelHistory, provenance_path, write_history
from extraction_assets.documents.landing import LABEL_SUFFIX, is_ignored, scan_landing, vendor_folder
from extraction_assets.documents.names import fold
from extraction_assets.documents.records import EXTENSIONS, Review
from extraction_assets.errors import InputError
from extraction_assets.store import digest_of, write_atomically

_SUFFIXES = {"application/pdf": (".pdf",), "image/jpeg": (".jpg", ".jpeg"), "image/png": (".png",), "image/webp": (".webp",)}
_MAX_STEM_BYTES = 150
_DIGEST_SHOWN = 8


@dataclass(frozen=True)
class Place:
    """Where a document lies."""

    key: str
    """type/vendor"""
    file: str
    """path below landing/"""
    label: str | None
    """digest of its label's parsed value"""


class LandingIndex:
    """Documents of landing/ by digest, kept up to date while new ones are added. One writer at a time."""

    def __init__(self, landing: Path, cache: DigestCache) -> None:
        self._landing = landing
        self._places: dict[str, Place] = {}
        self._stems: dict[Path, dict[str, str | None]] = {}
        self._folders: dict[Path, dict[str, str]] = {}
        for key, files in scan_landing(landing, cache).vendors.items():
            for file in files:
                self._places.setdefault(file.document, Place(key, file.file, file.label))

    def knows(self, digest: str) -> bool:
        return digest in self._places

    def place_of(self, digest: str) -> Place | None:
        return self._places.get(digest)

    def twin_folder(self, type_name: str, vendor: str) -> str | None:
        """A folder whose name differs from this type's or vendor's in case alone, if there is one."""
        type_folder = vendor_folder(self._landing, f"{type_name}/{vendor}").parent
        for parent, name in ((self._landing, type_name), (type_folder, vendor)):
            twin = self._names_in(parent).get(fold(name))
            if twin is not None and twin != name:
                return twin
        return None

    def add(self, key: str, name: str, digest: str, data: bytes, label: dict[str, Any] | None, review: Review | None = None) -> None:
        """Write a new document, its label (and who gave it) first. Raises InputError where it cannot be written."""
        folder = vendor_folder(self._landing, key)
        label_digest = None if label is None else digest_of(label)
        stem = self._free_stem(folder, name, digest, label_digest)
        self._make(folder)
        if label is not None:
            path = folder / f"{stem}{LABEL_SUFFIX}"
            self._write_label(path, label)
            if review is not None:
                review = review.model_copy(update={"label": label_digest, "given": label_digest})
                write_history(provenance_path(path), LabelHistory(document=digest, reviews=(review,)))
        file = folder / f"{stem}{_suffix(name, data)}"
        write_atomically(file, data)
        self._taken(folder)[fold(stem)] = digest
        self._places[digest] = Place(key, file.relative_to(self._landing).as_posix(), label_digest)

    def relabel(self, place: Place, label: dict[str, Any]) -> None:
        """Another label for a document that lies here already."""
        self._write_label(self.label_path(place), label)
        for digest, known in self._places.items():
            if known == place:
                self._places[digest] = Place(place.key, place.file, digest_of(label))
                return

    def label_path(self, place: Place) -> Path:
        """Where the document's label lies, or will lie."""
        file = self._landing / place.file
        stem = unicodedata.normalize("NFC", file.stem)
        old = next((path for path in self._labels(file.parent) if unicodedata.normalize("NFC", path.stem) == stem), None)
        return old or file.with_suffix(LABEL_SUFFIX)

    def below_landing(self, path: Path) -> str:
        return path.relative_to(self._landing).as_posix()

    # --- below ----------------------------------------------------------------------------------------------------------

    def _free_stem(self, folder: Path, name: str, digest: str, label: str | None) -> str:
        """The user's stem, or with a part of the digest where other content has it or it cannot be a file name everywhere."""
        stem = os.path.splitext(name)[0]
        good = _good_stem(stem)
        taken = self._taken(folder)
        if good == stem and (fold(good) not in taken or taken[fold(good)] == f"label:{label}"):
            return good
        return f"{good}-{digest[:_DIGEST_SHOWN]}"

    def _taken(self, folder: Path) -> dict[str, str | None]:
        """Folded stem -> digest of its document; a label whose document never came (a killed run) has label:<its digest>."""
        if folder not in self._stems:
            stems: dict[str, str | None] = {}
            for path in self._labels(folder):
                stems[fold(path.stem)] = f"label:{_label_digest(path)}"
            for place in self._visible(folder):
                if place.suffix.lower() != LABEL_SUFFIX:
                    stems[fold(place.stem)] = "document"
            self._stems[folder] = stems
        return self._stems[folder]

    def _labels(self, folder: Path) -> list[Path]:
        return [path for path in self._visible(folder) if path.suffix.lower() == LABEL_SUFFIX]

    def _visible(self, folder: Path) -> list[Path]:
        try:
            return [folder / name for name in sorted(os.listdir(folder)) if not is_ignored(name)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise InputError(str(folder), f"cannot be read: {error.strerror or error}") from None

    def _names_in(self, folder: Path) -> dict[str, str]:
        if folder not in self._folders:
            self._folders[folder] = {fold(path.name): unicodedata.normalize("NFC", path.name) for path in self._visible(folder)}
        return self._folders[folder]

    def _make(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(str(folder), f"cannot be made: {error.strerror or error}", do="Free space or rights, then run again") from None
        for parent in (folder.parent, folder):
            self._names_in(parent.parent)[fold(parent.name)] = unicodedata.normalize("NFC", parent.name)

    def _write_label(self, path: Path, label: dict[str, Any]) -> None:
        import json

        write_atomically(path, (json.dumps(label, ensure_ascii=False, indent=1) + "\n").encode())


def _label_digest(path: Path) -> str | None:
    from extraction_assets.documents.label_file import read_label

    try:
        return digest_of(read_label(path))
    except InputError:
        return None


def _suffix(name: str, data: bytes) -> str:
    """The file's own ending where it tells the truth, else the one of what it is."""
    kind = media.sniff(data[: media.SNIFF_BYTES]) or "application/pdf"
    own = os.path.splitext(name)[1]
    return own if own.lower() in _SUFFIXES[kind] else EXTENSIONS[kind]


def _good_stem(stem: str) -> str:
    """A stem that any file system takes: composed, printable, not hidden, not too long."""
    text = unicodedata.normalize("NFC", stem.encode("utf-8", "replace").decode())
    text = "".join(
        char if unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") and char not in '\\/:*?"<>|' else "_"
        for char in text
    )
    text = text.strip(" .") or "document"
    while len(text.encode()) > _MAX_STEM_BYTES:
        text = text[:-1]
    return text
