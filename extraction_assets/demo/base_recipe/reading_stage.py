"""Stages b to d: the whole model end to end, from crops of a few lines to whole pages."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from extraction_assets.demo.base_recipe.glyph_stage import PLACE_WEIGHT
from extraction_assets.demo.base_recipe.guide import WATCHED_LAYERS, GuideHeads, guide
from extraction_assets.demo.base_recipe.reading_batches import NOT_SCORED, PageSize, ReadingBatch, reading_batches
from extraction_assets.demo.base_recipe.reading_model import answer_pages, read
from extraction_assets.demo.base_recipe.trainer import Rates
from extraction_assets.demo.base_recipe.vision import GlyphHeads, share
from extraction_assets.model.precision import products

HELD_OUT_SEED = 987_000
GLYPH_WEIGHT = 0.3
"""The glyph losses stay on while the tower learns: without them small print fades while the language model learns."""


VERDICT_WEIGHT = 5.0
"""Whether the page has a value for a key is one token in ten, and the hardest: at weight 1 the base invents a third of what is not there."""


class ReadingStage:
    uses = 6

    def __init__(
        self,
        name: str,
        model: Any,
        heads: GlyphHeads,
        guide_heads: GuideHeads,
        tokenizer: Path,
        sizes: tuple[PageSize, ...],
        steps: int,
        rates: Rates,
        device: torch.device,
        compiled: bool = False,
    ) -> None:
        self.name, self.steps, self.rates, self._compiled = name, steps, rates, compiled
        self._model, self._heads, self._guide_heads = model, heads, guide_heads
        self._tokenizer, self._sizes, self._device = tokenizer, sizes, device

    def make(self) -> Callable[[int, int, int], list[ReadingBatch]]:
        return functools.partial(reading_batches, str(self._tokenizer), self._sizes)

    def parameters(self) -> list[tuple[str, torch.nn.Parameter]]:
        everything = [
            *self._model.named_parameters(),
            *((f"heads.{name}", value) for name, value in self._heads.named_parameters()),
            *((f"guide.{name}", value) for name, value in self._guide_heads.named_parameters()),
        ]
        if self._teach_tower:
            return everything
        return [(name, value) for name, value in everything if "visual." not in name and not name.startswith("heads.")]

    @property
    def _teach_tower(self) -> bool:
        return self.rates.tower > 0

    def score(self, batch: ReadingBatch) -> tuple[Tensor, dict[str, Tensor]]:
        return score_reading(self._model, self._heads, self._guide_heads, batch, self._device, self._teach_tower, self._compiled)

    def evaluate(self) -> dict[str, float]:
        """Teacher-forced on one batch of every size, and free answers on the last size's."""
        facts: dict[str, float] = {}
        tokenizer = Tokenizer.from_file(str(self._tokenizer))
        with torch.no_grad():
            for size in self._sizes:
                batch = reading_batches(str(self._tokenizer), (size,), HELD_OUT_SEED, 0, 1)[0]
                _, scores = score_reading(self._model, self._heads, self._guide_heads, batch, self._device, self._teach_tower)
                facts |= {f"{key}_{size.width}x{size.height}": float(value) for key, value in scores.items()}
        longest = max(len(tokenizer.encode(answer).ids) for answer in batch.answers) + 8  # a model that rambles must not take minutes
        pixels = torch.from_numpy(batch.pixels).to(self._device)
        answers = answer_pages(self._model, tokenizer, pixels, batch.instructions, longest)
        return {**facts, **score_answers(answers, list(batch.answers))}


def score_reading(
    model: Any,
    heads: GlyphHeads,
    guide_heads: GuideHeads,
    batch: ReadingBatch,
    device: torch.device,
    teach_tower: bool,
    compiled: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of the answers' tokens plus the guide's and the glyph losses; shares of tokens that are right."""
    # masks become indices here, not on the device: a GPU would have to be waited for
    scored = np.flatnonzero(np.pad(batch.labels[:, 1:] != NOT_SCORED, ((0, 0), (0, 1))))  # the token before predicts
    wanted, inside, verdicts = (
        torch.from_numpy(array[:, 1:][batch.labels[:, 1:] != NOT_SCORED]).to(device)
        for array in (batch.labels, batch.value_tokens, batch.verdicts)
    )
    pixels, ids, positions = (torch.from_numpy(array).to(device) for array in (batch.pixels, batch.ids, batch.positions))
    with products("auto", device.type):
        found = read(
            model, pixels, ids, positions, batch.before, torch.from_numpy(scored).to(device), WATCHED_LAYERS, teach_tower, compiled
        )
        guided = guide(guide_heads, batch, found.attention, found.states, device)
    weights = 1 + (VERDICT_WEIGHT - 1) * verdicts.float()
    answer = (functional.cross_entropy(found.logits.float(), wanted, reduction="none") * weights).mean()
    right = found.logits.argmax(-1) == wanted
    facts = {
        "answer_loss": answer.detach(),
        "tokens": right.float().mean(),
        "value_tokens": share(right, inside),
        "verdicts": share(right, verdicts),
    } | guided.facts
    loss = answer + guided.loss
    if teach_tower:
        classes = torch.from_numpy(batch.classes).to(device)
        with products("auto", device.type):
            named = heads(found.seen, torch.from_numpy(batch.chosen).to(device))
            place_error = heads.place_error(found.seen, *pixels.shape[:3])
        named_loss = sum(functional.cross_entropy(logits.float(), classes) for logits in named)
        loss = loss + GLYPH_WEIGHT * (named_loss + PLACE_WEIGHT * place_error)
        glyph = classes > 0
        for name, logits in zip(("from_patch", "from_merged"), named, strict=True):
            facts[name] = share(logits.argmax(-1) == classes, glyph)
    return loss, facts


def score_answers(answers: list[str], gold: list[str]) -> dict[str, float]:
    """Of free answers: strict JSON with exactly the asked keys, header fields exactly right, of those the page does not have null, row
    cells exactly right."""
    shaped, fields, nulls, cells = [], [], [], []
    for answer, wanted_text in zip(answers, gold, strict=True):
        wanted = json.loads(wanted_text)
        try:
            found = json.loads(answer)
        except json.JSONDecodeError:
            found = None
        if isinstance(wanted, list):  # loose lines
            wanted, found = {"": wanted}, {"": found}
        shaped.append(_same_shape(found, wanted))
        found = found if isinstance(found, dict) else {}
        for key, value in wanted.items():
            if isinstance(value, list):
                rows = _listed(found.get(key))
                for number, row in enumerate(value):
                    other = rows[number] if number < len(rows) else None
                    if isinstance(row, dict):
                        cells += [isinstance(other, dict) and other.get(name) == cell for name, cell in row.items()]
                    else:
                        cells.append(other == row)
            else:
                fields.append(key in found and found[key] == value)
                nulls += [fields[-1]] if value is None else []
    means = {"strict_json": shaped, "field_exact": fields, "null_exact": nulls, "cell_exact": cells}
    return {name: float(np.mean(values)) for name, values in means.items() if values}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _same_shape(found: Any, wanted: dict[str, Any]) -> bool:
    """The asked keys in order, strings or null, rows with the asked columns."""
    if not isinstance(found, dict) or list(found) != list(wanted):
        return False
    for key, value in wanted.items():
        if isinstance(value, list):
            columns = [list(row) if isinstance(row, dict) else str for row in value[:1]]
            if not isinstance(found[key], list):
                return False
            shapes = [list(row) if isinstance(row, dict) else type(row) for row in found[key]]
            if columns and any(shape != columns[0] for shape in shapes):
                return False
        elif not (found[key] is None or isinstance(found[key], str)):
            return False
    return True
