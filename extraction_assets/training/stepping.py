"""From the losses of a step's passes to new weights: torch's own way (one process, DDP, FSDP2). DeepSpeed's is training.zero."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from extraction_assets.model.sharding import is_sharded, load_whole_state, whole, whole_state


class Stepper:
    def __init__(self, accelerator: Accelerator, adapter: nn.Module, optimizer: torch.optim.Optimizer, max_norm: float) -> None:
        """max_norm: of the gradient of a step, beyond which it is scaled down."""
        moments = optimizer.state_dict()
        self.model, prepared = accelerator.prepare(adapter, optimizer)
        self.optimizer: torch.optim.Optimizer = prepared
        self.rehearsed = adapter
        """what a pass goes through that no other process has to take part in"""
        self.in_parts = is_sharded(adapter)
        """no process has the whole state by itself: a checkpoint is the work of all of them"""
        if self.in_parts:  # the parameters are others now
            load_whole_state(prepared.optimizer, moments)
        self._accelerator, self._max_norm = accelerator, max_norm

    def passing(self, last: bool) -> AbstractContextManager[Any]:
        """Around the forward and the backward pass of a pack. last: of its step, so that processes exchange gradients."""
        return nullcontext() if last else self._accelerator.no_sync(self.model)

    def backward(self, loss: Tensor) -> None:
        """Add a pack's gradients to those of the step. Averaged over the processes, not summed."""
        self._accelerator.backward(loss)

    def step(self, learning_rate: float) -> float:
        """Move the weights. Returns the gradient's norm before clipping; where that is not finite, no weight has moved."""
        groups = self.optimizer.param_groups
        learning = [parameter for group in groups for parameter in group["params"]]
        norm = float(whole(torch.nn.utils.clip_grad_norm_(learning, self._max_norm)))
        if math.isfinite(norm):
            for group in groups:
                group["lr"] = learning_rate
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return norm

    def rehearse(self, loss: Tensor) -> None:
        """A backward pass to no effect."""
        self._accelerator.backward(loss)
        self.optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Any]:
        """The optimizer's, as one process alone would have it. All processes have to ask where it is in parts."""
        return whole_state(self.optimizer)
