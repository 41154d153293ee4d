from pathlib import Path

import pytest

from extraction_assets.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def chat_schema() -> Path:
    return Path(__file__).parents[2] / "schemas" / "qwen_vl_pdf_extract.schema.json"
