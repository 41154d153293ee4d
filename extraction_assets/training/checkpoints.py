"""Checkpoints: complete or absent, proven by digests, the last two kept, and the one with the lowest validation loss.

    checkpoints/step-00000010/   adapter_model.safetensors adapter_config.json optimizer.pt state.json digests.json

digests.json is written last and holds the SHA-256 of the others; the folder is made under a temporary name, fsynced and renamed. A
folder without matching digests (a torn disk, a half copy) is not trusted: the one before it is.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel

from extraction_assets.errors import InputError
from extraction_assets.model.lora import load_adapter_weights, save_adapter
from extraction_assets.store import TEMPORARY_PREFIX, digest_file

KEEP = 2
Keep = Literal["last", "best", "best_answers"]
_DIGESTS = "digests.json"


@dataclass
class RunState:
    """Where a run stands. Data order, learning rate and random numbers are pure functions of it and the job."""

    step: int = 0
    """optimizer steps done"""
    epoch: int = 0
    index: int = 0
    """examples of this epoch read"""
    losses: list[float] = field(default_factory=list)
    """training loss of every step done"""
    val_losses: dict[str, float] = field(default_factory=dict)
    """step -> response loss on val"""
    val_answers: dict[str, dict[str, float]] = field(default_factory=dict)
    """step -> rates of the answers to a sample of val (val_answers.AnswerRates)"""

    def best_step(self, keep: Keep) -> int | None:
        """Step of the best validation, the earliest of equals; None before the first. Judged by loss, unless keep is best_answers."""

        def rank(step: int) -> tuple[float, float, int]:
            wrong = -self.val_answers[str(step)]["field_accuracy"] if keep == "best_answers" else 0.0
            return wrong, self.val_losses[str(step)], step

        return min((int(step) for step in self.val_losses), key=rank, default=None)

    def kept_step(self, keep: Keep) -> int:
        """The step whose weights become the adapter, if the run ends here."""
        best = self.best_step(keep)
        return self.step if keep == "last" or best is None else best

    def worse_validations(self, keep: Keep) -> int:
        """How many validations have passed since the best one."""
        best = self.best_step(keep)
        return 0 if best is None else sum(int(step) > best for step in self.val_losses)


def save_checkpoint(work: Path, job: str, state: RunState, model: PeftModel, optimizer: dict[str, Any], keep: Keep = "last") -> Path:
    """Write one checkpoint and let go of all but the last two, and of the best where it is to be kept. It holds the whole, as if one process
    had trained alone. job: identity of the run. optimizer: its state.
    """
    folder = work / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    final = _checkpoint(work, state.step)
    temporary = folder / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
    try:
        temporary.mkdir()
        save_adapter(model, temporary)
        torch.save(optimizer, temporary / "optimizer.pt")
        (temporary / "state.json").write_text(json.dumps({"job": job, **asdict(state)}), encoding="utf-8")
        digests = {path.name: digest_file(path) for path in sorted(temporary.iterdir())}
        (temporary / _DIGESTS).write_text(json.dumps(digests, indent=2), encoding="utf-8")
        sync_folder(temporary)
        if final.exists():  # damaged, or this run would have resumed from it
            shutil.rmtree(final)
        os.replace(temporary, final)
        sync_entry(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        remedy = "Free space or rights, then run again: it resumes"
        raise InputError(str(final), f"cannot be written: {error.strerror or error}", do=remedy) from error
    _prune(folder, _checkpoint(work, state.kept_step(keep)))
    return final


def load_checkpoint(work: Path, job: str, model: PeftModel, optimizer: torch.optim.Optimizer) -> tuple[RunState, list[str]]:
    """Put the newest trustworthy checkpoint of this job into model and optimizer.

    Returns the state (a fresh one if there is no checkpoint) and one line for every checkpoint passed over, saying why.
    Raises InputError if the folder holds another job's checkpoints.
    """
    passed_over = []
    for folder in _newest_first(work / "checkpoints"):
        reason = _distrust(folder)
        if reason:
            passed_over.append(f"{folder.name} is not used: {reason}")
            shutil.rmtree(folder, ignore_errors=True)  # it must not outlive a good one when old ones are let go
            continue
        values: dict[str, Any] = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        if values.pop("job") != job:
            raise InputError(str(folder), "belongs to another training job", do="Give each job a work folder of its own")
        load_adapter_weights(model, folder)
        optimizer.load_state_dict(torch.load(folder / "optimizer.pt", weights_only=True, map_location="cpu"))
        return RunState(**values), passed_over
    return RunState(), passed_over


def trusted_checkpoint(work: Path, job: str, step: int) -> Path:
    """The folder of one step's checkpoint. Raises InputError if it is gone or damaged."""
    folder = _checkpoint(work, step)
    reason = _distrust(folder)
    if not reason and json.loads((folder / "state.json").read_text(encoding="utf-8"))["job"] != job:
        reason = "it belongs to another job"
    if reason:
        remedy = "Delete this work folder and train again, or set training.keep: last"
        raise InputError(str(folder), f"holds the best weights and cannot be used: {reason}", do=remedy)
    return folder


def _checkpoint(work: Path, step: int) -> Path:
    return work / "checkpoints" / f"step-{step:08d}"


def sync_folder(folder: Path) -> None:
    """fsync every file of a folder and the folder itself."""
    for path in folder.iterdir():
        sync_entry(path)
    sync_entry(folder)


def sync_entry(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _distrust(folder: Path) -> str:
    """Why a checkpoint must not be used; empty if it may."""
    try:
        digests = json.loads((folder / _DIGESTS).read_text(encoding="utf-8"))
        for name, digest in digests.items():
            if digest_file(folder / name) != digest:
                return f"{name} is damaged"
        if "state.json" not in digests:
            return "state.json is not among its files"
    except (OSError, ValueError, AttributeError) as error:
        return f"incomplete ({type(error).__name__}: {error})"
    return ""


def _newest_first(folder: Path) -> list[Path]:
    return sorted((p for p in folder.glob("step-*") if p.is_dir()), reverse=True) if folder.is_dir() else []


def _prune(folder: Path, best: Path) -> None:
    for old in _newest_first(folder)[KEEP:]:
        if old != best:
            shutil.rmtree(old, ignore_errors=True)
    for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):  # of a killed writer; the run's lock keeps others out
        shutil.rmtree(leftover, ignore_errors=True)
