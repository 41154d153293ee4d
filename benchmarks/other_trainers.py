"""Other trainers, really run on this product's exports on a CPU, and their adapters adopted, scored and bundled.

    python benchmarks/other_trainers.py [--trl PYTHON] [--llamafactory PYTHON] [--swift PYTHON] [--qwen PYTHON --checkout DIR] [--json]

Each PYTHON is an interpreter in which that trainer is installed: python3 -m venv V && V/bin/pip install ...

    torch==2.14.1 torchvision==0.29.1 transformers==5.23.0 peft trl accelerate datasets         TRL
    torch==2.14.1 torchvision==0.29.1 ms-swift==4.6.0 qwen_vl_utils                             ms-swift
    torch==2.14.1 torchvision==0.29.1 llamafactory==0.9.5                                       LLaMA-Factory

LLaMA-Factory refuses torch 2.9, the last that its torchaudio is for, because of a slow convolution; with torch 2.14 an empty module of that name
in site-packages does: no sound is read.

The home has eighteen small drawn documents; its base has Qwen's own vocabulary (pip install --no-deps dashscope), whose token numbers ms-swift
holds for given, and random weights. Each export's own config is used, but for the base and for what a CPU needs (no bfloat16). What is
printed: the response loss on val of the base, of an adapter of ours, and, after adoption, of each of theirs, counted by our own code on our own
tokens. As many steps of as many examples at the same rate, in an order of each trainer's own; transformers' schedule gives the first of their
steps a rate of 0.

qwen-vl-finetune needs a GPU (flash-attn), so its training is not run: its own data module reads the export (--checkout: the folder
qwen-vl-finetune of a checkout of QwenLM/Qwen3-VL), and tokens, labels, positions and pixels are held against ours.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from peft import PeftModel

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from printing import Row, print_rows  # noqa: E402
from qwen_vocabulary import ranks_file, write_qwen_base  # noqa: E402

from extraction_assets.commands import adopt_command, export_command, latest, update_command  # noqa: E402
from extraction_assets.dataset.export import FormatName  # noqa: E402
from extraction_assets.home import Home  # noqa: E402
from extraction_assets.model.attention import attend_within_pages  # noqa: E402
from extraction_assets.model.base import load_base  # noqa: E402
from extraction_assets.model.encoding import PageEncoder  # noqa: E402
from extraction_assets.model.examples import read_examples  # noqa: E402
from extraction_assets.model.packing import pack  # noqa: E402
from extraction_assets.training.loss import response_loss  # noqa: E402
from extraction_assets_tests.homes import edit_settings, make_home  # noqa: E402

STEPS = 8
_READS = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from transformers import AutoProcessor
from qwenvl.data import data_dict
from qwenvl.data.data_processor import make_supervised_data_module
from qwenvl.train.argument import DataArguments

export, base, pixels, out = sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5]
data_dict["extraction_train"] = {"annotation_path": f"{export}/train.jsonl", "data_path": export}
processor = AutoProcessor.from_pretrained(base)
told = DataArguments(dataset_use="extraction_train", data_flatten=True, min_pixels=1024, max_pixels=pixels)
told.model_type = "qwen3vl"
read = make_supervised_data_module(processor, data_args=told)["train_dataset"]
names = ("input_ids", "labels", "position_ids", "pixel_values")
torch.save([{name: read[i][name] for name in names} for i in range(len(read))], out)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("trl", "llamafactory", "swift", "qwen"):
        parser.add_argument(f"--{name}", type=Path, metavar="PYTHON")
    parser.add_argument("--checkout", type=Path, metavar="DIR", help="qwen-vl-finetune of QwenLM/Qwen3-VL, for --qwen")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    ranks = ranks_file()
    if ranks is None:
        parser.error("dashscope is not installed: pip install --no-deps dashscope")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        home = _home(Path(scratch) / "home", ranks)
        base_loss = _val_loss(home, None)
        _update(home, "lora_adapter")
        ours = _val_loss(home, home.store.folder(latest(home, "lora_adapter")["adapter"]))
        rows.append(Row("our_val_loss", round(ours, 4), f"of an adapter of ours, {STEPS} steps", "lower", round(base_loss, 4), "base"))
        for name in ("trl", "llamafactory", "swift"):
            if (python := getattr(arguments, name)) is not None:
                folder = _train(home, name, python)
                adopted = adopt_command(home, folder, None, _say)
                loss = _val_loss(home, Path(adopted["path"]))
                rows.append(
                    Row(f"{name}_val_loss", round(loss, 4), f"of the adopted adapter, {STEPS} steps", "lower", round(base_loss, 4), "base")
                )
                _update(home, "serving_bundle")
                answered = latest(home, "eval_report")["adapters"]["challenger"] == adopted["adapter"]
                rows.append(
                    Row(f"{name}_scored", int(answered), "1: it is the eval report's challenger, and all up to the bundle ran", "higher")
                )
        if arguments.qwen is not None:
            rows += _read_by_qwen(home, arguments.qwen.absolute(), arguments.checkout.absolute(), Path(scratch) / "read.pt")
    print_rows(rows, ("torch", "transformers", "peft"), arguments.json)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _home(root: Path, ranks: Path) -> Home:
    home = make_home(root, {"invoice/acme": 6, "invoice/bolt": 6, "receipt/corner": 6}, base=False)
    write_qwen_base(root / "base", ranks)

    def larger(values: dict[str, Any]) -> None:  # LLaMA-Factory and ms-swift enlarge pages below 256 tokens of 16 x 16 px
        values["render"] = {"dpi": 144, "max_visual_tokens": 300}
        values["training"] |= {"max_steps": STEPS, "checkpoint_every": STEPS}

    edit_settings(home, larger)
    _update(home, "training_plan")
    return home


def _update(home: Home, asset: str) -> None:
    walk, _ = update_command(home, [asset], _say)
    if walk.failures:
        sys.exit(walk.failures[0])


def _train(home: Home, name: FormatName, python: Path) -> Path:
    """Run a trainer on its export, by its own config; returns the adapter's folder."""
    export = home.root / "exports" / name
    export_command(home, name, export)
    config = yaml.safe_load((export / "train.yaml").read_text(encoding="utf-8"))
    base = str(home.root / "base")
    here: dict[str, Any] = {"use_cpu": True}
    if name == "swift":
        here |= {"model": base, "model_type": "qwen3_vl", "use_hf": False, "torch_dtype": "float32"}
    else:
        here |= {"model_name_or_path": base, "bf16": False, **({"dtype": "float32"} if name == "trl" else {})}
    (export / "here.yaml").write_text(yaml.safe_dump({**config, **here}), encoding="utf-8")
    command = {
        "trl": [str(python), "train.py", "--config", "here.yaml"],
        "swift": [str(python.parent / "swift"), "sft", "here.yaml"],
        "llamafactory": [str(python.parent / "llamafactory-cli"), "train", "here.yaml"],
    }[name]
    _say(f"{name}: {' '.join(command)}")
    _call(command, export)
    (folder,) = {
        path.parent for path in (export / "output").glob("**/adapter_model.safetensors") if path.parent.name == f"checkpoint-{STEPS}"
    }
    return folder


def _call(command: list[str], folder: Path) -> None:
    """Away from this process's own modules, hubs and GPUs."""
    offline: Mapping[str, str] = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": ""}
    done = subprocess.run(command, cwd=folder, env=offline, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{command[0]}: {(done.stdout + done.stderr)[-3000:]}")


def _val_loss(home: Home, adapter: Path | None) -> float:
    """Mean over the response tokens of val, in float32."""
    base = load_base(home.base_model(), dtype=torch.float32)
    attend_within_pages(base.model)
    model = base.model if adapter is None else PeftModel.from_pretrained(base.model, str(adapter)).eval()
    encoder = PageEncoder(base.format)
    total = tokens = 0.0
    for example in read_examples(home.store.local_path(latest(home, "val_split")["jsonl"], ".jsonl")):
        page = pack([encoder.page(example.id, example.image.read_bytes(), example.instruction, example.target)], base.format.pages.merge)
        with torch.no_grad():
            total += float(response_loss(model, page))
        tokens += len(page.response)
    return total / tokens


def _read_by_qwen(home: Home, python: Path, checkout: Path, out: Path) -> list[Row]:
    export = home.root / "exports" / "qwen"
    export_command(home, "qwen", export)
    most = home.settings().render.max_visual_tokens * 32**2
    _call([str(python), "-c", _READS, str(checkout), str(export), str(home.root / "base"), str(most), str(out)], export)
    theirs = torch.load(out, weights_only=True)
    encoder = PageEncoder(load_base(home.base_model()).format)
    examples = read_examples(home.store.local_path(latest(home, "train_split")["jsonl"], ".jsonl"))
    same, farthest = 0, 0.0
    for example, read in zip(examples, theirs, strict=True):
        page = encoder.page(example.id, example.image.read_bytes(), example.instruction, example.target)
        ids, labels = page.text.input_ids.tolist(), page.text.labels.tolist()
        line_break = encoder.tokenizer.encode("\n", add_special_tokens=False)
        found = (read["input_ids"].flatten().tolist(), read["labels"].flatten().tolist())
        positions = np.array_equal(page.text.positions, read["position_ids"][:, 0, : len(ids)].numpy())
        same += found == (ids + line_break, labels + line_break) and positions
        farthest = max(farthest, float(np.abs(page.pixel_values - read["pixel_values"].numpy()).max()))
    return [
        Row("qwen_same_tokens", same, f"of {len(examples)} examples: tokens, labels, positions as ours and a line break behind", "higher"),
        Row("qwen_pixel_difference", farthest, "largest difference of a pixel value", "lower"),
    ]


if __name__ == "__main__":
    main()
