"""landing/ beside a shared one at an fsspec address: what is new or changed on one side goes to the other, before every look at landing/.

The record of the last exchange says which side has changed since. Changed on both sides, to different contents, is an error that names the file:
nobody's label is overwritten. A file that is removed from the shared landing is removed here. One that is removed here comes back: a folder
that was lost on one machine must not empty everybody's. Losing the record costs reading the shared files once.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from extraction_assets.documents.landing import is_ignored
from extraction_assets.errors import InputError
from extraction_assets.remote import RemoteEntry, RemoteFolder
from extraction_assets.store import TEMPORARY_PREFIX, digest_file, write_atomically

VERSION = 1
_AT_ONCE = 8
"""transfers; each waits for the network most of its time"""
_NAMED = 3
"""files that an error names"""

Progress = Callable[[int, int], None]
Here = tuple[int, int]
"""size in bytes, mtime in ns"""
T = TypeVar("T")


@dataclass(frozen=True)
class Exchange:
    """What was done; names relative to landing/."""

    fetched: tuple[str, ...] = ()
    sent: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Known:
    tag: str
    """of the shared file"""
    here: Here
    """of the local one"""


def exchange(landing: Path, shared: RemoteFolder, record: Path, progress: Progress | None = None) -> Exchange:
    """Bring both sides together. record: a file that remembers the last exchange; one process at a time writes it.

    Raises InputError where the shared landing cannot be reached, a file cannot be written, or both sides changed one file; what
    was exchanged until then stays, and is not exchanged again.
    """
    record.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(record.with_suffix(".lock")):
        known = _read_record(record, shared.address)
        before = dict(known)
        try:
            return _exchange(landing, shared, known, progress)
        finally:
            if known != before or not record.exists():
                _write_record(record, shared.address, known)


def _exchange(landing: Path, shared: RemoteFolder, known: dict[str, _Known], progress: Progress | None) -> Exchange:
    there, here = _wanted(shared.list()), dict(_files(landing))
    fetch, send, remove, doubtful = [], [], [], []
    for name in sorted({*there, *here, *known}):
        theirs, ours, last = there.get(name), here.get(name), known.get(name)
        changed_there = theirs is not None and (last is None or last.tag != theirs.tag)
        changed_here = ours is not None and (last is None or last.here != ours)
        if theirs is not None and (ours is None or (changed_there and not changed_here)):
            fetch.append(name)
        elif changed_there and changed_here:
            doubtful.append(name)
        elif changed_here:
            send.append(name)
        elif theirs is None and ours is not None:
            remove.append(name)
        elif theirs is None:
            del known[name]
    total, done = len(fetch) + len(send) + len(doubtful), 0

    def each(names: list[str], work: Callable[[str], T]) -> Iterator[tuple[str, T]]:
        nonlocal done
        with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
            for name, result in zip(names, pool.map(work, names), strict=True):
                done += 1
                yield name, result
                if progress:
                    progress(done, total)

    for name, entry in each(fetch, lambda name: _fetch(shared, name, landing, there[name])):
        known[name] = entry
    for name, entry in each(send, lambda name: _send(shared, name, landing)):
        known[name] = entry
    opposed = []
    for name, same in each(doubtful, lambda name: _same(shared, name, landing)):
        if same:
            known[name] = _Known(there[name].tag, here[name])
        else:
            opposed.append(name)
    for name in remove:
        (landing / name).unlink(missing_ok=True)
        del known[name]
    if opposed:
        listed = ", ".join(opposed[:_NAMED]) + (f" and {len(opposed) - _NAMED} more" if len(opposed) > _NAMED else "")
        raise InputError(
            str(landing),
            f"changed here and in {shared.address} since they were last the same: {listed}",
            do="Delete the copy that is wrong, then run again",
        )
    return Exchange(tuple(fetch), tuple(send), tuple(remove))


def _wanted(entries: dict[str, RemoteEntry]) -> dict[str, RemoteEntry]:
    return {name: entry for name, entry in entries.items() if not _is_hidden(name)}


def _files(landing: Path) -> Iterator[tuple[str, Here]]:
    for folder, folders, names in os.walk(landing):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        for name in names:
            path = Path(folder, name)
            relative = path.relative_to(landing).as_posix()
            if not _is_hidden(name) and path.is_file() and _is_utf8(relative):
                yield relative, _state(path)


def _is_hidden(name: str) -> bool:
    """Of the files that a look at landing/ does not see, those that are rubbish: a label's provenance goes along."""
    return any(part.startswith(".") or (is_ignored(part) and not part.endswith(".json")) for part in name.split("/"))


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _state(path: Path) -> Here:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _fetch(shared: RemoteFolder, name: str, landing: Path, entry: RemoteEntry) -> _Known:
    target = landing / name
    with _fetched(shared, name, target.parent) as temporary:
        os.replace(temporary, target)
    return _Known(entry.tag, _state(target))


def _send(shared: RemoteFolder, name: str, landing: Path) -> _Known:
    path = landing / name
    before = _state(path)
    shared.send(name, path)
    entry = shared.entry(name)
    # changed while it was being sent: known as it was before, so that the next exchange sends it again
    return _Known(entry.tag if entry else "", before)


def _same(shared: RemoteFolder, name: str, landing: Path) -> bool:
    with _fetched(shared, name, landing) as temporary:
        return digest_file(temporary) == digest_file(landing / name)


class _fetched:
    """A shared file's copy under a temporary name, on disk as a whole; gone at the end unless it was renamed."""

    def __init__(self, shared: RemoteFolder, name: str, folder: Path) -> None:
        self._shared, self._name = shared, name
        self._path = folder / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"

    def __enter__(self) -> Path:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if not self._shared.fetch(self._name, self._path):
                raise InputError(f"{self._shared.address}/{self._name}", "vanished while it was being read", do="Run again")
            with self._path.open("rb") as file:
                os.fsync(file.fileno())
        except OSError as error:
            self.__exit__()
            raise InputError(str(self._path.parent), f"cannot be written: {error.strerror or error}", do="Free space or rights") from error
        except BaseException:
            self.__exit__()
            raise
        return self._path

    def __exit__(self, *_: object) -> None:
        self._path.unlink(missing_ok=True)


def _read_record(path: Path, address: str) -> dict[str, _Known]:
    try:
        value = json.loads(path.read_bytes())
        if value["version"] != VERSION or value["address"] != address:
            return {}
        return {name: _Known(str(tag), (int(size), int(mtime))) for name, (tag, size, mtime) in value["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write_record(path: Path, address: str, known: dict[str, _Known]) -> None:
    files: Iterable[tuple[str, _Known]] = sorted(known.items())
    value = {"version": VERSION, "address": address, "files": {name: [one.tag, *one.here] for name, one in files}}
    write_atomically(path, json.dumps(value).encode())
