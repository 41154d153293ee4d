"""Words of a page image by Tesseract, for what has no text layer. The rules baseline alone reads them: no model, no target, no prompt."""

from __future__ import annotations

import csv
import io
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

from extraction_assets.documents.memory import recall, remember
from extraction_assets.documents.records import PageText, Word
from extraction_assets.store import Store, digest_of

_LANGUAGES = ("eng", "deu", "fra", "spa", "ita", "nld", "por")
"""of those that are installed; inference.label_rules knows what fields are called in them"""
_PAGE_SECONDS = 60
_KIND = "ocr"


@dataclass(frozen=True)
class Reader:
    program: str
    version: str
    languages: str

    def __str__(self) -> str:
        return f"{self.version} ({self.languages})"


@cache
def reader() -> Reader | None:
    """The Tesseract of this machine; None: there is none, or none that works."""
    program = shutil.which("tesseract")
    if program is None:
        return None
    try:
        version, installed = (_run([program, option]).split("\n") for option in ("--version", "--list-langs"))
    except (OSError, subprocess.SubprocessError):
        return None
    languages = "+".join(name for name in _LANGUAGES if name in {line.strip() for line in installed})
    return Reader(program, version[0].strip(), languages) if languages else None


def read_pages(store: Store, images: Iterable[str], workers: int = 0) -> Iterator[tuple[str, PageText]]:
    """(image digest, its words) of page images in the store, each read once and remembered; a page that cannot be read has no words.

    workers: pages at a time (0: one a core), each by a process of one thread. Nothing comes where there is no reader.
    """
    by = reader()
    if by is None:
        return
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        yield from pool.map(lambda image: (image, _read(store, image, by)), sorted(set(images)))


def _read(store: Store, image: str, by: Reader) -> PageText:
    key = digest_of([image, str(by)])
    known = recall(store, _KIND, key)
    if known is not None:
        return PageText.model_validate(known)
    try:
        table = _run([by.program, str(store.path(image, ".png")), "stdout", "-l", by.languages, "tsv"])
    except (OSError, subprocess.SubprocessError):
        return PageText(words=())  # not remembered: the next report tries again
    words = PageText(words=tuple(_words(table)))
    remember(store, _KIND, key, words.model_dump(mode="json"))
    return words


def _run(command: list[str]) -> str:
    # Tesseract's own threads are slower than pages side by side
    environment = {**os.environ, "OMP_THREAD_LIMIT": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=_PAGE_SECONDS, check=True)
    return done.stdout.decode("utf-8", "replace")


def _words(table: str) -> Iterator[Word]:
    lines: dict[tuple[str, ...], int] = {}
    for row in csv.DictReader(io.StringIO(table), delimiter="\t", quoting=csv.QUOTE_NONE):
        text = (row["text"] or "").strip()
        if not text:
            continue
        x, y, width, height = (float(row[side]) for side in ("left", "top", "width", "height"))
        place = (row["block_num"], row["par_num"], row["line_num"])
        yield Word(text=text, box=(x, y, x + width, y + height), line=lines.setdefault(place, len(lines)))
