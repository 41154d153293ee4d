"""The training plan: what a run will do, from the split's real lengths, before any GPU second is spent. No image is decoded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from extraction_assets.documents.records import Record
from extraction_assets.errors import InputError
from extraction_assets.model.base import BaseFormat, load_base_format
from extraction_assets.model.encoding import PageEncoder, TextEncoding
from extraction_assets.model.examples import Example, read_examples
from extraction_assets.model.recompute import LEVELS
from extraction_assets.schema import TargetSchema
from extraction_assets.settings import TrainingSettings
from extraction_assets.store import digest_file
from extraction_assets.training.arithmetic import MemoryEstimate, ModelShape
from extraction_assets.training.control import with_shuffled_targets
from extraction_assets.training.machines import Machine
from extraction_assets.training.order import GlobalBatch, global_batches, run_seed
from extraction_assets.training.packs import pack_rows
from extraction_assets.training.writable import UnwritableTarget, unwritable_targets

_EXAMPLES_PACKED = 1_000_000
"""packs are counted over a run's steps up to this many examples (seconds); later epochs differ by their order only"""


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
    unwritable: tuple[UnwritableTarget, ...] = ()


class Packing(Record):
    """The packs that a run's steps make of the training split, on one process."""

    setting: str
    """the line of settings.yaml that asks for them"""
    room: int
    """tokens that a pack may hold; only an example longer than that goes beyond"""
    packs_per_step: float
    """forward passes per optimizer step, mean"""
    most_per_step: int
    full: float
    """mean share of the room that is filled"""
    tokens: int
    """of the largest pack; this and the next two need not be the same pack's"""
    response_tokens: int
    """most in any pack"""
    visual_tokens: int
    """most in any pack"""
    page_visual_tokens: int
    """most of any page"""


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
    accumulation: int
    """forward passes per optimizer step, at most"""
    packing: Packing
    smaller: tuple[Packing, ...]
    """the same run in smaller packs, should it need less memory"""
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
    """at the peak of the largest pack"""
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


def plan_training(
    train_jsonl: Path,
    val_jsonl: Path,
    base: str | Path | BaseFormat,
    settings: TrainingSettings,
    schemas: Mapping[str, TargetSchema] | None = None,
) -> TrainingPlan:
    """Plan a run. schemas: by digest, those of the splits' examples, whose grammars the targets must keep; None: that is not looked at.

    Raises InputError: no example left to train on, an over-length target where settings.over_length is "error", an unwritable one
    where settings.unwritable is, a bad split line.
    """
    base_format = base if isinstance(base, BaseFormat) else load_base_format(base)
    encoder = PageEncoder(base_format)
    longest_possible = int(base_format.text.max_position_embeddings)
    (train, train_lengths), (val, val_lengths) = (
        split_lengths(jsonl, encoder, settings, longest_possible, unwritable_targets(jsonl, base_format, schemas or {}, settings))
        for jsonl in (train_jsonl, val_jsonl)
    )
    if not train:
        raise InputError(str(train_jsonl), "no example to train on", do="Add labelled documents, or raise training.max_target_tokens")
    shape = ModelShape.of(base_format)
    steps_per_epoch = math.ceil(len(train) / settings.effective_batch)
    steps = min(settings.epochs * steps_per_epoch, settings.max_steps or math.inf)
    batches = global_batches(
        [e.id for e, _ in train], run_seed(settings.seed, digest_file(train_jsonl)), settings.effective_batch, int(steps)
    )
    counted = list(islice(batches, max(1, _EXAMPLES_PACKED // settings.effective_batch)))
    texts = [text for _, text in train]
    packing, *smaller = (_packing(counted, texts, *choice) for choice in _rooms(settings, texts))
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
        accumulation=packing.most_per_step,
        packing=packing,
        smaller=tuple(smaller),
        adapter_parameters=shape.adapter_parameters(settings),
        base_parameters=shape.language_linears + shape.other_parameters,
        flops=float(train_flops * steps / steps_per_epoch + val_flops * evaluations),
        shape=shape,
        settings=settings,
    )


def estimate(plan: TrainingPlan, machine: Machine) -> MachineEstimate:
    """Memory at the peak and hours of a plan on a machine."""
    memory = _peak(plan, plan.settings, plan.packing, machine)
    hours = plan.flops / (machine.flops * machine.share) / 3600
    if memory.peak <= machine.memory:
        return MachineEstimate(machine, memory, hours, True, "")
    return MachineEstimate(machine, memory, hours, False, _advice(plan, machine, memory))


def split_lengths(
    jsonl: Path, encoder: PageEncoder, settings: TrainingSettings, longest_possible: int, unwritable: Sequence[UnwritableTarget] = ()
) -> tuple[list[tuple[Example, TextEncoding]], SplitLengths]:
    """The examples of a split as training reads them, with their tokens; over-length ones are listed and left out, or an InputError.

    unwritable: others to leave out.
    """
    left_out = {target.id for target in unwritable}
    examples = tuple(example for example in read_examples(jsonl) if example.id not in left_out)
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
    return fits, _lengths(fits, over, unwritable)


def _lengths(
    fits: Sequence[tuple[Example, TextEncoding]], over: Sequence[LongExample], unwritable: Sequence[UnwritableTarget]
) -> SplitLengths:
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
        unwritable=tuple(unwritable),
    )


def _flops(shape: ModelShape, settings: TrainingSettings, text: TextEncoding, learns: bool) -> float:
    visual = text.rows * text.columns
    if learns:
        return shape.training_flops(visual, text.tokens, text.response_tokens, settings)
    head = 2.0 * shape.vocabulary * shape.hidden * text.response_tokens
    return shape.vision_flops(visual) + shape.language_flops(text.tokens) + head


def _rooms(settings: TrainingSettings, texts: Sequence[TextEncoding]) -> list[tuple[str, int]]:
    """(line of settings.yaml, tokens of a pack): what the settings ask for, then by halves down to one example a pack."""
    longest = max(text.tokens for text in texts)
    if settings.pack_tokens is not None:
        rooms = [settings.pack_tokens]
        while rooms[-1] > longest:
            rooms.append(max(longest, rooms[-1] // 2))
        return [(f"training.pack_tokens: {room}", room) for room in rooms]
    counts = [min(settings.micro_batch, settings.effective_batch, len(texts))]
    while counts[-1] > 1:
        counts.append(counts[-1] // 2)
    return [(f"training.micro_batch: {count}", count * longest) for count in counts]


def _packing(batches: Sequence[GlobalBatch], texts: Sequence[TextEncoding], setting: str, room: int) -> Packing:
    lengths = [text.tokens for text in texts]
    responses = [text.response_tokens for text in texts]
    visuals = [text.rows * text.columns for text in texts]
    steps = [pack_rows(batch.rows, lengths, room) for batch in batches]
    tokens = [sum(lengths[row] for row in pack) for packs in steps for pack in packs]
    return Packing(
        setting=setting,
        room=room,
        packs_per_step=len(tokens) / len(steps),
        most_per_step=max(map(len, steps)),
        full=sum(min(1.0, each / room) for each in tokens) / len(tokens),
        tokens=max(tokens),
        response_tokens=max(sum(responses[row] for row in pack) for packs in steps for pack in packs),
        visual_tokens=max(sum(visuals[row] for row in pack) for packs in steps for pack in packs),
        page_visual_tokens=max(visuals),
    )


def _peak(plan: TrainingPlan, settings: TrainingSettings, packing: Packing, machine: Machine) -> MemoryEstimate:
    sizes = (packing.tokens, packing.response_tokens, packing.visual_tokens, packing.page_visual_tokens)
    return plan.shape.memory(settings, machine.dtype_bytes, *sizes)


def _advice(plan: TrainingPlan, machine: Machine, memory: MemoryEstimate) -> str:
    over = f"needs {memory.peak / 1e9:.1f} GB of {machine.memory / 1e9:.1f} GB"
    asked = plan.settings
    # cheapest first: smaller packs cost next to nothing, recompute costs time, four bits cost time and a little accuracy
    for method in dict.fromkeys((asked.method, "qlora")):
        for recompute in LEVELS[LEVELS.index(asked.recompute) :]:
            settings = asked.model_copy(update={"method": method, "recompute": recompute})
            for packing in (plan.packing, *plan.smaller):
                if _peak(plan, settings, packing, machine).peak <= machine.memory:
                    changes = [packing.setting] if packing is not plan.packing else []
                    changes += [f"training.recompute: {recompute}"] if recompute != asked.recompute else []
                    changes += [f"training.method: {method}"] if method != asked.method else []
                    return f"{over}; set {' and '.join(changes)}"
    smallest = (plan.packing, *plan.smaller)[-1]
    tightest = asked.model_copy(update={"method": "qlora", "recompute": LEVELS[-1]})
    least = _peak(plan, tightest, smallest, machine).peak / 1e9
    what = f"QLoRA with {smallest.setting} and training.recompute: {LEVELS[-1]}"
    return f"{over}; even {what} needs {least:.1f} GB: lower render.max_visual_tokens or take a larger GPU"
