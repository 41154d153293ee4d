"""The base that ships: complete, small, and as good at reading as its card says, on pages of a seed that nothing here has used."""

from __future__ import annotations

import json

import pytest
import torch

from extraction_assets.demo.base_recipe.measure import measure
from extraction_assets.home import PROJECT
from extraction_assets.model.base import load_base

BASE = PROJECT / "data" / "base_models" / "tiny-qwen3-vl"
SEED = 77_001
PAGES = 4
pytestmark = pytest.mark.skipif(not (BASE / "measures.json").exists(), reason="this checkout has a base with random weights")


def test_it_is_complete_and_small() -> None:
    names = {path.name for path in BASE.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "preprocessor_config.json", "README.md"} <= names
    assert sum(path.stat().st_size for path in BASE.iterdir()) < 25e6
    assert load_base(BASE).format.text.hidden_size == 256


def test_its_card_tells_what_was_measured() -> None:
    card, measures = (BASE / "README.md").read_text(encoding="utf-8"), json.loads((BASE / "measures.json").read_text(encoding="utf-8"))
    for size, values in measures["sizes"].items():
        assert f"| {size} | {' | '.join(f'{value:.3f}' for value in values.values())} |" in card


MARGINS = {"glyphs_from_patch": 0.05, "glyphs_from_token": 0.05, "strict_json": 0.3, "field_exact": 0.12, "cell_exact": 0.12}
"""how far a few pages of another seed may fall behind the card's many"""


@pytest.mark.slow
def test_it_reads_as_well_as_its_card_says() -> None:
    """One test for all: each worker of a parallel run would measure for itself."""
    card = json.loads((BASE / "measures.json").read_text(encoding="utf-8"))["sizes"]
    measured = measure(BASE, SEED, PAGES, torch.device("cpu"))["sizes"]
    here, there = ({name: sum(values[name] for values in sizes.values()) / len(sizes) for name in MARGINS} for sizes in (measured, card))
    assert not {name: (here[name], there[name]) for name, margin in MARGINS.items() if here[name] <= there[name] - margin}
