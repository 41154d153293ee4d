"""Models and optimizers of which each process holds a part (torch's fully_shard; of models, DeepSpeed's ZeRO at stage 3 too).

Of what is not sharded, all of this is the thing itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

if TYPE_CHECKING:
    from peft import PeftModel


def is_sharded(model: nn.Module) -> bool:
    return isinstance(model, FSDPModule) or comes_together_for_each_pass(model)


def comes_together_for_each_pass(model: nn.Module) -> bool:
    """ZeRO at stage 3: a forward pass is the work of all processes, always."""
    return any(hasattr(parameter, "ds_id") for parameter in model.parameters())


@contextmanager
def whole_adapter(model: PeftModel) -> Iterator[None]:
    """Inside, the trainable weights of a ZeRO model are there to be read. Of fully_shard's, see whole."""
    if not comes_together_for_each_pass(model):
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters([parameter for parameter in model.parameters() if parameter.requires_grad]):
        yield


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor. Of a sharded one every process has to ask, in the same order: each sends its part."""
    return cast(Tensor, tensor.full_tensor()) if isinstance(tensor, DTensor) else tensor


def own_part(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    return cast(Tensor, tensor.to_local()) if isinstance(tensor, DTensor) else tensor


def whole_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimizer's state as one process alone would have it, for a checkpoint that any number of processes can resume from."""
    values = optimizer.state_dict()
    return {
        **values,
        "state": {number: {name: _whole(value) for name, value in state.items()} for number, state in values["state"].items()},
    }


def load_whole_state(optimizer: torch.optim.Optimizer, values: dict[str, Any]) -> None:
    """Take this process's part of what whole_state gave."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = {
        number: {name: _like(value, parameters[number]) for name, value in of_parameter.items()}
        for number, of_parameter in values["state"].items()
    }
    optimizer.state.clear()
    optimizer.load_state_dict({**values, "state": state})


@contextmanager
def gathered(model: PeftModel) -> Iterator[None]:
    """Inside, each process holds the whole model and goes its own way: no forward pass waits for another process. No gradients inside.

    To be entered by all processes, after a first training pass (fully_shard wants its outermost module to come first).
    """
    if not is_sharded(model):
        yield
        return
    qwen: Any = model.base_model.model
    come_and_go = [part for part in (*qwen.model.language_model.layers, qwen.get_input_embeddings()) if isinstance(part, FSDPModule)]
    parts = [part for part in model.modules() if isinstance(part, FSDPModule)]
    for part in come_and_go:  # the others stay whole after a forward pass anyway
        part.set_reshard_after_forward(False, recurse=False)
    for part in parts:
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.reshard()
        for part in come_and_go:
            part.set_reshard_after_forward(True, recurse=False)


def _whole(value: Any) -> Any:
    return whole(value) if isinstance(value, Tensor) else value


def _like(value: Any, parameter: Tensor) -> Any:
    sharded = isinstance(parameter, DTensor) and isinstance(value, Tensor) and value.shape == parameter.shape
    return distribute_tensor(value, parameter.device_mesh, parameter.placements) if sharded else value  # type: ignore[attr-defined]
