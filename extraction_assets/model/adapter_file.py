"""A peft LoRA folder, read as what it adds to each weight of its base. Loads no model, and knows who made the folder by nothing in it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from extraction_assets.errors import InputError
from extraction_assets.model.lora import ADAPTER_CONFIG, ADAPTER_WEIGHTS

PREFIX = "base_model.model."
"""before the name of an adapted module, in peft's files"""
_PLAIN: dict[str, Any] = {
    "peft_type": "LORA",
    "bias": "none",
    "lora_bias": False,
    "fan_in_fan_out": False,
    "modules_to_save": None,
    "trainable_token_indices": None,
    "target_parameters": None,
    "layer_replication": None,
    "rank_pattern": {},
    "alpha_pattern": {},
    "use_qalora": False,
}
"""settings of peft under which a weight's share is what `LinearAdapter.merged` computes; an absent one has this value"""
_FROM_THE_BASE_AS_IT_IS = (True, False, "gaussian", "orthogonal", "eva")
"""ways to begin (init_lora_weights) that leave the base's own weights alone: PiSSA, OLoRA, CorDA and LoftQ do not"""


@dataclass(frozen=True)
class LinearAdapter:
    """Of one linear: weight (out, in) becomes weight + scaling * up @ down, its rows then scaled to `magnitude` (DoRA). All float32."""

    down: Tensor
    up: Tensor
    scaling: float
    magnitude: Tensor | None

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.up.shape[0]), int(self.down.shape[1])

    def merged(self, weight: Tensor) -> Tensor:
        """float32."""
        summed = weight.float() + self.scaling * (self.up @ self.down)
        return summed if self.magnitude is None else (self.magnitude / summed.norm(dim=1)).unsqueeze(1) * summed


def read_config(folder: Path) -> dict[str, Any]:
    """adapter_config.json of a plain, rsLoRA or DoRA adapter. Raises InputError on any other kind."""
    path = folder / ADAPTER_CONFIG
    if not path.is_file() and (inside := sorted(it.parent.name for it in folder.glob(f"*/{ADAPTER_CONFIG}"))):
        raise InputError(str(folder), f"holds adapters only in folders of its own: {', '.join(inside)}", do="Name one of these")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(str(folder), f"cannot be read as an adapter: {error}", "a peft LoRA adapter's folder") from None
    if not isinstance(config, dict) or not all(isinstance(config.get(name), int | float) for name in ("r", "lora_alpha")):
        raise InputError(str(path), "has no r and lora_alpha", "a peft LoRA adapter's configuration")
    for name, plain in _PLAIN.items():
        if config.get(name, plain) not in (plain, None, [], {}):  # an empty list says as much as none
            raise InputError(str(path), f"{name} is {config[name]}", f"{plain}: no other kind of adapter can be merged or served")
    if (begun := config.get("init_lora_weights", True)) not in (*_FROM_THE_BASE_AS_IT_IS, None):
        expected = "one of true, false, gaussian, orthogonal, eva: it belongs to a base that was changed first"
        raise InputError(str(path), f"init_lora_weights is {begun}", expected, "Convert it to plain LoRA with its trainer")
    return config


def read_adapter(folder: Path) -> dict[str, LinearAdapter]:
    """By the name of the weight in the base's files. Raises InputError: no adapter, another kind, a part missing or of another rank."""
    config = read_config(folder)
    try:
        tensors = load_file(folder / ADAPTER_WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(
            str(folder), f"cannot be read as an adapter: {error}", f"a peft LoRA adapter's folder with {ADAPTER_WEIGHTS}"
        ) from None
    r, alpha = config["r"], config["lora_alpha"]
    scaling = alpha / (r**0.5 if config.get("use_rslora") else r)
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        # some write the adapter's name, "default", into the key
        module, _, part = key.removeprefix(PREFIX).removesuffix(".weight").removesuffix(".default").rpartition(".")
        parts.setdefault(f"{module}.weight", {})[part] = tensor.float()
    adapters: dict[str, LinearAdapter] = {}
    for name, found in parts.items():
        wanted = {"lora_A", "lora_B", *(["lora_magnitude_vector"] if config.get("use_dora") else [])}
        if found.keys() != wanted:
            raise InputError(str(folder / ADAPTER_WEIGHTS), f"{name} has {', '.join(sorted(found))}", ", ".join(sorted(wanted)))
        down, up = found["lora_A"], found["lora_B"]
        if down.ndim != 2 or up.ndim != 2 or (down.shape[0], up.shape[1]) != (r, r):
            shapes = f"{name} has parts of {tuple(down.shape)} and {tuple(up.shape)}"
            raise InputError(str(folder / ADAPTER_WEIGHTS), shapes, f"({r}, inputs) and (outputs, {r}), as r says")
        adapters[name] = LinearAdapter(down, up, scaling, found.get("lora_magnitude_vector"))
    return adapters
