"""The tiny checkpoint folder: complete, deterministic, and shaped like the 8B model's."""

from __future__ import annotations

import filecmp
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, Qwen3VLForConditionalGeneration

from extraction_assets.demo.tiny_base import SPECIAL_TOKENS, write_random_base


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bases") / "one"
    write_random_base(path, seed=1)
    return path


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def test_same_seed_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_random_base(tmp_path / "again", seed=1)
    names = sorted(path.name for path in folder.iterdir())
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == names
    _, different, unreadable = filecmp.cmpfiles(folder, tmp_path / "again", names, shallow=False)
    assert (different, unreadable) == ([], [])


def test_another_seed_gives_other_weights_and_the_same_tokenizer(folder: Path, tmp_path: Path) -> None:
    write_random_base(tmp_path / "other", seed=2)
    assert not filecmp.cmp(folder / "model.safetensors", tmp_path / "other" / "model.safetensors", shallow=False)
    assert filecmp.cmp(folder / "tokenizer.json", tmp_path / "other" / "tokenizer.json", shallow=False)


def test_writing_a_base_leaves_the_random_state_of_the_caller(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    write_random_base(tmp_path, seed=1)
    assert torch.equal(torch.rand(3), expected)


def test_loads_as_the_real_model_class_in_bfloat16(folder: Path) -> None:
    model = Qwen3VLForConditionalGeneration.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    assert model.config.tie_word_embeddings
    assert model.generation_config.eos_token_id[0] == model.config.text_config.eos_token_id


def test_the_demo_preset_is_small_enough_to_ship(tmp_path: Path) -> None:
    write_random_base(tmp_path, seed=1, preset="demo")
    model = Qwen3VLForConditionalGeneration.from_pretrained(tmp_path)
    assert 7e6 < sum(parameter.numel() for parameter in model.parameters()) < 11.1e6
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 25e6


@pytest.mark.parametrize("preset", ["test", "demo"])
def test_vocabulary_and_ids_agree_between_tokenizer_and_config(preset: Any, tmp_path: Path) -> None:
    write_random_base(tmp_path, seed=1, preset=preset)
    config, tokenizer = AutoConfig.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert len(tokenizer) == config.text_config.vocab_size
    assert tokenizer.convert_tokens_to_ids("<|image_pad|>") == config.image_token_id
    assert tokenizer.convert_tokens_to_ids("<|vision_start|>") == config.vision_start_token_id
    assert tokenizer.eos_token_id == config.text_config.eos_token_id


@pytest.mark.parametrize(
    "text",
    [
        '{"number":"AB-4711","date":"2025-03-14","total":null,"rows":[{"a":"Größe 5 µm"},{"a":"\\"x\\""}]}',
        "Zażółć gęślą jaźń, 1.234,50 €  –  ¥\n\n\ttabs ☃ 漢字",
        " leading and trailing ",
    ],
)
def test_any_text_survives_the_round_trip(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_digits_are_single_tokens(tokenizer: Any) -> None:
    assert [tokenizer.decode([token]) for token in tokenizer("2025-0317").input_ids] == list("2025-0317")


def test_special_tokens_are_one_token_each(tokenizer: Any) -> None:
    ids = [tokenizer(token).input_ids for token in SPECIAL_TOKENS]
    assert all(len(each) == 1 for each in ids)
    assert len({each[0] for each in ids}) == len(SPECIAL_TOKENS)


def test_chat_template_has_the_layout_of_qwen3_vl(tokenizer: Any) -> None:
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Read."}]},
        {"role": "assistant", "content": [{"type": "text", "text": "{}"}]},
    ]
    asked = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Read.<|im_end|>\n"
    assert tokenizer.apply_chat_template(messages[:1], add_generation_prompt=True, tokenize=False) == asked + "<|im_start|>assistant\n"
    assert tokenizer.apply_chat_template(messages, tokenize=False) == asked + "<|im_start|>assistant\n{}<|im_end|>\n"


def test_image_processor_has_the_values_of_qwen3_vl_and_keeps_small_pages(folder: Path) -> None:
    import numpy as np

    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    assert (processor.patch_size, processor.merge_size, processor.temporal_patch_size) == (16, 2, 2)
    assert (tuple(processor.image_mean), tuple(processor.image_std)) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    seen = processor([np.zeros((64, 96, 3), dtype=np.uint8)], return_tensors="np")
    assert seen["image_grid_thw"].tolist() == [[1, 4, 6]]
