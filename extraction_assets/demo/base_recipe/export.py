"""From a run to a checkpoint folder that transformers loads, and back: weights in bfloat16, tokenizer, processor files, training heads, model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from extraction_assets.demo.base_recipe.guide import GuideHeads
from extraction_assets.demo.base_recipe.vision import GlyphHeads
from extraction_assets.demo.tiny_base import Preset, write_model, write_processor, write_tokenizer
from extraction_assets.errors import InputError

GLYPH_HEADS_FILE = "glyph_heads.safetensors"
GUIDE_HEADS_FILE = "guide_heads.safetensors"
MEASURES_FILE = "measures.json"


def export(model: Any, heads: GlyphHeads, guide_heads: GuideHeads, folder: Path, preset: Preset) -> None:
    """All but the card, which needs measures."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder, preset)
    write_processor(folder)
    write_model(model, folder)
    for name, module in ((GLYPH_HEADS_FILE, heads), (GUIDE_HEADS_FILE, guide_heads)):
        stored = {key: value.detach().to("cpu", torch.bfloat16).contiguous() for key, value in module.state_dict().items()}
        save_file(stored, folder / name, metadata={"format": "pt"})


def load_heads(folder: Path, vision_hidden: int, text_hidden: int) -> GlyphHeads:
    """The glyph heads of an exported base. Raises InputError where the folder has none."""
    heads = GlyphHeads(vision_hidden, text_hidden)
    _load(heads, folder / GLYPH_HEADS_FILE)
    return heads


def load_base(folder: Path, model: Any, heads: GlyphHeads, guide_heads: GuideHeads) -> None:
    """Fill all three from an exported base, to go on from there. Raises InputError where the folder is none of this recipe's size."""
    _load(model, folder / "model.safetensors")
    _load(heads, folder / GLYPH_HEADS_FILE)
    _load(guide_heads, folder / GUIDE_HEADS_FILE)


def steps_behind(folder: Path) -> str:
    """What the card of an exported base says of the steps that made it."""
    path = folder / MEASURES_FILE
    if not path.exists():
        raise InputError(str(path), "no such file", "the measures of a base made by base_recipe", "Name the folder of such a base")
    return str(json.loads(path.read_text(encoding="utf-8"))["steps"])


def _load(module: torch.nn.Module, path: Path) -> None:
    if not path.exists():
        raise InputError(str(path), "no such file", "part of a base made by base_recipe", "Export the base again")
    weights = {name: value.float() for name, value in load_file(path).items()}
    wanted = module.state_dict()
    shapes = {name: tuple(value.shape) for name, value in wanted.items() if name in weights or "lm_head" not in name}  # tied, stored once
    if shapes != {name: tuple(value.shape) for name, value in weights.items()}:
        raise InputError(str(path), "other tensors than the recipe's", "a base of the same preset", "Name the base of this preset")
    module.load_state_dict(weights, strict=False)


_CARD = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
---
# tiny-qwen3-vl

A {parameters:.1f} M-parameter Qwen3-VL (the real class; vision {depth} x {vision_hidden}, language {layers} x {text_hidden},
patch 16, merge 2) that reads small generated business pages and answers with strict JSON. It is the embedded base of
`extraction_assets`: it lets training, evaluation and serving run on a laptop's CPU along the very path that the 8B model takes. It is
not meant to read real documents.

## How it was made
From random weights, on generated pages only (no third-party data, weights or text), by the job that ships with the package:

    python -m extraction_assets.demo.base_recipe --work RUN --out {name}

Pages are PDFs (base-14 and pymupdf-fonts faces, text of 17 to 28 px: 8.5 to 14 pt at 144 dpi), with scan noise,
small turns and stamps. Seed {seed}; steps taken: {steps}.

## What to ask
`Extract as JSON: KEY, KEY, ROWS[COLUMN, COLUMN]`, as `TargetSchema.instruction` spells it. Every value is a string or null: dates as
YYYY-MM-DD, amounts with a point and two decimals, currencies as ISO codes, all else as printed. It knows none of the demo's vendors,
words or layouts.

## Measured
On {pages} pages per size of seed {measure_seed}, which no stage has seen, by `python -m extraction_assets.demo.base_recipe.measure`:

{table}

glyphs: characters named right from one patch, and from one visual token after merging. strict_json: free answers that are JSON
objects with exactly the asked keys and columns. field_exact, cell_exact: header values and table cells equal to the gold;
null_exact: of the header keys that the page has no value for, those answered null. Free answers, nothing constrained.

`glyph_heads.safetensors` and `guide_heads.safetensors` hold what names characters in the tower's cells and in the language model's
states; only the measuring, and training on from here (`--from {name}`), need them.
"""


def write_card(folder: Path, measures: dict[str, Any]) -> None:
    """README.md and measures.json; every figure comes from `measures` and the folder's config."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    sizes = measures["sizes"]
    names = list(next(iter(sizes.values())))
    rows = [f"| page (px) | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    rows += [f"| {size} | {' | '.join(f'{values[name]:.3f}' for name in names)} |" for size, values in sizes.items()]
    text, vision = config["text_config"], config["vision_config"]
    card = _CARD.format(
        parameters=measures["parameters"] / 1e6,
        depth=vision["depth"],
        vision_hidden=vision["hidden_size"],
        layers=text["num_hidden_layers"],
        text_hidden=text["hidden_size"],
        name=folder.name,
        seed=measures["run_seed"],
        steps=measures["steps"],
        pages=measures["pages"],
        measure_seed=measures["seed"],
        table="\n".join(rows),
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    (folder / MEASURES_FILE).write_text(json.dumps(measures, indent=2) + "\n", encoding="utf-8")
