"""LoRA SFT with TRL on the splits beside this file: accelerate launch train.py --config train.yaml

TRL's own command has no argument for the size of a page. Here the processor gets one that no page is outside of, so that nothing is
resized: `size` holds areas, whatever its keys are called.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class PageArguments:
    """What train.yaml says beyond TRL's own arguments."""

    train_file: str
    min_pixels: int
    max_pixels: int
    eval_file: str | None = None


def main() -> None:
    os.chdir(Path(__file__).resolve().parent)  # image paths are relative to this folder

    from transformers import AutoProcessor
    from trl import ModelConfig, SFTConfig, SFTTrainer, TrlParser, get_peft_config, get_quantization_config

    pages, training, model = TrlParser((PageArguments, SFTConfig, ModelConfig)).parse_args_and_config()
    processor = AutoProcessor.from_pretrained(model.model_name_or_path)
    processor.image_processor.size = {"shortest_edge": pages.min_pixels, "longest_edge": pages.max_pixels}
    loading: dict[str, Any] = {"dtype": model.dtype, "attn_implementation": model.attn_implementation, "revision": model.model_revision}
    if (quantization := get_quantization_config(model)) is not None:
        quantization.llm_int8_skip_modules = ["model.visual", "lm_head"]  # the vision tower stays as it is
        loading["quantization_config"] = quantization
    training.model_init_kwargs = loading
    trainer = SFTTrainer(
        model=model.model_name_or_path,
        args=training,
        train_dataset=load_split(pages.train_file),
        eval_dataset=load_split(pages.eval_file) if pages.eval_file else None,
        processing_class=processor,
        peft_config=get_peft_config(model),
    )
    trainer.train()
    trainer.save_model(training.output_dir)


def load_split(file: str) -> Any:
    """A split with its images as pictures, opened when they are needed."""
    from datasets import Image, Sequence, load_dataset

    return load_dataset("json", data_files=file, split="train").cast_column("images", Sequence(Image()))


if __name__ == "__main__":
    main()
