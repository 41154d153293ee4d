"""A complete tiny Qwen3-VL checkpoint folder: the real classes, with a tokenizer, sizes and weights of our own.

What `transformers` loads from the folder is what it loads from the 8B model's: Qwen3VLForConditionalGeneration, a byte-level BPE
tokenizer with Qwen's pre-tokenizing rule (single digits) and special tokens, the image processor's values and a chat template
with the same text layout. Weights are random here; base_recipe trains them.

    python -m extraction_assets.demo.tiny_base FOLDER     (random weights, for a checkout without the trained base)
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from extraction_assets.demo.base_recipe.tokenizer_sample import sample

if TYPE_CHECKING:
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

Preset = Literal["test", "demo"]

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
PATCH_PX = 16
MERGE = 2
TEMPORAL = 2

_SIZES: dict[str, dict[str, dict[str, Any]]] = {
    "test": {
        "tokenizer": {"vocab_size": 370},
        "text": {"hidden": 64, "intermediate": 128, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 16, "mrope": [4, 2, 2]},
        "vision": {"hidden": 64, "intermediate": 128, "depth": 3, "heads": 2, "deepstack": [0, 1], "positions": 64},
    },
    "demo": {
        "tokenizer": {"vocab_size": 370},
        "text": {"hidden": 256, "intermediate": 512, "layers": 8, "heads": 8, "kv_heads": 8, "head_dim": 32, "mrope": [6, 5, 5]},
        "vision": {"hidden": 192, "intermediate": 768, "depth": 5, "heads": 6, "deepstack": [1, 2, 3], "positions": 256},
    },
}

# The same text layout as Qwen3-VL's template: <|im_start|>role, a line break, the parts in order, <|im_end|>, a line break.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.content is string -%}
{{- message.content -}}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' -%}
{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- elif part.type == 'video' -%}
{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}
{%- elif part.type == 'text' -%}
{{- part.text -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""


def write_random_base(folder: Path, seed: int, preset: Preset = "test") -> None:
    """Write a complete checkpoint folder with random weights; the same (seed, preset) gives the same bytes.

    "test": hidden 64, built in well under a second (imports aside). "demo": 11.1 M parameters in bfloat16, 22 MB.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder, preset)
    write_processor(folder)
    write_model(random_model(seed, preset), folder)


def random_model(seed: int, preset: Preset) -> Qwen3VLForConditionalGeneration:
    """The model with weights drawn from `seed`, in float32. The caller's random state stays as it was."""
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen3VLForConditionalGeneration(model_config(preset))


def model_config(preset: Preset) -> Qwen3VLConfig:
    from transformers import Qwen3VLConfig

    vocabulary = _SIZES[preset]["tokenizer"]["vocab_size"]
    text, vision = _SIZES[preset]["text"], _SIZES[preset]["vision"]
    ids = special_token_ids(preset)
    return Qwen3VLConfig(
        text_config={
            "vocab_size": vocabulary,
            "hidden_size": text["hidden"],
            "intermediate_size": text["intermediate"],
            "num_hidden_layers": text["layers"],
            "num_attention_heads": text["heads"],
            "num_key_value_heads": text["kv_heads"],
            "head_dim": text["head_dim"],
            "max_position_embeddings": 32768,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": text["mrope"],  # sums to head_dim / 2
                "mrope_interleaved": True,
            },
            "tie_word_embeddings": True,
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": vision["depth"],
            "hidden_size": vision["hidden"],
            "intermediate_size": vision["intermediate"],
            "num_heads": vision["heads"],
            "patch_size": PATCH_PX,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": TEMPORAL,
            "out_hidden_size": text["hidden"],
            "num_position_embeddings": vision["positions"],
            "deepstack_visual_indexes": vision["deepstack"],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
        architectures=["Qwen3VLForConditionalGeneration"],
    )


def special_token_ids(preset: Preset) -> dict[str, int]:
    """They stand behind the BPE vocabulary, as in Qwen's tokenizer."""
    first = _SIZES[preset]["tokenizer"]["vocab_size"] - len(SPECIAL_TOKENS)
    return {token: first + i for i, token in enumerate(SPECIAL_TOKENS)}


def write_model(model: Qwen3VLForConditionalGeneration, folder: Path) -> None:
    """config.json, generation_config.json and model.safetensors in bfloat16, the type of the 8B model's own files."""
    import copy

    import torch
    from transformers import GenerationConfig

    text: Any = model.config.text_config
    model.generation_config = GenerationConfig(
        do_sample=False, bos_token_id=text.bos_token_id, eos_token_id=[text.eos_token_id, text.pad_token_id], pad_token_id=text.pad_token_id
    )
    stored: Any = copy.deepcopy(model)
    stored.to(torch.bfloat16).save_pretrained(folder)


def write_tokenizer(folder: Path, preset: Preset) -> None:
    """tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
    # transformers rebuilds this rule (Qwen2Tokenizer's) whatever the file says, so it must be the one that merges are learned with
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(split), behavior="isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=_SIZES[preset]["tokenizer"]["vocab_size"] - len(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        max_token_length=6,
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample(), trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    if {token: tokenizer.token_to_id(token) for token in SPECIAL_TOKENS} != special_token_ids(preset):
        raise AssertionError("the sample is too small for the vocabulary")
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "add_prefix_space": False,
            "bos_token": None,
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "unk_token": None,
            "errors": "replace",
            "clean_up_tokenization_spaces": False,
            "model_max_length": 32768,
            "split_special_tokens": False,
        },
    )
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")


def write_processor(folder: Path) -> None:
    """preprocessor_config.json with Qwen3-VL's values; `size` holds areas in px, and small crops are not enlarged."""
    _write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "Qwen2VLImageProcessor",
            "processor_class": "Qwen3VLProcessor",
            "patch_size": PATCH_PX,
            "temporal_patch_size": TEMPORAL,
            "merge_size": MERGE,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "do_resize": True,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "do_convert_rgb": True,
            "size": {"shortest_edge": (PATCH_PX * MERGE) ** 2, "longest_edge": 16777216},
        },
    )


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python -m extraction_assets.demo.tiny_base FOLDER")
    folder = Path(sys.argv[1])
    half = folder.with_name(f".{folder.name}.{os.getpid()}")
    write_random_base(half, seed=0, preset="demo")
    shutil.rmtree(folder, ignore_errors=True)
    half.rename(folder)
    print(f"{folder}: a base with random weights, which reads nothing")


if __name__ == "__main__":
    main()
