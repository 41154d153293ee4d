"""The content-addressed store: every artefact is named by the SHA-256 of its bytes, or of what made it.

    objects/ab/abcd....ext    one file, named by the digest of its bytes
    folders/<digest>/         a folder (an adapter, a base model), named by the digest of what made it; complete or absent
    work/<digest>/            scratch of a run that can be resumed; never trusted as a result

Writes go to a temporary name in the same folder, are fsynced and renamed: a killed writer leaves nothing that a later run
would trust. Paths are UPath, so a root may be a local folder or any fsspec address. Knows nothing of what it holds.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from upath import UPath

from extraction_assets.errors import InputError

TEMPORARY_PREFIX = ".tmp-"


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


class Store:
    """See the module's docstring. All methods are safe with several processes on one root."""

    def __init__(self, root: str | os.PathLike[str] | UPath) -> None:
        self.root = UPath(root)

    # --- one file -------------------------------------------------------------------------------------------------------

    def put_bytes(self, data: bytes, extension: str = "") -> str:
        """Store bytes, return their digest. `extension` (".png") only helps people; the digest alone finds the object."""
        digest = digest_bytes(data)
        path = self._object(digest, extension)
        if not _has_size(path, len(data)):  # absent, or cut short behind our back
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
        if not path.exists():
            raise InputError(str(path), "is missing from the store", do="Run update again")
        return path

    def local_path(self, digest: str, extension: str = "") -> Path:
        """The same as a local path, for libraries that know no other."""
        self.path(digest, extension)
        return self.local_root / "objects" / digest[:2] / f"{digest}{extension}"

    def has(self, digest: str, extension: str = "") -> bool:
        return self._object(digest, extension).exists()

    def _object(self, digest: str, extension: str) -> UPath:
        return self.root / "objects" / digest[:2] / f"{digest}{extension}"

    # --- a folder -------------------------------------------------------------------------------------------------------

    def build_folder(self, digest: str, build: Callable[[Path], None]) -> Path:
        """The folder named `digest`, built by `build(empty_folder)` if it is not there yet. Complete or absent, never half."""
        final = self.folder_path(digest)
        if final.is_dir():
            return final
        temporary = final.parent / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
        try:
            temporary.mkdir(parents=True)
            build(temporary)
            _fsync_tree(temporary)
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
        path = self.folder_path(digest)
        if not path.is_dir():
            raise InputError(str(path), "is missing from the store", do="Run update again")
        return path

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
