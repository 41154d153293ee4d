"""Where what the vision tower made of a page is kept: with the process that saw it, or where all processes of a machine find it."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from extraction_assets.store import TEMPORARY_PREFIX, digest_bytes

_SPARE = 2**30
"""bytes of a disk that are left to others"""
KeptPage = tuple[torch.Tensor, ...]
"""(visual tokens, hidden): the merged output, then one per deepstack layer; on the host"""


class KeptPages(Protocol):
    """By example id, up to a budget, first come first kept: nothing that was kept is dropped. Safe with several threads."""

    def __contains__(self, example: object) -> bool: ...
    def get(self, example: str) -> KeptPage | None: ...
    def put(self, example: str, page: KeptPage) -> None: ...


class OwnPages:
    """In this process's memory."""

    def __init__(self, budget: int) -> None:
        """budget: bytes"""
        self._room = budget
        self._pages: dict[str, KeptPage] = {}

    def __contains__(self, example: object) -> bool:
        return example in self._pages

    def get(self, example: str) -> KeptPage | None:
        return self._pages.get(example)

    def put(self, example: str, page: KeptPage) -> None:
        if (size := sum(part.nbytes for part in page)) <= self._room:
            self._room -= size
            self._pages[example] = tuple(map(_on_the_host, page))


class SharedPages:
    """A file a page in a folder, which the machine's page cache holds in memory: an epoch deals a page to whichever process, and all but the
    first would see it again. Nothing waits for a disk: a page that is not whole has no name yet."""

    def __init__(self, folder: Path, budget: int) -> None:
        """folder: exists, and is this run's alone. budget: bytes that this process may add."""
        self._folder, self._room = folder, budget

    def __contains__(self, example: object) -> bool:
        return isinstance(example, str) and self._path(example).exists()

    def get(self, example: str) -> KeptPage | None:
        if example not in self:
            return None
        parts = load_file(self._path(example))
        return tuple(parts[str(number)] for number in range(len(parts)))

    def put(self, example: str, page: KeptPage) -> None:
        size = sum(part.nbytes for part in page)
        if size > self._room or example in self:
            return
        path = self._path(example)
        temporary = path.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{threading.get_ident()}-{path.name}")
        try:
            if shutil.disk_usage(self._folder).free < size + _SPARE:
                raise OSError("checkpoints need what is left")
            save_file({str(number): part.detach().contiguous() for number, part in enumerate(page)}, temporary)
            os.replace(temporary, path)
            self._room -= size
        except (OSError, SafetensorError):  # a full disk, say: from now on nothing is kept, and pages are seen again
            self._room = 0
            temporary.unlink(missing_ok=True)

    def _path(self, example: str) -> Path:
        return self._folder / f"{digest_bytes(example.encode())}.safetensors"


def _on_the_host(part: torch.Tensor) -> torch.Tensor:
    """A copy. On a GPU it is under way when this returns: only the GPU reads it again, and does what it was asked in order."""
    if part.device.type != "cuda":
        return part.detach().to("cpu", copy=True)
    return torch.empty(part.shape, dtype=part.dtype, pin_memory=True).copy_(part.detach(), non_blocking=True)
