"""What the formats of other trainers share: one example, one run, and what a format says of itself. Opens no file."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from extraction_assets.dataset.export import FormatName
from extraction_assets.errors import InputError
from extraction_assets.page_budget import GRID_PX
from extraction_assets.settings import TrainingSettings

MODEL = "Qwen/Qwen3-VL-8B-Instruct"
"""the base of a config where the home's own base is no Qwen3-VL of the hub"""

IMAGES = "images"
"""folder of the page images in an export"""

LANGUAGE_LINEARS: dict[str, tuple[str, ...]] = {
    "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "attention+mlp": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
}
"""settings.training.targets -> names of linears. Qwen3-VL's vision tower and merger have none of these names (theirs are qkv, proj,
linear_fc1, linear_fc2), so trainers that match by the end of a module's name adapt the language model only."""

# fmt: off
CONTROL_TOKENS: tuple[str, ...] = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
)
# fmt: on
"""Of Qwen3-VL's tokenizer. All four trainers tokenize the chat as one text, so these would act where a vendor merely printed them."""

_OURS_ALONE = (
    "start",
    "precision",
    "recompute",
    "validate_every",
    "val_answers",
    "keep",
    "patience",
    "over_length",
    "unwritable",
    "exploding",
)
"""training settings that the configs do not carry over: each trainer has its own way, or none"""

_TEMPLATE_TOKENS = 32
"""The chat template around one image, one instruction and one answer takes 12, and a line end after the answer; the rest is slack."""


@dataclass(frozen=True)
class ExportExample:
    """One line of a split, as the formats spell it."""

    id: str
    image: str
    """path of the page image relative to the export's folder"""
    width: int
    """px"""
    height: int
    instruction: str
    target: str

    @property
    def most_tokens(self) -> int:
        """No tokenizer gives more: a byte-level BPE makes at most one token of a byte (of the composed text: Qwen's normalises to NFC)."""
        text = unicodedata.normalize("NFC", self.instruction) + unicodedata.normalize("NFC", self.target)
        return self.width * self.height // GRID_PX**2 + len(text.encode()) + _TEMPLATE_TOKENS


def not_carried_over(settings: TrainingSettings) -> list[str]:
    """`training.KEY: value` of each setting that was changed from its default and that no config speaks of."""
    default = TrainingSettings()
    return [f"training.{key}: {getattr(settings, key)}" for key in _OURS_ALONE if getattr(settings, key) != getattr(default, key)]


@dataclass(frozen=True)
class Recipe:
    """What of a home its exports carry over."""

    model: str
    """hub name of the base that the configs train"""
    training: TrainingSettings
    max_visual_tokens: int
    longest: int | None = None
    """tokens of the longest example by the tokenizer of `model`; None: not known, and a bound takes its place"""


@dataclass(frozen=True)
class TrainingRun:
    """What every config says, each in its own words."""

    model: str
    training: TrainingSettings
    alpha: int
    target_modules: tuple[str, ...]
    batch: int
    """examples per forward pass on one GPU"""
    accumulation: int
    """batch x accumulation is the home's effective batch, on one GPU"""
    warmup: float
    """share of the steps, below 1: transformers reads a warm-up of 1 as one step"""
    cutoff: int
    """tokens that no example reaches"""
    min_pixels: int
    max_pixels: int
    """px of area that no page is below or above: the trainer's own resize does nothing"""
    validates: bool
    """the val split has examples"""

    @property
    def qlora(self) -> bool:
        return self.training.method == "qlora"


@dataclass(frozen=True)
class TrainerFormat:
    """One trainer's format."""

    name: FormatName
    trainer: str
    """as people call it"""
    config: str
    """file that starts the training"""
    line: Callable[[ExportExample], dict[str, Any]]
    """one line of a split's JSONL"""
    files: Callable[[TrainingRun], Mapping[str, str]]
    """the config and whatever goes with it: file name -> text. Raises InputError on settings that the trainer cannot follow."""
    placeholders: tuple[str, ...] = ()
    """what the trainer takes for a picture (or more) wherever it stands in a text"""
    refusal: Callable[[ExportExample], str | None] = lambda example: None
    """what else of an instruction this trainer would misread, or None"""
    smallest_page: int = 0
    """px of area below which the trainer enlarges a page, whatever its config says"""
    ascii_only: bool = False
    """the trainer opens JSONL in the machine's own encoding"""


def training_run(recipe: Recipe, examples: Iterable[ExportExample], validates: bool) -> TrainingRun:
    """Fix everything about a run. examples: those of all splits.

    Raises InputError on settings that no other trainer follows: a control run, an alpha that is no whole number.
    """
    settings = recipe.training
    if settings.shuffle_targets:
        found = "true: the home trains a control run, whose targets are shuffled when it starts"
        raise InputError("training.shuffle_targets", found, "false for an export", "Set it to false")
    if settings.alpha != int(settings.alpha):
        raise InputError("training.alpha", f"found {settings.alpha:g}", "a whole number: other trainers take no other")
    largest, most_tokens = 0, 0
    for example in examples:
        largest = max(largest, example.width * example.height)
        most_tokens = max(most_tokens, example.most_tokens)
    batch = max(n for n in range(1, settings.micro_batch + 1) if settings.effective_batch % n == 0)
    longest = most_tokens if recipe.longest is None else recipe.longest + _TEMPLATE_TOKENS
    return TrainingRun(
        model=recipe.model,
        training=settings,
        alpha=int(settings.alpha),
        target_modules=LANGUAGE_LINEARS[settings.targets],
        batch=batch,
        accumulation=settings.effective_batch // batch,
        warmup=min(settings.warmup_ratio, 0.9999),
        cutoff=-(-(longest + 1) // 64) * 64,
        min_pixels=GRID_PX**2,
        max_pixels=max(largest, recipe.max_visual_tokens * GRID_PX**2),
        validates=validates,
    )


def shared_arguments(run: TrainingRun) -> dict[str, Any]:
    """The arguments that transformers' TrainingArguments give to all four trainers under one name.

    Warm-up is not among them: it is warmup_ratio up to transformers 4, and warmup_steps below 1 from 5 on.
    """
    settings = run.training
    return {
        "num_train_epochs": settings.epochs,
        **({} if settings.max_steps is None else {"max_steps": settings.max_steps}),
        "per_device_train_batch_size": run.batch,
        "gradient_accumulation_steps": run.accumulation,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "cosine",
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "seed": settings.seed,
        "save_strategy": "steps",
        "save_steps": settings.checkpoint_every,
        "logging_steps": 1,
        "gradient_checkpointing": True,
    }


def yaml_config(head: Iterable[str], sections: Mapping[str, Mapping[str, Any]]) -> str:
    """A commented YAML file: head lines, then each section under its title."""
    parts = ["".join(f"# {line}\n" for line in head)]
    parts += [f"# --- {title}\n{yaml.safe_dump(dict(values), sort_keys=False, width=200)}" for title, values in sections.items()]
    return "\n".join(parts)


def one_gpu(run: TrainingRun) -> str:
    """The line about batches that every config's head has."""
    effective = run.training.effective_batch
    return f"Effective batch on one GPU: {run.batch} x {run.accumulation} = {effective}. On N GPUs divide gradient_accumulation_steps by N."


def script(name: str) -> str:
    """Text of a script beside this module that goes along in an export."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
