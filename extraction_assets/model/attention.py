"""Causal attention within the pages of a packed row: no page sees another, and no mask over the whole row is made.

Stock sdpa keeps packed pages apart too (it finds the restarts in the text row of position_ids), with a mask of tokens x tokens that
rules out its fast kernels and grows with the square of the pack. Here a row costs what its pages cost one by one.

Which kernel runs, best first: flash-attn's varlen, torch's own varlen (both CUDA, 16 bit), stock sdpa page by page (everywhere).
Models are loaded with stock sdpa; only a training run asks for this one (attend_within_pages).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from importlib.util import find_spec
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WITHIN_PAGES = "within_pages"
"""name in transformers' AttentionInterface"""
Varlen = Callable[[Tensor, Tensor, Tensor, Tensor, int, float | None], Tensor]
"""(q, k, v, page_starts, longest page, scale) -> (tokens, heads, d). q: (tokens, heads, d); k, v: (tokens, key/value heads, d)"""
_AMPERE = (8, 0)
_WIDEST_HEAD = 256


def attend_within_pages(model: PreTrainedModel) -> None:
    """Let the language model of a Qwen3-VL attend within pages. The vision tower stays: stock code runs it image by image.

    From then on its forward pass needs page_lengths and page_starts (model.packing.Pack gives them).
    """
    from transformers import AttentionInterface

    # under a name without a mask function of its own, transformers makes no mask at all
    AttentionInterface.register(WITHIN_PAGES, within_pages)
    model.set_attn_implementation({"text_config": WITHIN_PAGES})


@contextmanager
def stock_attention(model: PreTrainedModel) -> Iterator[None]:
    """Inside, a model that attends within pages attends as it was loaded: with a key/value cache, it can answer."""
    model.set_attn_implementation({"text_config": "sdpa"})
    try:
        yield
    finally:
        attend_within_pages(model)


def within_pages(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    page_lengths: Sequence[int] | None = None,
    page_starts: Tensor | None = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """Attention function for transformers. query: (1, heads, tokens, d); key, value: (1, key/value heads, tokens, d).

    page_lengths: tokens of each page, in order. page_starts: (pages + 1,) int32, their running sum from 0.
    Returns (1, tokens, heads, d). Raises ValueError where pages would silently see each other: no page_lengths, page_lengths that do
    not fill the row, several rows, or a mask (it could only say something else).
    """
    rows, _, tokens, width = query.shape
    if page_lengths is None or page_starts is None:
        raise ValueError("attention within pages needs page_lengths and page_starts")
    if attention_mask is not None:
        raise ValueError("attention within pages takes no attention_mask: pages are causal and unpadded")
    if rows != 1 or sum(page_lengths) != tokens or key.shape[2] != tokens:
        found = f"{rows} rows of {tokens} queries and {key.shape[2]} keys"
        raise ValueError(f"attention within pages: {found} for pages of {list(page_lengths)} tokens in one row")
    varlen = _varlen(query.device, query.dtype, width) if dropout == 0 else None
    if varlen is not None:
        q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
        return varlen(q, k, v, page_starts, max(page_lengths), scaling)[None], None
    return _page_by_page(module, query, key, value, page_lengths, scaling, dropout), None


def _page_by_page(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    page_lengths: Sequence[int],
    scaling: float | None,
    dropout: float,
) -> Tensor:
    """Stock sdpa on each page: the very kernel that a page alone would run.

    On a CPU in 32 bits, also where the products around it are of 16: torch's CPU kernel takes twice as long for a backward pass in 16.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    inputs, device = (query, key, value), query.device.type
    wide = device == "cpu" and any(tensor.dtype != torch.float32 for tensor in inputs)
    if wide:
        inputs = (query.float(), key.float(), value.float())
    queries, keys, values = (tensor.split(list(page_lengths), dim=2) for tensor in inputs)
    with torch.autocast(device, enabled=False) if wide else nullcontext():
        pages = [
            sdpa_attention_forward(module, q, k, v, attention_mask=None, dropout=dropout, scaling=scaling)[0]
            for q, k, v in zip(queries, keys, values, strict=True)
        ]
    return torch.cat(pages, dim=1).to(value.dtype)


@cache
def _varlen(device: torch.device, dtype: torch.dtype, width: int) -> Varlen | None:
    """The best kernel for rows of unequal pages on this device, or None. width: of a head."""
    fits = dtype in (torch.float16, torch.bfloat16) and width <= _WIDEST_HEAD and width % 8 == 0
    if device.type != "cuda" or not fits or torch.cuda.get_device_capability(device) < _AMPERE:
        return None
    if find_spec("flash_attn") is not None:
        return _flash_attn
    return _torch_varlen if find_spec("torch.nn.attention.varlen") is not None else None


def _flash_attn(query: Tensor, key: Tensor, value: Tensor, starts: Tensor, longest: int, scale: float | None) -> Tensor:
    from flash_attn import flash_attn_varlen_func

    out: Tensor = flash_attn_varlen_func(query, key, value, starts, starts, longest, longest, softmax_scale=scale, causal=True)
    return out


def _torch_varlen(query: Tensor, key: Tensor, value: Tensor, starts: Tensor, longest: int, scale: float | None) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    # before torch 2.12 it knew no enable_gqa, and its kernel took grouped heads as they came
    grouped: dict[str, Any] = {"enable_gqa": True} if "enable_gqa" in signature(varlen_attn).parameters else {}
    # a window of (-1, 0) is how it is told to be causal
    out: Any = varlen_attn(query, key, value, starts, starts, longest, longest, scale=scale, window_size=(-1, 0), **grouped)
    return out
