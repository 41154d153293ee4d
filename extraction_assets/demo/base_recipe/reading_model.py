"""Qwen3-VL on a batch of pages of one size: teacher-forced logits of the answers (`read`), and free answers (`answer_pages`).

`read` computes what the stock forward computes (a test compares them), with the image at the same place in every row and the
causal attention spelled out: on a CPU the fused kernel's backward pass is slower than that at these lengths.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from transformers.models.qwen3_vl.modeling_qwen3_vl import apply_rotary_pos_emb

from extraction_assets.demo.base_recipe.reading_batches import prompt
from extraction_assets.demo.base_recipe.vision import Seen, patches_of, see
from extraction_assets.model.precision import products


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
    compiled: bool = False,
) -> Read:
    """pixels (pages, h, w, 3) uint8; ids (pages, n); positions (3, pages, n); scored: indices into the
    (pages * n) tokens whose logits to give.

    before: tokens ahead of the image; teach_tower: should gradients reach the vision tower? compiled: see _fused.
    """
    pages, height, width, _ = pixels.shape
    with torch.set_grad_enabled(teach_tower and torch.is_grad_enabled()):
        seen = see(model.model.visual, patches_of(pixels), pages, height, width)
    language = model.model.language_model
    visual = seen.merged.view(pages, -1, seen.merged.shape[-1])
    image = slice(before, before + visual.shape[1])
    words = language.embed_tokens(ids)
    hidden = torch.cat([words[:, :before], visual.to(words.dtype), words[:, image.stop :]], dim=1)
    cos, sin = language.rotary_emb(hidden, positions)
    run = _fused(compiled)
    attention: dict[int, Tensor] = {}
    states: dict[int, Tensor] = {}
    for number, layer in enumerate(language.layers):
        if hidden.device.type == "cpu" or number in watched_layers:
            hidden, weights = run(layer, hidden, cos, sin)
        else:
            hidden, weights = _layer(layer, hidden, cos, sin, spelled=False)
        if number in watched_layers:
            attention[number], states[number] = weights[:, :, 0], hidden
        if number < len(seen.deepstack):
            more = seen.deepstack[number].view(pages, -1, hidden.shape[-1]).to(hidden.dtype)
            hidden = torch.cat([hidden[:, :before], hidden[:, image] + more, hidden[:, image.stop :]], dim=1)
    return Read(model.lm_head(language.norm(hidden.flatten(0, 1)[scored])), seen, attention, states)


def _layer(layer: Any, hidden: Tensor, cos: Tensor, sin: Tensor, spelled: bool = True) -> tuple[Tensor, Tensor]:
    """One language layer: hidden (pages, n, hidden) after it, and its attention weights, (pages, key-value heads, queries of each, n, n).

    spelled: False leaves attention to the fused kernel, and gives no weights.
    """
    attention = layer.self_attn
    pages, length, _ = hidden.shape
    normed = layer.input_layernorm(hidden)
    heads = (pages, length, -1, attention.head_dim)
    query = attention.q_norm(attention.q_proj(normed).view(heads)).transpose(1, 2)
    key = attention.k_norm(attention.k_proj(normed).view(heads)).transpose(1, 2)
    value = attention.v_proj(normed).view(heads).transpose(1, 2)
    query, key = apply_rotary_pos_emb(query, key, cos, sin)
    if not spelled:
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=attention.scaling, enable_gqa=True)
        hidden = hidden + attention.o_proj(mixed.transpose(1, 2).reshape(pages, length, -1))
        return hidden + layer.mlp(layer.post_attention_layernorm(hidden)), hidden.new_empty(0)
    groups = key.shape[1]
    grouped = (query * attention.scaling).reshape(pages, groups, -1, attention.head_dim)
    scores = torch.matmul(grouped, key.transpose(2, 3)).view(pages, groups, -1, length, length)
    place = torch.arange(length, device=hidden.device)
    weights = scores.masked_fill(place[None, :] > place[:, None], float("-inf")).softmax(-1).to(value.dtype)
    mixed = torch.matmul(weights.view(pages, groups, -1, length), value).view(pages, -1, length, attention.head_dim)
    hidden = hidden + attention.o_proj(mixed.transpose(1, 2).reshape(pages, length, -1))
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden)), weights


@functools.cache
def _fused(wanted: bool) -> Callable[..., tuple[Tensor, Tensor]]:
    """`_layer`, compiled where that is wanted and a C++ compiler is at hand: 1.3 times as fast on two cores, after a minute."""
    return torch.compile(_layer, dynamic=True) if wanted and shutil.which("g++") else _layer


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
    with products("auto", device.type):
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
