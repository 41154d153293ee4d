from __future__ import annotations

import json
from pathlib import Path

import pytest

from extraction_assets.schema import TargetSchema
from extraction_assets.serving.bundle import Bundle, GoldenQuestion, write_bundle
from extraction_assets.settings import DecodingSettings, RenderSettings, ServingSettings
from extraction_assets_tests.homes import SCHEMA
from extraction_assets_tests.model.pages import base, base_folder, page_png

__all__ = ["base", "base_folder", "bundle"]

RENDER = RenderSettings(dpi=72, max_visual_tokens=40)
DECODING = DecodingSettings(max_output_tokens=120, batch_size=4)
SERVING = ServingSettings(max_image_mb=0.5, max_megapixels=4, waiting=8, request_seconds=30)


def make_bundle(folder: Path, base_folder: Path, serving: ServingSettings = SERVING, decoding: DecodingSettings = DECODING) -> Bundle:
    """A bundle of the random tiny base: what it answers is noise, but strict JSON, held by two schemas."""
    folder.mkdir()
    schemas = {name: TargetSchema({**json.loads(json.dumps(SCHEMA)), "title": name}, name) for name in ("invoice", "receipt")}
    golden = [GoldenQuestion(name, page_png(96, 64, seed), 96, 64) for seed, name in enumerate(schemas)]
    return write_bundle(folder, base_folder, None, None, schemas, golden, RENDER, decoding, serving)


@pytest.fixture(scope="session")
def bundle(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "bundle", base_folder)
