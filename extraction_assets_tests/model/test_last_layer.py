"""A last layer that is computed for the response's rows only gives the loss and the gradients of a whole one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft.helpers import disable_input_dtype_casting
from torch import Tensor

from extraction_assets.model import attention
from extraction_assets.model.attention import Spans, attend_within_pages
from extraction_assets.model.base import load_base
from extraction_assets.model.encoding import PageEncoder
from extraction_assets.model.fused import fuse
from extraction_assets.model.last_layer import narrow_last_layer
from extraction_assets.model.lora import add_lora, four_bit_config
from extraction_assets.model.packing import pack
from extraction_assets.model.recompute import recompute_in_backward
from extraction_assets.settings import TrainingSettings
from extraction_assets.training.loss import response_loss
from extraction_assets_tests.model.pages import page_png
from extraction_assets_tests.model.test_packing import varlen_as_documented


def _step(folder: Path, settings: TrainingSettings, narrowed: bool, half: bool = False) -> tuple[float, dict[str, Tensor], list[int]]:
    """(loss, gradients of the adapters, rows that went through each layer's MLP) of three pages whose answers differ in length."""
    base = load_base(folder, dtype=torch.float32, four_bit=four_bit_config(settings))
    attend_within_pages(base.model)
    encoder = PageEncoder(base.format)
    answers = ['{"number":"12"}', '{"number":"a long one, with äöü"}', "{}"]
    pages = [encoder.page(str(n), page_png(128, 96 + 32 * n, n), "Extract as JSON: number", answer) for n, answer in enumerate(answers)]
    model = add_lora(base, settings, seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.05, generator=generator)
        elif parameter.ndim >= 2 and "language_model.layers" in name and "lora" not in name and parameter.is_floating_point():
            parameter.data.normal_(0, 0.05, generator=generator)  # large enough that what a query sees matters
    rows: list[int] = []
    for layer in base.model.model.language_model.layers:
        layer.mlp.register_forward_pre_hook(lambda _, states: rows.append(states[0].shape[1]))
    fuse(model)
    if narrowed:
        narrow_last_layer(model)
    recompute_in_backward(model, settings.recompute)
    model.train()
    with torch.autocast("cpu", torch.bfloat16, enabled=half), disable_input_dtype_casting(model, active=half):
        loss = response_loss(model, pack(pages, base.format.pages.merge))
    forward_rows = list(rows)
    loss.backward()
    return float(loss.detach()), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, forward_rows


def _differ(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Length of the gradients' difference relative to their own."""
    assert one.keys() == other.keys()
    apart = sum(float((one[name] - other[name]).square().sum()) for name in one)
    return float((apart / sum(float(gradient.square().sum()) for gradient in other.values())) ** 0.5)


@pytest.mark.parametrize(
    "settings", [{}, {"targets": "attention"}, {"dora": True}, {"recompute": "mlp"}, {"recompute": "layers"}, {"method": "qlora"}], ids=str
)
def test_loss_and_gradients_are_those_of_a_whole_last_layer(base_folder: Path, settings: dict[str, Any]) -> None:
    chosen = TrainingSettings(r=4, **settings)
    whole, narrowed = (_step(base_folder, chosen, narrowed) for narrowed in (False, True))
    assert narrowed[0] == pytest.approx(whole[0], rel=1e-6)
    assert _differ(narrowed[1], whole[1]) < 1e-6
    first, last = narrowed[2][0], narrowed[2][-1]
    assert whole[2] == [first] * len(whole[2])
    assert last < first / 2


def test_in_bfloat16_the_difference_is_rounding(base_folder: Path) -> None:
    exact, whole = (_step(base_folder, TrainingSettings(r=4), False, half) for half in (False, True))
    narrowed = _step(base_folder, TrainingSettings(r=4), True, half=True)
    assert abs(narrowed[0] - exact[0]) < max(2 * abs(whole[0] - exact[0]), 0.01 * exact[0])
    assert _differ(narrowed[1], exact[1]) < 1.2 * _differ(whole[1], exact[1])


def test_queries_that_see_the_wrong_end_of_a_page_fail_the_comparison(base_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _step(base_folder, TrainingSettings(r=4), False)

    def from_the_top(query: Tensor, key: Tensor) -> Tensor | None:
        mask = query.new_full((query.shape[2], key.shape[2]), float("-inf")).triu(1)
        return None if query.shape[2] == key.shape[2] else mask

    monkeypatch.setattr(attention, "_before_the_last", from_the_top)
    narrowed = _step(base_folder, TrainingSettings(r=4), True)
    assert abs(narrowed[0] - whole[0]) > 1e-4 * whole[0]
    assert _differ(narrowed[1], whole[1]) > 1e-2


def test_with_varlen_kernels_as_they_are_documented(base_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page_by_page = _step(base_folder, TrainingSettings(r=4), True)
    seen: list[tuple[int, int]] = []

    def varlen(*arguments: Any) -> Tensor:
        seen.append((arguments[0].shape[0], arguments[1].shape[0]))
        return varlen_as_documented(*arguments)

    monkeypatch.setattr(attention, "_varlen", lambda *_: varlen)
    packed = _step(base_folder, TrainingSettings(r=4), True)
    assert packed[0] == pytest.approx(page_by_page[0], rel=1e-6)
    assert _differ(packed[1], page_by_page[1]) < 1e-6
    (first, keys), (last, last_keys) = seen
    assert first == keys == last_keys
    assert last < first / 2


def test_a_kernel_that_lets_the_first_query_see_the_first_token_is_not_taken() -> None:
    def from_the_top(query: Tensor, key: Tensor, value: Tensor, queries: Spans, pages: Spans, scale: float | None) -> Tensor:
        return varlen_as_documented(query, key[:1], value[:1], queries, queries, scale)

    device = torch.device("cpu")
    assert attention._ends_with_its_page(varlen_as_documented, device, torch.bfloat16)
    assert not attention._ends_with_its_page(from_the_top, device, torch.bfloat16)


def test_without_tails_the_layer_is_whole(base_folder: Path) -> None:
    """Answers during training, and every pass that wants all logits."""
    base = load_base(base_folder, dtype=torch.float32)
    attend_within_pages(base.model)
    encoder = PageEncoder(base.format)
    inputs = pack([encoder.page("0", page_png(128, 96, 0), "Extract as JSON: number", "{}")], base.format.pages.merge).inputs
    model = add_lora(base, TrainingSettings(r=4), seed=0)
    with torch.no_grad():
        before = model(**inputs).logits
        narrow_last_layer(model)
        assert torch.equal(model(**inputs).logits, before)
