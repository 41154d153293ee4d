"""The guide: what the generator knows of a page, shown to the language model while it learns to read. Used in training only.

What a page prints, and where, is known. At each token of an answer that is read from the page the guide teaches, layer by layer,
the three steps that a small model is slowest to find by itself:

    look      heads of LOOK_LAYERS attend to the visual token in which the next character stands (attention supervision)
    contents  after them the state can name every character of that visual token: the tower's slots, fetched whole
    slot      after SLOT_LAYERS it knows in which of the visual token's slots the next character stands

twice over: the second look can start from where the first one found the characters before (a token sees what the tokens before it
found one layer below, never on its own layer). What is left to the answer's own loss is to pick that slot's character.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from extraction_assets.demo.base_recipe.glyph_cells import IGNORE, SLOTS
from extraction_assets.demo.base_recipe.reading_batches import ReadingBatch
from extraction_assets.demo.base_recipe.vision import GlyphHeads, share
from extraction_assets.demo.base_recipe.words import CHARACTERS

LOOK_LAYERS = (2, 5)
SLOT_LAYERS = (3, 6)
WATCHED_LAYERS = (*LOOK_LAYERS, *SLOT_LAYERS)
LOOK_WEIGHT, CONTENTS_WEIGHT, SLOT_WEIGHT = 0.1, 0.2, 0.2
TOKEN_SLOTS = 4 * SLOTS
_BLANK_WEIGHT = 0.2
_CONTENTS_OF = 8
"""contents are asked of every so many-th place: naming 32 slots each costs as much as a layer"""


class GuideHeads(nn.Module):
    """Read contents and slot out of a state of the language model."""

    class_weights: Tensor

    def __init__(self, text_hidden: int, width: int = 40) -> None:
        super().__init__()
        self.width = width
        self.contents = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(text_hidden), nn.Linear(text_hidden, TOKEN_SLOTS * width)) for _ in LOOK_LAYERS
        )
        self.name = nn.Linear(width, len(CHARACTERS) + 1)
        self.slots = nn.ModuleList(nn.Sequential(nn.LayerNorm(text_hidden), nn.Linear(text_hidden, TOKEN_SLOTS)) for _ in SLOT_LAYERS)
        weights = torch.ones(len(CHARACTERS) + 1)
        weights[0] = _BLANK_WEIGHT
        self.register_buffer("class_weights", weights, persistent=False)


@torch.no_grad()
def start_reading(model: Any, glyph_heads: GlyphHeads, guide_heads: GuideHeads) -> None:
    """Let the language model start from what the tower knows.

    Looking layers begin by fetching what they look at as it is (values and output are the identity, if the heads are as wide as the
    state), and contents are named by the head that named them in the visual token itself.
    """
    text = model.config.text_config
    if text.num_key_value_heads * text.head_dim == text.num_attention_heads * text.head_dim == text.hidden_size:
        for layer in LOOK_LAYERS:
            if layer < text.num_hidden_layers:
                attention = model.model.language_model.layers[layer].self_attn
                torch.nn.init.eye_(attention.v_proj.weight)
                torch.nn.init.eye_(attention.o_proj.weight)
    for contents in guide_heads.contents:
        norm, linear = contents.children()
        norm.load_state_dict(glyph_heads.merged_norm.state_dict())
        linear.load_state_dict(glyph_heads.merged.state_dict())
    guide_heads.name.load_state_dict(glyph_heads.merged_name.state_dict())


@dataclass(frozen=True)
class Guided:
    loss: Tensor
    facts: dict[str, Tensor]


def guide(heads: GuideHeads, batch: ReadingBatch, attention: dict[int, Tensor], states: dict[int, Tensor], device: torch.device) -> Guided:
    """attention: layer -> (pages, heads, n, n); states: layer -> (pages, n, hidden) after it. Layers that a small model lacks are left out."""
    loss = torch.zeros((), device=device)
    facts: dict[str, Tensor] = {}
    if not len(batch.looking):
        return Guided(loss, facts)
    page, place = torch.from_numpy(batch.looking).to(device).unbind(1)
    sources = torch.from_numpy(batch.sources).to(device)
    image = slice(batch.before, batch.before + sources.shape[1])
    for layer in LOOK_LAYERS:
        if layer not in attention:
            continue
        on_source = (attention[layer][page, :, place, image].float() * sources[:, None]).sum(-1)
        loss = loss - LOOK_WEIGHT * on_source.clamp_min(1e-5).log().mean()
        facts[f"looks_{layer}"] = on_source.detach().mean()
    exact = np.flatnonzero(batch.slots >= 0)
    if not len(exact):
        return Guided(loss, facts)
    slots, page, place = (torch.from_numpy(array[exact]).to(device).long() for array in (batch.slots, *batch.looking.T))
    some = slice(None, None, _CONTENTS_OF)
    wanted = torch.from_numpy(batch.cells[exact[some]]).to(device).long().flatten()
    for layer, contents in zip(LOOK_LAYERS, heads.contents, strict=True):
        if layer in states:
            named = heads.name(contents(states[layer][page[some], place[some]]).view(-1, heads.width)).float()
            loss = loss + CONTENTS_WEIGHT * functional.cross_entropy(named, wanted, heads.class_weights, ignore_index=IGNORE)
            facts[f"contents_{layer}"] = share(named.argmax(-1) == wanted, wanted > 0)
    for layer, slot in zip(SLOT_LAYERS, heads.slots, strict=True):
        if layer in states:
            found = slot(states[layer][page, place]).float()
            loss = loss + SLOT_WEIGHT * functional.cross_entropy(found, slots)
            facts[f"slot_{layer}"] = (found.argmax(-1) == slots).float().mean()
    return Guided(loss, facts)
