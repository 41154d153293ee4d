"""File -> digest of its content, remembered while the file system says that the file has not changed.

Size, times and inode only decide whether a file has to be read again; what counts is always the content. A file that is merely
touched is read again and has the digest it had. The memory is one JSON file, replaced as a whole; losing it costs time only.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path

from extraction_assets.documents.label_file import read_label
from extraction_assets.errors import InputError
from extraction_assets.store import digest_file, digest_of, write_atomically

VERSION = 1

_SETTLED_NS = 2_000_000_000
"""A file changed less than 2 s ago could change again within one tick of its time stamp: not remembered yet"""

_Stat = tuple[int, int, int, int]


class DigestCache:
    """Remembers digests in the file `path` (read on first use, written by `save`)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: dict[str, tuple[_Stat, str]] | None = None
        self._of_folder: dict[str, set[str]] | None = None
        self._changed = False

    def document(self, path: str, stat: os.stat_result | None = None) -> str:
        """SHA-256 of a file's bytes. Raises OSError."""
        return self._digest(path, stat, "")

    def label(self, path: str, stat: os.stat_result | None = None, where: str | None = None) -> str:
        """Digest of a label file's parsed value: white space and key order do not count. Raises InputError, OSError."""
        return self._digest(path, stat, "#label", where)

    def _digest(self, path: str, stat: os.stat_result | None, kind: str, where: str | None = None) -> str:
        found = stat or os.stat(path)
        state = (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
        key = os.path.abspath(path) + kind
        known = self._known().get(key)
        if known is not None and known[0] == state:
            return known[1]
        digest = digest_of(read_label(Path(path), where)) if kind else digest_file(path)
        if time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) > _SETTLED_NS:
            self._known()[key] = (state, digest)
            if self._of_folder is not None:
                self._of_folder.setdefault(os.path.dirname(key), set()).add(key)
            self._changed = True
        return digest

    def _known(self) -> dict[str, tuple[_Stat, str]]:
        if self._entries is None:
            self._entries = {}
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
                stored = json.loads(self.path.read_bytes())
                if stored["version"] == VERSION:
                    files = stored["files"]
                    self._entries = {
                        key: ((size, mtime, ctime, inode), str(digest)) for key, (size, mtime, ctime, inode, digest) in files.items()
                    }
        return self._entries

    def forget_missing(self, folder: Path, present: set[str]) -> None:
        """Drop what is remembered of files below `folder` that are not among `present` (absolute paths)."""
        if self._of_folder is None:  # by folder, since this is asked for every folder of a large landing
            self._of_folder = {}
            for key in self._known():
                self._of_folder.setdefault(os.path.dirname(key), set()).add(key)
        remembered = self._of_folder.get(os.path.abspath(folder), set())
        for key in [key for key in remembered if key.removesuffix("#label") not in present]:
            remembered.remove(key)
            del self._known()[key]
            self._changed = True

    def save(self) -> None:
        """Write what has been learnt, in one step. A memory that cannot be written is done without."""
        if not self._changed or self._entries is None:
            return
        files = {key: [*state, digest] for key, (state, digest) in self._entries.items()}
        with contextlib.suppress(InputError, OSError, UnicodeEncodeError):
            write_atomically(self.path, json.dumps({"version": VERSION, "files": files}).encode())
            self._changed = False
