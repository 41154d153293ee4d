"""The way back from an export: what a trainer has read that was given it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extraction_assets.dataset.export.folder import MANIFEST
from extraction_assets.dataset.records import Split
from extraction_assets.errors import InputError
from extraction_assets.store import digest_file

_READ: tuple[Split, ...] = ("train", "val")
"""splits that the trainers' configs name; test goes along for who wants to score there, too"""


@dataclass(frozen=True)
class Taught:
    """What an adapter has learnt from that was trained on an export."""

    trainer: str
    """for people: LLaMA-Factory"""
    splits: Mapping[Split, str]
    """train, val -> digest of this home's split"""


def export_of(adapter: Path, export: Path | None) -> Path:
    """The export that an adapter was trained on: the one named, or the one that the adapter's folder lies in, where the configs put it."""
    if export is not None:
        return export
    for folder in adapter.absolute().parents:
        if (folder / MANIFEST).is_file():
            return folder
    raise InputError(
        str(adapter), "lies in no export, so nothing says what it has learnt from", do="Say --export DIR, the folder that its trainer read"
    )


def read_taught(export: Path) -> Taught:
    """Raises InputError: no export, or one whose splits were changed after they were written."""
    path = export / MANIFEST
    try:
        manifest: Any = json.loads(path.read_bytes())
        splits = {split: manifest["splits"][split] for split in _READ}
        taught = Taught(str(manifest["trainer"]), {split: str(it["source"]) for split, it in splits.items()})
        written = {str(it["file"]): str(it["digest"]) for it in splits.values()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        found = "is not there" if isinstance(error, FileNotFoundError) else f"cannot be read as an export's: {type(error).__name__}"
        raise InputError(str(path), found, "what `extraction dataset --export FORMAT` wrote") from None
    for file, digest in written.items():
        if not (export / file).is_file() or digest_file(export / file) != digest:
            do = "Train on an export as it was written, so that a deployed model can be walked back to its documents"
            raise InputError(str(export / file), "was changed or removed since it was exported", do=do)
    return taught
