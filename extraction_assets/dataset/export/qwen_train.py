"""Starts qwen-vl-finetune on the splits beside this file; train.sh calls it.

qwen-vl-finetune keeps its datasets in a dict of its code and its LoRA targets in its code. Both are set here, in this process, so that
its checkout stays as it is: data_dict (qwenvl/data/__init__.py) and the arguments of peft's LoraConfig (qwenvl/train/train_qwen.py).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    folder = Path(__file__).resolve().parent
    code = Path(os.environ["QWEN_FINETUNE"]).resolve()
    sys.path[:0] = [str(code), str(code / "qwenvl" / "train")]  # train_qwen.py itself imports qwenvl.* and trainer

    import peft
    from qwenvl.data import data_dict

    data_dict["extraction_train"] = {"annotation_path": str(folder / "train.jsonl"), "data_path": str(folder)}
    fixed = {"target_modules": os.environ["LORA_TARGETS"].split(","), "lora_dropout": float(os.environ["LORA_DROPOUT"])}

    class LoraConfig(peft.LoraConfig):
        def __init__(self, **given: Any) -> None:
            super().__init__(**{**given, **fixed})

    peft.LoraConfig = LoraConfig

    from train_qwen import train

    train()


if __name__ == "__main__":
    main()
