from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft.helpers import disable_input_dtype_casting
from torch import Tensor
from torch.nn import functional

from extraction_assets.model.attention import attend_within_pages
from extraction_assets.model.base import load_base
from extraction_assets.model.encoding import PageEncoder
from extraction_assets.model.fused import _FrozenRmsNorm, fuse
from extraction_assets.model.lora import add_lora, four_bit_config
from extraction_assets.model.packing import pack
from extraction_assets.model.recompute import Recompute, recompute_in_backward
from extraction_assets.settings import TrainingSettings
from extraction_assets.training.loss import response_loss
from extraction_assets_tests.model.pages import page_png


def _trained_once(folder: Path, settings: TrainingSettings, fused: bool, half: bool = False) -> tuple[float, dict[str, Tensor], int]:
    """(loss, gradients of the adapters, operations that autograd recorded) of one pack of two pages, adapters not at zero."""
    base = load_base(folder, dtype=torch.float32, four_bit=four_bit_config(settings))
    attend_within_pages(base.model)
    encoder = PageEncoder(base.format)
    pages = [encoder.page(str(seed), page_png(128, 96, seed), "Extract as JSON: number", '{"number":"12"}') for seed in range(2)]
    model = add_lora(base, settings, seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.05, generator=generator)
    if fused:
        fuse(model)
    recompute_in_backward(model, settings.recompute)
    model.train()
    torch.manual_seed(2)
    with torch.autocast("cpu", torch.bfloat16, enabled=half), disable_input_dtype_casting(model, active=half):
        loss = response_loss(model, pack(pages, base.format.pages.merge))
    operations = _count(loss.grad_fn)
    loss.backward()
    return float(loss.detach()), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, operations


def _count(node: Any) -> int:
    seen, todo = set(), [node]
    while todo:
        at = todo.pop()
        if at is not None and at not in seen:
            seen.add(at)
            todo += [next_node for next_node, _ in at.next_functions]
    return len(seen)


@pytest.mark.parametrize(
    "settings",
    [{}, {"targets": "attention"}, {"dropout": 0.3}, {"rslora": True}, {"recompute": "mlp"}, {"recompute": "layers"}, {"method": "qlora"}],
    ids=str,
)
def test_a_step_is_the_stock_step_in_fewer_operations(base_folder: Path, settings: dict[str, Any]) -> None:
    chosen = TrainingSettings(r=4, **settings)
    stock, fused = (_trained_once(base_folder, chosen, fused) for fused in (False, True))
    assert fused[0] == pytest.approx(stock[0], rel=1e-6)
    assert fused[1].keys() == stock[1].keys()
    largest = max(float(gradient.abs().max()) for gradient in stock[1].values())
    for name, gradient in stock[1].items():
        assert torch.allclose(fused[1][name], gradient, rtol=1e-4, atol=1e-6 * largest), name
    if chosen.recompute != "layers":  # there a layer is one operation
        assert fused[2] < stock[2]


def test_dora_keeps_its_own_products(base_folder: Path) -> None:
    stock, fused = (_trained_once(base_folder, TrainingSettings(r=4, dora=True), fused) for fused in (False, True))
    assert fused[0] == pytest.approx(stock[0], rel=1e-6)


def test_in_bfloat16_the_difference_is_rounding(base_folder: Path) -> None:
    exact = _trained_once(base_folder, TrainingSettings(r=4), fused=False)
    stock, fused = (_trained_once(base_folder, TrainingSettings(r=4), fused, half=True) for fused in (False, True))
    assert abs(fused[0] - exact[0]) < max(2 * abs(stock[0] - exact[0]), 0.01 * exact[0])
    assert all(gradient.dtype == torch.float32 for gradient in fused[1].values())
    assert _distance(fused[1], exact[1]) < 1.2 * _distance(stock[1], exact[1])


def _distance(gradients: dict[str, Tensor], exact: dict[str, Tensor]) -> float:
    return sum(float((gradients[name] - exact[name]).square().sum()) for name in exact) ** 0.5


@pytest.mark.parametrize("level", ["none", "mlp", "layers"])
def test_an_adapter_switched_off_is_the_base(base_folder: Path, level: Recompute) -> None:
    base = load_base(base_folder, dtype=torch.float32)
    encoder = PageEncoder(base.format)
    page = pack([encoder.page("0", page_png(128, 96, 0), "Extract as JSON: number", '{"number":"12"}')], base.format.pages.merge)
    attend_within_pages(base.model)
    with torch.no_grad():
        expected = float(response_loss(base.model, page))
    model = add_lora(base, TrainingSettings(r=4), seed=0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.5)
    fuse(model)
    recompute_in_backward(model, level)
    with torch.no_grad():
        assert float(response_loss(model, page)) != pytest.approx(expected, rel=1e-3)
        with model.disable_adapter():
            assert float(response_loss(model, page)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("shape", [(2, 5, 12), (1, 7, 3, 8)], ids=str)
def test_the_norm_and_its_gradient_are_those_of_its_formula(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
    weight = torch.rand(shape[-1], generator=generator, dtype=torch.float64)
    expected = functional.rms_norm(states, weight.shape, weight, 1e-2)
    assert torch.allclose(_FrozenRmsNorm.apply(states, weight, 1e-2), expected, rtol=1e-12)  # type: ignore[no-untyped-call]
    assert torch.autograd.gradcheck(lambda given: _FrozenRmsNorm.apply(given, weight, 1e-2), states)  # type: ignore[no-untyped-call]
