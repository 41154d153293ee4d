"""The guide: what the generator knows of a page, shown to the language model while it learns to read. Used in training only.

What a page prints, and where, is known. At each token of an answer that is read from the page the guide teaches, layer by layer,
the three steps that a small model is slowest to find by itself:

    look      heads of LOOK_LAYERS attend to the visual token in which the next character stands (attention supervision)
    contents  after CONTENTS_LAYER the state can name every character of that visual token: the tower's slots, fetched whole
    slot      after SLOT_LAYER it knows in which of the visual token's slots the next character stands

What is left to the answer's own loss is to pick that slot's character.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from extraction_assets.demo.base_recipe.glyph_cells import IGNORE, SLOTS
from extraction_assets.demo.base_recipe.reading_batches import ReadingBatch
from extraction_assets.demo.base_recipe.words import CHARACTERS

LOOK_LAYERS = (2, 3)
CONTENTS_LAYER = 2
SLOT_LAYER = 3
LOOK_WEIGHT, CONTENTS_WEIGHT, SLOT_WEIGHT = 0.1, 0.2, 0.2
TOKEN_SLOTS = 4 * SLOTS
_BLANK_WEIGHT = 0.2


class GuideHeads(nn.Module):
    """Read contents and slot out of a state of the language model."""

    def __init__(self, text_hidden: int, width: int = 40) -> None:
        super().__init__()
        self.width = width
        self.contents_norm, self.slot_norm = nn.LayerNorm(text_hidden), nn.LayerNorm(text_hidden)
        self.contents = nn.Linear(text_hidden, TOKEN_SLOTS * width)
        self.name = nn.Linear(width, len(CHARACTERS) + 1)
        self.slot = nn.Linear(text_hidden, TOKEN_SLOTS)
        weights = torch.ones(len(CHARACTERS) + 1)
        weights[0] = _BLANK_WEIGHT
        self.register_buffer("class_weights", weights, persistent=False)


@dataclass(frozen=True)
class Guided:
    loss: Tensor
    facts: dict[str, float]


def guide(heads: GuideHeads, batch: ReadingBatch, attention: dict[int, Tensor], states: dict[int, Tensor], device: torch.device) -> Guided:
    """attention: layer -> (pages, heads, n, n); states: layer -> (pages, n, hidden) after it. Layers that a small model lacks are left out."""
    loss, facts = torch.zeros((), device=device), {}
    if not len(batch.looking):
        return Guided(loss, facts)
    page, place = torch.from_numpy(batch.looking).to(device).unbind(1)
    sources = torch.from_numpy(batch.sources).to(device)
    image = slice(batch.before, batch.before + sources.shape[1])
    for layer, weights in attention.items():
        share = (weights[page, :, place, image].float() * sources[:, None]).sum(-1)
        loss = loss - LOOK_WEIGHT * share.clamp_min(1e-5).log().mean()
        facts[f"looks_{layer}"] = float(share.detach().mean())
    slots = torch.from_numpy(batch.slots).to(device).long()
    exact = slots >= 0
    if not exact.any():
        return Guided(loss, facts)
    page, place, slots = page[exact], place[exact], slots[exact]
    if CONTENTS_LAYER in states:
        cells = torch.from_numpy(batch.cells).to(device).long()[exact]
        codes = heads.contents(heads.contents_norm(states[CONTENTS_LAYER][page, place])).view(-1, heads.width)
        named, wanted = heads.name(codes).float(), cells.flatten()
        loss = loss + CONTENTS_WEIGHT * functional.cross_entropy(named, wanted, heads.class_weights, ignore_index=IGNORE)
        facts["contents"] = float((named.argmax(-1) == wanted)[wanted > 0].float().mean())
    if SLOT_LAYER in states:
        found = heads.slot(heads.slot_norm(states[SLOT_LAYER][page, place])).float()
        loss = loss + SLOT_WEIGHT * functional.cross_entropy(found, slots)
        facts["slot"] = float((found.argmax(-1) == slots).float().mean())
    return Guided(loss, facts)
