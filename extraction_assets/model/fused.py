"""A training step's small operations in fewer passes over memory: the same numbers up to rounding, by torch's own operations.

On a GPU the products of an 8B take 40 % of a step as transformers and peft spell it. Most of the rest is memory traffic: a norm written as
six operations in 32 bits, an adapter's output scaled in one pass and added in another, each with its counterpart in the backward pass.
Here a norm is torch's one operation, and an adapter is added by the product that makes it. On a CPU, where that one operation is a dozen,
a norm has a forward and a backward pass of its own; and where weights are of 32 bits and products of 16, a layer's input is rounded once, and
not by each of its products.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

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


def _adapted(layer: Any, stock: Forward, states: Tensor, *others: Any, **options: Any) -> Tensor:
    """base(x) + scaling * B(A(x)), the sum inside the last product."""
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
