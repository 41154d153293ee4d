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
Spans = tuple[Tensor, int]
"""(pages + 1,) int32: where each page's rows start and the last one's end; and the rows of the longest"""
Varlen = Callable[[Tensor, Tensor, Tensor, Spans, Spans, float | None], Tensor]
"""(q, k, v, q's spans, k's spans, scale) -> (queries, heads, d). q: (queries, heads, d); k, v: (tokens, key/value heads, d)"""
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
    queries: Sequence[int] | None = None,
    query_starts: Tensor | None = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """Attention function for transformers. query: (1, heads, tokens, d); key, value: (1, key/value heads, tokens, d).

    page_lengths: tokens of each page, in order. page_starts: (pages + 1,) int32, their running sum from 0. queries, query_starts: the
    same of the queries, where they are those of each page's last tokens only (model.last_layer).
    Returns (1, queries, heads, d). Raises ValueError where pages would silently see each other: no page_lengths, page_lengths that do
    not fill the row, several rows, or a mask (it could only say something else).
    """
    if queries is None or query_starts is None:
        queries, query_starts = page_lengths, page_starts
    if page_lengths is None or page_starts is None or queries is None or query_starts is None:
        raise ValueError("attention within pages needs page_lengths and page_starts")
    if attention_mask is not None:
        raise ValueError("attention within pages takes no attention_mask: pages are causal and unpadded")
    spans = list(zip(queries, page_lengths, strict=True))
    if len(query) != 1 or (query.shape[2], key.shape[2]) != (sum(queries), sum(page_lengths)) or any(q > n for q, n in spans):
        found = f"{len(query)} rows of {query.shape[2]} queries and {key.shape[2]} keys"
        asking = "" if queries is page_lengths else f", of which the last {list(queries)} ask"
        raise ValueError(f"attention within pages: {found} for pages of {list(page_lengths)} tokens in one row{asking}")
    varlen = _varlen(query.device, query.dtype, query.shape[3]) if dropout == 0 else None
    if varlen is not None:
        q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
        return varlen(q, k, v, (query_starts, max(queries)), (page_starts, max(page_lengths)), scaling)[None], None
    return _page_by_page(module, query, key, value, queries, page_lengths, scaling, dropout), None


def _page_by_page(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    queries: Sequence[int],
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
    spans = (list(queries), list(page_lengths), list(page_lengths))
    with torch.autocast(device, enabled=False) if wide else nullcontext():
        pages = [
            sdpa_attention_forward(module, q, k, v, attention_mask=_before_the_last(q, k), dropout=dropout, scaling=scaling)[0]
            for q, k, v in zip(*(tensor.split(span, dim=2) for tensor, span in zip(inputs, spans, strict=True)), strict=True)
        ]
    return torch.cat(pages, dim=1).to(value.dtype)


def _before_the_last(query: Tensor, key: Tensor) -> Tensor | None:
    """What the last tokens of a page may see of it, (queries, tokens) in the queries' dtype. None where all its tokens ask: sdpa is causal then."""
    asked, tokens = query.shape[2], key.shape[2]
    if asked == tokens:
        return None
    return query.new_full((asked, tokens), float("-inf")).triu(tokens - asked + 1)


@cache
def _varlen(device: torch.device, dtype: torch.dtype, width: int) -> Varlen | None:
    """The best kernel for rows of unequal pages on this device, or None. width: of a head."""
    fits = dtype in (torch.float16, torch.bfloat16) and width <= _WIDEST_HEAD and width % 8 == 0
    if device.type != "cuda" or not fits or torch.cuda.get_device_capability(device) < _AMPERE:
        return None
    kernels = (("flash_attn", _flash_attn), ("torch.nn.attention.varlen", _torch_varlen))
    return next((kernel for name, kernel in kernels if find_spec(name) is not None and _ends_with_its_page(kernel, device, dtype)), None)


def _ends_with_its_page(kernel: Varlen, device: torch.device, dtype: torch.dtype) -> bool:
    """Does its last query see all of the page's tokens, where it has fewer queries? flash-attn before 2.1 let its first see the first.

    Asked, because the answer differs without a word: one query of zeros weighs what it sees evenly, here a 0 and a 1.
    """
    query, key = torch.zeros(1, 1, 32, device=device, dtype=dtype), torch.zeros(2, 1, 32, device=device, dtype=dtype)
    value = torch.arange(2, device=device, dtype=dtype)[:, None, None].expand(2, 1, 32).contiguous()
    one, two = (torch.tensor([0, rows], dtype=torch.int32, device=device) for rows in (1, 2))
    return float(kernel(query, key, value, (one, 1), (two, 2), None).mean()) == 0.5


def _flash_attn(query: Tensor, key: Tensor, value: Tensor, queries: Spans, pages: Spans, scale: float | None) -> Tensor:
    from flash_attn import flash_attn_varlen_func

    (own_starts, own_longest), (starts, longest) = queries, pages
    out: Tensor = flash_attn_varlen_func(query, key, value, own_starts, starts, own_longest, longest, softmax_scale=scale, causal=True)
    return out


def _torch_varlen(query: Tensor, key: Tensor, value: Tensor, queries: Spans, pages: Spans, scale: float | None) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    # before torch 2.12 it knew no enable_gqa, and its kernel took grouped heads as they came
    grouped: dict[str, Any] = {"enable_gqa": True} if "enable_gqa" in signature(varlen_attn).parameters else {}
    # a window of (-1, 0) is how it is told to be causal
    (own_starts, own_longest), (starts, longest) = queries, pages
    out: Any = varlen_attn(query, key, value, own_starts, starts, own_longest, longest, scale=scale, window_size=(-1, 0), **grouped)
    return out
