"""From the champion to an endpoint: the bundle of a home answers as `predict` does, and walks back to the PDFs."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from starlette.testclient import TestClient

from extraction_assets.automation.instance import open_instance
from extraction_assets.automation.sensors import failed_partitions
from extraction_assets.automation.staleness import Planner
from extraction_assets.automation.update import Walk, update
from extraction_assets.commands import latest, lineage_command, predict_command, predict_remotely, serve_command
from extraction_assets.definitions import build_definitions
from extraction_assets.errors import InputError
from extraction_assets.evaluation import gate
from extraction_assets.home import Home
from extraction_assets.observation import Observation
from extraction_assets.serving.bundle import open_bundle
from extraction_assets.serving.engine import Engine
from extraction_assets.serving.server import Endpoint
from extraction_assets_tests.homes import SETTINGS, edit_settings, make_home
from extraction_assets_tests.training_here import training_here


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
        with open_instance(home) as instance, training_here():
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
    assert ran == {"serving_settings", "serving_bundle", "endpoint_deployment"}
    after = latest(home, "serving_bundle")
    assert (after["adapter"], after["bundle"] == before["bundle"]) == (before["adapter"], False)
    assert json.loads((home.store.folder(after["bundle"]) / "manifest.json").read_text())["serving"]["waiting"] == 7


def test_without_a_bundle_serve_says_what_to_run(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", {"invoice/acme": 1})
    with pytest.raises(InputError, match="serving_bundle was never materialized"):
        serve_command(home.root, None, "127.0.0.1", 0, lambda _: None)


# --- endpoint_deployment ---------------------------------------------------------------------------------------------------------


def deploy(home: Home, values: dict[str, Any], to: list[str] | None = None) -> tuple[Walk, dict[str, dg.MetadataValue]]:
    """(what `update` did with these settings of the deployment, metadata of the last one that was made)."""
    edit_settings(home, lambda settings: settings.update(deployment=values))
    with open_instance(home) as instance:
        walk = update(build_definitions(home), instance, home, to)
        event = instance.get_latest_materialization_event(dg.AssetKey("endpoint_deployment"))
    return walk, dict(event.asset_materialization.metadata) if event and event.asset_materialization else {}


REHEARSED = {"target": "fake", "image": f"registry.example.com/extraction-serve@sha256:{'a' * 64}", "auth": "key"}


@pytest.mark.slow
def test_without_a_target_the_asset_says_that_nothing_is_deployed(served: tuple[Home, TestClient]) -> None:
    home, _ = served
    walk, metadata = deploy(home, {})
    assert not walk.failures
    assert metadata["outcome"].value == "nothing is deployed: deployment.target is none"
    assert latest(home, "endpoint_deployment")["outcome"] == "nothing"


@pytest.mark.slow
def test_a_changed_deployment_reruns_only_it_and_walks_back_to_the_pdfs(served: tuple[Home, TestClient]) -> None:
    home, _ = served
    pytest.importorskip("azure.ai.ml")
    deploy(home, {})
    walk, metadata = deploy(home, REHEARSED)
    assert [(row.asset, row.ok) for row in walk.ran] == [("deployment_settings", True), ("endpoint_deployment", True)]
    value, bundle = latest(home, "endpoint_deployment"), latest(home, "serving_bundle")
    assert (value["outcome"], value["agreement"], value["traffic"]) == ("rehearsed", 1.0, {value["deployment"]: 100})
    assert "nothing is deployed" in str(metadata["outcome"].value)
    assert "| mirror |" in str(metadata["steps"].value)
    assert "+environment: registry.example.com" in str(metadata["difference"].value)
    assert "no prices" in str(metadata["costs"].value)
    for name in (value["deployment"], value["endpoint"], str(metadata["digest"].value)):
        chain = lineage_command(home, name)
        assert chain.kind == "deployment"
        assert {("bundle", bundle["bundle"]), ("champion adapter", bundle["adapter"])} <= set(chain.links)
        assert {Path(row["file"]).suffix for row in chain.documents} == {".pdf"}
    again, _ = deploy(home, {**REHEARSED, "currency": "EUR"})
    assert {row.asset for row in again.ran} == {"deployment_settings", "endpoint_deployment"}
    assert latest(home, "endpoint_deployment") == value


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"target": "fake"}, r"deployment\.environment\.image"),
        ({**REHEARSED, "target": "azure", "automatic": True}, "subscription, resource_group, workspace is not set"),
    ],
)
def test_a_plan_that_cannot_work_fails_the_asset_with_its_reason(
    served: tuple[Home, TestClient], values: dict[str, Any], told: str
) -> None:
    home, _ = served
    walk, _ = deploy(home, values)
    assert [row.ok for row in walk.ran if row.asset == "endpoint_deployment"] == [False]
    assert re.search(told, "; ".join(walk.failures))


@pytest.mark.slow
def test_a_rollout_that_fails_sets_traffic_back_and_is_a_failed_asset(
    served: tuple[Home, TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, _ = served
    pytest.importorskip("azure.ai.ml")
    from extraction_assets.serving import rollout
    from extraction_assets.serving.azure_double import AzureDouble, Fault

    doubles: list[AzureDouble] = []

    class Faulty(AzureDouble):
        """Out of quota as the new deployment is made."""

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.faults = [Fault("PUT", "deployments/bundle-[0-9a-f]+", "OutOfQuota", "Not enough quota for the SKU.", 0)]
            doubles.append(self)

    monkeypatch.setattr(rollout, "AzureDouble", Faulty)
    before = latest(home, "endpoint_deployment")
    walk, _ = deploy(home, {**REHEARSED, "instances": 2})
    assert len(walk.failures) == 1
    assert re.match(r"endpoint_deployment \(fake\): rolled back: create deployment at 0 %: .*OutOfQuota", walk.failures[0])
    state = doubles[0].state("extraction")
    assert state is not None
    assert (state["traffic"], list(state["deployments"])) == ({rollout.STANDING: 100}, [rollout.STANDING])
    assert latest(home, "endpoint_deployment") == before
    with open_instance(home) as instance:
        failed = instance.get_records_for_run(walk.ran[-1].run, of_type=dg.DagsterEventType.STEP_FAILURE).records[0]
        data = failed.event_log_entry.dagster_event
        assert data is not None
        assert data.step_failure_data.user_failure_data is not None
        assert "failed" in data.step_failure_data.user_failure_data.metadata


@pytest.mark.slow
def test_azure_is_touched_only_by_name_and_nothing_runs_unattended(served: tuple[Home, TestClient]) -> None:
    home, _ = served
    deploy(home, {})
    walk, _ = deploy(home, {**REHEARSED, "target": "azure"})
    assert [row.asset for row in walk.ran] == ["deployment_settings"]
    walk, _ = deploy(home, {**REHEARSED, "target": "azure"}, to=["endpoint_deployment"])
    assert [(row.asset, row.ok) for row in walk.ran] == [("endpoint_deployment", False)]
    key = dg.AssetKey("endpoint_deployment")
    definitions = build_definitions(home)
    assert definitions.resolve_asset_graph().get(key).automation_condition is None
    with open_instance(home) as instance:
        planner = Planner.of(definitions, instance, Observation.of(home))
        assert "endpoint_deployment" not in {status.asset for status in failed_partitions(instance, planner)}  # nor by the nightly heal
        asked = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance, asset_selection=[key], tags={"dagster/from_automation_condition": "true"}, raise_on_error=False
        )
        assert "nobody asked for this run" in str(asked.get_step_failure_events())
    edit_settings(home, lambda settings: settings["deployment"].update(automatic=True))
    assert build_definitions(home).resolve_asset_graph().get(key).automation_condition is not None
