"""Qwen3-VL on a batch of pages of one size: teacher-forced logits of the answers (`read`), and free answers (`answer_pages`).

`read` computes what the stock forward computes (a test compares them), with the image at the same place in every row and the
causal attention spelled out: on a CPU the fused kernel's backward pass is slower than that at these lengths.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface

from extraction_assets.demo.base_recipe.reading_batches import prompt
from extraction_assets.demo.base_recipe.vision import Seen, patches_of, see

_CAUSAL = "spelled_out_causal"


@dataclass(frozen=True)
class Read:
    logits: Tensor
    """(scored tokens, vocabulary)"""
    seen: Seen
    attention: dict[int, Tensor]
    """watched layer -> (pages, key-value heads, n, n) weights of the first query head of every key-value head"""
    states: dict[int, Tensor]
    """watched layer -> (pages, n, hidden) after it"""


def read(
    model: Any,
    pixels: Tensor,
    ids: Tensor,
    positions: Tensor,
    before: int,
    scored: Tensor,
    watched_layers: Collection[int] = (),
    teach_tower: bool = True,
) -> Read:
    """pixels (pages, h, w, 3) uint8; ids (pages, n); positions (3, pages, n); scored (pages, n) bool: whose logits to give.

    before: tokens ahead of the image; teach_tower: should gradients reach the vision tower?
    """
    pages, height, width, _ = pixels.shape
    with torch.set_grad_enabled(teach_tower and torch.is_grad_enabled()):
        seen = see(model.model.visual, patches_of(pixels), pages, height, width)
    language = model.model.language_model
    visual = seen.merged.view(pages, -1, seen.merged.shape[-1])
    image = slice(before, before + visual.shape[1])
    words = language.embed_tokens(ids)
    hidden = torch.cat([words[:, :before], visual.to(words.dtype), words[:, image.stop :]], dim=1)
    turned = language.rotary_emb(hidden, positions)
    attention: dict[int, Tensor] = {}
    states: dict[int, Tensor] = {}
    with _causal_attention(language):
        for number, layer in enumerate(language.layers):
            weights: list[Tensor] = []
            watch = {"attention_log": weights} if number in watched_layers else {}
            hidden = layer(hidden, position_embeddings=turned, attention_mask=None, **watch)
            if number in watched_layers:
                attention[number], states[number] = weights[0], hidden
            if number < len(seen.deepstack):
                more = seen.deepstack[number].view(pages, -1, hidden.shape[-1]).to(hidden.dtype)
                hidden = torch.cat([hidden[:, :before], hidden[:, image] + more, hidden[:, image.stop :]], dim=1)
    return Read(model.lm_head(language.norm(hidden[scored])), seen, attention, states)


@contextmanager
def _causal_attention(language: Any) -> Iterator[None]:
    stock = language.config._attn_implementation
    language.config._attn_implementation = _CAUSAL
    try:
        yield
    finally:
        language.config._attn_implementation = stock


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    attention_log: list[Tensor] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """query (pages, heads, n, d), key and value (pages, groups, n, d) -> (pages, n, heads, d). Adds to attention_log as in `Read`."""
    pages, heads, length, width = query.shape
    groups = key.shape[1]
    if query.is_cuda and attention_log is None:
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=True)
        return mixed.transpose(1, 2).contiguous(), None
    grouped = (query * scaling).reshape(pages, groups, heads // groups * length, width)
    scores = torch.matmul(grouped, key.transpose(2, 3)).view(pages, groups, heads // groups, length, length)
    ahead = torch.full((length, length), float("-inf"), dtype=scores.dtype, device=scores.device).triu(1)
    weights = (scores + ahead).softmax(-1).to(value.dtype)
    if attention_log is not None:
        attention_log.append(weights[:, :, 0])
    mixed = torch.matmul(weights.view(pages, groups, -1, length), value).view(pages, heads, length, width)
    return mixed.transpose(1, 2).contiguous(), None


AttentionInterface.register(_CAUSAL, _attend)


@torch.no_grad()
def answer_pages(model: Any, tokenizer: Tokenizer, pixels: Tensor, instructions: tuple[str, ...], most_tokens: int = 560) -> list[str]:
    """Greedy answers through the stock `generate`, nothing constrained. pixels: (pages, h, w, 3) uint8, one size."""
    pages, height, width, _ = pixels.shape
    device = pixels.device
    rows = [tokenizer.encode(prompt(instruction, width, height)).ids for instruction in instructions]
    longest = max(len(row) for row in rows)
    pad, image = tokenizer.token_to_id("<|endoftext|>"), tokenizer.token_to_id("<|image_pad|>")
    ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
    with torch.autocast(device.type, torch.bfloat16):
        generated = model.generate(
            input_ids=ids,
            attention_mask=mask,
            mm_token_type_ids=torch.eq(ids, int(image or 0)).to(torch.int32),
            pixel_values=patches_of(pixels),
            image_grid_thw=torch.tensor([[1, height // 16, width // 16]] * pages, device=device),
            do_sample=False,
            max_new_tokens=most_tokens,
        )
    return [tokenizer.decode(row.tolist(), skip_special_tokens=True) for row in generated[:, longest:]]
