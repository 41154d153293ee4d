from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from extraction_assets.model.base import Base, load_base
from extraction_assets.model.encoding import PageEncoder, collate
from extraction_assets.model.lora import add_lora, audit_lora, four_bit_config, load_adapter_weights, save_adapter
from extraction_assets.settings import TrainingSettings
from extraction_assets_tests.model.pages import page_png


def _fresh(folder: Path, settings: TrainingSettings) -> Base:
    return load_base(folder, dtype=torch.float32, four_bit=four_bit_config(settings))


@pytest.mark.parametrize(("targets", "linears"), [("attention", 4), ("attention+mlp", 7)])
def test_every_language_linear_and_nothing_else_learns(base_folder: Path, targets: str, linears: int) -> None:
    settings = TrainingSettings(targets=targets)  # type: ignore[arg-type]
    base = _fresh(base_folder, settings)
    layers = base.format.config.text_config.num_hidden_layers
    model = add_lora(base, settings, seed=1)
    audit = audit_lora(model)
    assert len(audit.trainable) == linears
    assert all(count.modules == layers for count in audit.trainable.values())
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert all(".language_model.layers." in name and "visual" not in name for name in names)
    assert audit.base_parameters == sum(p.numel() for p in load_base(base_folder).model.parameters())
    assert audit.four_bit == {}


def test_the_same_seed_gives_the_same_adapter_and_a_fresh_one_changes_no_answer(base_folder: Path, base: Base) -> None:
    settings = TrainingSettings(r=4)
    first = add_lora(_fresh(base_folder, settings), settings, seed=5)
    second = add_lora(_fresh(base_folder, settings), settings, seed=5)
    other = add_lora(_fresh(base_folder, settings), settings, seed=6)
    weights = [{n: p for n, p in m.named_parameters() if "lora_A" in n} for m in (first, second, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not any(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])
    assert all(not p.any() for n, p in first.named_parameters() if "lora_B" in n)


def test_the_audit_refuses_a_trainable_vision_tower(base_folder: Path) -> None:
    settings = TrainingSettings(r=4)
    model = add_lora(_fresh(base_folder, settings), settings, seed=1)
    next(p for n, p in model.named_parameters() if "visual" in n).requires_grad_(True)
    with pytest.raises(RuntimeError, match="outside the language model"):
        audit_lora(model)


def test_qlora_keeps_language_linears_in_four_bits_and_trains_on_a_cpu(base_folder: Path) -> None:
    settings = TrainingSettings(method="qlora", r=4)
    base = _fresh(base_folder, settings)
    encoder = PageEncoder(base.format)
    model = add_lora(base, settings, seed=1)
    audit = audit_lora(model)
    layers = base.format.config.text_config.num_hidden_layers
    assert sum(count.modules for count in audit.four_bit.values()) == 7 * layers
    assert not any("visual" in name or "lm_head" in name for name in audit.four_bit)
    assert audit.base_parameters == sum(p.numel() for p in load_base(base_folder).model.parameters())
    batch = collate([encoder.page("a", page_png(64, 64, 1), "Read", '{"a":1}')], pad_token=0)
    out = model(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        pixel_values=batch.pixel_values,
        image_grid_thw=batch.image_grid_thw,
        labels=batch.labels,
        use_cache=False,
    )
    out.loss.backward()
    gradients = [p.grad for n, p in model.named_parameters() if "lora_B" in n]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)
    assert any(g.any() for g in gradients if g is not None)


def test_four_bits_are_the_same_for_learning_after_the_model_was_asked(base_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """bitsandbytes lays weights out anew for answering on CPUs with 16-bit products, rounds their scales, and lets no gradient through after."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    settings = TrainingSettings(method="qlora", r=4)
    base = _fresh(base_folder, settings)
    linear = base.model.model.language_model.layers[0].mlp.up_proj
    states = torch.randn(3, linear.in_features, requires_grad=True)
    before = linear(states)
    with torch.no_grad():
        assert torch.equal(linear(states.detach()), before)  # a model is loaded ready to answer
    (gradient,) = torch.autograd.grad(linear(states).sum(), states)
    assert torch.equal(gradient, torch.autograd.grad(before.sum(), states)[0])


def test_the_common_skip_list_would_quantize_the_vision_tower_and_is_caught(base_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = TrainingSettings(method="qlora", r=4)
    config = four_bit_config(settings)
    assert config is not None
    config.llm_int8_skip_modules = ["visual", "lm_head"]
    base = load_base(base_folder, dtype=torch.float32, four_bit=config)
    with pytest.raises(RuntimeError, match="4-bit modules that must not be"):
        add_lora(base, settings, seed=1)


@pytest.mark.parametrize("variant", [{}, {"rslora": True}, {"dora": True}], ids=["plain", "rslora", "dora"])
def test_a_saved_adapter_loads_back_bit_for_bit_and_in_plain_peft(base_folder: Path, tmp_path: Path, variant: dict[str, bool]) -> None:
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer

    settings = TrainingSettings(r=4, **variant)  # type: ignore[arg-type]
    model = add_lora(_fresh(base_folder, settings), settings, seed=1)
    _shake(model)
    save_adapter(model, tmp_path)
    again = add_lora(_fresh(base_folder, settings), settings, seed=2)
    load_adapter_weights(again, tmp_path)
    plain = PeftModel.from_pretrained(load_base(base_folder, dtype=torch.float32).model, str(tmp_path))
    wanted = _adapter(model)
    assert any("magnitude" in name for name in wanted) == settings.dora
    scaling = {module.scaling["default"] for module in plain.modules() if isinstance(module, LoraLayer)}
    assert scaling == {32 / 4**0.5 if settings.rslora else 32 / 4}
    for other in (_adapter(again), _adapter(plain)):
        assert wanted.keys() == other.keys()
        assert all(torch.equal(wanted[name], other[name]) for name in wanted)


def test_equal_adapters_are_equal_bytes_and_name_no_path(base_folder: Path, tmp_path: Path) -> None:
    settings = TrainingSettings(r=4)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        save_adapter(add_lora(_fresh(base_folder, settings), settings, seed=1), tmp_path / name)
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert str(base_folder.parent) not in (tmp_path / "one" / "adapter_config.json").read_text()


def _adapter(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p for name, p in model.named_parameters() if re.search(r"\.lora_(A|B|magnitude_vector)\.", name)}


def _shake(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in _adapter(model).values():
            parameter.normal_(0, 0.1)
