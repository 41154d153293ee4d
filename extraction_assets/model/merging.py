"""An adapter merged into its base: a checkpoint folder that loads without peft, for servers that take no adapters.

Merged file by file from the base's own safetensors, never from a loaded or a 4-bit model: each adapted weight is read, the adapter's
share is added in float32, and the sum is rounded once to the type that the base is stored in. Memory: one file of the base.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from extraction_assets.errors import InputError
from extraction_assets.model.adapter_file import LinearAdapter, read_adapter
from extraction_assets.model.base import base_digest, base_folder
from extraction_assets.store import TEMPORARY_PREFIX, digest_folder, write_atomically

MERGE_FILE = "merge.json"


@dataclass(frozen=True)
class Merge:
    """What merging did."""

    folder: Path
    base_digest: str
    adapter_digest: str
    weights: int
    """linears that changed"""
    rounding: float
    """what rounding to the base's type took from the adapter: root mean square of the error over that of the adapter's share, worst linear"""

    def to_json(self) -> dict[str, Any]:
        return {"base": self.base_digest, "adapter": self.adapter_digest, "weights": self.weights, "rounding": self.rounding}


def merge_adapter(base: str | Path, adapter: Path, out: Path) -> Merge:
    """Write base + adapter to the folder `out`: complete or absent.

    base: folder or hub name, in full precision. adapter: a peft LoRA folder (plain, rsLoRA or DoRA).
    Raises InputError: `out` exists, the adapter is another kind or does not fit, a file cannot be read or written.
    """
    if out.exists():
        raise InputError(str(out), "exists already", do="Name a new folder")
    source = base_folder(base)
    adapters = read_adapter(adapter)
    half = out.parent / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
    todo, worst = set(adapters), 0.0
    try:
        half.mkdir(parents=True)
        for file in sorted(source.iterdir()):
            if file.suffix == ".safetensors":
                worst = max(worst, _merge_file(file, half / file.name, adapters, todo))
            elif file.is_file() and not file.name.startswith("."):
                shutil.copyfile(file, half / file.name)
        if todo:
            raise InputError(str(adapter), f"adapts {min(todo)}, which {source} does not have", do="Name the base it was trained on")
        merge = Merge(out, base_digest(base), digest_folder(adapter), len(adapters), worst)
        write_atomically(half / MERGE_FILE, (json.dumps(merge.to_json(), indent=2) + "\n").encode())
        os.replace(half, out)
    except (OSError, SafetensorError) as error:  # safetensors wraps a full disk in a class of its own
        reason = getattr(error, "strerror", None) or error
        raise InputError(str(out), f"cannot be written: {reason}", do="Free space or rights, then merge again") from error
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return merge


def _merge_file(source: Path, target: Path, adapters: Mapping[str, LinearAdapter], todo: set[str]) -> float:
    """One file of weights; strikes what it merged off `todo`. Returns the worst share lost to rounding."""
    worst = 0.0
    try:
        with safe_open(source, "pt") as file:
            names, metadata = list(file.keys()), file.metadata()
            if not adapters.keys() & set(names):
                shutil.copyfile(source, target)
                return worst
            tensors = {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise InputError(str(source), f"cannot be read: {error}", do="Restore the base") from None
    for name in adapters.keys() & set(names):
        weight, adapter = tensors[name], adapters[name]
        if weight.shape != adapter.shape:
            found = f"{name} is {tuple(weight.shape)}, its adapter {adapter.shape}"
            raise InputError(str(source), found, do="Merge into the base that the adapter was trained on, not a 4-bit copy of it")
        exact = adapter.merged(weight)
        rounded = exact.to(weight.dtype)
        share = (exact - weight.float()).norm()
        if share > 0:
            worst = max(worst, float((rounded.float() - exact).norm() / share))
        tensors[name] = rounded
        todo.discard(name)
    save_file(tensors, target, metadata)
    return worst
