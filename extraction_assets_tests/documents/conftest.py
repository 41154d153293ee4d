"""What the documents tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from extraction_assets.documents.digest_cache import DigestCache
from extraction_assets.schema import TargetSchema
from extraction_assets.settings import RenderSettings
from extraction_assets.store import Store

SCHEMAS = Path(__file__).parents[2] / "schemas"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def landing(tmp_path: Path) -> Path:
    folder = tmp_path / "landing"
    folder.mkdir()
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> DigestCache:
    return DigestCache(tmp_path / "digests.json")


@pytest.fixture
def settings() -> RenderSettings:
    """One value for all tests, so that the workers stay warm from one to the next."""
    return RenderSettings(passwords=("secret",))


@pytest.fixture(scope="session")
def schemas() -> dict[str, TargetSchema]:
    return {name: TargetSchema.load(SCHEMAS / f"{name}.schema.json") for name in ("invoice", "receipt", "ad_order", "purchase_order")}


@pytest.fixture(scope="session")
def realdata() -> Path:
    folder = os.environ.get("EXTRACTION_REALDATA")
    if not folder:
        pytest.skip("EXTRACTION_REALDATA does not name the folder of real documents")
    return Path(folder)
