"""The training loop that every stage shares: feed, step, log, evaluate, checkpoint, resume."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from extraction_assets.demo.base_recipe import checkpoint
from extraction_assets.demo.base_recipe.checkpoint import Position
from extraction_assets.demo.base_recipe.feed import Feed
from extraction_assets.demo.base_recipe.optimizer import Optimizers, rate_shape


@dataclass(frozen=True)
class Rates:
    muon: float
    adam: float
    warmup: int = 100
    decay: float = 0.3
    """share of the steps over which the rates fall at the end"""
    tower: float = 1.0
    """times these rates for the vision tower and its glyph heads; 0: it stays as it is"""


class Stage(Protocol):
    """One part of the curriculum: what a batch is, what its loss is, how progress is measured."""

    name: str
    steps: int
    rates: Rates
    uses: int
    """batches cut from one rendering"""

    def make(self) -> Callable[[int, int, int], list[Any]]:
        """A function importable by name: (seed, group, uses) -> batches."""
        ...

    def parameters(self) -> list[tuple[str, nn.Parameter]]: ...

    def score(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss with gradients, and what to log (scalars)."""
        ...

    def evaluate(self) -> dict[str, float]:
        """On pages of other seeds."""
        ...


class Log:
    """JSON lines: one per `every` steps with means since the last, one per evaluation."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path

    def write(self, **values: Any) -> None:
        line = json.dumps({key: round(value, 4) if isinstance(value, float) else value for key, value in values.items()})
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


@dataclass(frozen=True)
class Pace:
    """How often things happen, and when to stop; none of it changes what is learned up to a step."""

    log_every: int = 25
    evaluate_every: int = 400
    save_every_s: float = 120.0
    deadline: float | None = None
    """time.monotonic() at which to save and stop"""
    workers: int = 1
    """processes that render ahead"""
    stop: Callable[[], bool] = lambda: False
    """asked after every step: save and stop now?"""


def train_stage(stage: Stage, parts: dict[str, Any], work: Path, seed: int, start: int, pace: Pace) -> bool:
    """Train from step `start` to the stage's end; False if the deadline came first. `parts` (model, heads) are what is saved."""
    log = Log(work / "log.jsonl")
    optimizers = Optimizers(stage.parameters(), stage.rates.muon, stage.rates.adam, stage.rates.tower)
    saved = {**parts, "optimizers": optimizers}
    if start:
        checkpoint.load(work, {"optimizers": optimizers})
    began = last_save = time.monotonic()
    sums: dict[str, Tensor] = {}
    summed = 0
    with Feed(stage.make(), seed, stage.uses, pace.workers) as feed:
        for step, batch in zip(range(start, stage.steps), feed.from_step(start), strict=False):
            loss, facts = stage.score(batch)
            loss.backward()
            norm = optimizers.step(rate_shape(step, stage.steps, stage.rates.warmup, stage.rates.decay))
            summed += 1
            for key, value in {"loss": loss.detach(), "norm": norm, **facts}.items():  # as tensors: a GPU is not waited for
                sums[key] = sums[key] + value if key in sums else value
            if (step + 1) % pace.log_every == 0:
                means = {key: float(value) / summed for key, value in sums.items()}
                log.write(stage=stage.name, step=step + 1, of=stage.steps, seconds=time.monotonic() - began, **means)
                sums, summed = {}, 0
            if (step + 1) % pace.evaluate_every == 0 or step + 1 == stage.steps:
                log.write(stage=stage.name, step=step + 1, evaluation=True, **stage.evaluate())
            now = time.monotonic()
            expired = pace.stop() or (pace.deadline is not None and now > pace.deadline)
            if step + 1 == stage.steps or expired or now - last_save > pace.save_every_s:
                checkpoint.save(work, Position(stage.name, step + 1), saved)
                last_save = now
            if expired and step + 1 < stage.steps:
                return False
    return True
