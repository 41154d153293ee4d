"""Stage a: the vision tower and the merger learn to name the characters in their cells, before any language."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from extraction_assets.demo.base_recipe.glyph_batches import PATCHES, GlyphBatch, glyph_batches
from extraction_assets.demo.base_recipe.trainer import Rates
from extraction_assets.demo.base_recipe.vision import GlyphHeads, patches_of, see, share
from extraction_assets.model.precision import products

HELD_OUT_SEED = 987_000
"""Evaluation batches come from here; training seeds are small numbers."""
PLACE_WEIGHT = 3.0


@dataclass(frozen=True)
class GlyphScore:
    """Shares of glyphs (blanks left out) that are named right."""

    loss: Tensor
    from_patch: Tensor
    from_merged: Tensor
    place_error: Tensor
    """mean, as a share of the page"""


def score_glyphs(visual: torch.nn.Module, heads: GlyphHeads, batch: GlyphBatch, device: torch.device) -> GlyphScore:
    pixels = torch.from_numpy(batch.pixels).to(device)
    images, height, width, _ = pixels.shape
    wanted = torch.from_numpy(batch.classes).to(device)
    with products("auto", device.type):
        seen = see(visual, patches_of(pixels), images, height, width)
        from_patch, from_merged = heads(seen, torch.from_numpy(batch.chosen).to(device))
        place_error = heads.place_error(seen, images, height, width)
    named = [functional.cross_entropy(logits.float(), wanted) for logits in (from_patch, from_merged)]
    glyph = wanted > 0
    patch, merged = (share(logits.argmax(-1) == wanted, glyph) for logits in (from_patch, from_merged))
    return GlyphScore(named[0] + named[1] + PLACE_WEIGHT * place_error, patch, merged, place_error.detach())


@torch.no_grad()
def evaluate_glyphs(
    visual: torch.nn.Module, heads: GlyphHeads, device: torch.device, print_scale: float, seed: int = HELD_OUT_SEED, groups: int = 5
) -> dict[str, float]:
    """Glyph accuracy on pages of other seeds, one group per size."""
    scores = [
        score_glyphs(visual, heads, batch, device) for group in range(groups) for batch in glyph_batches(seed, group, 1, 1920, print_scale)
    ]
    count = len(scores)
    return {
        "glyphs_from_patch": float(sum(score.from_patch for score in scores)) / count,
        "glyphs_from_merged": float(sum(score.from_merged for score in scores)) / count,
        "place_error": float(sum(score.place_error for score in scores)) / count,
        "loss": sum(float(score.loss) for score in scores) / count,
    }


class GlyphStage:
    uses = 4

    def __init__(
        self, name: str, model: Any, heads: GlyphHeads, steps: int, rates: Rates, device: torch.device, print_scale: float, scale: int
    ) -> None:
        """print_scale: times the usual text size; scale: times as many pages in a batch as suit two CPU cores"""
        self.name, self.steps, self.rates, self._print_scale, self._scale = name, steps, rates, print_scale, scale
        self._visual, self._heads, self._device = model.model.visual, heads, device

    def make(self) -> Callable[[int, int, int], list[GlyphBatch]]:
        return functools.partial(glyph_batches, patches=PATCHES * self._scale, print_scale=self._print_scale)

    def parameters(self) -> list[tuple[str, torch.nn.Parameter]]:
        """All of the tower but the deepstack mergers, which nothing here teaches."""
        tower = [(f"visual.{name}", value) for name, value in self._visual.named_parameters() if "deepstack" not in name]
        return tower + [(f"heads.{name}", value) for name, value in self._heads.named_parameters()]

    def score(self, batch: GlyphBatch) -> tuple[Tensor, dict[str, Tensor]]:
        score = score_glyphs(self._visual, self._heads, batch, self._device)
        return score.loss, {"from_patch": score.from_patch, "from_merged": score.from_merged, "place_error": score.place_error}

    def evaluate(self) -> dict[str, float]:
        return evaluate_glyphs(self._visual, self._heads, self._device, self._print_scale)
