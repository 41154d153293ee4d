from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from extraction_assets.model.attention import attend_within_pages
from extraction_assets.model.base import load_base
from extraction_assets.model.encoding import PageEncoder
from extraction_assets.model.fused import fuse
from extraction_assets.model.lora import add_lora
from extraction_assets.model.packing import pack
from extraction_assets.model.recompute import LEVELS, Recompute, recompute_in_backward
from extraction_assets.settings import TrainingSettings
from extraction_assets.training.arithmetic import ModelShape
from extraction_assets.training.loss import response_loss
from extraction_assets_tests.model.pages import page_png


def _kept_bytes(base_folder: Path, settings: TrainingSettings, level: Recompute) -> tuple[int, int]:
    """(bytes that autograd keeps between forward and backward, what the plan says of it); the same tensor kept twice counts once."""
    base = load_base(base_folder, dtype=torch.float32)
    attend_within_pages(base.model)
    encoder = PageEncoder(base.format)
    pages = [encoder.page(str(seed), page_png(256, 192, seed), "Extract as JSON: number", '{"number":"12"}') for seed in range(2)]
    packed = pack(pages, base.format.pages.merge)
    model = add_lora(base, settings, seed=0)
    fuse(model)
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
    plan = ModelShape.of(base.format).memory(settings.model_copy(update={"recompute": level}), 4, tokens, response, visual, visual)
    return total, plan.activations


@pytest.mark.parametrize("settings", [{}, {"dora": True}, {"dropout": 0.1}, {"targets": "attention"}], ids=str)
def test_what_autograd_keeps_is_what_the_plan_says(base_folder: Path, settings: dict[str, Any]) -> None:
    chosen = TrainingSettings(r=4, **settings)
    kept = {level: _kept_bytes(base_folder, chosen, level) for level in LEVELS}
    measured, planned = ({level: pair[side] for level, pair in kept.items()} for side in (0, 1))
    assert planned["none"] == pytest.approx(measured["none"], rel=0.15)
    assert measured["none"] > measured["mlp"] > measured["layers"]
    # of the two layers, the plan takes one to be there in full while it is computed again
    for level in ("mlp", "layers"):
        assert planned["none"] - planned[level] == pytest.approx((measured["none"] - measured[level]) / 2, rel=0.15)
