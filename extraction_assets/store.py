"""The content-addressed store: every artefact is named by the SHA-256 of its bytes, or of what made it.

    objects/ab/abcd....ext    one file, named by the digest of its bytes
    folders/<digest>/         a folder (an adapter, a base model), named by the digest of what made it; complete or absent
    work/<digest>/            scratch of a run that can be resumed; never trusted as a result

Writes go to a temporary name in the same folder, are fsynced and renamed: a killed writer leaves nothing that a later run
would trust. Paths are UPath, so a root may be a local folder or any fsspec address. Knows nothing of what it holds.

Behind a local root a shared copy may lie (remote.py: S3, Azure Blob). Then an object goes there first and counts here once it is there, so
that whatever is here is there too; what is missing here is fetched, held against its digest, and kept. A folder's files go first and the list of
their digests last: without the list there is no folder. Scratch (work/, made/, cache/) stays local: it only saves time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from upath import UPath

from extraction_assets.errors import InputError

TEMPORARY_PREFIX = ".tmp-"
FILE_LIST = ".files.json"
"""behind a folder's digest: what the shared copy has of it, {name: SHA-256}; written last"""


def canonical_json(value: Any) -> str:
    """The one spelling of a JSON value: sorted keys, no spaces, no escapes of printable characters. NaN is refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of(value: Any) -> str:
    """SHA-256 (64 hex characters) of a JSON value's canonical spelling."""
    return digest_bytes(canonical_json(value).encode())


def digest_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digest_file(path: str | os.PathLike[str]) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_folder(path: Path, ignore: Iterable[str] = ()) -> str:
    """Digest of a folder's relative file names and contents; names in `ignore` (at the top) are left out."""
    skip = set(ignore)
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.relative_to(path).parts[0] not in skip)
    return digest_of({p.relative_to(path).as_posix(): digest_file(p) for p in files})


def write_atomically(path: Path | UPath, data: bytes) -> None:
    """Write to a temporary neighbour, fsync, rename. OSError (full disk, read-only folder) becomes an InputError."""
    temporary = path.parent / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            _fsync(file)
        if isinstance(path, UPath) and isinstance(temporary, UPath) and path.protocol:
            path.fs.mv(temporary.path, path.path)  # UPath.rename refuses an existing target on some file systems
        else:
            os.replace(str(temporary), str(path))
    except OSError as error:
        _remove_quietly(temporary)
        raise InputError(str(path), f"cannot be written: {error.strerror or error}", do="Free space or rights, then run again") from error
    except BaseException:
        _remove_quietly(temporary)
        raise


class SharedEntry(Protocol):
    @property
    def size(self) -> int: ...


class SharedCopy(Protocol):
    """What a store asks of the copy behind it (remote.RemoteFolder). Names are relative to it; errors are InputErrors."""

    @property
    def address(self) -> str: ...
    def list(self) -> Mapping[str, SharedEntry]: ...
    def entry(self, name: str) -> SharedEntry | None: ...
    def read(self, name: str) -> bytes | None: ...
    def fetch(self, name: str, target: Path) -> bool: ...
    def write(self, name: str, data: bytes) -> None: ...
    def send(self, name: str, source: Path) -> None: ...


class Store:
    """See the module's docstring. All methods are safe with several processes on one root."""

    def __init__(self, root: str | os.PathLike[str] | UPath, shared: SharedCopy | None = None) -> None:
        """shared: the copy behind a local root; None: there is none."""
        self.root, self.shared = UPath(root), shared

    # --- one file -------------------------------------------------------------------------------------------------------

    def put_bytes(self, data: bytes, extension: str = "") -> str:
        """Store bytes, return their digest. `extension` (".png") only helps people; the digest alone finds the object."""
        digest = digest_bytes(data)
        path = self._object(digest, extension)
        if not _has_size(path, len(data)):  # absent, or cut short behind our back
            if self.shared is not None:
                self.shared.write(_object_name(digest, extension), data)
            write_atomically(path, data)
        return digest

    def put_file(self, source: Path, extension: str = "") -> str:
        return self.put_bytes(source.read_bytes(), extension)

    def put_json(self, value: Any) -> str:
        """Store a JSON value in its canonical spelling: equal values have equal digests."""
        return self.put_bytes(canonical_json(value).encode(), ".json")

    def read_bytes(self, digest: str, extension: str = "") -> bytes:
        """Bytes of an object, verified against their digest. InputError if absent or damaged."""
        path = self.path(digest, extension)
        data = path.read_bytes()
        if digest_bytes(data) != digest:
            raise InputError(str(path), "does not hold what its name says", do="Delete this file and run update again")
        return data

    def read_json(self, digest: str) -> Any:
        return json.loads(self.read_bytes(digest, ".json"))

    def path(self, digest: str, extension: str = "") -> UPath:
        """Where an object lies. InputError if it is not there."""
        path = self._object(digest, extension)
        if not path.exists() and not self._fetched(digest, extension):
            raise InputError(str(path), "is missing from the store", do="Run update again")
        return path

    def local_path(self, digest: str, extension: str = "") -> Path:
        """The same as a local path, for libraries that know no other."""
        self.path(digest, extension)
        return self.local_root / _object_name(digest, extension)

    def has(self, digest: str, extension: str = "") -> bool:
        """Whether an object is here, or can be fetched."""
        if self._object(digest, extension).exists():
            return True
        return self.shared is not None and self.shared.entry(_object_name(digest, extension)) is not None

    def _object(self, digest: str, extension: str) -> UPath:
        return self.root / _object_name(digest, extension)

    def _fetched(self, digest: str, extension: str) -> bool:
        """Bring an object from the shared copy. InputError where that one is damaged."""
        if self.shared is None or (data := self.shared.read(name := _object_name(digest, extension))) is None:
            return False
        if digest_bytes(data) != digest:
            place = f"{self.shared.address}/{name}"
            raise InputError(place, "does not hold what its name says", do="Delete this object and run update again")
        write_atomically(self._object(digest, extension), data)
        return True

    # --- a folder -------------------------------------------------------------------------------------------------------

    def build_folder(self, digest: str, build: Callable[[Path], None]) -> Path:
        """The folder named `digest`, built by `build(empty_folder)` if it is not there yet. Complete or absent, never half."""
        return self.find_folder(digest) or self._placed(digest, build, shares=True)

    def _placed(self, digest: str, build: Callable[[Path], None], shares: bool) -> Path:
        final = self.folder_path(digest)
        temporary = final.parent / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
        try:
            temporary.mkdir(parents=True)
            build(temporary)
            _fsync_tree(temporary)
            if shares:
                self._send_folder(digest, temporary)
            os.replace(temporary, final)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if final.is_dir():  # another process was first, with the same content
                return final
            raise InputError(
                str(final), f"cannot be written: {error.strerror or error}", do="Free space or rights, then run again"
            ) from error
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        return final

    def folder_path(self, digest: str) -> Path:
        """Where the folder lies or will lie."""
        return self.local_root / "folders" / digest

    def folder(self, digest: str) -> Path:
        path = self.find_folder(digest)
        if path is None:
            raise InputError(str(self.folder_path(digest)), "is missing from the store", do="Run update again")
        return path

    def share_folder(self, digest: str) -> None:
        """Send a folder that another process wrote here (a training run) to the shared copy, unless it has it."""
        if self.shared is not None and self.shared.entry(f"folders/{digest}{FILE_LIST}") is None:
            self._send_folder(digest, self.folder(digest))

    def _send_folder(self, digest: str, folder: Path) -> None:
        if self.shared is None:
            return
        files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
        for name, path in files.items():
            self.shared.send(f"folders/{digest}/{name}", path)
        listed = canonical_json({name: digest_file(path) for name, path in files.items()})
        self.shared.write(f"folders/{digest}{FILE_LIST}", listed.encode())

    def find_folder(self, digest: str) -> Path | None:
        """The folder, brought from the shared copy if it is not here; None where it is nowhere."""
        final = self.folder_path(digest)
        if final.is_dir():
            return final
        if self.shared is None or (listed := self.shared.read(f"folders/{digest}{FILE_LIST}")) is None:
            return None
        shared = self.shared

        def bring(folder: Path) -> None:
            for name, expected in _listed_files(listed, f"{shared.address}/folders/{digest}{FILE_LIST}").items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                place = f"{shared.address}/folders/{digest}/{name}"
                if not shared.fetch(f"folders/{digest}/{name}", folder / name):
                    raise InputError(
                        place, "is missing", "a file of the folder's list", f"Delete folders/{digest}{FILE_LIST} there, run update again"
                    )
                if digest_file(folder / name) != expected:
                    raise InputError(
                        place, "is damaged", f"SHA-256 {expected}", f"Delete folders/{digest}{FILE_LIST} there, run update again"
                    )

        return self._placed(digest, bring, shares=False)

    # --- a document that changes ----------------------------------------------------------------------------------------

    def pull(self, name: str) -> None:
        """Bring a document that changes (the split ledger) from the shared copy where this root has none yet.

        One home at a time writes a shared store: nothing here notices that another one has written too.
        """
        path = self.root / name
        if self.shared is not None and not path.exists() and (data := self.shared.read(name)) is not None:
            write_atomically(path, data)

    def unshared(self) -> list[str]:
        """Names of objects and folders that are here and not, or not in that size, in the shared copy: put here before there was one, or
        lost there. A damaged object of the same size is found when it is fetched."""
        if self.shared is None:
            return []
        there = self.shared.list()
        objects = (path for path in sorted((self.local_root / "objects").glob("*/*")) if not path.name.startswith(TEMPORARY_PREFIX))
        named = ((path.relative_to(self.local_root).as_posix(), path.stat().st_size) for path in objects)
        missing = [name for name, size in named if name not in there or there[name].size != size]
        folders = (path for path in sorted((self.local_root / "folders").glob("*")) if not path.name.startswith(TEMPORARY_PREFIX))
        return missing + [f"folders/{path.name}" for path in folders if f"folders/{path.name}{FILE_LIST}" not in there]

    def share_again(self, name: str) -> None:
        """Send what unshared() named. An object that is not what its name says is not sent."""
        kind, _, digest = name.partition("/")
        path = self.local_root / name
        if self.shared is None:
            return
        if kind == "folders":
            self._send_folder(digest, path)
        elif digest_file(path) == path.stem:
            self.shared.send(name, path)

    def push(self, name: str) -> None:
        """Send a document that changes to the shared copy."""
        if self.shared is not None and (self.root / name).exists():
            self.shared.write(name, (self.root / name).read_bytes())

    def work_folder(self, digest: str) -> Path:
        """Scratch that survives a kill, for runs that resume (training checkpoints)."""
        path = self.local_root / "work" / digest
        path.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def local_root(self) -> Path:
        """Folders (adapters, checkpoints) are written by libraries that need a local path."""
        if self.root.protocol not in ("", "file", "local"):
            raise InputError(str(self.root), "folders need a local store so far", do="Set the store to a local folder")
        return Path(self.root.path)


def _listed_files(listed: bytes, place: str) -> dict[str, str]:
    """name -> SHA-256. InputError for what this store would not have written, names that lead out of the folder above all."""
    try:
        files = json.loads(listed)
        sound = all(isinstance(digest, str) and set(name.split("/")).isdisjoint(("", ".", "..")) for name, digest in files.items())
    except (ValueError, AttributeError):
        sound = False
    if not sound:
        raise InputError(
            place, "is no list of a folder's files", "names inside the folder, each with its SHA-256", "Delete it, run update again"
        )
    return dict(files)


def _object_name(digest: str, extension: str) -> str:
    return f"objects/{digest[:2]}/{digest}{extension}"


def _fsync(file: Any) -> None:
    try:
        descriptor = file.fileno()
    except (AttributeError, OSError):  # remote and in-memory files have no descriptor (UnsupportedOperation is an OSError)
        return
    os.fsync(descriptor)


def _fsync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _has_size(path: UPath, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except (FileNotFoundError, NotADirectoryError):
        return False


def _remove_quietly(path: Path | UPath) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
