from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from extraction_assets.errors import InputError
from extraction_assets.model.base import load_base
from extraction_assets.model.lora import add_lora, save_adapter
from extraction_assets.model.merging import MERGE_FILE, merge_adapter
from extraction_assets.settings import TrainingSettings


def _adapter(base: Path, folder: Path, **settings: bool) -> Path:
    """One that is far from nothing."""
    chosen = TrainingSettings(r=4, **settings)  # type: ignore[arg-type]
    model = add_lora(load_base(base, dtype=torch.float32), chosen, seed=1)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                parameter.normal_(0, 0.1, generator=generator)
    folder.mkdir()
    save_adapter(model, folder)
    return folder


@pytest.mark.parametrize("variant", [{}, {"rslora": True}, {"dora": True}], ids=["plain", "rslora", "dora"])
def test_merged_weights_are_those_of_peft_in_float32_rounded_once(base_folder: Path, tmp_path: Path, variant: dict[str, bool]) -> None:
    from peft import PeftModel

    adapter = _adapter(base_folder, tmp_path / "adapter", **variant)
    merge = merge_adapter(base_folder, adapter, tmp_path / "merged")
    peft = PeftModel.from_pretrained(load_base(base_folder, dtype=torch.float32).model, str(adapter)).merge_and_unload()
    wanted = {name: tensor.to(torch.bfloat16) for name, tensor in peft.state_dict().items()}
    found = load_file(tmp_path / "merged" / "model.safetensors")
    before = load_file(base_folder / "model.safetensors")
    changed = 0
    for name, tensor in found.items():
        assert tensor.dtype == torch.bfloat16
        torch.testing.assert_close(tensor, wanted[name], rtol=2**-7, atol=0)  # float32 sums in another order may round the other way
        assert (tensor != wanted[name]).float().mean() < 1e-3
        changed += not torch.equal(tensor, before[name])
    assert merge.weights == changed > 0
    assert 0 < merge.rounding < 0.1


def test_a_merged_folder_loads_as_a_base_and_says_what_it_is_made_of(base_folder: Path, tmp_path: Path) -> None:
    merge = merge_adapter(base_folder, _adapter(base_folder, tmp_path / "adapter"), tmp_path / "merged")
    load_base(tmp_path / "merged")
    assert json.loads((tmp_path / "merged" / MERGE_FILE).read_text()) == merge.to_json()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "merged"]


def test_a_base_in_several_files_is_merged_file_by_file(base_folder: Path, tmp_path: Path) -> None:
    adapter = _adapter(base_folder, tmp_path / "adapter")
    whole = load_file(base_folder / "model.safetensors")
    split = tmp_path / "split"
    load_base(base_folder, dtype=torch.bfloat16).model.save_pretrained(split, max_shard_size="200KB")
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "chat_template.jinja"):
        (split / name).write_bytes((base_folder / name).read_bytes())
    files = sorted(split.glob("*.safetensors"))
    assert len(files) > 2
    merge_adapter(base_folder, adapter, tmp_path / "one")
    merge_adapter(split, adapter, tmp_path / "many")
    one = load_file(tmp_path / "one" / "model.safetensors")
    many = {name: tensor for file in (tmp_path / "many").glob("*.safetensors") for name, tensor in load_file(file).items()}
    assert whole.keys() == one.keys() == many.keys()
    assert all(torch.equal(one[name], many[name]) for name in one)


def test_what_cannot_be_merged_is_one_clear_line_and_leaves_nothing(base_folder: Path, tmp_path: Path) -> None:
    adapter = _adapter(base_folder, tmp_path / "adapter")
    tensors = load_file(adapter / "adapter_model.safetensors")
    config = json.loads((adapter / "adapter_config.json").read_text())
    out = tmp_path / "merged"

    (adapter / "adapter_config.json").write_text(json.dumps({**config, "rank_pattern": {"q_proj": 8}}))
    with pytest.raises(InputError, match=r"adapter_config.json: rank_pattern is .* no other kind"):
        merge_adapter(base_folder, adapter, out)
    (adapter / "adapter_config.json").write_text(json.dumps(config))

    (adapter / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match=r"adapter_config.json: has no r and lora_alpha"):
        merge_adapter(base_folder, adapter, out)
    (adapter / "adapter_config.json").write_text(json.dumps(config))

    foreign = {name.replace("layers.0", "layers.7"): tensor for name, tensor in tensors.items()}
    save_file(foreign, adapter / "adapter_model.safetensors")
    with pytest.raises(InputError, match=r"adapts model.language_model.layers.7.* which .* does not have"):
        merge_adapter(base_folder, adapter, out)

    wide = {name: torch.cat([tensor, tensor], dim=1) if "lora_A" in name else tensor for name, tensor in tensors.items()}
    save_file(wide, adapter / "adapter_model.safetensors")
    with pytest.raises(InputError, match=r"model.safetensors: model.language_model.* is \(.*\), its adapter"):
        merge_adapter(base_folder, adapter, out)

    save_file(tensors, adapter / "adapter_model.safetensors")
    (adapter / "adapter_model.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match="cannot be read as an adapter"):
        merge_adapter(base_folder, adapter, out)

    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    out.mkdir()
    with pytest.raises(InputError, match="exists already"):
        merge_adapter(base_folder, adapter, out)
