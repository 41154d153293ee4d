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

from extraction_assets.demo.base_recipe.reading_batches import NOT_SCORED, PageSize, ReadingBatch, reading_batches
from extraction_assets.demo.base_recipe.reading_model import answer_pages, read
from extraction_assets.demo.base_recipe.trainer import Rates
from extraction_assets.demo.base_recipe.vision import GlyphHeads

HELD_OUT_SEED = 987_000
GLYPH_WEIGHT = 0.2
"""The glyph losses stay on: without them small print fades while the language model learns."""


class ReadingStage:
    uses = 6

    def __init__(
        self,
        name: str,
        model: Any,
        heads: GlyphHeads,
        tokenizer: Path,
        sizes: tuple[PageSize, ...],
        steps: int,
        rates: Rates,
        device: torch.device,
    ) -> None:
        self.name, self.steps, self.rates = name, steps, rates
        self._model, self._heads, self._tokenizer, self._sizes, self._device = model, heads, tokenizer, sizes, device

    def make(self) -> Callable[[int, int, int], list[ReadingBatch]]:
        return functools.partial(reading_batches, str(self._tokenizer), self._sizes)

    def parameters(self) -> list[tuple[str, torch.nn.Parameter]]:
        everything = dict(self._model.named_parameters())  # tied weights once
        return list(everything.items()) + [(f"heads.{name}", value) for name, value in self._heads.named_parameters()]

    def score(self, batch: ReadingBatch) -> tuple[Tensor, dict[str, float]]:
        return score_reading(self._model, self._heads, batch, self._device)

    def evaluate(self) -> dict[str, float]:
        """Teacher-forced on one batch of every size, and free answers on the last size's."""
        facts: dict[str, float] = {}
        tokenizer = Tokenizer.from_file(str(self._tokenizer))
        with torch.no_grad():
            for size in self._sizes:
                batch = reading_batches(str(self._tokenizer), (size,), HELD_OUT_SEED, 0, 1)[0]
                _, scores = score_reading(self._model, self._heads, batch, self._device)
                facts |= {f"{key}_{size.width}x{size.height}": value for key, value in scores.items()}
        answers = answer_pages(self._model, tokenizer, torch.from_numpy(batch.pixels).to(self._device), batch.instructions)
        return {**facts, **score_answers(answers, list(batch.answers))}


def score_reading(model: Any, heads: GlyphHeads, batch: ReadingBatch, device: torch.device) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropy of the answers' tokens plus the glyph losses; shares of tokens, and of tokens inside values, that are right."""
    labels = torch.from_numpy(batch.labels[:, 1:]).to(device)
    scored = functional.pad(labels != NOT_SCORED, (0, 1))  # the token before predicts
    wanted = labels[labels != NOT_SCORED]
    with torch.autocast(device.type, torch.bfloat16):
        logits, seen = read(
            model,
            torch.from_numpy(batch.pixels).to(device),
            torch.from_numpy(batch.ids).to(device),
            torch.from_numpy(batch.positions).to(device),
            batch.before,
            scored,
        )
        from_patch, from_merged = heads(seen, torch.from_numpy(batch.chosen).to(device))
    answer = functional.cross_entropy(logits.float(), wanted)
    classes = torch.from_numpy(batch.classes).to(device)
    glyphs = functional.cross_entropy(from_patch.float(), classes) + functional.cross_entropy(from_merged.float(), classes)
    right = logits.argmax(-1) == wanted
    inside = torch.from_numpy(batch.value_tokens[:, 1:]).to(device)[labels != NOT_SCORED]
    glyph = classes > 0
    facts = {
        "answer_loss": float(answer.detach()),
        "tokens": float(right.float().mean()),
        "value_tokens": float(right[inside].float().mean()) if inside.any() else 1.0,
        "from_patch": float((from_patch.argmax(-1) == classes)[glyph].float().mean()),
        "from_merged": float((from_merged.argmax(-1) == classes)[glyph].float().mean()),
    }
    return answer + GLYPH_WEIGHT * glyphs, facts


def score_answers(answers: list[str], gold: list[str]) -> dict[str, float]:
    """Of free answers: strict JSON with exactly the asked keys, header fields exactly right, row cells exactly right."""
    shaped, fields, cells = [], [], []
    for answer, wanted_text in zip(answers, gold, strict=True):
        wanted = json.loads(wanted_text)
        try:
            found = json.loads(answer)
        except json.JSONDecodeError:
            found = None
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
    means = {"strict_json": shaped, "field_exact": fields, "cell_exact": cells}
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
