"""A base model: a folder or a hub name, loaded as model + tokenizer + page format, without torchvision.

Qwen3VLProcessor needs torchvision (for its video processor) even where only images are read; a torchvision built for another
torch breaks every Qwen3-VL import. The tokenizer and the PIL image processor need none, so they are loaded by hand, with the
checkpoint's own values: the class defaults (patch 14, CLIP mean) are Qwen2-VL's and silently wrong.

No branch anywhere asks which base it is: what differs between bases stands in their files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from extraction_assets.errors import InputError
from extraction_assets.page_budget import GRID_PX
from extraction_assets.store import digest_folder

if TYPE_CHECKING:
    import torch
    from transformers import (
        BitsAndBytesConfig,
        PreTrainedTokenizerBase,
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
        Qwen3VLTextConfig,
        Qwen3VLVisionConfig,
    )
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

MODEL_TYPE = "qwen3_vl"
_FETCH = "Fetch the base again"
_HUB_FILES = ["*.json", "*.jinja", "*.txt", "*.safetensors"]
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")
_NOT_WEIGHTS_OR_INPUTS = ("README.md", "measures.json", "LICENSE", ".gitattributes", ".cache", ".git")


@dataclass(frozen=True)
class PageFormat:
    """How page pixels become patches; read from the checkpoint's preprocessor_config.json."""

    patch: int
    """px"""
    merge: int
    """patches per visual token and side"""
    temporal: int
    """how often a still image is repeated"""
    rescale: float
    """factor on the 0..255 values"""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class BaseFormat:
    """Everything of a base but its weights: enough to encode pages, to count tokens and to plan a run."""

    name: str
    """the folder's name, or the hub name: what an adapter may say of its base without naming a machine's path"""
    folder: Path
    config: Qwen3VLConfig
    tokenizer: PreTrainedTokenizerBase
    processor: Qwen2VLImageProcessorPil

    @property
    def text(self) -> Qwen3VLTextConfig:
        return cast("Qwen3VLTextConfig", self.config.text_config)

    @property
    def vision(self) -> Qwen3VLVisionConfig:
        return cast("Qwen3VLVisionConfig", self.config.vision_config)

    @cached_property
    def pages(self) -> PageFormat:
        p = self.processor
        return PageFormat(
            patch=int(p.patch_size),
            merge=int(p.merge_size),
            temporal=int(p.temporal_patch_size),
            rescale=float(p.rescale_factor),
            mean=_three(p.image_mean),
            std=_three(p.image_std),
        )


@dataclass(frozen=True)
class Base:
    """A loaded base: its format and its model (eval mode, nothing trainable yet)."""

    format: BaseFormat
    model: Qwen3VLForConditionalGeneration


def load_base(path_or_hub_name: str | Path, dtype: torch.dtype | None = None, four_bit: BitsAndBytesConfig | None = None) -> Base:
    """Load model, tokenizer and page format.

    dtype: of the weights; None: bfloat16 where the GPU computes in it, else float32. four_bit: from model.lora.four_bit_config.
    Raises InputError: folder missing or incomplete, another model family, tokenizer missing, hub unreachable.
    """
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    base_format = load_base_format(path_or_hub_name)
    if dtype is None:
        dtype = torch.bfloat16 if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else torch.float32
    options: dict[str, Any] = {} if four_bit is None else {"quantization_config": four_bit}
    try:
        loaded: Any = Qwen3VLForConditionalGeneration.from_pretrained(
            base_format.folder, dtype=dtype, attn_implementation="sdpa", output_loading_info=True, **options
        )
    except Exception as error:  # safetensors, torch and transformers each have classes of their own for damaged files
        raise InputError(str(base_format.folder), f"its weights cannot be loaded: {_first_line(error)}", do=_FETCH) from error
    model, report = loaded
    if report["missing_keys"]:  # transformers would fill them with random numbers and a warning
        missing = sorted(report["missing_keys"])
        raise InputError(str(base_format.folder), f"{len(missing)} weights are missing, e.g. {missing[0]}", do=_FETCH)
    _project_as_matmul(model)
    if four_bit is not None:
        _keep_four_bits_as_loaded(model)
    model.eval()
    return Base(base_format, model)


def load_base_format(path_or_hub_name: str | Path) -> BaseFormat:
    """Config, tokenizer and image processor of a base, without its weights. Raises InputError as load_base does."""
    from transformers import AutoTokenizer, Qwen3VLConfig
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    folder = base_folder(path_or_hub_name)
    name = folder.name if Path(path_or_hub_name).is_dir() else str(path_or_hub_name)
    _require_family(folder)
    if not any((folder / file).is_file() for file in ("tokenizer.json", "vocab.json")):
        raise InputError(str(folder), "holds no tokenizer", "tokenizer.json beside the weights", _FETCH)
    if not any((folder / file).is_file() for file in ("preprocessor_config.json", "processor_config.json")):
        raise InputError(str(folder), "holds no preprocessor_config.json", "the checkpoint's own image values", _FETCH)
    try:
        config = Qwen3VLConfig.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        processor = Qwen2VLImageProcessorPil.from_pretrained(folder)
    except Exception as error:  # the libraries raise whatever a damaged file leads to
        raise InputError(str(folder), f"cannot be read as a base model: {_first_line(error)}", do=_FETCH) from error
    if tokenizer.chat_template is None:
        raise InputError(str(folder), "its tokenizer has no chat template", "chat_template.jinja", _FETCH)
    base = BaseFormat(name, folder, config, tokenizer, processor)
    _require_grid(base)
    return base


def base_folder(path_or_hub_name: str | Path) -> Path:
    """The local folder of a base; a hub name (org/name or org/name@revision) is fetched once into the hub's cache.

    Raises InputError if there is no such folder, or the hub cannot be reached and has not been before.
    """
    folder = Path(path_or_hub_name)
    if folder.is_dir():
        return folder
    name = str(path_or_hub_name)
    if folder.is_absolute() or not _HUB_NAME.fullmatch(name):
        raise InputError(name, "no such base model folder", do="Set base_model to a folder or a hub name (Qwen/Qwen3-VL-8B-Instruct)")
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=_HUB_FILES))
    except Exception as error:  # network, rights, unknown name: the hub client has many classes for it
        raise InputError(
            name,
            f"is no folder, and the model hub did not deliver it: {_first_line(error)}",
            do="Check the name and the network, or set base_model to a folder that holds the base",
        ) from error


def base_digest(path_or_hub_name: str | Path) -> str:
    """Names a base: the digest of its files for a folder; name@commit for a hub name, which the hub keeps immutable."""
    folder = base_folder(path_or_hub_name)
    if Path(path_or_hub_name).is_dir():
        return digest_folder(folder, ignore=_NOT_WEIGHTS_OR_INPUTS)
    return f"{str(path_or_hub_name).partition('@')[0]}@{folder.name}"  # the hub's cache names a snapshot by its commit


def _project_as_matmul(model: Qwen3VLForConditionalGeneration) -> None:
    """Patches do not overlap, so their Conv3d is one matrix product: 3 times faster on a CPU, 10 to 20 on some CUDA builds.

    transformers' own fusion_config does it too, but renames the weight and patches the class for every later load.
    """
    from types import MethodType

    from torch.nn import functional

    def forward(self: Any, patches: torch.Tensor) -> torch.Tensor:  # (patches, patch values) -> (patches, hidden)
        weight = self.proj.weight
        return functional.linear(patches.to(weight.dtype), weight.flatten(1), self.proj.bias)

    embed = model.model.visual.patch_embed
    embed.forward = MethodType(forward, embed)


def _keep_four_bits_as_loaded(model: Qwen3VLForConditionalGeneration) -> None:
    """On CPUs with 16-bit products bitsandbytes (0.50) lays 4-bit weights out anew at the first pass without gradients, in place and for good:
    scales are rounded, and no later pass has a gradient. A training that had looked at val would go on learning from something else."""
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def _require_family(folder: Path) -> None:
    import json

    path = folder / "config.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get("model_type")
    except FileNotFoundError:
        raise InputError(str(folder), "holds no config.json", "a Qwen3-VL checkpoint", _FETCH) from None
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(str(path), f"cannot be read: {_first_line(error)}", do=_FETCH) from None
    if found != MODEL_TYPE:
        raise InputError(str(path), f"model_type is {found!r}", f"{MODEL_TYPE!r}", "Use a dense Qwen3-VL checkpoint")


def _require_grid(base: BaseFormat) -> None:
    """The page budget renders onto a 32-px grid: model and preprocessor must both see it."""
    model_grid = (base.vision.patch_size, base.vision.spatial_merge_size, base.vision.temporal_patch_size)
    page_grid = (base.pages.patch, base.pages.merge, base.pages.temporal)
    if model_grid != page_grid:
        where = f"{base.folder}/preprocessor_config.json"
        raise InputError(where, f"patch, merge, temporal are {page_grid}", f"{model_grid} as in config.json", _FETCH)
    if page_grid[0] * page_grid[1] != GRID_PX:
        raise InputError(
            f"{base.folder}/config.json", f"one visual token is {page_grid[0] * page_grid[1]} px", f"{GRID_PX} px, the page grid"
        )


def _three(values: Any) -> tuple[float, float, float]:
    numbers = [float(v) for v in values] if isinstance(values, (list, tuple)) else [float(values)] * 3
    return numbers[0], numbers[1], numbers[2]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
