from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from extraction_assets.model.attention import attend_within_pages
from extraction_assets.model.base import load_base
from extraction_assets.model.encoding import PageEncoder
from extraction_assets.model.fused import fuse
from extraction_assets.model.last_layer import narrow_last_layer
from extraction_assets.model.lora import add_lora
from extraction_assets.model.packing import pack
from extraction_assets.model.recompute import LEVELS, Recompute, recompute_in_backward
from extraction_assets.settings import TrainingSettings
from extraction_assets.training.arithmetic import ModelShape
from extraction_assets.training.loss import response_loss
from extraction_assets_tests.model.pages import page_png


def _kept_bytes(base_folder: Path, settings: TrainingSettings, level: Recompute) -> tuple[int, int, int]:
    """(bytes that autograd keeps between forward and backward, the plan's activations, those of a layer more).

    The same tensor kept twice counts once.
    """
    base = load_base(base_folder, dtype=torch.float32)
    attend_within_pages(base.model)
    encoder = PageEncoder(base.format)
    pages = [encoder.page(str(seed), page_png(256, 192, seed), "Extract as JSON: number", '{"number":"12"}') for seed in range(2)]
    packed = pack(pages, base.format.pages.merge)
    model = add_lora(base, settings, seed=0)
    fuse(model)
    narrow_last_layer(model)
    recompute_in_backward(model, level)
    model.train()
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = response_loss(model, packed)
    total = sum(kept.values())
    loss.backward()
    response = sum(page.text.response_tokens for page in pages)
    visual = sum(page.text.rows * page.text.columns for page in pages)
    tokens = sum(page.text.tokens for page in pages)
    shape, chosen = ModelShape.of(base.format), settings.model_copy(update={"recompute": level})
    plans = [
        each.memory(chosen, 4, tokens, response, visual, visual).activations
        for each in (shape, shape.model_copy(update={"layers": shape.layers + 1}))
    ]
    return total, plans[0], plans[1]


@pytest.mark.parametrize("settings", [{}, {"dora": True}, {"dropout": 0.1}, {"targets": "attention"}], ids=str)
def test_what_autograd_keeps_is_what_the_plan_says(base_folder: Path, settings: dict[str, Any]) -> None:
    chosen = TrainingSettings(r=4, **settings)
    measured, planned, more = zip(*(_kept_bytes(base_folder, chosen, level) for level in LEVELS), strict=True)
    assert measured[0] > measured[1] > measured[2]
    # the plan counts besides what is kept the layer that is being computed again, and no two at once
    whole, without_mlp, _ = (above - plan for above, plan in zip(more, planned, strict=True))
    again = (0, whole - without_mlp, whole)
    for level, kept, plan, once in zip(LEVELS, measured, planned, again, strict=True):
        assert plan - once == pytest.approx(kept, rel=0.15), level
