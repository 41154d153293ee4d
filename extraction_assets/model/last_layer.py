"""The last language layer for the rows that go on to the head only. Of all others it needs keys and values, and nothing else.

A response token is predicted from the token before it, so what the last layer makes of the page's picture and instruction is thrown away:
four fifths of its queries, of its output products and of its MLP at 1,200 visual tokens and an answer of 250. The same numbers up to
rounding, in one layer out of 36 (8B) or 8 (the embedded base).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from extraction_assets.model.adapted import joined
from extraction_assets.model.attention import within_pages
from extraction_assets.model.fused import turned

if TYPE_CHECKING:
    from peft import PeftModel

Forward = Callable[..., Tensor]


def narrow_last_layer(model: PeftModel) -> None:
    """Set for a model that attends within pages, once, before model.recompute wraps its layers.

    From then on a forward pass that is given Pack.tail_inputs computes its last layer for those rows, and leaves zeros in the others.
    """
    qwen: Any = model.base_model.model
    last = qwen.model.language_model.layers[-1]
    # an instance attribute, under the module's own __call__: hooks and names of weights stay as they are
    last.forward = partial(_narrowed, last, last.forward)


def _narrowed(
    layer: Any,
    stock: Forward,
    states: Tensor,
    *others: Any,
    position_embeddings: tuple[Tensor, Tensor],
    tails: Sequence[int] | None = None,
    tail_at: Tensor | None = None,
    tail_starts: Tensor | None = None,
    page_lengths: Sequence[int] | None = None,
    page_starts: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """Qwen3VLTextDecoderLayer.forward on states (1, tokens, hidden). tails, tail_at, tail_starts: model.packing.Pack."""
    if tails is None or tail_at is None:
        pages = {"page_lengths": page_lengths, "page_starts": page_starts}
        return stock(states, *others, position_embeddings=position_embeddings, **pages, **options)
    attention = layer.self_attn

    def heads(product: Tensor) -> Tensor:
        return product.unflatten(-1, (-1, attention.head_dim))

    normed = layer.input_layernorm(states)
    cos, sin = position_embeddings
    query = turned(attention.q_norm(heads(attention.q_proj(normed[:, tail_at]))), cos[:, tail_at], sin[:, tail_at])
    key_product, value_product = joined((attention.k_proj, attention.v_proj), normed) or (
        attention.k_proj(normed),
        attention.v_proj(normed),
    )
    key, value = turned(attention.k_norm(heads(key_product)), cos, sin), heads(value_product)
    dropout = attention.attention_dropout if layer.training else 0.0
    query, key, value = (rows.transpose(1, 2) for rows in (query, key, value))
    mixed, _ = within_pages(attention, query, key, value, None, attention.scaling, dropout, page_lengths, page_starts, tails, tail_starts)
    rows = states[:, tail_at] + attention.o_proj(mixed.flatten(2))
    rows = rows + layer.mlp(layer.post_attention_layernorm(rows))
    return rows.new_zeros(states.shape).index_copy(1, tail_at, rows)
