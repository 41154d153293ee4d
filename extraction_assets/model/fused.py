"""A training step's small operations in fewer passes over memory: the same numbers up to rounding, no kernel of our own.

On a GPU the products of an 8B take 40 % of a step as transformers and peft spell it. Most of the rest is memory traffic: a norm written as
six operations in 32 bits, an adapter's output scaled in one pass and added in another, each with its counterpart in the backward pass.
Here a norm is torch's one operation, and an adapter is added by the product that makes it.
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
    for module in qwen.model.language_model.modules():
        # an instance attribute, under the module's own __call__: hooks and names of weights stay as they are
        if isinstance(module, Qwen3VLTextRMSNorm):
            module.forward = partial(_norm, module, module.forward)  # type: ignore[method-assign]
        elif isinstance(module, LoraLayer) and not module.lora_variant:
            module.forward = partial(_adapted, module, module.forward)  # type: ignore[attr-defined]


def _norm(norm: Any, stock: Forward, states: Tensor) -> Tensor:
    if states.dtype != norm.weight.dtype:
        return stock(states)
    with torch.autocast(states.device.type, enabled=False):  # it would compute in 32 bits, and leave them so; the kernel does inside
        return functional.rms_norm(states, norm.weight.shape, norm.weight, norm.variance_epsilon)


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
