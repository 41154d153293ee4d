"""LLaMA-Factory, its dataset in the sharegpt format with `messages`.

Followed: github.com/hiyouga/LLaMA-Factory at ff6d4d12 (2026-08-18, v0.9.5 and 54 commits; transformers up to 5.8):
src/llamafactory/hparams/{data,model,finetuning,training}_args.py, data/{parser,converter,loader,mm_plugin,template}.py,
data/processor/supervised.py, model/adapter.py, model/model_utils/visual.py, data/README.md, data/dataset_info.json (mllm_demo),
examples/train_lora/qwen3vl_lora_sft.yaml.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from extraction_assets.dataset.export.trainer_format import (
    ExportExample,
    TrainerFormat,
    TrainingRun,
    one_gpu,
    shared_arguments,
    yaml_config,
)

_CHECKPOINT_MIN_PIXELS = 65_536
"""size.shortest_edge in Qwen3-VL's preprocessor_config.json. image_min_pixels bounds LLaMA-Factory's own resize (mm_plugin.py,
_preprocess_image) only; the checkpoint's image processor is then called without a size, and no argument reaches it."""


def _line(example: ExportExample) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": f"<image>{example.instruction}"},
            {"role": "assistant", "content": example.target},
        ],
        "images": [example.image],
        "id": example.id,
    }


def _files(run: TrainingRun) -> Mapping[str, str]:
    described = {
        f"extraction_{split}": {
            "file_name": f"{split}.jsonl",
            "formatting": "sharegpt",
            "columns": {"messages": "messages", "images": "images"},
            "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
        }
        for split in ("train", "val", "test")
    }
    return {"train.yaml": _config(run), "dataset_info.json": json.dumps(described, indent=2) + "\n"}


def _config(run: TrainingRun) -> str:
    head = [
        "LoRA SFT on Qwen3-VL with LLaMA-Factory (written for ff6d4d12, 2026-08-18). In this folder: llamafactory-cli train train.yaml",
        one_gpu(run),
        "image_min_pixels and image_max_pixels are areas that no page is outside of, cutoff_len is more than any example has.",
    ]
    if run.qlora:
        head.append("LLaMA-Factory has no argument for modules left out of the 4-bit base: the frozen vision tower is in 4 bits too.")
    evaluation = {"eval_dataset": "extraction_val", "eval_strategy": "epoch", "per_device_eval_batch_size": run.batch}
    return yaml_config(
        head,
        {
            "model": {
                "model_name_or_path": run.model,
                "image_min_pixels": run.min_pixels,
                "image_max_pixels": run.max_pixels,
                **({"quantization_bit": 4, "quantization_type": "nf4", "double_quantization": True} if run.qlora else {}),
            },
            "method": {
                "stage": "sft",
                "do_train": True,
                "finetuning_type": "lora",
                "lora_rank": run.training.r,
                "lora_alpha": run.alpha,
                "lora_dropout": run.training.dropout,
                "use_rslora": run.training.rslora,
                "use_dora": run.training.dora,
                "lora_target": ",".join(run.target_modules),
                "freeze_vision_tower": True,
                "freeze_multi_modal_projector": True,
                "freeze_language_model": False,
            },
            "dataset": {
                "dataset": "extraction_train",
                "dataset_dir": ".",  # image paths are looked for here too: media_dir defaults to dataset_dir
                "template": "qwen3_vl_nothink",  # qwen3_vl would put an empty <think></think> into the answers
                "cutoff_len": run.cutoff,
                "train_on_prompt": False,
                "packing": False,
            },
            "train": {
                # llamafactory has a switch of its own, on by default
                **{name: value for name, value in shared_arguments(run).items() if name != "gradient_checkpointing"},
                "warmup_ratio": run.warmup,
                "bf16": True,
                "output_dir": "output",
                "report_to": "none",
            },
            **({"eval": evaluation} if run.validates else {}),
        },
    )


LLAMAFACTORY = TrainerFormat(
    name="llamafactory",
    trainer="LLaMA-Factory",
    config="train.yaml",
    line=_line,
    files=_files,
    # extras/constants.py; in targets too: _validate_messages counts them over all messages. {{idx}}: formatter.py fills it in user turns
    placeholders=("<image>", "<video>", "<audio>", "{{idx}}"),
    smallest_page=_CHECKPOINT_MIN_PIXELS,
)
