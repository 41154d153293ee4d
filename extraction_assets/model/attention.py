"""Causal attention within the pages of a packed row: no page sees another, and no mask over the whole row is made.

Stock sdpa keeps packed pages apart too (it finds the restarts in the text row of position_ids), with a mask of tokens x tokens that
rules out its fast kernels and grows with the square of the pack. Here a row costs what its pages cost one by one.

Which kernel runs, best first: flash-attn's varlen, torch's own varlen (both CUDA, 16 bit), products of blocks (CPU, 16 bit), stock sdpa page
by page (everywhere).
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

WITHIN_PAGES, OF_A_PAGE = "within_pages", "of_a_page"
"""names in transformers' AttentionInterface: of the language model's, of the vision tower's"""
Spans = tuple[Tensor, int]
"""(pages + 1,) int32: where each page's rows start and the last one's end; and the rows of the longest"""
Varlen = Callable[[Tensor, Tensor, Tensor, Spans, Spans, float | None], Tensor]
"""(q, k, v, q's spans, k's spans, scale) -> (queries, heads, d). q: (queries, heads, d); k, v: (tokens, key/value heads, d)"""
_AMPERE = (8, 0)
_WIDEST_HEAD = 256
_BLOCK = 1_500_000
"""weights of a block, 3 MB: what two cores keep near"""
_BLOCKED_UP_TO = 1024
"""tokens of a page whose weights are kept for the backward pass: they grow with its square"""


def attend_within_pages(model: PreTrainedModel) -> None:
    """Let the language model of a Qwen3-VL attend within pages. The vision tower does anyway: stock code runs it image by image.

    From then on its forward pass needs page_lengths and page_starts (model.packing.Pack gives them).
    """
    from transformers import AttentionInterface

    # under a name without a mask function of its own, transformers makes no mask at all
    AttentionInterface.register(WITHIN_PAGES, within_pages)
    AttentionInterface.register(OF_A_PAGE, of_a_page)
    model.set_attn_implementation({"text_config": WITHIN_PAGES, "vision_config": OF_A_PAGE})


@contextmanager
def stock_attention(model: PreTrainedModel) -> Iterator[None]:
    """Inside, the language model of one that attends within pages attends as it was loaded: with a key/value cache, it can answer.

    The tower's attention stays: another thread may be seeing the pages of coming steps meanwhile (VisualMemory.see_ahead), and with
    stock sdpa in 16 bits these would have other bits, in some runs and not in others.
    """
    model.set_attn_implementation({"text_config": "sdpa"})
    try:
        yield
    finally:
        model.set_attn_implementation({"text_config": WITHIN_PAGES})


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


def of_a_page(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention function for transformers, of the frozen vision tower: stock sdpa, but on a CPU with 16-bit products. Shapes as in within_pages."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if attention_mask is None and not options.get("dropout") and query.device.type == "cpu" and value.dtype != torch.float32:
        scale = query.shape[3] ** -0.5 if scaling is None else scaling
        return _in_blocks(query, key, value, scale, causal=False), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)


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
    """Stock sdpa on each page: the very kernel that a page alone would run. On a CPU with 16-bit products see _in_blocks, or 32 bits."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    inputs, device = (query, key, value), query.device.type
    half = device == "cpu" and any(tensor.dtype != torch.float32 for tensor in inputs)
    scale = query.shape[3] ** -0.5 if scaling is None else scaling

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if half and dropout == 0 and k.shape[2] <= _BLOCKED_UP_TO:
            return _in_blocks(q, k, v, scale)
        if half:
            q, k, v = q.float(), k.float(), v.float()
        return sdpa_attention_forward(module, q, k, v, attention_mask=_before_the_last(q, k), dropout=dropout, scaling=scale)[0]

    spans = (list(queries), list(page_lengths), list(page_lengths))
    with torch.autocast(device, enabled=False) if half else nullcontext():
        pages = [
            attend(*page) for page in zip(*(tensor.split(span, dim=2) for tensor, span in zip(inputs, spans, strict=True)), strict=True)
        ]
    return torch.cat([page.to(value.dtype) for page in pages], dim=1)


def _in_blocks(query: Tensor, key: Tensor, value: Tensor, scale: float, causal: bool = True) -> Tensor:
    """Attention as products of some rows each, for a CPU. (1, heads, queries, d) -> (1, queries, heads, d) in the values' dtype.

    torch's own kernel (2.13) takes as long in 16 bits as in 32, and longer for a backward pass: half as long again as this (EPYC with AVX512_BF16).
    """
    groups = query.shape[1] // key.shape[1]
    q, k, v = (
        tensor[0].to(value.dtype) for tensor in (query * scale, key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1))
    )
    (heads, asked, _), tokens = q.shape, k.shape[1]
    at_once = max(1, _BLOCK // (heads * tokens))
    rows = []
    for start in range(0, asked, at_once):
        block = q[:, start : start + at_once]
        if not causal:
            rows.append(torch.bmm(torch.bmm(block, k.transpose(1, 2)).softmax(-1), v))
            continue
        seen = tokens - asked + start + block.shape[1]
        later = block.new_full((block.shape[1], seen), float("-inf")).triu(tokens - asked + start + 1)
        weights = torch.baddbmm(later, block, k[:, :seen].transpose(1, 2)).softmax(-1)
        rows.append(torch.bmm(weights, v[:, :seen]))
    return torch.cat(rows, dim=1).transpose(0, 1)[None]


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
