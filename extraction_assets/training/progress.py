"""Where a run shows itself: stderr, metrics.jsonl, TensorBoard and trackers, and Dagster when it was started through Pipes.

Never in the adapter.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extraction_assets.store import write_atomically
from extraction_assets.training.azure_job import MESSAGES_ACCOUNT, blob_service

if TYPE_CHECKING:
    from dagster_pipes import PipesContext

    from extraction_assets.training.preflight import Preflight
    from extraction_assets.training.trackers import Trackers
    from extraction_assets.training.val_answers import AnswerRates

_PIPES_CONTEXT = "DAGSTER_PIPES_CONTEXT"
_TORCH_LAUNCHER = "TORCHELASTIC_RUN_ID"
"""set in the processes that torch.distributed.run, and so accelerate launch, has started"""
_SHOWN = ("loss", "learning_rate", "grad_norm", "examples_per_s")
"""of a step, what TensorBoard and trackers draw"""
_LINE_SECONDS = 1.0
"""at most one progress line in this time: a long run must not fill a log"""


@dataclass(frozen=True)
class StepMetrics:
    step: int
    epoch: float
    """examples seen / examples of an epoch"""
    loss: float
    """mean over the step's response tokens"""
    learning_rate: float
    grad_norm: float
    """before clipping"""
    examples_per_s: float
    tokens_per_s: float


class Progress:
    """Everything a run tells the world while it runs. On ranks above 0 it stays silent."""

    def __init__(self, work: Path, steps: int, done_steps: int, speaks: bool, pipes: PipesContext | None) -> None:
        self.steps, self.speaks, self.pipes = steps, speaks, pipes
        self._last_line = 0.0
        self._trackers: Trackers | None = None
        if not speaks:
            return
        from torch.utils.tensorboard import SummaryWriter

        work.mkdir(parents=True, exist_ok=True)
        self._path = work / "metrics.jsonl"
        _keep_steps(self._path, done_steps)
        self._file = self._path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(work / "tensorboard"), purge_step=done_steps + 1)

    def follow(self, trackers: Trackers | None) -> None:
        """Tell these too, from here on."""
        self._trackers = trackers

    def say(self, line: str) -> None:
        if self.speaks:
            print(f"training: {line}", file=sys.stderr, flush=True)
            if self.pipes:
                self.pipes.log.info(line)

    def preflight(self, flight: Preflight) -> None:
        if self.speaks:
            self._write({"kind": "preflight", "step": 0, **asdict(flight)})
            self.say(flight.line())

    def step(self, metrics: StepMetrics) -> None:
        if not self.speaks:
            return
        self._write({"kind": "step", **vars(metrics)})
        self._show({f"train/{name}": getattr(metrics, name) for name in _SHOWN}, metrics.step)
        now = time.monotonic()
        if now - self._last_line >= _LINE_SECONDS or metrics.step in (1, self.steps):
            self._last_line = now
            self.say(
                f"step {metrics.step}/{self.steps}, epoch {metrics.epoch:.2f}, loss {metrics.loss:.4f}, "
                f"lr {metrics.learning_rate:.2e}, {metrics.examples_per_s:.2f} examples/s"
            )

    def validation(self, step: int, loss: float, rates: AnswerRates | None) -> None:
        if not self.speaks:
            return
        answers = asdict(rates) if rates else {}
        self._write({"kind": "validation", "step": step, "val_loss": loss, **{f"val_{name}": rate for name, rate in answers.items()}})
        self._show({f"val/{name}": value for name, value in {"loss": loss, **answers}.items()}, step)
        self.say(f"step {step}/{self.steps}, val loss {loss:.4f}" + (f", {rates.line()}" if rates else ""))

    def result(self, message: dict[str, Any]) -> None:
        """The run's last word to Dagster: get_custom_messages() of the Pipes invocation."""
        if self.speaks and self.pipes:
            self.pipes.report_custom_message(message)

    def close(self) -> None:
        if self.speaks:
            self._file.close()
            self._board.close()
        if self._trackers:
            self._trackers.close()

    def _show(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        if self._trackers:
            self._trackers.log(values, step)

    def _write(self, record: dict[str, Any]) -> None:
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()


@contextmanager
def open_pipes() -> Iterator[PipesContext | None]:
    """Dagster's end of the line, where this process was started through Pipes and is rank 0; else None, without a warning."""
    if _PIPES_CONTEXT not in os.environ or os.environ.get("RANK", "0") != "0":
        yield None
        return
    from dagster_pipes import PipesAzureBlobStorageMessageWriter, open_dagster_pipes

    account = os.environ.get(MESSAGES_ACCOUNT)
    with open_dagster_pipes(message_writer=PipesAzureBlobStorageMessageWriter(blob_service(account)) if account else None) as pipes:
        yield pipes


class ParentWatch:
    """Ends a run started through Pipes when those who started it are gone: killed orchestrators leave no training behind.

    A run started by hand outlives its terminal, as people expect of nohup, and so does one whose orchestrator outlives it.
    """

    def __init__(self) -> None:
        self._line = _starters() if _PIPES_CONTEXT in os.environ else ()

    def orphaned(self) -> bool:
        return bool(self._line) and _starters() != self._line


def _starters() -> tuple[int, ...]:
    """Process id of the orchestrator; where torch's launcher stands between them, of that too (Linux; elsewhere of the launcher only)."""
    parent = os.getppid()
    if _TORCH_LAUNCHER not in os.environ:
        return (parent,)
    try:
        stat = Path(f"/proc/{parent}/stat").read_text(encoding="utf-8")
        return parent, int(stat.rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return (parent,)


def _keep_steps(path: Path, done_steps: int) -> None:
    """Drop the lines of steps that a resumed run will take again, and a last line that a kill cut short."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            if json.loads(line)["step"] <= done_steps:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    write_atomically(path, "".join(line + "\n" for line in kept).encode())
