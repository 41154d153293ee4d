from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from extraction_assets.errors import InputError
from extraction_assets.model.base import base_digest, load_base, load_base_format


@pytest.fixture
def copy(base_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base_folder, tmp_path / "copy"))


def test_page_format_comes_from_the_checkpoint_not_from_class_defaults(copy: Path) -> None:
    path = copy / "preprocessor_config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "image_mean": [0.25, 0.5, 0.75]}))
    pages = load_base_format(copy).pages
    assert (pages.patch, pages.merge, pages.temporal) == (16, 2, 2)
    assert pages.mean == (0.25, 0.5, 0.75)


def test_a_loaded_base_is_in_the_dtype_asked_for_and_in_eval_mode(base_folder: Path) -> None:
    base = load_base(base_folder, dtype=torch.bfloat16)
    assert base.model.dtype == torch.bfloat16
    assert not base.model.training
    assert base.format.name == base_folder.name


def test_digest_names_the_content_not_the_place(base_folder: Path, copy: Path) -> None:
    assert base_digest(copy) == base_digest(base_folder)
    (copy / "README.md").write_text("notes")
    assert base_digest(copy) == base_digest(base_folder)
    with (copy / "config.json").open("a") as file:
        file.write("\n")
    assert base_digest(copy) != base_digest(base_folder)


def test_missing_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such base model folder"):
        load_base(tmp_path / "absent")


def test_unreachable_hub_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="is no folder, and the model hub did not deliver it") as caught:
        load_base("nobody/no-such-model")
    assert "\n" not in str(caught.value)


def test_other_model_family_is_named(copy: Path) -> None:
    path = copy / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": "llama"}))
    with pytest.raises(InputError, match="model_type is 'llama'; expected 'qwen3_vl'"):
        load_base(copy)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("config.json", "holds no config.json"),
        ("tokenizer.json", "holds no tokenizer"),
        ("preprocessor_config.json", "holds no preprocessor_config.json"),
        ("model.safetensors", "weights cannot be loaded"),
    ],
)
def test_every_missing_part_is_named(copy: Path, file: str, message: str) -> None:
    (copy / file).unlink()
    with pytest.raises(InputError, match=message):
        load_base(copy)


def test_damaged_weights_are_one_line(copy: Path) -> None:
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="weights cannot be loaded") as caught:
        load_base(copy)
    assert "\n" not in str(caught.value)


def test_preprocessor_of_another_patch_size_is_refused(copy: Path) -> None:
    path = copy / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "patch_size": 14}))
    with pytest.raises(InputError, match="patch, merge, temporal"):
        load_base(copy)


def test_the_patch_projection_is_the_checkpoints_convolution(base_folder: Path) -> None:
    embed = load_base(base_folder, dtype=torch.float32).model.model.visual.patch_embed
    patches = torch.randn(12, 3 * 2 * 16 * 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        stock = type(embed).forward(embed, patches)
        assert torch.allclose(embed(patches), stock, atol=1e-5)
