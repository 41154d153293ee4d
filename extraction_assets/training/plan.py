"""The training plan: what a run will do, from the split's real lengths, before any GPU second is spent. No image is decoded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from extraction_assets.documents.records import Record
from extraction_assets.errors import InputError
from extraction_assets.model.base import BaseFormat, load_base_format
from extraction_assets.model.encoding import PageEncoder, TextEncoding
from extraction_assets.model.examples import Example, read_examples
from extraction_assets.settings import TrainingSettings
from extraction_assets.training.arithmetic import MemoryEstimate, ModelShape
from extraction_assets.training.control import with_shuffled_targets
from extraction_assets.training.machines import Machine


class LongExample(Record):
    """An example whose target has more tokens than training.max_target_tokens."""

    id: str
    target_tokens: int


class SplitLengths(Record):
    """Token counts of one split, over-length examples left out."""

    examples: int
    tokens: int
    """of all examples together: what an epoch reads"""
    visual_tokens: int
    response_tokens: int
    """tokens that carry loss"""
    longest: int
    """tokens of the longest example"""
    longest_id: str
    target_p50: int
    """tokens of a target, median"""
    target_p95: int
    target_max: int
    over_length: tuple[LongExample, ...]


class TrainingPlan(Record):
    """Everything about a run that its data, its base's config and its settings decide. Same inputs, same plan."""

    train: SplitLengths
    val: SplitLengths | None
    """None: the val split has no examples"""
    epochs: int
    steps: int
    """optimizer steps of the whole run"""
    steps_per_epoch: int
    warmup_steps: int
    effective_batch: int
    """examples per optimizer step"""
    micro_batch: int
    """examples per forward pass"""
    accumulation: int
    """forward passes per optimizer step"""
    adapter_parameters: int
    base_parameters: int
    flops: float
    """of the whole run, validation included"""
    shape: ModelShape
    settings: TrainingSettings


@dataclass(frozen=True)
class MachineEstimate:
    """A plan held against a machine."""

    machine: Machine
    memory: MemoryEstimate
    """at the peak of the longest micro batch"""
    hours: float
    fits: bool
    advice: str
    """empty if it fits; else what to change"""

    def to_json(self) -> dict[str, Any]:
        return {
            "machine": self.machine.name,
            "machine_memory": self.machine.memory,
            "memory": {**self.memory.model_dump(), "peak": self.memory.peak},
            "hours": self.hours,
            "assumed_share_of_peak_flops": self.machine.share,
            "fits": self.fits,
            "advice": self.advice,
        }


def plan_training(train_jsonl: Path, val_jsonl: Path, base: str | Path | BaseFormat, settings: TrainingSettings) -> TrainingPlan:
    """Plan a run.

    Raises InputError: no example left to train on, an over-length target where settings.over_length is "error", a bad split line.
    """
    base_format = base if isinstance(base, BaseFormat) else load_base_format(base)
    encoder = PageEncoder(base_format)
    longest_possible = int(base_format.text.max_position_embeddings)
    train, train_lengths = split_lengths(train_jsonl, encoder, settings, longest_possible)
    val, val_lengths = split_lengths(val_jsonl, encoder, settings, longest_possible)
    if not train:
        raise InputError(str(train_jsonl), "no example to train on", do="Add labelled documents, or raise training.max_target_tokens")
    shape = ModelShape.of(base_format)
    steps_per_epoch = math.ceil(len(train) / settings.effective_batch)
    steps = min(settings.epochs * steps_per_epoch, settings.max_steps or math.inf)
    micro_batch = min(settings.micro_batch, settings.effective_batch, len(train))
    evaluations = math.ceil(steps / steps_per_epoch)
    train_flops = sum(_flops(shape, settings, text, learns=True) for _, text in train)
    val_flops = sum(_flops(shape, settings, text, learns=False) for _, text in val)
    return TrainingPlan(
        train=train_lengths,
        val=val_lengths if val else None,
        epochs=evaluations,
        steps=int(steps),
        steps_per_epoch=steps_per_epoch,
        warmup_steps=math.ceil(steps * settings.warmup_ratio),
        effective_batch=settings.effective_batch,
        micro_batch=micro_batch,
        accumulation=math.ceil(min(settings.effective_batch, len(train)) / micro_batch),
        adapter_parameters=shape.adapter_parameters(settings),
        base_parameters=shape.language_linears + shape.other_parameters,
        flops=float(train_flops * steps / steps_per_epoch + val_flops * evaluations),
        shape=shape,
        settings=settings,
    )


def estimate(plan: TrainingPlan, machine: Machine) -> MachineEstimate:
    """Memory at the peak and hours of a plan on a machine."""
    memory = _peak(plan, plan.settings, plan.micro_batch, machine)
    hours = plan.flops / (machine.flops * machine.share) / 3600
    if memory.peak <= machine.memory:
        return MachineEstimate(machine, memory, hours, True, "")
    return MachineEstimate(machine, memory, hours, False, _advice(plan, machine, memory))


def split_lengths(
    jsonl: Path, encoder: PageEncoder, settings: TrainingSettings, longest_possible: int
) -> tuple[list[tuple[Example, TextEncoding]], SplitLengths]:
    """The examples of a split as training reads them, with their tokens; over-length ones are listed and left out, or an InputError."""
    examples = read_examples(jsonl)
    if settings.shuffle_targets:
        examples = with_shuffled_targets(examples, settings.seed)
    texts = encoder.texts([(e.width, e.height, e.instruction, e.target, f"{jsonl} id {e.id}") for e in examples])
    fits, over = [], []
    for example, text in zip(examples, texts, strict=True):
        target_tokens = text.response_tokens - 1
        if target_tokens > settings.max_target_tokens or text.tokens > longest_possible:
            over.append(LongExample(id=example.id, target_tokens=target_tokens))
        else:
            fits.append((example, text))
    if over and settings.over_length == "error":
        first = over[0]
        raise InputError(
            f"{jsonl} id {first.id}",
            f"its target has {first.target_tokens} tokens" + (f" ({len(over)} examples are over length)" if len(over) > 1 else ""),
            f"at most {settings.max_target_tokens}, and {longest_possible} with its page",
            "Raise training.max_target_tokens, or set training.over_length to skip",
        )
    return fits, _lengths(fits, over)


def _lengths(fits: Sequence[tuple[Example, TextEncoding]], over: Sequence[LongExample]) -> SplitLengths:
    targets = sorted(text.response_tokens - 1 for _, text in fits)
    longest = max(fits, key=lambda pair: (pair[1].tokens, pair[0].id), default=None)
    return SplitLengths(
        examples=len(fits),
        tokens=sum(text.tokens for _, text in fits),
        visual_tokens=sum(text.rows * text.columns for _, text in fits),
        response_tokens=sum(text.response_tokens for _, text in fits),
        longest=longest[1].tokens if longest else 0,
        longest_id=longest[0].id if longest else "",
        target_p50=int(np.percentile(targets, 50, method="nearest")) if targets else 0,
        target_p95=int(np.percentile(targets, 95, method="nearest")) if targets else 0,
        target_max=targets[-1] if targets else 0,
        over_length=tuple(over),
    )


def _flops(shape: ModelShape, settings: TrainingSettings, text: TextEncoding, learns: bool) -> float:
    visual = text.rows * text.columns
    if learns:
        return shape.training_flops(visual, text.tokens, text.response_tokens, settings)
    head = 2.0 * shape.vocabulary * shape.hidden * text.response_tokens
    return shape.vision_flops(visual) + shape.language_flops(text.tokens) + head


def _peak(plan: TrainingPlan, settings: TrainingSettings, micro_batch: int, machine: Machine) -> MemoryEstimate:
    """The worst micro batch: every page in it as long as the longest."""
    response = plan.train.target_max + 1
    return plan.shape.memory(
        settings,
        machine.dtype_bytes,
        padded_tokens=micro_batch * plan.train.longest,
        response_tokens=micro_batch * response,
        visual_tokens=micro_batch * plan.train.longest,
    )


def _advice(plan: TrainingPlan, machine: Machine, memory: MemoryEstimate) -> str:
    over = f"needs {memory.peak / 1e9:.1f} GB of {machine.memory / 1e9:.1f} GB"
    for method in dict.fromkeys((plan.settings.method, "qlora")):
        settings = plan.settings.model_copy(update={"method": method})
        for micro_batch in range(plan.micro_batch, 0, -1):
            if _peak(plan, settings, micro_batch, machine).peak <= machine.memory:
                changes = [f"training.micro_batch: {micro_batch}"] if micro_batch != plan.micro_batch else []
                changes += [f"training.method: {method}"] if method != plan.settings.method else []
                return f"{over}; set {' and '.join(changes)}"
    smallest = _peak(plan, plan.settings.model_copy(update={"method": "qlora"}), 1, machine)
    return f"{over}; even QLoRA with micro_batch 1 needs {smallest.peak / 1e9:.1f} GB: lower render.max_visual_tokens or take a larger GPU"
