"""ms-swift, its standard `messages` format with `images`.

Followed: github.com/modelscope/ms-swift at 3602360a (2026-08-22, 4.6.0.dev0; transformers below 5.17, qwen_vl_utils 0.0.14 or newer):
swift/cli/main.py (YAML configs), swift/arguments/{sft,tuner}_args.py, swift/arguments/base_args/*.py, swift/trainers/arguments.py,
swift/dataset/preprocessor/core.py, swift/template/base.py, swift/template/templates/qwen.py (Qwen3VLTemplate),
swift/model/models/qwen.py (patch_qwen_vl_utils), swift/model/model_arch.py, docs Customization/Custom-dataset.md and
Instruction/Command-line-parameters.md, examples/models/qwen3_vl/transformers.sh.
"""

from __future__ import annotations

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
from extraction_assets.page_budget import GRID_PX


def _line(example: ExportExample) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": f"<image>{example.instruction}"},
            {"role": "assistant", "content": example.target},
        ],
        "images": [example.image],
    }


def _files(run: TrainingRun) -> Mapping[str, str]:
    quantized = {"quant_method": "bnb", "quant_bits": 4, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
    head = [
        "LoRA SFT on Qwen3-VL with ms-swift (written for 3602360a, 2026-08-22). In this folder: swift sft train.yaml",
        one_gpu(run),
        "Pages are measured in tokens of 32 x 32 px here; no page is outside of the two limits, so nothing is resized.",
    ]
    config = yaml_config(
        head,
        {
            # Qwen3VLTemplate calls the checkpoint's processor with do_resize=False, after qwen_vl_utils.fetch_image with these limits
            "environment": {
                "ENV": {"IMAGE_MIN_TOKEN_NUM": run.min_pixels // GRID_PX**2, "IMAGE_MAX_TOKEN_NUM": -(-run.max_pixels // GRID_PX**2)}
            },
            "model": {"model": run.model, "use_hf": True, "torch_dtype": "bfloat16", **(quantized if run.qlora else {})},
            "method": {
                "tuner_type": "lora",
                "lora_rank": run.training.r,
                "lora_alpha": run.alpha,
                "lora_dropout": run.training.dropout,
                "use_rslora": run.training.rslora,
                "use_dora": run.training.dora,
                "target_modules": list(run.target_modules),
                "freeze_llm": False,
                "freeze_vit": True,
                "freeze_aligner": True,
            },
            "dataset": {
                "dataset": ["train.jsonl"],
                **({"val_dataset": ["val.jsonl"]} if run.validates else {}),
                "data_seed": run.training.seed,
                "strict": True,  # else a bad line is dropped without an error
                "max_length": run.cutoff,
                "truncation_strategy": "delete",  # never reached; the other choices cut
                "loss_scale": "default",
                "packing": False,
            },
            "train": {
                **shared_arguments(run),
                "warmup_ratio": run.warmup,
                "adam_beta2": 0.999,  # swift's own default is 0.95
                "output_dir": "output",
                "add_version": False,
                "eval_strategy": "epoch" if run.validates else "no",
                **({"per_device_eval_batch_size": run.batch} if run.validates else {}),
            },
        },
    )
    return {"train.yaml": config}


SWIFT = TrainerFormat(
    name="swift",
    trainer="ms-swift",
    config="train.yaml",
    line=_line,
    files=_files,
    placeholders=("<image>", "<video>", "<audio>", "<bbox>", "<ref-object>", "<cot-process>", "<start-image>"),  # Template.special_tokens
)
