"""The curriculum in order, and the run that walks it: resumable, seeded, on a CPU or a GPU."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from extraction_assets.demo.base_recipe import checkpoint
from extraction_assets.demo.base_recipe.checkpoint import Position
from extraction_assets.demo.base_recipe.export import load_base
from extraction_assets.demo.base_recipe.glyph_batches import glyph_batches
from extraction_assets.demo.base_recipe.glyph_stage import HELD_OUT_SEED, GlyphStage
from extraction_assets.demo.base_recipe.guide import GuideHeads, start_reading
from extraction_assets.demo.base_recipe.reading_batches import PageSize
from extraction_assets.demo.base_recipe.reading_stage import ReadingStage
from extraction_assets.demo.base_recipe.trainer import Pace, Rates, Stage, train_stage
from extraction_assets.demo.base_recipe.vision import GlyphHeads, Seen, lean_on_neighbours, level_merger, patches_of, place_by_waves, see
from extraction_assets.demo.tiny_base import Preset, random_model, write_tokenizer
from extraction_assets.errors import InputError


@dataclass(frozen=True)
class StepCounts:
    """Steps of each stage."""

    small_glyphs: int = 5000
    glyphs: int = 900
    lines: int = 1500
    words: int = 1200
    crops: int = 2000
    pages: int = 6000
    finish: int = 1000

    def walked(self, position: Position) -> str:
        """Stages and steps behind a run that stands at `position`, in words for the model card."""
        all_steps = asdict(self)
        names = list(all_steps)
        done = names[: names.index(position.stage)] if position.stage in names else []
        steps = {name: all_steps[name] for name in done} | {position.stage: position.step}
        return ", ".join(f"{name} {count}" for name, count in steps.items() if count)


LINES = (
    PageSize(192, 64, "lines", 88),
    PageSize(288, 64, "lines", 64),
    PageSize(384, 64, "lines", 52),
    PageSize(288, 96, "lines", 44),
    PageSize(384, 96, "lines", 36),
)
WORDS = (PageSize(256, 64, "crop", 56), PageSize(384, 64, "crop", 40), PageSize(288, 96, "crop", 36), PageSize(384, 96, "crop", 28))
CROPS = (PageSize(384, 96, "crop", 28), PageSize(384, 192, "crop", 18), PageSize(512, 288, "crop", 9))
PAGES = (
    PageSize(384, 192, "crop", 18),
    PageSize(512, 288, "crop", 9),
    PageSize(384, 288, "page", 12),
    PageSize(512, 384, "page", 8),
    PageSize(480, 512, "page", 6),
    PageSize(512, 640, "page", 5),
    PageSize(576, 704, "page", 4),
    PageSize(640, 672, "page", 4),
    PageSize(640, 768, "page", 4),
    PageSize(640, 896, "page", 3),
)

PAPERS = (
    PageSize(512, 288, "crop", 9),
    PageSize(480, 512, "page", 6),
    PageSize(512, 384, "paper", 8),
    PageSize(512, 640, "paper", 5),
    PageSize(544, 704, "paper", 4),
    PageSize(576, 672, "paper", 4),
    PageSize(608, 768, "paper", 4),
    PageSize(640, 704, "paper", 4),
    PageSize(640, 768, "paper", 4),
    PageSize(640, 896, "paper", 3),
    PageSize(704, 832, "paper", 3),
    PageSize(704, 992, "paper", 3),
)


def start_model(seed: int, preset: Preset, device: torch.device) -> tuple[Any, GlyphHeads]:
    model: Any = random_model(seed, preset)
    lean_on_neighbours(model.model.visual)
    place_by_waves(model.model.visual)
    for merger in model.model.visual.deepstack_merger_list:  # nothing until the language model asks for it, not noise
        torch.nn.init.zeros_(merger.linear_fc2.weight)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)
        heads = GlyphHeads(model.config.vision_config.hidden_size, model.config.text_config.hidden_size)
    return model.to(device), heads.to(device)


def start_guide(model: Any, seed: int, device: torch.device) -> GuideHeads:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 2)
        return GuideHeads(model.config.text_config.hidden_size).to(device)


def stages(
    model: Any,
    heads: GlyphHeads,
    guide_heads: GuideHeads,
    tokenizer: Path,
    counts: StepCounts,
    device: torch.device,
    scale: int = 1,
    compiled: bool = False,
) -> list[Stage]:
    """Letters, then lines of them, then short crops, then whole pages among crops. Other orders stay at the JSON and never get to the letters."""

    at_rest = Rates(muon=4e-3, adam=3e-3, decay=0.05, tower=0)

    def reading(name: str, sizes: tuple[PageSize, ...], steps: int, rates: Rates) -> Stage:
        scaled = tuple(replace(size, images=size.images * scale) for size in sizes)
        return ReadingStage(name, model, heads, guide_heads, tokenizer, scaled, steps, rates, device, compiled)

    return [
        GlyphStage("small_glyphs", model, heads, counts.small_glyphs, Rates(muon=2e-3, adam=2e-3, decay=0.4), device, 0.75, scale),
        GlyphStage("glyphs", model, heads, counts.glyphs, Rates(muon=1e-3, adam=1e-3, decay=0.6), device, 1.0, scale),
        reading("lines", LINES, counts.lines, at_rest),
        reading("words", WORDS, counts.words, at_rest),
        reading("crops", CROPS, counts.crops, replace(at_rest, muon=2e-3, adam=1.5e-3)),
        reading("pages", PAGES, counts.pages, replace(at_rest, muon=2e-3, adam=1.5e-3, decay=0.65)),
        reading("finish", PAPERS, counts.finish, Rates(muon=2.5e-3, adam=1.5e-3, decay=0.6, tower=0.6)),
    ]


def _a_look(visual: Any, device: torch.device) -> Seen:
    (batch,) = glyph_batches(HELD_OUT_SEED, 0, 1, 960)
    pixels = torch.from_numpy(batch.pixels).to(device)
    with torch.no_grad():
        return see(visual, patches_of(pixels), *pixels.shape[:3])


def restore(work: Path, seed: int, preset: Preset, device: torch.device) -> tuple[Any, GlyphHeads, GuideHeads, Position]:
    """Model and heads as the checkpoint in `work` has them. Raises InputError without one."""
    model, heads = start_model(seed, preset, device)
    guide_heads = start_guide(model, seed, device)
    position = checkpoint.load(work, {"model": model, "heads": heads, "guide": guide_heads})
    if position is None:
        raise InputError(str(work / checkpoint.FILE), "no such checkpoint", do="Train first: --minutes must not be 0")
    return model, heads, guide_heads, position


def train(
    work: Path,
    seed: int,
    preset: Preset,
    counts: StepCounts,
    pace: Pace,
    device: torch.device,
    scale: int = 1,
    compiled: bool = False,
    begin: Path | None = None,
) -> tuple[Any, GlyphHeads, bool]:
    """Walk the curriculum from where `work` stands; returns model, heads and whether the end was reached.

    begin: an exported base to start from instead of random weights, where `work` has no checkpoint; give `counts` no steps of the stages
    that it has behind it.
    scale: times as many pages in a batch as suit two CPU cores (a GPU wants 8 or more, and workers to match).
    compiled: fuse the language layers (reading_model._fused); the last digits of the weights then depend on the compiler.
    """
    work.mkdir(parents=True, exist_ok=True)
    write_tokenizer(work, preset)
    model, heads = start_model(seed, preset, device)
    guide_heads = start_guide(model, seed, device)
    parts = {"model": model, "heads": heads, "guide": guide_heads}
    position = checkpoint.load(work, parts)
    if position is None:
        position = Position("", 0)
        if begin is not None:
            load_base(begin, model, heads, guide_heads)
    plan = stages(model, heads, guide_heads, work / "tokenizer.json", counts, device, scale, compiled)
    names = [stage.name for stage in plan]
    first = names.index(position.stage) if position.stage in names else 0
    for number, stage in enumerate(plan[first:], first):
        start = position.step if stage.name == position.stage else 0
        if stage.name == "lines" and start == 0 and begin is None:
            level_merger(model.model.visual, _a_look(model.model.visual, device))
            start_reading(model, heads, guide_heads)
        if start < stage.steps and not train_stage(stage, parts, work, seed * 100 + number, start, pace):
            return model, heads, False
    return model, heads, True
