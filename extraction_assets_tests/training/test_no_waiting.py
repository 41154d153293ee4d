"""A step asks a device for work and never for an answer before its end: on the meta device, which has no answers, whoever asks is an error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from extraction_assets.model.attention import attend_within_pages
from extraction_assets.model.base import load_base
from extraction_assets.model.encoding import PageEncoder
from extraction_assets.model.fused import fuse
from extraction_assets.model.kept_pages import OwnPages
from extraction_assets.model.last_layer import narrow_last_layer
from extraction_assets.model.lora import add_lora
from extraction_assets.model.packing import Pack, pack
from extraction_assets.model.recompute import recompute_in_backward
from extraction_assets.model.visual_memory import VisualMemory
from extraction_assets.settings import TrainingSettings
from extraction_assets.training.loss import response_loss
from extraction_assets_tests.model.pages import page_png

META = torch.device("meta")


@pytest.fixture(autouse=True)
def meta_knows_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch has no autocast for a device that computes nothing; asked whether it is on, there it is off."""
    begin, enabled = torch.autocast.__init__, torch.is_autocast_enabled

    def on_a_cpu(device: str | None = None) -> str | None:
        return "cpu" if device == "meta" else device

    monkeypatch.setattr(
        torch.autocast, "__init__", lambda self, device_type, *rest, **more: begin(self, on_a_cpu(device_type), *rest, **more)
    )
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device=None: enabled(on_a_cpu(device)) if device else enabled())


def _prepared(folder: Path, settings: TrainingSettings) -> tuple[PeftModel, VisualMemory, Pack]:
    """As training.setup makes a run."""
    base = load_base(folder, dtype=torch.float32)
    attend_within_pages(base.model)
    encoder = PageEncoder(base.format)
    pages = [encoder.page(str(seed), page_png(128 + 32 * seed, 96, seed), "Extract as JSON: a", '{"a":"12"}') for seed in range(3)]
    model = add_lora(base, settings, seed=0)
    fuse(model)
    narrow_last_layer(model)
    recompute_in_backward(model, settings.recompute)
    memory = VisualMemory(base.model, OwnPages(10**9))
    model.train()
    return model, memory, pack(pages, base.format.pages.merge)


def _step(model: PeftModel, memory: VisualMemory, packed: Pack) -> None:
    with memory.pages_of(packed, keep=False):
        response_loss(model, packed).backward()


@pytest.mark.parametrize("settings", [{}, {"dropout": 0.1}, {"recompute": "mlp"}, {"recompute": "layers"}, {"dora": True}], ids=str)
def test_no_pass_of_a_step_reads_from_the_device(base_folder: Path, settings: dict[str, Any]) -> None:
    model, memory, packed = _prepared(base_folder, TrainingSettings(r=4, **settings))
    model.to(META)
    _step(model, memory, packed.to(META))
    learnt = [parameter.grad for parameter in model.parameters() if parameter.requires_grad]
    assert learnt
    assert all(gradient is not None and gradient.device == META for gradient in learnt)


def _stock_tower(model: Any, memory: Any) -> None:
    memory._places.arguments = lambda rows, columns, device: {"image_grid_thw": torch.tensor([[1, rows, columns]], device=device)}


def _stock_placeholders(model: Any, memory: Any) -> None:
    model.base_model.model.model.get_placeholder_mask = memory._stock_mask


def _stock_deepstack(model: Any, memory: Any) -> None:
    del vars(model.base_model.model.model.language_model)["_deepstack_process"]


@pytest.mark.parametrize(
    ("stock", "asks"),
    [
        (_stock_tower, "repeat_interleave"),
        (_stock_placeholders, r"item\(\) cannot be called on meta tensors"),
        (_stock_deepstack, "nonzero"),
    ],
)
def test_stock_code_would(base_folder: Path, stock: Callable[[Any, Any], None], asks: str) -> None:
    model, memory, packed = _prepared(base_folder, TrainingSettings(r=4))
    stock(model, memory)
    _step(model, memory, packed)  # it is right, and waits
    model.to(META)
    with pytest.raises((RuntimeError, NotImplementedError), match=asks):
        _step(model, memory, packed.to(META))
