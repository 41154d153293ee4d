"""Selective recompute: drop activations in the forward pass, compute them again in the backward pass. Slower, smaller, same numbers.

none     everything that autograd wants is kept
mlp      each layer's MLP is computed again: the widest tensors are gone, for a third to a half of the forward pass's products
layers   each layer is computed again from its input: one forward pass more
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import nn

Recompute = Literal["none", "mlp", "layers"]
LEVELS: tuple[Recompute, ...] = ("none", "mlp", "layers")


def recompute_in_backward(model: PeftModel, level: Recompute) -> None:
    """Set the level of a model's language layers; the vision tower is frozen and keeps nothing. To be called once, before training.

    In a pass without gradients nothing changes. Random numbers (dropout) are drawn again as they were.
    """
    qwen: Any = model.base_model.model
    for layer in qwen.model.language_model.layers:
        if level == "mlp":
            _wrap(layer.mlp)
        elif level == "layers":
            _wrap(layer)


def _wrap(module: nn.Module) -> None:
    # an instance attribute, under the module's own __call__: hooks, peft's wrappers and names of weights stay as they are
    module.forward = partial(_forward_again, module.forward)


def _forward_again(forward: Any, *inputs: Any, **options: Any) -> Any:
    return checkpoint(forward, *inputs, use_reentrant=False, **options)
