"""LoRA and QLoRA on the language model's linears, and the audit that proves it.

Never the vision tower: adapters then serve everywhere (vLLM and SGLang ignore vision adapters), and its forward pass needs no
backward. `all-linear` would add the vision tower, and ["qkv", "proj"] would wrap its Conv3d: hence one explicit pattern.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extraction_assets.errors import InputError
from extraction_assets.model.base import Base
from extraction_assets.settings import TrainingSettings

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from torch import Tensor, nn
    from transformers import BitsAndBytesConfig

_LAYER = r"model\.language_model\.layers\.\d+\."
TARGETS: dict[str, str] = {
    "attention": _LAYER + r"self_attn\.[qkvo]_proj",
    "attention+mlp": _LAYER + r"(?:self_attn\.[qkvo]_proj|mlp\.(?:gate|up|down)_proj)",
}
"""settings.training.targets -> full-match pattern of module names in Qwen3VLForConditionalGeneration"""
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
NEVER_FOUR_BIT = ("model.visual", "lm_head")
"""on transformers 5 the common ("visual", "lm_head") quantizes the whole vision tower"""
_ADAPTED = re.compile(r"^base_model\.model\.(?P<module>.+)\.lora_(?:A|B|embedding_A|embedding_B|magnitude_vector)\b")


@dataclass(frozen=True)
class ModuleCount:
    """Modules of one name, layer numbers folded to *."""

    modules: int
    parameters: int


@dataclass(frozen=True)
class Audit:
    """What can learn, and what is kept in 4 bits. Keys: module names with layer numbers folded to *."""

    trainable: dict[str, ModuleCount]
    four_bit: dict[str, ModuleCount]
    trainable_parameters: int
    base_parameters: int
    """logical ones: a 4-bit weight counts as its unpacked shape"""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        share = 100 * self.trainable_parameters / max(1, self.base_parameters)
        head = f"trainable: {self.trainable_parameters:,} of {self.base_parameters:,} parameters ({share:.2f} %)"
        rows = [f"  {name}: {count.modules} modules, {count.parameters:,} parameters" for name, count in self.trainable.items()]
        quantized = sum(count.modules for count in self.four_bit.values())
        return [head, *rows, f"4-bit: {quantized} modules" + "".join(f"\n  {name}: {c.modules}" for name, c in self.four_bit.items())]


def four_bit_config(settings: TrainingSettings) -> BitsAndBytesConfig | None:
    """nf4 with double quantisation for method qlora, None for lora. bitsandbytes runs it on a CPU too."""
    if settings.method != "qlora":
        return None
    import torch
    from transformers import BitsAndBytesConfig

    compute = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
        llm_int8_skip_modules=list(NEVER_FOUR_BIT),
    )


def add_lora(base: Base, settings: TrainingSettings, seed: int) -> PeftModel:
    """The base with fresh adapters (B = 0: it answers as before), everything else frozen. The same seed gives the same weights."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    alpha: Any = settings.alpha  # peft annotates int, and divides by r
    config = LoraConfig(
        r=settings.r,
        lora_alpha=int(alpha) if alpha == int(alpha) else alpha,
        lora_dropout=settings.dropout,
        use_rslora=settings.rslora,
        use_dora=settings.dora,
        target_modules=TARGETS[settings.targets],
        task_type="CAUSAL_LM",
        bias="none",
    )
    model = get_peft_model(base.model, config)
    audit_lora(model)
    # peft writes the load path here; a path of this machine would give equal adapters unequal digests in two homes
    model.peft_config["default"].base_model_name_or_path = base.format.name
    return model


def audit_lora(model: nn.Module) -> Audit:
    """Count what is trainable and what is 4-bit. Raises RuntimeError if anything but language-model adapters can learn or the
    vision tower or head is quantized: both train without an error and serve wrongly."""
    trainable = [(name, parameter.numel()) for name, parameter in model.named_parameters() if parameter.requires_grad]
    foreign = [name for name, _ in trainable if not _is_language_adapter(name)]
    if foreign or not trainable:
        what = f"trainable parameters outside the language model's adapters: {foreign[:3]}" if foreign else "nothing is trainable"
        raise RuntimeError(what)
    four_bit = [(name, _unpacked(module)) for name, module in model.named_modules() if is_four_bit(module)]
    wrong = [name for name, _ in four_bit if any(skip in name for skip in NEVER_FOUR_BIT)]
    if wrong:
        raise RuntimeError(f"4-bit modules that must not be: {wrong[:3]}")
    packed = {id(module.weight) for module in model.modules() if is_four_bit(module)}
    plain = sum(p.numel() for p in model.parameters() if not p.requires_grad and id(p) not in packed)
    frozen = plain + sum(count for _, count in four_bit)
    return Audit(
        trainable=folded((_module_of(name), count) for name, count in trainable),
        four_bit=folded(four_bit),
        trainable_parameters=sum(count for _, count in trainable),
        base_parameters=frozen,
    )


def save_adapter(model: PeftModel, folder: Path) -> None:
    """Plain peft files: adapter_model.safetensors (float32) and adapter_config.json; equal adapters give equal bytes.

    Not model.save_pretrained: it looks the base's name up on the hub and writes a model card.
    """
    from safetensors.torch import save_file

    save_file(adapter_tensors(model), folder / ADAPTER_WEIGHTS, {"format": "pt"})
    write_config(model.peft_config["default"], folder / ADAPTER_CONFIG)


def write_config(config: PeftConfig, path: Path) -> None:
    """Equal configurations give equal bytes."""
    values = {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}
    values["inference_mode"] = True
    path.write_text(json.dumps(values, indent=2, sort_keys=True, default=str) + "\n", encoding="utf-8")


def adapter_tensors(model: PeftModel) -> dict[str, Tensor]:
    """The adapter's tensors by name, whole and on the CPU. Of a sharded model all processes have to ask: each sends its part."""
    from peft import get_peft_model_state_dict

    from extraction_assets.model.sharding import whole, whole_adapter

    with whole_adapter(model):
        state = get_peft_model_state_dict(model, save_embedding_layers=False)
        return {name: whole(tensor.detach()).to("cpu", copy=True).contiguous() for name, tensor in sorted(state.items())}


def load_adapter_weights(model: PeftModel, folder: Path) -> None:
    """Put the weights of a saved adapter into a model that add_lora made with the same settings, bit for bit."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    result: Any = set_peft_model_state_dict(model, load_file(folder / ADAPTER_WEIGHTS))
    left_out = [name for name in result.missing_keys if ".lora_" in name]
    if left_out or result.unexpected_keys:
        raise InputError(str(folder), f"its weights do not fit this base and these settings, e.g. {(left_out + result.unexpected_keys)[0]}")


def _is_language_adapter(parameter: str) -> bool:
    match = _ADAPTED.match(parameter)
    return match is not None and re.fullmatch(TARGETS["attention+mlp"], match["module"]) is not None


def _module_of(parameter: str) -> str:
    match = _ADAPTED.match(parameter)
    return match["module"] if match else parameter


def folded(items: Iterable[tuple[str, int]]) -> dict[str, ModuleCount]:
    """(module, parameters) by name, layer numbers folded to *."""
    modules: dict[str, set[str]] = defaultdict(set)
    parameters: dict[str, int] = defaultdict(int)
    for name, count in items:
        folded = re.sub(r"\.\d+\.", ".*.", name.removeprefix("base_model.model.").removesuffix(".base_layer"))
        modules[folded].add(name)
        parameters[folded] += count
    return {name: ModuleCount(len(modules[name]), parameters[name]) for name in sorted(modules)}


def _unpacked(linear: Any) -> int:
    return int(linear.in_features) * int(linear.out_features)


def is_four_bit(module: nn.Module) -> bool:
    """bitsandbytes' linear of 4-bit weights."""
    # peft's wrapper has the same class name; the weights are in the wrapped module
    return type(module).__name__ == "Linear4bit" and type(module).__module__.startswith("bitsandbytes")
