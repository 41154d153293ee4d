"""Linears of one input with their LoRA adapters, as one operation: y = x W' + s (x A') B' of each (a ' is a transpose).

Left to autograd one by one, the queries', keys' and values' adapters each read the input, and its gradient is summed from six tensors in five
more passes. Here the adapters' first products are one, and each product adds itself to the input's gradient as it is made.
The same numbers up to rounding. A weight in 4 bits is spelled out for each of its products, as bitsandbytes does for as many rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from extraction_assets.model.lora import is_four_bit

if TYPE_CHECKING:
    from bitsandbytes.functional import QuantState
    from peft.tuners.lora import LoraLayer


def joined(layers: Sequence[LoraLayer], states: Tensor) -> tuple[Tensor, ...] | None:
    """The layers' outputs for one input (..., inputs); None where their own forward passes have to do it, one by one.

    That is where a layer is no plain LoRA on a linear without bias (DoRA, dropout, several adapters or none), or where numbers of several
    widths meet outside of autocast.
    """
    names = [_adapter_of(layer) for layer in layers]
    if any(name is None for name in names):
        return None
    pairs = [(layer, name) for layer, name in zip(layers, names, strict=True) if name is not None]
    frozen = [layer.base_layer.weight for layer, _ in pairs]
    codes = [_code_of(layer.base_layer) for layer, _ in pairs]
    firsts = [layer.lora_A[name].weight for layer, name in pairs]
    seconds = [layer.lora_B[name].weight for layer, name in pairs]
    device = states.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else states.dtype
    widths = [
        *(code.dtype if code else weight.dtype for code, weight in zip(codes, frozen, strict=True)),
        *(w.dtype for w in (*firsts, *seconds)),
    ]
    if not torch.is_autocast_enabled(device) and any(width != dtype for width in widths):
        return None
    scales = [layer.scaling[name] for layer, name in pairs]
    outputs: tuple[Tensor, ...] = _Adapted.apply(states.to(dtype), scales, codes, *frozen, *firsts, *seconds)
    return outputs


def _adapter_of(layer: Any) -> str | None:
    """The one that is active, where it is all that there is to say of the layer."""
    base: Any = getattr(layer, "base_layer", None)
    if type(base) is not nn.Linear and not _can_be_spelled_out(base):
        return None
    if base.bias is not None or layer.lora_variant or layer.disable_adapters or layer.merged:
        return None
    if len(layer.active_adapters) != 1 or (name := layer.active_adapters[0]) not in layer.lora_A or layer.lora_bias.get(name):
        return None
    dropout = layer.lora_dropout[name]
    return None if isinstance(dropout, nn.Dropout) and dropout.p > 0 and dropout.training else str(name)


def _can_be_spelled_out(base: Any) -> bool:
    """A weight in 4 bits, in the order in which it was quantized: model.base.load_base."""
    return (
        is_four_bit(base) and base.weight.quant_state is not None and not getattr(base.weight.quant_state, "packing_format_for_cpu", False)
    )


def _code_of(base: Any) -> QuantState | None:
    """How a weight is to be read that is in 4 bits."""
    return base.weight.quant_state if is_four_bit(base) else None


class _Adapted(torch.autograd.Function):
    """apply(states, scales, codes, *frozen, *firsts, *seconds) -> outputs. states (..., inputs) in the products' dtype; of each output its frozen
    weight (outputs, inputs), or its 4-bit code and packed weight, which get no gradient, and its adapter's weights (r, inputs) and (outputs, r),
    in any dtype."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, scales: list[float], codes: list[QuantState | None], *weights: Tensor) -> tuple[Tensor, ...]:
        count = len(scales)
        rows, dtype = states.flatten(0, -2), states.dtype
        frozen, firsts, seconds = weights[:count], weights[count : 2 * count], weights[2 * count :]
        outputs = []
        with torch.autocast(states.device.type, enabled=False):
            narrow = rows @ _stacked(firsts, dtype).t()
            parts = narrow.split([len(first) for first in firsts], dim=1)
            for scale, code, weight, second, part in zip(scales, codes, frozen, seconds, parts, strict=True):
                product = rows @ _wide(weight, code, dtype).t()
                outputs.append(product.addmm_(part, second.to(dtype).t(), alpha=scale).unflatten(0, states.shape[:-1]))
        ctx.scales, ctx.codes = scales, codes
        ctx.save_for_backward(states, narrow, *weights)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (states, narrow, *weights), scales, codes = ctx.saved_tensors, ctx.scales, ctx.codes
        count = len(scales)
        rows, dtype = states.flatten(0, -2), states.dtype
        frozen, firsts, seconds = weights[:count], weights[count : 2 * count], weights[2 * count :]
        ranks = [len(first) for first in firsts]
        of_rows: Tensor | None = None
        of_narrow = torch.empty_like(narrow)
        of_seconds = []
        with torch.autocast(states.device.type, enabled=False):
            for scale, code, weight, second, gradient, part, of_part in zip(
                scales, codes, frozen, seconds, gradients, narrow.split(ranks, dim=1), of_narrow.split(ranks, dim=1), strict=True
            ):
                gradient = gradient.flatten(0, -2)
                torch.mm(gradient, second.to(dtype), out=of_part).mul_(scale)
                of_seconds.append((gradient.t() @ part).mul_(scale).to(second.dtype))
                if ctx.needs_input_grad[0]:
                    wide = _wide(weight, code, dtype)
                    of_rows = gradient @ wide if of_rows is None else of_rows.addmm_(gradient, wide)
            if of_rows is not None:
                of_rows = of_rows.addmm_(of_narrow, _stacked(firsts, dtype)).view_as(states)
            of_firsts = [part.to(first.dtype) for part, first in zip((of_narrow.t() @ rows).split(ranks), firsts, strict=True)]
        return of_rows, None, None, *(None for _ in frozen), *of_firsts, *of_seconds


def _wide(weight: Tensor, code: QuantState | None, dtype: torch.dtype) -> Tensor:
    """(outputs, inputs)"""
    if code is not None:
        from bitsandbytes.functional import dequantize_4bit

        weight = dequantize_4bit(weight, code)
    return weight.to(dtype)


def _stacked(firsts: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """(r of all adapters, inputs)"""
    return torch.cat(tuple(firsts)).to(dtype) if len(firsts) > 1 else firsts[0].to(dtype)
