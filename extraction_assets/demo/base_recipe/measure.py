"""How well an exported base reads pages of a seed that no training has seen.

`python -m extraction_assets.demo.base_recipe.measure FOLDER [--seed N] [--pages N]` prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import Qwen3VLForConditionalGeneration

from extraction_assets.demo.base_recipe.export import load_heads
from extraction_assets.demo.base_recipe.glyph_cells import cell_classes
from extraction_assets.demo.base_recipe.papers import paper_example
from extraction_assets.demo.base_recipe.reading_model import answer_pages
from extraction_assets.demo.base_recipe.reading_stage import score_answers
from extraction_assets.demo.base_recipe.vision import GlyphHeads, patches_of, see
from extraction_assets.model.precision import products

SIZES = ((512, 640), (640, 672), (640, 896))
PAGES_AT_ONCE = 4


def measure(
    folder: Path, seed: int, pages: int, device: torch.device, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Per page size: glyph accuracy of either head, strict-JSON rate, exactness of fields and cells in free answers."""
    model: Any = Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    model.to(device).eval()
    heads = load_heads(folder, model.config.vision_config.hidden_size, model.config.text_config.hidden_size).to(device)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    sizes: dict[str, dict[str, float]] = {}
    for number, (width, height) in enumerate(SIZES):
        sizes[f"{width}x{height}"] = _measure_size(model, heads, tokenizer, seed, pages, width, height, device)
        if progress:
            progress(number + 1, len(SIZES))
    return {"seed": seed, "pages": pages, "parameters": sum(p.numel() for p in model.parameters()), "sizes": sizes}


@torch.no_grad()
def _measure_size(
    model: Any, heads: GlyphHeads, tokenizer: Tokenizer, seed: int, pages: int, width: int, height: int, device: torch.device
) -> dict[str, float]:
    rng = random.Random(f"measure:{seed}:{width}x{height}")
    examples = [paper_example(rng, width, height) for _ in range(pages)]
    answers: list[str] = []
    named: list[list[bool]] = [[], []]
    for start in range(0, pages, PAGES_AT_ONCE):
        group = examples[start : start + PAGES_AT_ONCE]
        pixels = torch.from_numpy(np.stack([example.pixels for example in group])).to(device)
        answers += answer_pages(model, tokenizer, pixels, tuple(example.instruction for example in group))
        classes = torch.from_numpy(np.concatenate([cell_classes(e.glyphs, width, height) for e in group]).reshape(-1)).to(device)
        chosen = torch.nonzero(classes > 0).flatten()
        with products("auto", device.type):
            logits = heads(see(model.model.visual, patches_of(pixels), len(group), height, width), chosen)
        for found, of_head in zip(named, logits, strict=True):
            found += (of_head.argmax(-1) == classes[chosen]).tolist()
    return {
        "glyphs_from_patch": float(np.mean(named[0])),
        "glyphs_from_token": float(np.mean(named[1])),
        **score_answers(answers, [example.answer for example in examples]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m extraction_assets.demo.base_recipe.measure", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=20_260)
    parser.add_argument("--pages", type=int, default=48, help="per page size")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(json.dumps(measure(arguments.folder, arguments.seed, arguments.pages, device), indent=2))


if __name__ == "__main__":
    main()
