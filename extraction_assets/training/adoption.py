"""An adapter that another trainer made on an export of this home's splits: held against base and splits, and spelled as ours are.

What comes out is a folder like one of write_adapter: plain peft files in float32 and a manifest, so that answers, report, gate, bundle, merge
and lineage take it like ours. It is named by its weights, its base and its splits: adopted twice, it is one.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

import extraction_assets
from extraction_assets.errors import InputError
from extraction_assets.model.adapter_file import PREFIX, LinearAdapter, read_adapter, read_config
from extraction_assets.model.base import base_folder
from extraction_assets.model.examples import read_examples
from extraction_assets.model.lora import ADAPTER_CONFIG, ADAPTER_WEIGHTS, TARGETS, Audit, folded, write_config
from extraction_assets.store import Store, digest_bytes, digest_of
from extraction_assets.training.manifest import MANIFEST, AdapterManifest, code_digest, file_digests
from extraction_assets.training.warm_start import documents_of

TRAINER_STATE = "trainer_state.json"
"""what transformers' Trainer, which all four build on, leaves beside its weights"""
_ADAPTABLE = re.compile(TARGETS["attention+mlp"])


@dataclass(frozen=True)
class Adoption:
    """What is known of an adapter that came from elsewhere."""

    trainer: str
    """for people: LLaMA-Factory"""
    base_name: str
    """the home's base, for people"""
    base_digest: str
    train_digest: str
    val_digest: str


def adopt(folder: Path, adoption: Adoption, base: str | Path, store: Store, test_digest: str) -> str:
    """Put the adapter of a folder into the store; returns its name there.

    base: folder or hub name of the home's base. test_digest: the split it will be scored on. Raises InputError: no plain, rsLoRA or DoRA
    adapter of the language model, one that does not fit the base, numbers that are none, a split that this home does not have, a document of
    the test split that it has learnt from.
    """
    config, adapters = read_config(folder), read_adapter(folder)
    sizes = _sizes(base)
    _require_fit(folder, adapters, sizes)
    _require_unseen(store, adoption, test_digest)
    tensors = _tensors(adapters, bool(config.get("use_dora")))
    settings = {name: config.get(name) for name in ("r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora")}
    weights = {name: digest_bytes(tensor.numpy().tobytes()) for name, tensor in tensors.items()}
    told = {name: value for name, value in vars(adoption).items() if name != "base_name"}  # which says where the base lies, not what it is
    named = digest_of({"adopted": weights, "settings": settings, **told})

    def build(empty: Path) -> None:
        save_file(tensors, empty / ADAPTER_WEIGHTS, {"format": "pt"})
        write_config(_peft_config(config, adapters, sizes, adoption.base_name), empty / ADAPTER_CONFIG)
        manifest = _manifest(named, folder, adoption, adapters, tensors, sizes, store, file_digests(empty))
        (empty / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")

    store.build_folder(named, build)
    return named


def _sizes(base: str | Path) -> dict[str, tuple[int, ...]]:
    """Shape of every weight in the base's files, read from their headers."""
    found: dict[str, tuple[int, ...]] = {}
    for path in sorted(base_folder(base).glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as file:
                found |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # it is no dict
        except (OSError, SafetensorError) as error:
            raise InputError(str(path), f"cannot be read: {error}", do="Restore the base") from None
    return found


def _require_fit(folder: Path, adapters: Mapping[str, LinearAdapter], sizes: Mapping[str, tuple[int, ...]]) -> None:
    where = str(folder / ADAPTER_WEIGHTS)
    if not adapters:
        raise InputError(where, "holds no adapter of any weight", do="Name the folder that the trainer saved its adapter to")
    for name, adapter in adapters.items():
        if name not in sizes:
            raise InputError(where, f"adapts {name}, which the base does not have", do="Set base_model to the base that it was trained on")
        if not _ADAPTABLE.fullmatch(name.removesuffix(".weight")):
            expected = "the language model's attention and MLP alone: no server takes adapters of the vision tower or of the vocabulary"
            raise InputError(where, f"adapts {name}", expected, "Train with the config of the export, which leaves these as they are")
        if adapter.shape != sizes[name]:
            found = f"its part for {name} is {adapter.shape}, the base's weight {sizes[name]}"
            raise InputError(where, found, do="Set base_model to the base that it was trained on")
        parts = (adapter.down, adapter.up, *(() if adapter.magnitude is None else (adapter.magnitude,)))
        if not all(bool(torch.isfinite(part).all()) for part in parts):
            raise InputError(where, f"its part for {name} holds values that are no finite numbers", do="Train again, at a lower rate")


def _require_unseen(store: Store, adoption: Adoption, test_digest: str) -> None:
    """Who has learnt from a document must not be scored on it."""
    learnt: set[str] = set()
    for split in (adoption.train_digest, adoption.val_digest):
        if not store.has(split, ".jsonl"):
            found = f"the export is of a split {split[:12]} that this home's store does not hold"
            raise InputError(str(store.root), found, do="Adopt in the home that made the export")
        learnt.update(documents_of(store, split))
    if seen := learnt & set(documents_of(store, test_digest)):
        found = f"the adapter has learnt from {len(seen)} documents that are in the test split now, e.g. {min(seen)[:12]}"
        raise InputError("test split", found, do="Export the splits of today, and train on those")


def _tensors(adapters: Mapping[str, LinearAdapter], dora: bool) -> dict[str, torch.Tensor]:
    """By peft's names, as adapter_tensors gives them: (r, inputs), (outputs, r), with DoRA (outputs,); float32."""
    found: dict[str, torch.Tensor] = {}
    for name, adapter in adapters.items():
        module = f"{PREFIX}{name.removesuffix('.weight')}"
        found |= {f"{module}.lora_A.weight": adapter.down, f"{module}.lora_B.weight": adapter.up}
        if dora and adapter.magnitude is not None:
            found[f"{module}.lora_magnitude_vector"] = adapter.magnitude
    return {name: found[name].contiguous() for name in sorted(found)}


def _peft_config(config: Mapping[str, Any], adapters: Mapping[str, LinearAdapter], sizes: Mapping[str, Any], base_name: str) -> Any:
    from peft import LoraConfig

    modules = {name.removesuffix(".weight") for name in adapters}
    everywhere = {name.removesuffix(".weight") for name in sizes}
    patterns = [pattern for pattern in TARGETS.values() if modules == {name for name in everywhere if re.fullmatch(pattern, name)}]
    found = LoraConfig(
        r=config["r"],
        lora_alpha=config["lora_alpha"],
        lora_dropout=config.get("lora_dropout") or 0.0,
        use_rslora=bool(config.get("use_rslora")),
        use_dora=bool(config.get("use_dora")),
        target_modules=patterns[0] if patterns else sorted(modules),
        task_type="CAUSAL_LM",
        bias="none",
    )
    found.base_model_name_or_path = base_name
    return found


def _manifest(
    named: str,
    folder: Path,
    adoption: Adoption,
    adapters: Mapping[str, LinearAdapter],
    tensors: Mapping[str, torch.Tensor],
    sizes: Mapping[str, tuple[int, ...]],
    store: Store,
    files: dict[str, str],
) -> AdapterManifest:
    train, val = (read_examples(store.local_path(split, ".jsonl")) for split in (adoption.train_digest, adoption.val_digest))
    trained = sum(tensor.numel() for tensor in tensors.values())
    modules = ((name.removesuffix(".weight"), sum(part.numel() for part in (it.down, it.up))) for name, it in adapters.items())
    return AdapterManifest(
        job=named,
        trainer=adoption.trainer,
        base=adoption.base_name,
        base_digest=adoption.base_digest,
        train_digest=adoption.train_digest,
        val_digest=adoption.val_digest,
        schemas=tuple(sorted({example.schema for example in train})),
        settings=None,
        code_version=extraction_assets.__version__,
        code_digest=code_digest(),
        libraries={},
        audit=Audit(folded(modules), {}, trained, sum(math.prod(size) for size in sizes.values())).to_json(),
        train_examples=len(train),
        val_examples=len(val),
        left_out=0,
        val_loss=None,
        files=files,
        **_trainer_state(folder),
    )


def _trainer_state(folder: Path) -> dict[str, Any]:
    """Steps, epochs and losses, where the trainer has left them in a form that can be read; for people, so nothing hangs on it.

    Some leave them beside the adapter, some beside its last checkpoint alone.
    """
    facts: dict[str, Any] = {"steps": None, "epochs": None, "first_loss": None, "last_loss": None}
    states = sorted(folder.glob(f"checkpoint-*/{TRAINER_STATE}"), key=lambda path: path.stat().st_mtime)
    path = next((it for it in (folder / TRAINER_STATE, *reversed(states)) if it.is_file()), None)
    if path is None:
        return facts
    try:
        state = json.loads(path.read_bytes())
        losses = [row["loss"] for row in state["log_history"] if "loss" in row]
        read = {"steps": state["global_step"], "epochs": state["epoch"]}
        read |= {"first_loss": losses[0], "last_loss": losses[-1]} if losses else {}
    except (OSError, ValueError, KeyError, TypeError):
        return facts
    numbers = {name: value for name, value in read.items() if isinstance(value, int | float) and math.isfinite(value)}
    return facts | numbers
