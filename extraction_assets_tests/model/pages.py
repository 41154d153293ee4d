"""A random tiny base and small splits with real page images, for the tests of model, training and inference."""

from __future__ import annotations

import hashlib
import io
import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from extraction_assets.demo.tiny_base import write_random_base
from extraction_assets.model.base import Base, load_base
from extraction_assets.model.encoding import PageEncoder
from extraction_assets.schema import TargetSchema

torch.set_num_threads(1)

SCHEMA_DIGEST = "b" * 64
SCHEMA = TargetSchema(
    {
        "type": "object",
        "properties": {name: {"type": ["string", "null"]} for name in ("number", "buyer", "total")},
        "required": ["number", "buyer", "total"],
        "additionalProperties": False,
    },
    "invoice",
)
"""of the targets below"""
SIZES = ((64, 96), (96, 64), (96, 96), (128, 64))


def page_png(width: int, height: int, seed: int) -> bytes:
    """A page image of noise and bars: every page is another, and compresses to a few kB."""
    rng = np.random.default_rng(seed)
    pixels = np.full((height, width, 3), 255, dtype=np.uint8)
    for _ in range(6):
        y, x = int(rng.integers(height)), int(rng.integers(width))
        pixels[y : y + 9, x : x + 30] = rng.integers(0, 255, 3, dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_split(folder: Path, split: str, count: int, sizes: Sequence[tuple[int, int]] = SIZES, words: int = 4) -> Path:
    """A split of `count` examples whose targets differ in length. Returns the JSONL."""
    (folder / "pages").mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(count):
        chosen = random.Random(f"{split}{number}")
        width, height = sizes[number % len(sizes)]
        png = page_png(width, height, chosen.randrange(2**31))
        path = folder / "pages" / f"{split}-{number}.png"
        path.write_bytes(png)
        target = {"number": str(chosen.randrange(1000)), "buyer": " ".join(["Müller"] * chosen.randint(1, words)), "total": None}
        lines.append(_record(f"{split}-{number}", split, path.name, png, width, height, target))
    jsonl = folder / f"{split}.jsonl"
    jsonl.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return jsonl


def _record(example: str, split: str, name: str, png: bytes, width: int, height: int, target: dict[str, str | None]) -> str:
    user = [{"type": "image", "image": f"pages/{name}"}, {"type": "text", "text": "Extract as JSON: number, buyer, total"}]
    answer = [{"type": "text", "text": json.dumps(target, ensure_ascii=False, separators=(",", ":"))}]
    meta = {
        "document": "a" * 64,
        "page": 1,
        "type": "invoice",
        "vendor": "invoice/acme",
        "stratum": "clean",
        "twin": None,
        "split": split,
        "schema": SCHEMA_DIGEST,
        "page_digest": hashlib.sha256(png).hexdigest(),
        "width": width,
        "height": height,
        "dpi": 100.0,
    }
    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    return json.dumps({"id": example, "messages": messages, "meta": meta}, ensure_ascii=False)


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases") / "tiny"
    write_random_base(folder, seed=0)
    return folder


@pytest.fixture(scope="session")
def base(base_folder: Path) -> Base:
    """In float32, with weights large enough that it answers each page with another, changing text (fresh ones repeat one token)."""
    loaded = load_base(base_folder, dtype=torch.float32)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in loaded.model.named_parameters():
            if parameter.ndim >= 2 and "patch_embed" not in name:
                parameter.normal_(0, 0.25, generator=generator)
    return loaded


@pytest.fixture(scope="session")
def encoder(base: Base) -> PageEncoder:
    return PageEncoder(base.format)
