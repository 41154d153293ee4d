from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from extraction_assets.model.adapted import joined
from extraction_assets.model.base import load_base
from extraction_assets.model.fused import turned
from extraction_assets.model.lora import add_lora, four_bit_config
from extraction_assets.settings import TrainingSettings

WIDTHS = (8, 4, 6)


class Heads(nn.Module):
    """Linears of one input, of several widths."""

    def __init__(self, bias: bool = False) -> None:
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(10, width, bias=bias) for width in WIDTHS)


def _layers(count: int = 3, bias: bool = False, dtype: torch.dtype = torch.float64, **lora: Any) -> list[Any]:
    torch.manual_seed(0)
    names = [f"linears.{number}" for number in range(len(WIDTHS))]
    model: Any = get_peft_model(Heads(bias), LoraConfig(r=3, lora_alpha=5, target_modules=names, **lora)).to(dtype)  # type: ignore[arg-type]
    layers = list(model.base_model.model.linears)[:count]
    for layer in layers:
        layer.lora_B["default"].weight.data.normal_()
    return layers


def _gradients(outputs: tuple[Tensor, ...], of: list[Tensor]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    loss = sum((output * torch.randn(output.shape, generator=generator).to(output.dtype)).sum() for output in outputs)
    return list(torch.autograd.grad(loss, of))  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("shape", [(1, 7, 10), (7, 10), (2, 3, 2, 10)], ids=str)
def test_outputs_and_gradients_are_those_of_the_layers_one_by_one(count: int, shape: tuple[int, ...]) -> None:
    layers = _layers(count)
    states = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    of = [states, *(parameter for layer in layers for parameter in layer.parameters() if parameter.requires_grad)]
    together = joined(layers, states)
    assert together is not None
    one_by_one = tuple(layer(states) for layer in layers)
    assert all(torch.allclose(*pair, rtol=1e-12) for pair in zip(together, one_by_one, strict=True))
    assert all(torch.allclose(*pair, rtol=1e-10) for pair in zip(_gradients(together, of), _gradients(one_by_one, of), strict=True))


def test_weights_in_four_bits_too(base_folder: Path) -> None:
    settings = TrainingSettings(method="qlora", r=4)
    model: Any = add_lora(load_base(base_folder, dtype=torch.float32, four_bit=four_bit_config(settings)), settings, seed=0)
    mlp = model.base_model.model.model.language_model.layers[0].mlp
    layers = [mlp.gate_proj, mlp.up_proj]
    for layer in layers:
        layer.lora_B["default"].weight.data.normal_()
    states = torch.randn(1, 7, layers[0].in_features, requires_grad=True)
    of = [states, *(parameter for layer in layers for parameter in layer.parameters() if parameter.requires_grad)]
    together, one_by_one = joined(layers, states), tuple(layer(states) for layer in layers)
    assert together is not None
    assert all(torch.allclose(*pair, rtol=1e-5, atol=1e-5) for pair in zip(together, one_by_one, strict=True))
    for near, far in zip(_gradients(together, of), _gradients(one_by_one, of), strict=True):
        assert torch.allclose(near, far, rtol=1e-4, atol=1e-4 * float(far.abs().max()))


def test_an_input_without_gradient_and_an_output_that_nobody_uses() -> None:
    layers = _layers()
    outputs = joined(layers, torch.randn(5, 10, dtype=torch.float64))
    assert outputs is not None
    outputs[1].sum().backward()
    used, unused = layers[1].lora_A["default"].weight.grad, layers[0].lora_A["default"].weight.grad
    assert used.abs().max() > 0
    assert unused is None or unused.abs().max() == 0
    assert layers[0].base_layer.weight.grad is None


def test_without_gradients_nothing_is_kept() -> None:
    with torch.no_grad():
        outputs = joined(_layers(), torch.randn(5, 10, dtype=torch.float64))
    assert outputs is not None
    assert all(output.grad_fn is None for output in outputs)


def test_under_autocast_products_are_of_16_bits_and_gradients_of_the_weights_width() -> None:
    layers = _layers(dtype=torch.float32)
    states = torch.randn(1, 5, 10, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        together = joined(layers, states)
        assert together is not None
    assert {output.dtype for output in together} == {torch.bfloat16}
    exact = tuple(layer(states) for layer in layers)
    of = [states, layers[0].lora_A["default"].weight, layers[2].lora_B["default"].weight]
    for near, far in zip(_gradients(together, of), _gradients(exact, of), strict=True):
        assert near.dtype == torch.float32
        assert float((near - far).norm()) < 0.02 * float(far.norm())


def _switched_off(layers: list[Any]) -> None:
    for layer in layers:
        layer.enable_adapters(False)


def _merged(layers: list[Any]) -> None:
    layers[1].merge()


def _in_another_width(layers: list[Any]) -> None:
    layers[1].lora_A["default"].to(torch.float32)


@pytest.mark.parametrize(
    ("lora", "change"),
    [({"use_dora": True}, None), ({"lora_dropout": 0.1}, None), ({}, _switched_off), ({}, _merged), ({}, _in_another_width)],
    ids=["DoRA", "dropout", "switched off", "merged", "mixed widths"],
)
def test_what_is_more_than_a_plain_adapter_is_left_to_its_layer(lora: dict[str, Any], change: Callable[[list[Any]], None] | None) -> None:
    layers = _layers(**lora)
    if change:
        change(layers)
    assert joined(layers, torch.randn(5, 10, dtype=torch.float64)) is None


def test_biases_and_layers_without_an_adapter_too() -> None:
    states = torch.randn(5, 10, dtype=torch.float64)
    assert joined(_layers(bias=True), states) is None
    plain: Any = nn.Linear(10, 4, bias=False, dtype=torch.float64)
    assert joined([*_layers(1), plain], states) is None


def test_dropout_that_is_not_at_work_leaves_the_layers_plain() -> None:
    layers = _layers(lora_dropout=0.1)
    for layer in layers:
        layer.eval()
    assert joined(layers, torch.randn(5, 10, dtype=torch.float64)) is not None


def test_heads_are_turned_as_transformers_turns_them() -> None:
    from transformers.models.qwen3_vl.modeling_qwen3_vl import apply_rotary_pos_emb

    generator = torch.Generator().manual_seed(0)
    heads = torch.randn(1, 5, 3, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    cos, sin = (torch.randn(1, 5, 8, generator=generator, dtype=torch.float64) for _ in range(2))  # more than any angle can give
    expected, _ = apply_rotary_pos_emb(heads.transpose(1, 2), heads.transpose(1, 2), cos, sin)
    found = turned(heads, cos, sin).transpose(1, 2)
    assert torch.allclose(found, expected, rtol=1e-12)
    assert torch.allclose(_gradients((found,), [heads])[0], _gradients((expected,), [heads])[0], rtol=1e-12)
