"""Steps on a CPU: the new tokens of all sequences in one row, unpadded, and attention sequence by sequence.

A sequence that reads one token beside one that reads thirty costs one token. And its logits are the same to the bit whoever is read beside it,
and however many of its tokens are read together: matrix products and attention order their sums by shape, but only by few of its steps. Measured
with MKL and torch 2.13 on AMD: products of LEAST_ROWS rows or more agree row by row, attention over keys in multiples of KEYS_AT_ONCE too.
Elsewhere they agree to within rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, Qwen3VLForConditionalGeneration
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from extraction_assets.inference.slots import SlotCache, whole_blocks
from extraction_assets.inference.steps import Logits, Steps

SLOT_BY_SLOT = "slot_by_slot"
"""name in transformers' AttentionInterface"""
LEAST_ROWS = 4
"""of a product, and queries of an attention: with fewer, another way is taken"""
KEYS_AT_ONCE = 512
"""that torch's attention takes together on a CPU; a smaller rest goes another way"""


@dataclass(frozen=True)
class Part:
    """One sequence's tokens in the row."""

    slot: int
    start: int
    stop: int
    keys: int
    """columns of the cache that they attend over"""


class PackedSteps(Steps):
    """Whose cache has a capacity in multiples of KEYS_AT_ONCE."""

    def __init__(self, model: Qwen3VLForConditionalGeneration, cache: SlotCache, pad: int) -> None:
        super().__init__(model, cache, pad)
        # as stock sdpa wherever no parts are given, masks included: the model may answer, train and be merged as before
        AttentionInterface.register(SLOT_BY_SLOT, slot_by_slot)
        AttentionMaskInterface.register(SLOT_BY_SLOT, sdpa_mask)
        if model.config.get_text_config()._attn_implementation != SLOT_BY_SLOT:
            model.set_attn_implementation({"text_config": SLOT_BY_SLOT})

    def read(self, fed: Sequence[Sequence[int]], lengths: Sequence[int], positions: Sequence[int]) -> Logits:
        missing = max(0, LEAST_ROWS - sum(len(tokens) for tokens in fed))
        rows = [*fed[:-1], [*fed[-1], *[self._pad] * missing]]  # behind the last one's end, where the next step writes over them
        parts: list[Part] = []
        start = 0
        for slot, (tokens, length) in enumerate(zip(rows, lengths, strict=True)):
            parts.append(Part(slot, start, start + len(tokens), whole_blocks(length + len(tokens), KEYS_AT_ONCE)))
            start = parts[-1].stop
        columns = _counted(rows, lengths)
        slots = torch.tensor([part.slot for part in parts for _ in range(part.start, part.stop)])
        mask = self.cache.open_packed_step(slots, columns, max(part.keys for part in parts))
        row = torch.tensor([[token for tokens in rows for token in tokens]])
        hidden = self._hidden(row, _counted(rows, positions)[None], mask, parts=parts)

        def logits(slots: Sequence[int], places: Sequence[int]) -> Tensor:
            at = [parts[slot].start + place for slot, place in zip(slots, places, strict=True)]
            at += [0] * (LEAST_ROWS - len(at))
            return cast(Tensor, self.model.lm_head(hidden[0, torch.tensor(at)]))[: len(slots)]

        return logits


def slot_by_slot(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    parts: Sequence[Part] | None = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """Attention function for transformers. query: (1, heads, tokens, d); key, value: (slots, key/value heads, capacity, d).

    attention_mask: (1, 1, tokens, most keys), in the queries' dtype. Returns (1, tokens, heads, d). No parts: stock sdpa.
    """
    if parts is None or attention_mask is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **unused)
    groups = query.shape[1] // key.shape[1]
    seen = []
    for part in parts:
        missing = max(0, LEAST_ROWS - (part.stop - part.start))
        q, mask = query[:, :, part.start : part.stop], attention_mask[:, :, part.start : part.stop, : part.keys]
        k, v = (whole[part.slot : part.slot + 1, :, : part.keys] for whole in (key, value))
        if missing:
            q, mask = pad(q, (0, 0, 0, missing)), pad(mask, (0, 0, 0, missing))
        if groups > 1:
            k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        seen.append(scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling)[:, :, : part.stop - part.start])
    return torch.cat(seen, dim=2).transpose(1, 2), None


def _counted(rows: Sequence[Sequence[int]], first: Sequence[int]) -> Tensor:
    """(tokens,): first[i], first[i] + 1, ... for each token of row i."""
    return torch.tensor([start + step for tokens, start in zip(rows, first, strict=True) for step in range(len(tokens))])
