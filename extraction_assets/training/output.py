"""The end of a run: the adapter folder."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

import extraction_assets
from extraction_assets.errors import InputError
from extraction_assets.model.lora import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from extraction_assets.store import TEMPORARY_PREFIX
from extraction_assets.training.checkpoints import sync_entry, sync_folder, trusted_checkpoint
from extraction_assets.training.launch import sharding_of_launch
from extraction_assets.training.manifest import MANIFEST, AdapterManifest, code_digest, file_digests, library_versions
from extraction_assets.training.setup import Run


def write_adapter(run: Run) -> None:
    """Plain peft files and the manifest. The folder is complete or absent. Raises InputError if it cannot be written."""
    if not run.accelerator.is_main_process:
        return
    job, plan, state = run.job, run.job.plan, run.state
    kept = state.kept_step(job.settings.keep)
    checkpoint = trusted_checkpoint(Path(job.work), job.identity, kept)  # each run ends with one, so no process has to be asked
    output = Path(job.output)
    temporary = output.parent / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
    schemas = sorted({example.schema for example, _ in run.train.examples})
    try:
        temporary.mkdir(parents=True)
        for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG):
            shutil.copyfile(checkpoint / name, temporary / name)
        manifest = AdapterManifest(
            job=job.identity,
            base=run.adapter.peft_config["default"].base_model_name_or_path or "",
            base_digest=job.base_digest,
            train_digest=job.train_digest,
            val_digest=job.val_digest,
            start=job.start_digest,
            schemas=tuple(schemas),
            settings=job.settings,
            code_version=extraction_assets.__version__,
            code_digest=code_digest(),
            libraries=library_versions(),
            audit=run.audit.to_json(),
            train_examples=plan.train.examples,
            val_examples=plan.val.examples if plan.val else 0,
            left_out=len(plan.train.over_length) + len(plan.train.unwritable),
            steps=state.step,
            processes=run.accelerator.num_processes,
            sharding=sharding_of_launch(),
            kept_step=kept,
            epochs=state.epoch + state.index / len(run.train.ids),
            first_loss=state.losses[0],
            last_loss=state.losses[-1],
            val_loss=state.val_losses.get(str(kept)),
            val_answers=state.val_answers.get(str(kept)),
            files=file_digests(temporary),
        )
        (temporary / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
        sync_folder(temporary)
        os.replace(temporary, output)
        sync_entry(output.parent)
    except OSError as error:
        raise InputError(job.output, f"cannot be written: {error.strerror or error}", do="Free space or rights, then run again") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    run.progress.say(f"adapter written to {output}: weights of step {kept}")
