"""qwen-vl-finetune of QwenLM/Qwen3-VL.

Followed: github.com/QwenLM/Qwen3-VL at 96588727 (2026-01-30), folder qwen-vl-finetune:
qwenvl/data/data_processor.py (_build_messages, preprocess_qwen_visual, update_processor_pixels), qwenvl/data/__init__.py (data_dict),
qwenvl/train/argument.py, qwenvl/train/train_qwen.py, scripts/sft_30a3b_lora.sh, README.md (transformers 4.57).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from extraction_assets.dataset.export.trainer_format import ExportExample, TrainerFormat, TrainingRun, one_gpu, script, shared_arguments
from extraction_assets.errors import InputError


def _line(example: ExportExample) -> dict[str, Any]:
    return {
        "id": example.id,
        "image": example.image,
        "conversations": [
            {"from": "human", "value": f"<image>{example.instruction}"},
            {"from": "gpt", "value": example.target},
        ],
    }


def _refusal(example: ExportExample) -> str | None:
    if "assistant" in example.instruction:
        # preprocess_qwen_visual finds answers by the token of this word, wherever it stands before the first answer
        return "the instruction holds 'assistant', where this trainer takes an answer to begin"
    if example.instruction != example.instruction.strip():
        return "the instruction begins or ends with white space, which this trainer strips"  # _build_messages
    return None


def _files(run: TrainingRun) -> Mapping[str, str]:
    if run.qlora:
        raise InputError("training.method", "found qlora", "lora: qwen-vl-finetune has no 4-bit base", "Choose lora, or another format")
    for name in ("rslora", "dora"):
        if getattr(run.training, name):
            raise InputError(
                f"training.{name}", "found true", "false: qwen-vl-finetune has plain LoRA", "Set it to false, or choose another format"
            )
    return {"train.sh": _shell(run), "train.py": script("qwen_train.py")}


def _shell(run: TrainingRun) -> str:
    arguments: dict[str, Any] = {
        "model_name_or_path": run.model,
        "dataset_use": "extraction_train",
        "data_flatten": True,  # as in every script of theirs: a batch is one row without padding, pages blind to each other
        "tune_mm_llm": True,
        "tune_mm_vision": False,
        "tune_mm_mlp": False,
        "lora_enable": True,
        "lora_r": run.training.r,
        "lora_alpha": run.alpha,
        "lora_dropout": run.training.dropout,
        "min_pixels": run.min_pixels,
        "max_pixels": run.max_pixels,
        "model_max_length": run.cutoff,
        "bf16": True,
        **shared_arguments(run),
        "warmup_ratio": run.warmup,
        "eval_strategy": "no",  # make_supervised_data_module hands no eval_dataset on; val.jsonl is for your own scoring
        "output_dir": "output",
        "dataloader_num_workers": 4,
        "report_to": "none",
    }
    lines = [f"    --{name} {shlex.quote(str(value))}" for name, value in arguments.items()]
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            "# LoRA SFT on Qwen3-VL with qwen-vl-finetune (github.com/QwenLM/Qwen3-VL at 96588727, 2026-01-30):",
            "#     QWEN_FINETUNE=<checkout>/qwen-vl-finetune bash train.sh",
            f"# {one_gpu(run)}",
            "# min_pixels and max_pixels are areas that no page is outside of: nothing is resized.",
            "set -euo pipefail",
            'cd "$(dirname "${BASH_SOURCE[0]}")"',
            ': "${QWEN_FINETUNE:?set it to the folder qwen-vl-finetune of a checkout of QwenLM/Qwen3-VL}"',
            "export QWEN_FINETUNE",
            "# read by train.py: train_qwen.py has no argument for the first, and reads a dropout of 0 as 0.05",
            f"export LORA_TARGETS={shlex.quote(','.join(run.target_modules))}",
            f"export LORA_DROPOUT={shlex.quote(str(run.training.dropout))}",
            'torchrun --nproc_per_node="${NPROC_PER_NODE:-1}" --master_port="${MASTER_PORT:-29500}" train.py \\',
            " \\\n".join(lines),
            "",
        ]
    )


QWEN = TrainerFormat(
    name="qwen",
    trainer="qwen-vl-finetune",
    config="train.sh",
    line=_line,
    files=_files,
    placeholders=("<image>", "<video>"),  # README: "These special tokens should not appear in the answer text"
    refusal=_refusal,
    ascii_only=True,  # read_jsonl opens without an encoding
)
