from pathlib import Path

import pytest

from extraction_assets.store import Store
from extraction_assets_tests.dataset.exports import Dataset, page


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def chat_schema() -> Path:
    return Path(__file__).parents[2] / "schemas" / "qwen_vl_pdf_extract.schema.json"


@pytest.fixture
def dataset(store: Store, chat_schema: Path, tmp_path: Path) -> Dataset:
    train = [page(store, "a"), page(store, "b", 320, 256), page(store, "c", 512, 288)]
    train.append(train[0].model_copy(update={"id": "0" * 32, "instruction": "Another question of the same page"}))
    return Dataset(store, chat_schema, {"train": train, "val": [page(store, "d")], "test": [page(store, "e")]}, tmp_path)
