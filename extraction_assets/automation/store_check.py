"""`extraction check`: does the store hold what its names say, and all that the latest values point to?

A digest is only compared with the bytes when they are read, so a bad disk shows late, and a file that someone deleted later still. This
reads everything. Repair means: what is damaged is removed, and so are the values that point to it or to what is missing. A value that is
gone makes its asset stale, and `update` makes it again: from the same inputs the same bytes, so nothing below runs.

Only what `update` can make again is taken away. An adapter that is not today's lora_adapter (an earlier champion), or that another trainer
made, cannot: it is told and left. The value of champion_adapter is what the gate decided once; its materialization's metadata spell it too.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from extraction_assets.assets.training import ADOPTED
from extraction_assets.documents.records import EXTENSIONS
from extraction_assets.errors import InputError
from extraction_assets.record import DECISION, Record, Shape, label
from extraction_assets.store import FILE_LIST, TEMPORARY_PREFIX, Store, digest_file, digest_of
from extraction_assets.training.adapter import verify_adapter
from extraction_assets.training.manifest import MANIFEST

_TRAINED, _DECIDED = "lora_adapter", "champion_adapter"
_LEFT_ALONE_SECONDS = 3600
"""runs under the daemon write without the home's lock: a temporary file younger than this may be theirs"""


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    path: Path
    problem: str
    assets: tuple[str, ...]
    """whose latest values need it; none: only earlier ones did"""
    can_be_made_again: bool
    """by `update`, once a repair has taken it away"""

    def as_json(self) -> dict[str, Any]:
        return {"path": str(self.path), "problem": self.problem, "assets": list(self.assets), "can_be_made_again": self.can_be_made_again}


@dataclass(frozen=True)
class StoreCheck:
    objects: int
    folders: int
    """adapters"""
    bytes: int
    findings: tuple[Finding, ...]
    leftovers: tuple[Path, ...]
    """temporary files of writers that were killed an hour ago or more; nothing ever reads them"""
    unshared: tuple[str, ...] = ()
    """names of what the shared store lacks; a repair sends it"""

    def as_json(self) -> dict[str, Any]:
        return {
            "objects": self.objects,
            "folders": self.folders,
            "bytes": self.bytes,
            "findings": [finding.as_json() for finding in self.findings],
            "leftovers": [str(path) for path in self.leftovers],
            "unshared": list(self.unshared),
        }


def check_store(record: Record, shape: Shape, progress: Callable[[int, int], None] | None = None) -> StoreCheck:
    """Read every object and adapter of the home's store. Changes nothing. Raises InputError where the store is not a local folder."""
    store = record.home.store
    root = store.local_root
    files = sorted(path for path in (root / "objects").glob("*/*") if not path.name.startswith(TEMPORARY_PREFIX))
    problems: dict[Path, str] = {}
    size = 0
    for number, path in enumerate(files, 1):
        try:
            size += path.stat().st_size
            if digest_file(path) != path.stem:
                problems[path] = "does not hold what its name says"
        except OSError as error:
            problems[path] = f"cannot be read: {error.strerror or error}"
        if progress:
            progress(number, len(files))
    adapters = sorted(path.parent for path in (root / "folders").glob(f"*/{MANIFEST}"))
    for folder in adapters:
        try:
            verify_adapter(folder)
        except InputError as error:
            problems[folder] = str(error).removeprefix(f"{folder}/")
    users = _users(record, shape, problems)
    trained = record.latest_value(_TRAINED) if _value_is_there(record, problems) else None
    again = trained is None or ADOPTED not in trained
    problems |= {path: "is missing" for path in users if path not in problems}
    findings = tuple(
        Finding(path, problem, tuple(used := users.get(path, ())), path.parent.name != "folders" or (_TRAINED in used and again))
        for path, problem in sorted(problems.items())
    )
    before = time.time() - _LEFT_ALONE_SECONDS
    leftovers = tuple(sorted(path for path in root.glob(f"*/**/{TEMPORARY_PREFIX}*") if _changed(path) < before))
    return StoreCheck(len(files), len(adapters), size, findings, leftovers, tuple(store.unshared()))


def repair_store(record: Record, shape: Shape, check: StoreCheck) -> list[str]:
    """Remove what can be made again and the values that need it; returns the assets that are stale now. Call under the home's lock."""
    repaired = [finding for finding in check.findings if finding.can_be_made_again]
    stale = {asset for finding in repaired for asset in finding.assets} - {_DECIDED}
    for path in (*(finding.path for finding in repaired), *check.leftovers):
        _remove(path)
    for name in check.unshared:
        if (record.home.store.local_root / name).exists():
            record.home.store.share_again(name)
    for asset, partition, version in _latest(record, shape):
        own = _object(record.home.store, version, ".json")
        if asset == _DECIDED and not own.exists():
            _spell_decision(record, version)
        elif label(asset, partition) in stale:
            _remove(own)
    return sorted(stale)


def _spell_decision(record: Record, version: str) -> None:
    """The gate's decision is not made again: what it was stands in the metadata of its materialization."""
    event = record.instance.get_latest_materialization_event(dg.AssetKey(_DECIDED))
    metadata = event.asset_materialization.metadata if event and event.asset_materialization else {}
    value = metadata.get(DECISION)
    if isinstance(value, dg.JsonMetadataValue) and digest_of(value.value) == version:
        record.home.store.put_json(value.value)


def _users(record: Record, shape: Shape, problems: dict[Path, str]) -> dict[Path, list[str]]:
    """Of every path that is damaged or missing: the assets whose latest values need it."""
    store = record.home.store
    there = store.shared.list() if store.shared is not None else {}  # what is there is fetched when it is asked for
    users: dict[Path, list[str]] = {}
    for asset, partition, version in _latest(record, shape):
        own = _object(store, version, ".json")
        needed = {own}
        if own.is_file() and own not in problems:
            needed |= set(_needs(asset, store.read_json(version), store))
        for path in needed:
            name = path.relative_to(store.local_root).as_posix()
            if path in problems or not (path.exists() or name in there or f"{name}{FILE_LIST}" in there):
                users.setdefault(path, []).append(label(asset, partition))
    return users


def _value_is_there(record: Record, problems: dict[Path, str]) -> bool:
    version = record.latest_versions(_TRAINED, False).get(None)
    return version is not None and (own := _object(record.home.store, version, ".json")).is_file() and own not in problems


def _latest(record: Record, shape: Shape) -> Iterator[tuple[str, str | None, str]]:
    for asset in shape.parents:
        for partition, version in record.latest_versions(asset, asset in shape.partitioned).items():
            yield asset, partition, version


def _needs(asset: str, value: Any, store: Store) -> Iterator[Path]:
    """What a value of this asset points to in the store."""
    if asset == "raw_documents":
        for row in value["documents"]:
            yield _object(store, row["document"], EXTENSIONS[row["media"]])
    elif asset == "page_images":
        for page in value["pages"]:
            yield _object(store, page["image"], ".png")
            if page["text"] is not None:
                yield _object(store, page["text"], ".json")
    elif asset == "page_targets":
        yield _object(store, value["schema_digest"], ".json")
    elif asset == "hard_negatives":
        for one in value["negatives"]:
            yield _object(store, one["image"], ".png")
    elif asset == "example_index":
        yield _object(store, value["index"], ".jsonl")
    elif asset in ("train_split", "val_split", "test_split"):
        yield _object(store, value["jsonl"], ".jsonl")
    elif asset == "predictions":
        for answers in value["answers"].values():
            for digest in answers.values():
                yield _object(store, digest, ".jsonl")
    elif asset in (_TRAINED, _DECIDED) and value["adapter"]:
        yield store.folder_path(value["adapter"])


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # its writer has just renamed it
        return math.inf


def _object(store: Store, digest: str, extension: str) -> Path:
    return store.local_root / "objects" / digest[:2] / f"{digest}{extension}"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
