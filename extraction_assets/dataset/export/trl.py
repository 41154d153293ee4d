"""TRL's SFTTrainer, its conversational prompt-completion format with images.

Followed: github.com/huggingface/trl at f2cd5771 (2026-07-24, 1.10.0.dev0): trl/trainer/sft_trainer.py
(DataCollatorForVisionLanguageModeling, SFTTrainer.__init__), trl/trainer/{sft,model,base}_config.py, trl/trainer/utils.py
(get_peft_config, get_quantization_config), trl/data_utils.py (prepare_multimodal_messages), trl/scripts/utils.py (TrlParser),
examples/scripts/sft_vlm.py; transformers 5.23: training_args.py (warmup_steps), image_processing_pil_qwen2_vl.py (size).

Prompt and completion stand apart, not as one `messages` list: of `messages` with images SFTTrainer learns every token, the
instruction and the visual placeholders included, and it refuses assistant_only_loss for vision models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from extraction_assets.dataset.export.trainer_format import (
    ExportExample,
    TrainerFormat,
    TrainingRun,
    one_gpu,
    script,
    shared_arguments,
    yaml_config,
)


def _line(example: ExportExample) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": example.instruction}]}],
        "completion": [{"role": "assistant", "content": [{"type": "text", "text": example.target}]}],
        "images": [example.image],
        "id": example.id,
    }


def _files(run: TrainingRun) -> Mapping[str, str]:
    head = [
        "LoRA SFT on Qwen3-VL with TRL (written for f2cd5771, 2026-07-24, and transformers 5). In this folder:",
        "    accelerate launch train.py --config train.yaml",
        one_gpu(run),
        "min_pixels and max_pixels are areas that no page is outside of; max_length null cuts nothing.",
    ]
    quantized = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "use_bnb_nested_quant": True}
    config = yaml_config(
        head,
        {
            "pages (train.py)": {
                "train_file": "train.jsonl",
                **({"eval_file": "val.jsonl"} if run.validates else {}),
                "min_pixels": run.min_pixels,
                "max_pixels": run.max_pixels,
            },
            "model (ModelConfig)": {
                "model_name_or_path": run.model,
                "dtype": "bfloat16",
                "use_peft": True,
                "lora_r": run.training.r,
                "lora_alpha": run.alpha,
                "lora_dropout": run.training.dropout,
                "use_rslora": run.training.rslora,
                "use_dora": run.training.dora,
                "lora_target_modules": list(run.target_modules),
                **(quantized if run.qlora else {}),
            },
            "train (SFTConfig)": {
                "max_length": None,
                "completion_only_loss": True,
                "packing": False,
                **shared_arguments(run),
                "warmup_steps": run.warmup,  # below 1 a share of the steps; warmup_ratio left transformers in 5
                "bf16": True,
                "output_dir": "output",
                "report_to": "none",
                "eval_strategy": "epoch" if run.validates else "no",
                **({"per_device_eval_batch_size": run.batch} if run.validates else {}),
            },
        },
    )
    return {"train.yaml": config, "train.py": script("trl_train.py")}


TRL = TrainerFormat(name="trl", trainer="TRL", config="train.yaml", line=_line, files=_files)
