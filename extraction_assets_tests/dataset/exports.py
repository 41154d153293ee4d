"""Three splits to export, and a small reader for each trainer: by the rules of its source, written apart from our writers."""

from __future__ import annotations

import io
import json
import math
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from extraction_assets.dataset.chat import write_split
from extraction_assets.dataset.export import FormatName
from extraction_assets.dataset.export.folder import Export, export_splits
from extraction_assets.dataset.export.trainer_format import MODEL, Recipe
from extraction_assets.dataset.records import SPLITS, IndexRow, Split
from extraction_assets.settings import TrainingSettings
from extraction_assets.store import Store, digest_bytes
from extraction_assets_tests.dataset.rows import row

SETTINGS = TrainingSettings(
    r=8, alpha=24, dropout=0.05, learning_rate=1.5e-4, epochs=2, effective_batch=48, micro_batch=5, warmup_ratio=0.05, seed=7
)
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
RECIPE: dict[str, Any] = {"model": MODEL, "training": SETTINGS, "max_visual_tokens": 80}
TARGET = {"number": 'Ä-1 \u2028 \\n "x" 販', "total": None}


def page(store: Store, name: str, width: int = 256, height: int = 288, **target: Any) -> IndexRow:
    """A row whose page image lies in the store; name makes it unlike others."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), tuple(digest_bytes(name.encode()).encode()[:3])).save(buffer, "PNG")
    image = store.put_bytes(buffer.getvalue(), ".png")
    return row(name, target=target or {**TARGET, "total": name}).model_copy(update={"image": image, "width": width, "height": height})


@dataclass
class Dataset:
    """Three splits in a store."""

    store: Store
    chat_schema: Path
    rows: dict[Split, list[IndexRow]]
    home: Path

    def export(self, name: FormatName, out: Path | None = None, **recipe: Any) -> Export:
        paths = {s: self.store.local_path(write_split(self.rows[s], s, self.store, self.chat_schema), ".jsonl") for s in SPLITS}
        return export_splits(name, paths, Recipe(**{**RECIPE, **recipe}), self.chat_schema, self.home / "exports", out)


@dataclass(frozen=True)
class Read:
    """What a trainer would make of one line: the texts around the picture, the picture, the answer."""

    before: str
    after: str
    image: Path
    answer: str


def one_placeholder(text: str, images: list[Path], answer: str) -> Read:
    assert text.count("<image>") + answer.count("<image>") == len(images) == 1
    before, after = text.split("<image>")
    return Read(before, after, images[0], answer)


def read_qwen(export: Path, split: Split) -> list[Read]:
    found = []
    for line in (export / f"{split}.jsonl").read_text(encoding="ascii").split("\n")[:-1]:
        item = json.loads(line)
        human, gpt = item["conversations"]
        assert (human["from"], gpt["from"]) == ("human", "gpt")
        parts = [part for part in re.split(r"(<image>|<video>)", human["value"]) if part.strip()]
        assert parts == ["<image>", parts[1].strip()]
        found.append(one_placeholder(human["value"], [export / item["image"]], gpt["value"]))
    return found


def read_llamafactory(export: Path, split: Split) -> list[Read]:
    told = json.loads((export / "dataset_info.json").read_text())[f"extraction_{split}"]
    assert told["formatting"] == "sharegpt"
    role, content = told["tags"]["role_tag"], told["tags"]["content_tag"]
    found = []
    for line in (export / told["file_name"]).read_text(encoding="utf-8").split("\n")[:-1]:
        item = json.loads(line)
        user, assistant = item[told["columns"]["messages"]]
        assert (user[role], assistant[role]) == (told["tags"]["user_tag"], told["tags"]["assistant_tag"])
        images = [export / image for image in item[told["columns"]["images"]]]
        found.append(one_placeholder(user[content], images, assistant[content]))
    return found


def read_swift(export: Path, split: Split) -> list[Read]:
    found = []
    for line in (export / f"{split}.jsonl").read_text(encoding="utf-8").split("\n")[:-1]:
        item = json.loads(line)
        user, assistant = item["messages"]
        assert (user["role"], assistant["role"]) == ("user", "assistant")
        found.append(one_placeholder(user["content"], [export / image for image in item["images"]], assistant["content"]))
    return found


def read_trl(export: Path, split: Split) -> list[Read]:
    found = []
    for line in (export / f"{split}.jsonl").read_text(encoding="utf-8").split("\n")[:-1]:
        item = json.loads(line)
        (user,), (assistant,) = item["prompt"], item["completion"]
        assert (user["role"], assistant["role"]) == ("user", "assistant")
        picture, text = user["content"]
        assert picture == {"type": "image"}
        (answer,) = assistant["content"]
        (image,) = item["images"]
        found.append(Read("", text["text"], export / image, answer["text"]))
    return found


READERS: dict[FormatName, Callable[[Path, Split], list[Read]]] = {
    "qwen": read_qwen,
    "llamafactory": read_llamafactory,
    "swift": read_swift,
    "trl": read_trl,
}


def arguments(export: Export) -> dict[str, Any]:
    """The arguments that the config hands its trainer, texts as YAML reads them."""
    if export.format != "qwen":
        return yaml.safe_load((export.folder / export.config).read_text())
    tools = export.folder.parent / "tools"
    tools.mkdir(exist_ok=True)
    (tools / "torchrun").write_text('#!/bin/sh\nprintf "%s\\n" "$@" "--LORA_TARGETS" "$LORA_TARGETS" "--LORA_DROPOUT" "$LORA_DROPOUT"\n')
    (tools / "torchrun").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "QWEN_FINETUNE": "/nowhere"}
    command = ["bash", str(export.folder / export.config)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    words = done.stdout.splitlines()
    given = words[words.index("train.py") + 1 :]
    return {key.removeprefix("--"): yaml.safe_load(value) for key, value in zip(given[::2], given[1::2], strict=True)}


def smart_resize(height: int, width: int, smallest: int, largest: int) -> tuple[int, int]:
    """Qwen's own, at 32 px."""
    h, w = (max(32, round(side / 32) * 32) for side in (height, width))
    if h * w > largest:
        beta = math.sqrt(height * width / largest)
        return math.floor(height / beta / 32) * 32, math.floor(width / beta / 32) * 32
    if h * w < smallest:
        beta = math.sqrt(smallest / (height * width))
        return math.ceil(height * beta / 32) * 32, math.ceil(width * beta / 32) * 32
    return h, w
