"""A training run as a file: everything the training process needs, which training.launch starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from extraction_assets.documents.records import Record
from extraction_assets.errors import InputError
from extraction_assets.model.base import base_digest as digest_of_base
from extraction_assets.schema import TargetSchema
from extraction_assets.settings import TrackingSettings, TrainingSettings
from extraction_assets.store import digest_file, digest_of, write_atomically
from extraction_assets.training.adapter import verify_adapter
from extraction_assets.training.order import run_seed
from extraction_assets.training.plan import TrainingPlan, plan_training

_BESIDES = {"train", "val", "base", "start", "work", "output", "threads", "schemas", "tracking", "visual_memory"}
"""fields that say where things lie, who watches, or what the digests of others pin already"""


class TrainingJob(Record):
    """One run. The same job file started again resumes the same run."""

    train: str
    """path of the train split's JSONL"""
    val: str
    train_digest: str
    """SHA-256 of the JSONL, which names every page image by digest"""
    val_digest: str
    schemas: dict[str, dict[str, Any]]
    """by digest, the target schemas of the val split's examples: what the answers given during training are scored by"""
    base: str
    """folder or hub name"""
    base_digest: str
    start: str | None
    """folder of the adapter whose weights the run starts from; None: fresh ones"""
    start_digest: str | None
    """identity of the job that made it"""
    settings: TrainingSettings
    plan: TrainingPlan
    seed: int
    """from settings.seed and the data"""
    tracking: TrackingSettings
    work: str
    """folder for checkpoints, metrics and logs; survives a kill"""
    output: str
    """adapter folder to be made; complete or absent"""
    threads: int
    """CPU threads; part of what makes a CPU run repeatable bit for bit"""
    visual_memory: int
    """bytes of host memory for what the vision tower made of pages that come again; changes no number"""

    @property
    def identity(self) -> str:
        """Digest of what the run computes: not of where its files lie."""
        return digest_of({key: value for key, value in self.model_dump(mode="json").items() if key not in _BESIDES})


def make_job(
    train_jsonl: Path,
    val_jsonl: Path,
    base: str | Path,
    settings: TrainingSettings,
    work: Path,
    output: Path | None = None,
    plan: TrainingPlan | None = None,
    base_digest: str | None = None,
    threads: int | None = None,
    start: Path | None = None,
    schemas: Mapping[str, TargetSchema] | None = None,
    tracking: TrackingSettings | None = None,
    visual_memory_gb: float = 2.0,
) -> TrainingJob:
    """Plan a run (unless `plan` is given) and fix everything about it. Raises InputError as plan_training does.

    output: default work/adapter. threads: default all cores. start: an adapter folder to go on from. schemas: by digest, those of the
    val split's examples, where settings.val_answers asks for answers during training.
    """
    plan = plan or plan_training(train_jsonl, val_jsonl, base, settings, schemas)
    train_digest, val_digest = digest_file(train_jsonl), digest_file(val_jsonl)
    return TrainingJob(
        train=str(train_jsonl.absolute()),
        val=str(val_jsonl.absolute()),
        train_digest=train_digest,
        val_digest=val_digest,
        base=str(Path(base).absolute()) if Path(base).is_dir() else str(base),
        base_digest=base_digest or digest_of_base(base),
        start=str(start.absolute()) if start else None,
        start_digest=verify_adapter(start).job if start else None,
        schemas={digest: schema.document for digest, schema in (schemas or {}).items()} if settings.val_answers else {},
        settings=settings,
        plan=plan,
        seed=run_seed(settings.seed, train_digest),
        tracking=tracking or TrackingSettings(),
        work=str(work.absolute()),
        output=str((output or work / "adapter").absolute()),
        threads=threads or os.cpu_count() or 1,
        visual_memory=round(visual_memory_gb * 1e9),
    )


def write_job(job: TrainingJob) -> Path:
    """Write work/job.json, the argument of training_command. Raises InputError if the folder belongs to another run."""
    path = Path(job.work) / "job.json"
    if path.exists() and (other := read_job(path)).identity != job.identity:
        remedy = "Give each run a folder of its own"
        raise InputError(job.work, f"holds another run ({other.identity[:12]}...)", f"{job.identity[:12]}...", remedy)
    write_atomically(path, (job.model_dump_json(indent=2) + "\n").encode())
    return path


def read_job(path: Path) -> TrainingJob:
    """Raises InputError naming what is wrong with the file."""
    try:
        return TrainingJob.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(str(path), "no such job file", do="Write it with extraction_assets.training.job.write_job") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(str(path), f"cannot be read: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{path} {'.'.join(map(str, first['loc']))}", first["msg"], "a training job") from None
