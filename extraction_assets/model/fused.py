"""A training step's small operations in fewer passes over memory: the same numbers up to rounding, by torch's own operations.

On a GPU the products of an 8B take 40 % of a step as transformers and peft spell it. Most of the rest is memory traffic: a norm written as
six operations in 32 bits, an adapter's output scaled in one pass and added in another, each with its counterpart in the backward pass.
Here a norm is torch's one operation, and the linears of one input are one operation with their adapters (model.adapted). On a CPU, where that
one operation is a dozen, a norm has a forward and a backward pass of its own; and where weights are of 32 bits and products of 16, a layer's
input is rounded once, and not by each of its products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from extraction_assets.model.adapted import joined
from extraction_assets.model.attention import within_pages

if TYPE_CHECKING:
    from peft import PeftModel

Forward = Callable[..., Tensor]


def fuse(model: PeftModel) -> None:
    """Set for a model's language layers, once, before training.recompute wraps them. What is no plain LoRA (DoRA) stays as it is."""
    from peft.tuners.lora import LoraLayer
    from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextRMSNorm

    qwen: Any = model.base_model.model
    language = qwen.model.language_model
    before_products = {norm for layer in language.layers for norm in (layer.input_layernorm, layer.post_attention_layernorm)}
    for module in language.modules():
        # an instance attribute, under the module's own __call__: hooks and names of weights stay as they are
        if isinstance(module, Qwen3VLTextRMSNorm):
            module.forward = partial(_norm, module, module in before_products)
        elif isinstance(module, LoraLayer) and not module.lora_variant:
            module.forward = partial(_adapted, module, module.forward)
    language._deepstack_process = _add_deepstack
    for layer in language.layers:
        layer.self_attn.forward = partial(_attention, layer.self_attn, layer.self_attn.forward)
        layer.mlp.forward = partial(_mlp, layer.mlp, layer.mlp.forward)


def _add_deepstack(states: Tensor, visual: Tensor, features: Tensor) -> Tensor:
    """Qwen3VLTextModel._deepstack_process, without waiting for a GPU to count what is visual. states (1, tokens, hidden), visual (1, tokens)
    bool, features (visual tokens, hidden)."""
    return states + torch.zeros_like(states).masked_scatter(visual.unsqueeze(-1), features.to(states.dtype))


def _norm(norm: Any, before_products: bool, states: Tensor) -> Tensor:
    """before_products: only products read what it returns, and under autocast they read it in 16 bits."""
    device, wide = states.device.type, torch.promote_types(states.dtype, norm.weight.dtype)
    half = before_products and torch.is_autocast_enabled(device)
    with torch.autocast(device, enabled=False):  # it would compute in 32 bits, and leave them so; the kernel does inside
        weight: Tensor = norm.weight.to(wide)
        if device == "cpu" and not weight.requires_grad:
            normed: Tensor = _FrozenRmsNorm.apply(states.to(wide), weight, norm.variance_epsilon)
        else:
            normed = functional.rms_norm(states.to(wide), weight.shape, weight, norm.variance_epsilon)
    return normed.to(torch.get_autocast_dtype(device)) if half else normed


class _FrozenRmsNorm(torch.autograd.Function):
    """x / sqrt(mean(x^2) + epsilon) * weight over the last dimension. The weight gets no gradient."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        squares = torch.linalg.vector_norm(states, dim=-1, keepdim=True).square_()
        scale = squares.div_(states.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(states, weight, scale)
        return (states * scale).mul_(weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        states, weight, scale = ctx.saved_tensors
        weighted = gradient * weight
        along = torch.linalg.vecdot(weighted, states).unsqueeze(-1)
        turned = torch.addcmul(weighted, states, along * scale.square() / states.shape[-1], value=-1)
        return turned.mul_(scale), None, None


def _attention(
    attention: Any,
    stock: Callable[..., Any],
    hidden_states: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    attention_mask: Tensor | None = None,
    past_key_values: Any = None,
    page_lengths: Sequence[int] | None = None,
    page_starts: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Qwen3VLTextAttention.forward on (1, tokens, hidden) within pages; anything else is left to the stock one."""
    packed = page_lengths is not None and past_key_values is None
    products = joined((attention.q_proj, attention.k_proj, attention.v_proj), hidden_states) if packed else None
    if products is None:
        given = {
            "attention_mask": attention_mask,
            "past_key_values": past_key_values,
            "page_lengths": page_lengths,
            "page_starts": page_starts,
        }
        left: tuple[Tensor, None] = stock(hidden_states, position_embeddings=position_embeddings, **given, **options)
        return left
    query, key, value = (product.unflatten(-1, (-1, attention.head_dim)) for product in products)
    query, key = (
        turned(norm(heads), *position_embeddings).transpose(1, 2) for norm, heads in ((attention.q_norm, query), (attention.k_norm, key))
    )
    dropout = attention.attention_dropout if attention.training else 0.0
    mixed, _ = within_pages(
        attention, query, key, value.transpose(1, 2), attention_mask, attention.scaling, dropout, page_lengths, page_starts
    )
    return attention.o_proj(mixed.flatten(2)), None


def turned(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Heads (1, tokens, heads, d) turned by their positions; cos, sin: (1, tokens, d). transformers' apply_rotary_pos_emb, of one."""
    rotated: Tensor = _Turned.apply(heads, cos.unsqueeze(2), sin.unsqueeze(2))
    return rotated


class _Turned(torch.autograd.Function):
    """x * cos + (-x2, x1) * sin, for x = (x1, x2). cos and sin get no gradient."""

    @staticmethod
    def forward(ctx: Any, heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        (first, second), (sin_first, sin_second) = heads.chunk(2, dim=-1), sin.chunk(2, dim=-1)
        turned = heads * cos
        turned_first, turned_second = turned.chunk(2, dim=-1)
        turned_first.addcmul_(second, sin_first, value=-1)
        turned_second.addcmul_(first, sin_second)
        return turned

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        (first, second), (sin_first, sin_second) = gradient.chunk(2, dim=-1), sin.chunk(2, dim=-1)
        back = gradient * cos
        back_first, back_second = back.chunk(2, dim=-1)
        back_first.addcmul_(second, sin_second)
        back_second.addcmul_(first, sin_first, value=-1)
        return back, None, None


def _mlp(mlp: Any, stock: Forward, states: Tensor) -> Tensor:
    """Qwen3VLTextMLP.forward"""
    products = joined((mlp.gate_proj, mlp.up_proj), states)
    if products is None:
        return stock(states)
    gate, up = products
    lowered: Tensor = mlp.down_proj(mlp.act_fn(gate) * up)
    return lowered


def _adapted(layer: Any, stock: Forward, states: Tensor, *others: Any, **options: Any) -> Tensor:
    """base(x) + scaling * B(A(x)), the sum inside the last product. By itself where it is no plain adapter of a plain linear (model.adapted)."""
    if not others and not options and (alone := joined((layer,), states)) is not None:
        return alone[0]
    active = layer.active_adapters
    mixed = not torch.is_autocast_enabled(states.device.type) and any(states.dtype != layer.lora_A[name].weight.dtype for name in active)
    if others or options or layer.disable_adapters or layer.merged or len(active) != 1 or mixed:
        return stock(states, *others, **options)
    (name,) = active
    result = layer.base_layer(states)
    narrow = layer.lora_A[name](layer.lora_dropout[name](states)).flatten(0, -2)
    into = result.flatten(0, -2)
    # a 4-bit product's own output must not be written to
    add = into.addmm_ if type(layer.base_layer) is nn.Linear and into.dtype == narrow.dtype else partial(torch.addmm, into)
    return add(narrow, layer.lora_B[name].weight.to(narrow.dtype).t(), alpha=layer.scaling[name]).view_as(result)
