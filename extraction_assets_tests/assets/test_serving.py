"""From the champion to an endpoint: the bundle of a home answers as `predict` does, and walks back to the PDFs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.testclient import TestClient

from extraction_assets.automation.instance import open_instance
from extraction_assets.automation.update import update
from extraction_assets.commands import latest, lineage_command, predict_command, predict_remotely, serve_command
from extraction_assets.definitions import build_definitions
from extraction_assets.errors import InputError
from extraction_assets.evaluation import gate
from extraction_assets.home import Home
from extraction_assets.serving.bundle import open_bundle
from extraction_assets.serving.engine import Engine
from extraction_assets.serving.server import Endpoint
from extraction_assets_tests.homes import SETTINGS, edit_settings, make_home


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, TestClient]]:
    """A home whose challenger was promoted whatever it scored, and its endpoint."""
    home = make_home(tmp_path_factory.mktemp("homes") / "home", {"invoice/acme": 6, "receipt/corner": 6})
    edit_settings(home, lambda values: values.update(decoding={"max_output_tokens": 120, "batch_size": 4}))
    with pytest.MonkeyPatch.context() as patch:
        decide = gate.decide

        def promoted(*arguments: Any, **options: Any) -> Any:
            return dataclasses.replace(decide(*arguments, **options), promote=True)

        patch.setattr("extraction_assets.assets.evaluation.decide", promoted)
        with open_instance(home) as instance:
            assert not update(build_definitions(home), instance, home).failures
    bundle = open_bundle(home.store.folder(latest(home, "serving_bundle")["bundle"]))
    endpoint = Endpoint(bundle)
    endpoint.engine = Engine(bundle, bundle.load())
    with TestClient(endpoint.application()) as client:
        yield home, client
    endpoint.engine.close()


def documents(home: Home) -> list[Path]:
    return sorted(home.landing.glob("invoice/acme/*.pdf"))


@pytest.mark.slow
def test_the_bundle_is_the_champion_with_golden_pages_of_every_type(served: tuple[Home, TestClient]) -> None:
    home, _ = served
    champion, made = latest(home, "champion_adapter"), latest(home, "serving_bundle")
    manifest = open_bundle(home.store.folder(made["bundle"])).manifest
    assert manifest.adapter == made["adapter"] == champion["adapter"] == latest(home, "lora_adapter")["adapter"]
    assert set(manifest.schemas) <= {"invoice", "receipt"}
    assert {page.type for page in manifest.golden} <= set(manifest.schemas)
    assert manifest.golden
    assert manifest.render.dpi == yaml.safe_load(home.settings_path.read_text())["render"]["dpi"] == SETTINGS["render"]["dpi"]


@pytest.mark.slow
def test_served_answers_are_those_of_predict_to_the_byte(served: tuple[Home, TestClient], monkeypatch: pytest.MonkeyPatch) -> None:
    """predict drafts from the PDFs' text layers, the endpoint has none: drafts change no answer."""
    home, client = served
    here, _ = predict_command(home, documents(home), "invoice", None, lambda _: None)
    monkeypatch.setattr("httpx.Client", lambda **_: client)
    monkeypatch.setattr(TestClient, "close", lambda self: None)
    there, refused = predict_remotely(home, documents(home), "invoice", "http://testserver")
    assert not refused
    assert [row["text"] for row in there] == [row["text"] for row in here]
    assert [row["field_confidence"] for row in there] == [pytest.approx(row["field_confidence"], abs=1e-4) for row in here]
    assert len({row["confidence"] for row in here}) == len(here)  # the pages are not all alike to it, even where its answers are


@pytest.mark.slow
def test_a_bundle_walks_back_to_the_pdfs(served: tuple[Home, TestClient]) -> None:
    home, client = served
    made = latest(home, "serving_bundle")
    said = client.get("/ready").json()["bundle"]
    for name in (made["bundle"], str(home.store.folder(made["bundle"])), said):
        chain = lineage_command(home, name)
        assert (chain.kind, chain.digest) == ("bundle", made["bundle"])
        assert ("champion adapter", made["adapter"]) in chain.links
        assert {Path(row["file"]).suffix for row in chain.documents} == {".pdf"}


@pytest.mark.slow
def test_another_limit_makes_another_bundle_and_trains_nothing(served: tuple[Home, TestClient]) -> None:
    home, _ = served
    before = latest(home, "serving_bundle")
    edit_settings(home, lambda values: values.update(serving={"waiting": 7}))
    with open_instance(home) as instance:
        ran = {row.asset for row in update(build_definitions(home), instance, home).ran}
    assert ran == {"serving_settings", "serving_bundle"}
    after = latest(home, "serving_bundle")
    assert (after["adapter"], after["bundle"] == before["bundle"]) == (before["adapter"], False)
    assert json.loads((home.store.folder(after["bundle"]) / "manifest.json").read_text())["serving"]["waiting"] == 7


def test_without_a_bundle_serve_says_what_to_run(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", {"invoice/acme": 1})
    with pytest.raises(InputError, match="serving_bundle was never materialized"):
        serve_command(home.root, None, "127.0.0.1", 0, lambda _: None)
