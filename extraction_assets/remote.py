"""A folder at an fsspec address (s3://bucket/prefix, abfs://container/prefix, memory://name, ...): the shared copy behind a local one.

Names are relative, with "/" between their parts. An object store shows an object only once it is whole; on a file system (file://) it is
written beside and renamed, so that the same holds. Credentials and endpoints come from the environment (AWS_*, AZURE_STORAGE_*) or from
fsspec's own configuration, never from an address. Whatever goes wrong on the way is one InputError that names the address.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from extraction_assets.errors import InputError
from extraction_assets.store import TEMPORARY_PREFIX

_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "abfs": "adlfs", "abfss": "adlfs", "az": "adlfs", "adl": "adlfs", "gs": "gcsfs", "gcs": "gcsfs"}
_TAGS = ("ETag", "etag", "md5", "md5Hash")
_TIMES = ("last_modified", "LastModified", "mtime", "created")
_open: dict[tuple[int, str], tuple[Any, str]] = {}
"""(process, address) -> its file system and root: a connection is not carried across a fork"""
_opening = threading.Lock()


@dataclass(frozen=True)
class RemoteEntry:
    size: int
    """bytes"""
    tag: str
    """changes when the content does: the store's own ETag where it has one, else size and time"""


@dataclass(frozen=True)
class RemoteFolder:
    address: str

    def list(self) -> dict[str, RemoteEntry]:
        """Every object below, by name, as it is now; {} where there is none. Names that could leave a local folder are an InputError."""
        fs, root = self._connected()
        with self._asked("listed"):
            fs.invalidate_cache()
            try:
                found = fs.find(root, detail=True)
            except FileNotFoundError:
                return {}
        entries = {}
        for path, info in found.items():
            name = path.removeprefix(root).lstrip("/")
            if not name or name.rpartition("/")[2].startswith(TEMPORARY_PREFIX) or info.get("type") == "directory":
                continue
            if any(part in ("", ".", "..") for part in name.split("/")) or "\\" in name or "\0" in name:
                raise InputError(f"{self.address}/{name}", "a name that cannot be a file's", do="Rename it")
            entries[name] = _entry(info)
        return entries

    def entry(self, name: str) -> RemoteEntry | None:
        fs, path = self._at(name)
        with self._asked(f"asked for {name}"):
            try:
                return _entry(fs.info(path, **self._fresh()))
            except FileNotFoundError:
                return None

    def read(self, name: str) -> bytes | None:
        """Bytes of an object; None: it is not there."""
        fs, path = self._at(name)
        with self._asked(f"read: {name}"):
            try:
                return bytes(fs.cat_file(path))
            except FileNotFoundError:
                return None

    def fetch(self, name: str, target: Path) -> bool:
        """Copy an object to a local path, over what is there. False: it is not there. The caller renames; nothing is fsynced."""
        fs, path = self._at(name)
        with self._asked(f"read: {name}"):
            try:
                fs.get_file(path, str(target))
            except FileNotFoundError:
                return False
        return True

    def write(self, name: str, data: bytes) -> None:
        with self._written(name) as (fs, path):
            fs.pipe_file(path, data)

    def send(self, name: str, source: Path) -> None:
        """Copy a local file to an object, over what is there."""
        with self._written(name) as (fs, path):
            fs.put_file(str(source), path)

    def _connected(self) -> tuple[Any, str]:
        key = (os.getpid(), self.address)
        with _opening, self._asked("opened"):
            if key not in _open:
                _open[key] = fsspec.core.url_to_fs(self.address, use_listings_cache=False, skip_instance_cache=True)
            return _open[key]

    def _at(self, name: str) -> tuple[Any, str]:
        fs, root = self._connected()
        return fs, f"{root.rstrip('/')}/{name}"

    def _fresh(self) -> dict[str, Any]:
        """s3fs would answer from a listing it remembers."""
        return {"refresh": True} if self.address.startswith("s3") else {}

    @contextlib.contextmanager
    def _written(self, name: str) -> Iterator[tuple[Any, str]]:
        fs, path = self._at(name)
        with self._asked(f"written: {name}"):
            if "file" not in fs.protocol:
                yield fs, path
                return
            folder = path.rpartition("/")[0]
            fs.makedirs(folder, exist_ok=True)
            temporary = f"{folder}/{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
            try:
                yield fs, temporary
                os.replace(temporary, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise

    @contextlib.contextmanager
    def _asked(self, what: str) -> Iterator[None]:
        """Clients raise errors of many libraries, some of which tell nothing in their first line."""
        scheme = self.address.partition("://")[0]
        try:
            yield
        except InputError:
            raise
        except ImportError as error:
            package = _PACKAGES.get(scheme, f"an fsspec package for {scheme}://")
            found = f"needs {package}, which is not installed ({error})"
            raise InputError(self.address, found, do="pip install 'extraction-assets[remote]'") from None
        except PermissionError as error:
            do = "Give this identity the right to list, read and write there, or set the credentials in the environment"
            raise InputError(self.address, f"cannot be {what}: denied ({_sentence(error)})", do=do) from error
        except Exception as error:
            do = "Check the address, the network and the credentials, then run again; what was written so far stays valid"
            raise InputError(self.address, f"cannot be {what}: {_sentence(error)}", do=do) from error


def _entry(info: dict[str, Any]) -> RemoteEntry:
    size = int(info.get("size") or 0)
    tag = next((str(info[key]) for key in _TAGS if info.get(key)), None)
    changed = next((info[key] for key in _TIMES if info.get(key)), "")
    # a listing and a question after one file tell the same moment in different types
    moment = changed.timestamp() if isinstance(changed, datetime.datetime) else changed
    return RemoteEntry(size, tag or f"{size}/{moment}")


def _sentence(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
