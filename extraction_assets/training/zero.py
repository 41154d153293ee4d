"""DeepSpeed's ZeRO, stages 2 and 3: gradients and the optimizer's state in parts, at stage 3 the weights too.

The run stays what it is elsewhere: its own AdamW, its own learning rate, its own checkpoints, which any number of processes can resume from.
DeepSpeed exchanges gradients, clips and keeps the parts.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from extraction_assets.errors import InputError

if TYPE_CHECKING:
    from peft import PeftModel

STAGES = {"zero2": 2, "zero3": 3}
"""compute.sharding -> stage"""
_SMALL = 10_000
"""values of a weight that stays whole at stage 3: norms"""
_MOMENTS = ("exp_avg", "exp_avg_sq")


def require_deepspeed() -> None:
    if find_spec("deepspeed") is None:
        raise InputError("compute.sharding", "zero2 and zero3 need DeepSpeed", do="pip install 'extraction-assets[deepspeed]'")


class ZeroStepper:
    """training.stepping.Stepper, on a DeepSpeed engine."""

    in_parts = True

    def __init__(self, model: PeftModel, optimizer: torch.optim.Optimizer, max_norm: float, half: bool, device: torch.device) -> None:
        """Divides the model where it stands. half: products are in bfloat16. Stage and the like are read as accelerate launch left them."""
        if device.type == "cpu":
            os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else it looks for one, and says so
        import deepspeed
        from accelerate.utils import DeepSpeedPlugin

        if device.type == "cpu":  # it would compile a kernel for processes of one machine, for minutes. gloo does
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        self._learning = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        moments = optimizer.state_dict()
        asked = DeepSpeedPlugin().deepspeed_config["zero_optimization"]
        self.stage = int(asked["stage"])
        config = {
            "zero_optimization": {
                **asked,
                "stage3_param_persistence_threshold": _SMALL,
                # gradients on their way, in a buffer of their own: all the adapters' and no more (by default it takes 2 GB)
                "reduce_bucket_size": sum(parameter.numel() for parameter in self._learning),
            },
            "train_micro_batch_size_per_gpu": 1,  # of its own bookkeeping only
            "gradient_accumulation_steps": 1,
            "gradient_clipping": max_norm,
            "zero_allow_untested_optimizer": True,  # torch's AdamW
            "zero_force_ds_cpu_optimizer": False,
            # it switches autocast off where it is not told of it. Gradients travel as they are: of 32 bits
            "torch_autocast": {"enabled": half, "dtype": "bfloat16", "lower_precision_safe_modules": []},
            "steps_per_print": None,
        }
        if self.stage == STAGES["zero3"]:  # the vision tower runs once a page, and processes have unequal pages: none could wait for others
            qwen: Any = model.base_model.model
            _keep_whole(qwen.model, "visual", device)
        self.model: nn.Module = deepspeed.initialize(model=model, optimizer=optimizer, config=config)[0]
        self._engine: Any = self.model
        self.rehearsed = self.model  # its hooks count each pass
        self._take(moments)

    def passing(self, last: bool) -> AbstractContextManager[Any]:
        self._engine.set_gradient_accumulation_boundary(last)
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        self._engine.backward(loss)

    def step(self, learning_rate: float) -> float:
        """As Stepper's, but for a norm that is not finite: the weights have moved then, and the run ends without saving them."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate
        self._engine.step()
        return float(self._engine.get_global_grad_norm())

    def rehearse(self, loss: Tensor) -> None:
        """Adds zeros to the step's gradients, which are in DeepSpeed's keeping."""
        self._engine.set_gradient_accumulation_boundary(False)
        self._engine.backward(loss * 0.0)

    def state(self) -> dict[str, Any]:
        from deepspeed.utils import safe_get_full_optimizer_state

        inner = self._inner
        step = next(iter(inner.state.values()))["step"]
        state = {
            number: {"step": step.clone(), **{name: safe_get_full_optimizer_state(parameter, name).clone() for name in _MOMENTS}}
            for number, parameter in enumerate(self._learning)
        }
        options = {name: value for name, value in inner.param_groups[0].items() if name != "params"}
        return {"state": state, "param_groups": [{**options, "params": list(range(len(self._learning)))}]}

    def _take(self, moments: dict[str, Any]) -> None:
        """This process's parts of what `state` gave. DeepSpeed makes them at the first step, and this comes before it."""
        from deepspeed.utils import safe_set_full_optimizer_state

        if not moments["state"]:
            return
        zero, inner = self._engine.optimizer, self._inner
        for flat in zero.single_partition_of_fp32_groups if self.stage == STAGES["zero2"] else zero.fp32_partitioned_groups_flat:
            inner.state[flat] = {"step": moments["state"][0]["step"].clone(), **{name: torch.zeros_like(flat) for name in _MOMENTS}}
        if self.stage == STAGES["zero2"]:
            zero._lazy_init_hp_params_optimizer_state()
        for number, parameter in enumerate(self._learning):
            for name in _MOMENTS:
                safe_set_full_optimizer_state(parameter, moments["state"][number][name], name)

    @property
    def _inner(self) -> torch.optim.Optimizer:
        """AdamW over this process's parts, end to end."""
        optimizer: torch.optim.Optimizer = self._engine.optimizer.optimizer
        return optimizer


def _keep_whole(owner: nn.Module, name: str, device: torch.device) -> None:
    """DeepSpeed divides all that a module registers. This part stays whole in each process, as an attribute like any other."""
    part = getattr(owner, name).to(device)
    del owner._modules[name]
    object.__setattr__(owner, name, part)
