"""The training run, in one process or several (launch.training_command builds the command line).

setup / fit / validate / write, readable from the top.
- LoRA or QLoRA on the language model only; pages are packed without padding and do not see each other; the loss is the mean over the
  response tokens of the whole global batch, whatever the packs and ranks.
- The position of a run is its step: data order, learning rate and random numbers are pure functions of it. Killed at any point
  and started again with the same job file, it resumes at its last checkpoint and on a CPU ends with bitwise the same adapter.
- A loss that explodes, or a loss or gradient that is not finite, stops the run and names the examples.
- Metrics go to stderr, metrics.jsonl, TensorBoard and, under Dagster, through Pipes. The adapter folder holds no times.
Exit code 2 and one line on bad input, also kept in work/failure.txt and sent through Pipes.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock, Timeout
from peft.helpers import disable_input_dtype_casting

from extraction_assets.errors import InputError
from extraction_assets.model.lora import adapter_tensors
from extraction_assets.model.packing import Pack
from extraction_assets.model.precision import products
from extraction_assets.store import write_atomically
from extraction_assets.training.adapter import verify_adapter
from extraction_assets.training.checkpoints import save_checkpoint
from extraction_assets.training.job import TrainingJob, read_job
from extraction_assets.training.loss import exploding_since, learning_rate, response_loss
from extraction_assets.training.order import GlobalBatch, global_batches
from extraction_assets.training.output import write_adapter
from extraction_assets.training.packs import fillers, shares
from extraction_assets.training.preflight import preflight
from extraction_assets.training.progress import ParentWatch, StepMetrics, open_pipes
from extraction_assets.training.setup import SEEN_PAGES, Run, setup
from extraction_assets.training.val_answers import answer_val

if TYPE_CHECKING:
    from dagster_pipes import PipesContext

FAILURE = "failure.txt"
_LOCK_SECONDS = 60
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if len(arguments) != 1:
        print("usage: python -m extraction_assets.training.process JOB.json", file=sys.stderr)
        return 2
    with open_pipes() as pipes:
        try:
            job = read_job(Path(arguments[0]))
            train(job, pipes)
        except InputError as error:
            _report_failure(arguments[0], error, pipes)
            return 2
        except KeyboardInterrupt:
            print("training: interrupted; started again, it resumes at its last checkpoint", file=sys.stderr)
            return _INTERRUPTED
    return 0


def train(job: TrainingJob, pipes: PipesContext | None = None) -> Path:
    """Run or resume a job; returns the adapter folder. Raises InputError (bad data, loss not finite, another process at work here)."""
    work, output = Path(job.work), Path(job.output)
    work.mkdir(parents=True, exist_ok=True)
    main_process = int(os.environ.get("RANK", "0")) == 0
    with _lock(work) if main_process else nullcontext():
        if main_process:
            (work / FAILURE).unlink(missing_ok=True)
        if output.exists():  # complete or absent, so this job has been done
            _require_own(output, job)
        else:
            run = setup(job, pipes)
            try:
                fit(run)
                write_adapter(run)
                _forget_pages(run)
                run.progress.result(_result(run))
            finally:
                run.progress.close()
    return output


def fit(run: Run) -> None:
    """The steps that are still to do. Each ends with what is due: validation, then a checkpoint that knows of it."""
    job, state, watch = run.job, run.state, ParentWatch()
    steps = state.step if _out_of_patience(run) else job.plan.steps
    todo = list(global_batches(run.train.ids, job.seed, job.settings.effective_batch, steps, state.step))
    own = [_share(run, batch.rows, run.train.lengths) for batch in todo]
    packs = [rows for share in own for rows in (*share.packs, *share.fillers)]
    if todo:
        run.progress.preflight(preflight(job, run.train, packs, run.adapter, run.meter, partial(_try, run)))
    ahead = run.train.packs(packs)
    for batch, share in zip(todo, own, strict=True):
        started = time.perf_counter()
        loss, norm, lr = optimizer_step(run, batch, islice(ahead, share.passes), share)
        state.step, state.epoch, state.index = batch.step, batch.epoch, batch.start + len(batch.rows)
        state.losses.append(loss)
        seconds = time.perf_counter() - started
        run.progress.step(
            StepMetrics(
                step=batch.step,
                epoch=batch.epoch + state.index / len(run.train.ids),
                loss=loss,
                learning_rate=lr,
                grad_norm=norm,
                examples_per_s=len(batch.rows) / seconds,
                tokens_per_s=sum(run.train.lengths[row] for row in batch.rows) / seconds,
            )
        )
        _require_steady(run)
        last = batch.step == job.plan.steps
        every = job.settings.validate_every
        if run.val.ids and (last or (batch.step % every == 0 if every else batch.ends_epoch)):
            rates = answer_val(run)
            state.val_answers |= {str(batch.step): asdict(rates)} if rates else {}
            state.val_losses[str(batch.step)] = validate(run)
            run.progress.validation(batch.step, state.val_losses[str(batch.step)], rates)
        stops = _out_of_patience(run)
        best = job.settings.keep != "last" and state.best_step(job.settings.keep) == batch.step
        if last or stops or best or batch.step % job.settings.checkpoint_every == 0:
            _save_checkpoint(run)
        if watch.orphaned():
            raise InputError(job.work, "whoever started this training is gone", do="Start it again; it resumes at its last checkpoint")
        if stops:
            count, best_step = state.worse_validations(job.settings.keep), state.best_step(job.settings.keep)
            run.progress.say(f"stopped after step {batch.step}: {count} validations in a row were no better than that of step {best_step}")
            break
    ahead.close()


def _try(run: Run, pack: Pack) -> None:
    """Forward and backward of one pack, to no effect. On the model inside the wrapper: ranks need not wait for each other."""
    run.adapter.train()
    run.stepper.rehearse(_loss(run, run.stepper.rehearsed, pack, keep=False))


def _out_of_patience(run: Run) -> bool:
    settings = run.job.settings
    return settings.patience is not None and run.state.worse_validations(settings.keep) >= settings.patience


def optimizer_step(run: Run, batch: GlobalBatch, packs: Iterator[Pack], share: Share) -> tuple[float, float, float]:
    """One step over a global batch; returns its loss (mean over response tokens), gradient norm before clipping, learning rate."""
    job, accelerator = run.job, run.accelerator
    _seed_step(job.seed, batch.step, accelerator.process_index)
    response_tokens = sum(run.train.response_tokens[row] for row in batch.rows)  # known from the index: no communication
    scale = accelerator.num_processes / response_tokens  # gradients of several processes are averaged, not summed
    run.model.train()
    sums: list[torch.Tensor] = []
    seen: list[tuple[str, ...]] = []
    for number, pack in enumerate(packs, 1):
        moved = pack.to(accelerator.device)
        counts = number <= len(share.packs)
        with run.stepper.passing(last=number == share.passes):
            loss = _loss(run, run.model, moved, keep=job.plan.epochs > 1)
            run.stepper.backward(loss * (scale if counts else 0.0))
        if counts:
            sums.append(loss.detach())
            seen.append(pack.ids)
    own = torch.stack(sums) if sums else torch.zeros(0, device=accelerator.device)
    _require_finite(run, batch, own, seen)
    lr = learning_rate(batch.step, job.plan.steps, job.plan.warmup_steps, job.settings.learning_rate)
    norm = run.stepper.step(lr)
    if not math.isfinite(norm):
        raise InputError(f"training step {batch.step}", f"its gradient is {norm}", do=f"Examples: {', '.join(_ids(run, batch))}")
    total = accelerator.reduce(own.sum(), "sum")
    return float(total) / response_tokens, norm, lr


def _save_checkpoint(run: Run) -> None:
    if run.accelerator.is_main_process:
        optimizer = run.stepper.state()
        save_checkpoint(Path(run.job.work), run.job.identity, run.state, run.adapter, optimizer, run.job.settings.keep)
    elif run.stepper.in_parts:
        run.stepper.state()
        adapter_tensors(run.adapter)


@torch.no_grad()
def validate(run: Run) -> float:
    """Response loss on val: mean over all its response tokens."""
    run.model.eval()
    accelerator = run.accelerator
    own = _share(run, range(len(run.val.ids)), run.val.lengths)
    total = torch.zeros((), dtype=torch.float64)
    for number, pack in enumerate(run.val.packs((*own.packs, *own.fillers)), 1):
        loss = _loss(run, run.adapter, pack.to(accelerator.device), keep=_validates_again(run)).cpu()
        total += loss if number <= len(own.packs) else 0.0
    reduced = accelerator.reduce(total.to(accelerator.device), "sum")
    return float(reduced) / sum(run.val.response_tokens)


def _validates_again(run: Run) -> bool:
    every = run.job.settings.validate_every
    return run.job.plan.epochs > 1 or (every is not None and every < run.job.plan.steps)


def _loss(run: Run, model: torch.nn.Module, pack: Pack, keep: bool) -> torch.Tensor:
    """keep: the pack's pages will come again."""
    device = run.accelerator.device.type
    with (
        products(run.job.settings.precision, device),
        # float32 adapters beside bfloat16 weights: peft must not lift the activations to float32 before autocast multiplies
        disable_input_dtype_casting(run.adapter, active=torch.is_autocast_enabled(device)),
        run.visual.pages_of(pack, keep),
    ):
        return response_loss(model, pack)


def _forget_pages(run: Run) -> None:
    """Not before the last process has read its last one. A run that fails leaves them to the next, which begins by removing them."""
    run.accelerator.wait_for_everyone()
    if run.accelerator.is_main_process:
        shutil.rmtree(Path(run.job.work) / SEEN_PAGES, ignore_errors=True)


@dataclass(frozen=True)
class Share:
    """What one process does of a global batch."""

    packs: Sequence[tuple[int, ...]]
    fillers: Sequence[tuple[int, ...]]
    """passes that count for nothing: processes exchange gradients, and parts of a sharded model, so all do equally many"""

    @property
    def passes(self) -> int:
        return len(self.packs) + len(self.fillers)


def _share(run: Run, rows: Sequence[int], lengths: Sequence[int]) -> Share:
    dealt = shares(rows, lengths, run.job.plan.packing.room, run.accelerator.num_processes)
    rank = run.accelerator.process_index
    return Share(dealt[rank], fillers(dealt, rank, rows))


def _seed_step(seed: int, step: int, rank: int) -> None:
    """Random numbers (dropout) of a step depend on the step, not on how many came before: nothing to save, nothing to restore."""
    torch.manual_seed((seed * 1_000_003 + step * 1_009 + rank) % 2**63)


def _require_finite(run: Run, batch: GlobalBatch, sums: torch.Tensor, seen: list[tuple[str, ...]]) -> None:
    bad = [ids for loss, ids in zip(sums.tolist(), seen, strict=True) if not math.isfinite(loss)]
    if bad:
        raise InputError(
            f"training step {batch.step}",
            "the loss is not a finite number",
            do=f"Look at these examples, or lower training.learning_rate: {', '.join(example for ids in bad for example in ids)}",
        )


def _require_steady(run: Run) -> None:
    """Before anything is kept of this step. All processes have the same losses."""
    losses, settings = run.state.losses, run.job.settings
    since = exploding_since(losses) if settings.exploding == "stop" else None
    if since is None:
        return
    (batch,) = global_batches(run.train.ids, run.job.seed, settings.effective_batch, since, since - 1)
    found = ", ".join(f"{loss:.3g}" for loss in losses[since - 1 :])
    raise InputError(
        f"training step {run.state.step}",
        f"the loss explodes: {found} since step {since}, {losses[0]:.3g} at the first",
        do=f"Lower training.learning_rate, or look at the examples of step {since}: {', '.join(_ids(run, batch))} "
        "(training.exploding: continue goes on all the same)",
    )


def _ids(run: Run, batch: GlobalBatch) -> list[str]:
    return [run.train.ids[row] for row in batch.rows]


def _require_own(output: Path, job: TrainingJob) -> None:
    manifest = verify_adapter(output)
    if manifest.job != job.identity:
        raise InputError(str(output), f"holds the adapter of another job ({manifest.job[:12]}...)", do="Give each job an output of its own")


def _lock(work: Path) -> FileLock:
    lock = FileLock(work / ".lock")
    try:
        lock.acquire(timeout=_LOCK_SECONDS)
    except Timeout:
        raise InputError(str(work), "another process is training here", do="Wait for it or end it") from None
    return lock


def _result(run: Run) -> dict[str, Any]:
    state = run.state
    kept = str(state.kept_step(run.job.settings.keep))
    rates = {f"val_{name}": rate for name, rate in state.val_answers.get(kept, {}).items()}
    losses = {"first_loss": state.losses[0], "last_loss": state.losses[-1], "val_loss": state.val_losses.get(kept)}
    return {"adapter": run.job.output, "steps": state.step, **losses, **rates}


def _report_failure(job_path: str, error: InputError, pipes: PipesContext | None) -> None:
    print(str(error), file=sys.stderr, flush=True)
    if pipes:
        pipes.log.error(str(error))
        pipes.report_custom_message({"failure": str(error)})
    try:
        write_atomically(Path(read_job(Path(job_path)).work) / FAILURE, (str(error) + "\n").encode())
    except InputError:  # no job, no work folder: the line above is all there is
        return
