from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from extraction_assets.inference.vocabulary import Vocabulary
from extraction_assets_tests.model.pages import base, base_folder, encoder

__all__ = ["base", "base_folder", "encoder", "vocabulary"]


@pytest.fixture(scope="session")
def vocabulary(base_folder: Path) -> Vocabulary:
    """The tiny base's tokenizer under a model whose output layer is wider, as Qwen's is."""
    tokenizer = AutoTokenizer.from_pretrained(base_folder)
    return Vocabulary.from_tokenizer(tokenizer, len(tokenizer) + 40)
