"""The start of a run: base, adapters, data and the last checkpoint become one Run."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator, DistributedType, FullyShardedDataParallelPlugin
from peft import PeftModel

from extraction_assets.errors import InputError
from extraction_assets.model.attention import attend_within_pages
from extraction_assets.model.base import BaseFormat, base_digest, load_base
from extraction_assets.model.encoding import PageEncoder
from extraction_assets.model.fused import fuse
from extraction_assets.model.kept_pages import KeptPages, OwnPages, SharedPages
from extraction_assets.model.last_layer import narrow_last_layer
from extraction_assets.model.lora import Audit, add_lora, audit_lora, four_bit_config, load_adapter_weights
from extraction_assets.model.precision import products
from extraction_assets.model.recompute import recompute_in_backward
from extraction_assets.model.sharding import is_sharded
from extraction_assets.model.visual_memory import VisualMemory
from extraction_assets.store import digest_file
from extraction_assets.training.adapter import verify_adapter
from extraction_assets.training.checkpoints import RunState, load_checkpoint
from extraction_assets.training.feed import Feed
from extraction_assets.training.job import TrainingJob
from extraction_assets.training.launch import sharding_of_launch
from extraction_assets.training.plan import split_lengths
from extraction_assets.training.preflight import MemoryMeter
from extraction_assets.training.progress import Progress
from extraction_assets.training.stepping import Stepper
from extraction_assets.training.trackers import open_trackers, require_installed
from extraction_assets.training.zero import STAGES, ZeroStepper

if TYPE_CHECKING:
    from dagster_pipes import PipesContext

SEEN_PAGES = "seen_pages"
"""folder in work/ while several processes of this machine train"""


@dataclass
class Run:
    """Everything a run holds while it runs."""

    job: TrainingJob
    accelerator: Accelerator
    base_format: BaseFormat
    adapter: PeftModel
    model: torch.nn.Module
    """the adapter, wrapped where there is more than one process: what the passes of a step go through"""
    stepper: Stepper | ZeroStepper
    train: Feed
    val: Feed
    audit: Audit
    state: RunState
    progress: Progress
    meter: MemoryMeter
    """counts from before the base was loaded"""
    visual: VisualMemory


def setup(job: TrainingJob, pipes: PipesContext | None = None) -> Run:
    """Base, adapters, data, and the last checkpoint, if there is one."""
    torch.set_num_threads(job.threads)
    accelerator = _accelerator(job)
    if accelerator.device.type == "cpu":
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs time, hides nothing here
    _require_unchanged(job)
    require_installed(job.tracking)
    meter = MemoryMeter(accelerator.device)
    base = load_base(job.base, four_bit=four_bit_config(job.settings))
    attend_within_pages(base.model)
    encoder = PageEncoder(base.format)
    limit = int(base.format.text.max_position_embeddings)
    train_split, _ = split_lengths(Path(job.train), encoder, job.settings, limit, job.plan.train.unwritable)
    val_split = split_lengths(Path(job.val), encoder, job.settings, limit, job.plan.val.unwritable)[0] if job.plan.val else []

    model = add_lora(base, job.settings, job.seed)
    audit = audit_lora(model)
    if job.start is not None:
        load_adapter_weights(model, Path(job.start))
    fuse(model)
    narrow_last_layer(model)
    recompute_in_backward(model, job.settings.recompute)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=0.0, weight_decay=job.settings.weight_decay)
    state, passed_over = load_checkpoint(Path(job.work), job.identity, model, optimizer)
    progress = Progress(Path(job.work), job.plan.steps, state.step, accelerator.is_main_process, pipes)
    progress.follow(open_trackers(job, progress.say) if accelerator.is_main_process else None)
    for line in (*passed_over, *audit.lines()):
        progress.say(line)
    for left_out in job.plan.train.over_length:
        progress.say(f"left out: example {left_out.id}, its target has {left_out.target_tokens} tokens")
    for unwritable in job.plan.train.unwritable:
        progress.say(f"left out: {unwritable.problem}")
    if state.step:
        progress.say(f"resumes after step {state.step}")
    stepper = _stepper(job, accelerator, model, optimizer)
    device = accelerator.device.type
    visual = VisualMemory(base.model, _kept_pages(job, accelerator, model), partial(products, job.settings.precision, device))
    # a GPU has no idle core for it; parts of a sharded tower come together in the order of the steps
    see_ahead = visual.see_ahead if device == "cpu" and not is_sharded(model) else None
    train, val = (Feed(split, encoder, visual, see_ahead) for split in (train_split, val_split))
    return Run(job, accelerator, base.format, model, stepper.model, stepper, train, val, audit, state, progress, meter, visual)


def _kept_pages(job: TrainingJob, accelerator: Accelerator, model: PeftModel) -> KeptPages:
    """Shared by the processes of a machine where that is a matter of the host alone, and where it is one machine. A folder of a run that was
    killed is not trusted: its code may have been another."""
    own_machine = int(os.environ.get("GROUP_WORLD_SIZE", "1")) == 1
    if accelerator.num_processes == 1 or accelerator.device.type != "cpu" or is_sharded(model) or not own_machine:
        return OwnPages(job.visual_memory)
    folder = Path(job.work) / SEEN_PAGES
    if accelerator.is_main_process:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
    accelerator.wait_for_everyone()
    return SharedPages(folder, job.visual_memory // accelerator.num_processes)


def _accelerator(job: TrainingJob) -> Accelerator:
    """As `accelerate launch` was told, by one of the files in training/accelerate/."""
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    state, sharding = accelerator.state, sharding_of_launch()
    if sharding in ("fsdp2", "zero3") and job.settings.method == "qlora":
        raise InputError(
            "compute.sharding",
            f"{sharding} does not go with training.method: qlora",
            do="Set sharding: none (4-bit weights are small), or lora",
        )
    if sharding != "fsdp2":
        return accelerator
    if state.distributed_type == DistributedType.MULTI_CPU:
        # accelerate 1.15 shards on GPUs only and lets CPU processes be, without a word; torch's fully_shard runs on both
        state.distributed_type, state.fsdp_plugin = DistributedType.FSDP, FullyShardedDataParallelPlugin()
    return accelerator


def _stepper(job: TrainingJob, accelerator: Accelerator, model: PeftModel, optimizer: torch.optim.Optimizer) -> Stepper | ZeroStepper:
    """Divides the model where it stands, if it is to be divided; what the optimizer remembers goes with it."""
    max_norm = job.settings.max_grad_norm
    if sharding_of_launch() in STAGES:
        with products(job.settings.precision, accelerator.device.type):
            half = torch.is_autocast_enabled(accelerator.device.type)
        return ZeroStepper(model, optimizer, max_norm, half, accelerator.device)
    return Stepper(accelerator, model, optimizer, max_norm)


def _require_unchanged(job: TrainingJob) -> None:
    """A job names its inputs by digest; a run on other inputs would put a wrong name on its adapter."""
    for path, digest in ((job.train, job.train_digest), (job.val, job.val_digest)):
        if not Path(path).is_file():
            raise InputError(path, "no such split", do="Materialize the splits first")
        if digest_file(path) != digest:
            raise InputError(path, "has changed since the job was made", f"digest {digest[:12]}...", "Make a new job")
    if job.start is not None and (start := verify_adapter(Path(job.start)).job) != job.start_digest:
        raise InputError(job.start, f"is the adapter {start[:12]}", f"{str(job.start_digest)[:12]} as the job says", "Make a new job")
    if (found := base_digest(job.base)) != job.base_digest:
        raise InputError(job.base, f"the base model is {found[:24]}", f"{job.base_digest[:24]} as the job says", "Make a new job")
