"""Specs of Azure ML: a good one passes, and each way to break it is refused with its place and reason."""

from __future__ import annotations

import copy
import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from extraction_assets.errors import InputError
from extraction_assets.serving.azure_specs import Specs, checked_specs, make_specs, problems, weight_bytes
from extraction_assets.serving.bundle import Bundle
from extraction_assets.settings import DeploymentSettings

IMAGE = f"registry.example.com/extraction-serve@sha256:{'a' * 64}"
SETTINGS = DeploymentSettings(image=IMAGE)
GIB = 2**30


@pytest.fixture
def specs(bundle: Bundle) -> Specs:
    return make_specs(bundle, SETTINGS)


def test_a_bundles_specs_are_good_and_survive_yaml(bundle: Bundle, specs: Specs) -> None:
    assert problems(specs, weight_bytes(bundle)) == []
    again = Specs(*(yaml.safe_load(yaml.safe_dump(spec)) for spec in (specs.endpoint, specs.deployment)))
    assert again == specs
    assert specs.deployment["request_settings"]["request_timeout_ms"] == 30_000
    assert specs.deployment["model"]["path"] == str(bundle.folder)
    assert bundle.digest.startswith(specs.deployment["name"].removeprefix("bundle-"))


def test_probes_wait_longer_for_larger_weights(bundle: Bundle, specs: Specs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extraction_assets.serving.azure_specs.weight_bytes", lambda _: 17_000_000_000)
    large = make_specs(bundle, SETTINGS).deployment["readiness_probe"]
    assert large["failure_threshold"] * large["period"] >= 600 > specs.deployment["readiness_probe"]["failure_threshold"] * large["period"]


@pytest.mark.parametrize(("sku", "gib", "fits"), [("Standard_NV36ads_A10_v5", 17, True), ("Standard_NC16as_T4_v3", 17, False), ("Standard_NC24ads_A100_v4", 60, False)])  # fmt: skip
def test_weights_are_held_against_the_skus_memory(specs: Specs, sku: str, gib: int, fits: bool) -> None:
    specs.deployment["instance_type"] = sku
    assert (problems(specs, gib * GIB) == []) == fits


def put(*path: str, value: Any) -> Callable[[Specs], None]:
    def change(specs: Specs) -> None:
        node: Any = {"endpoint": specs.endpoint, "deployment": specs.deployment}
        for key in path[:-1]:
            node = node[key]
        if value is DROP:
            del node[path[-1]]
        else:
            node[path[-1]] = value

    return change


DROP = object()
REQUESTS = ("deployment", "request_settings")
MUTATIONS: list[tuple[str, Callable[[Specs], None]]] = [
    ("endpoint.name", put("endpoint", "name", value="ab")),
    ("endpoint.name", put("endpoint", "name", value="a" * 33)),
    ("endpoint.name", put("endpoint", "name", value="1invoices")),
    ("endpoint.name", put("endpoint", "name", value="my_endpoint")),
    ("endpoint.name", put("endpoint", "name", value=None)),
    ("deployment.name", put("deployment", "name", value="ends-")),
    ("deployment.endpoint_name", put("deployment", "endpoint_name", value="another")),
    ("endpoint.auth_mode", put("endpoint", "auth_mode", value="none")),
    ("endpoint.identity.type", put("endpoint", "identity", value=DROP)),
    ("endpoint.public_network_access", put("endpoint", "public_network_access", value="sometimes")),
    ("endpoint.traffic", put("endpoint", "traffic", value={"blue": 90})),
    ("endpoint.traffic", put("endpoint", "traffic", value={"blue": 110, "green": -10})),
    ("endpoint.traffic", put("endpoint", "traffic", value={"blue": 33.3, "green": 66.7})),
    ("endpoint.traffic", put("endpoint", "traffic", value=[100])),
    ("endpoint.mirror_traffic", put("endpoint", "mirror_traffic", value={"green": 60})),
    ("endpoint.mirror_traffic", put("endpoint", "mirror_traffic", value={"green": 10, "red": 10})),
    ("deployment.instance_type", put("deployment", "instance_type", value="Standard_NC24ads_A100_v5")),
    ("deployment.instance_type", put("deployment", "instance_type", value=None)),
    ("deployment.instance_count", put("deployment", "instance_count", value=0)),
    ("deployment.instance_count", put("deployment", "instance_count", value=True)),
    ("deployment.instance_count", put("deployment", "instance_count", value="1")),
    ("deployment.request_settings.request_timeout_ms", put(*REQUESTS, "request_timeout_ms", value=-5)),
    ("deployment.request_settings.request_timeout_ms", put(*REQUESTS, "request_timeout_ms", value=999_999)),
    ("deployment.request_settings.request_timeout_ms", put("deployment", "request_settings", value=DROP)),
    ("deployment.request_settings.max_concurrent", put(*REQUESTS, "max_concurrent_requests_per_instance", value=1)),
    ("deployment.request_settings.max_queue_wait_ms", put(*REQUESTS, "max_queue_wait_ms", value=-1)),
    ("deployment.readiness_probe.failure_threshold", put("deployment", "readiness_probe", "failure_threshold", value=0)),
    ("deployment.liveness_probe.period", put("deployment", "liveness_probe", value={})),
    ("deployment.environment.image", put("deployment", "environment", "image", value="registry.example.com/serve:latest")),
    ("deployment.environment.image", put("deployment", "environment", "image", value=None)),
    ("deployment.environment.inference_config.scoring_route", put("deployment", "environment", "inference_config", "scoring_route", "path", value="/predict")),
    ("deployment.environment.inference_config.liveness_route", put("deployment", "environment", "inference_config", value=DROP)),
    ("deployment.model.path", put("deployment", "model", value=DROP)),
    ("deployment.model.type", put("deployment", "model", "type", value="mlflow_model")),
    ("deployment.model_mount_path", put("deployment", "model_mount_path", value="/elsewhere")),
    ("deployment.code_configuration", put("deployment", "code_configuration", value={"scoring_script": "score.py"})),
    ("deployment.environment_variables.STORAGE_KEY", put("deployment", "environment_variables", "STORAGE_KEY", value="abc")),
    ("deployment.environment_variables.N", put("deployment", "environment_variables", "N", value=4)),
    ("deployment.app_insights_enabled", put("deployment", "app_insights_enabled", value=True)),
    ("deployment.egress_public_network_access", put("deployment", "egress_public_network_access", value="enabled")),
]  # fmt: skip


@pytest.mark.parametrize(("place", "mutate"), MUTATIONS)
def test_each_way_to_break_them_is_refused_with_its_place(
    bundle: Bundle, specs: Specs, place: str, mutate: Callable[[Specs], None]
) -> None:
    broken = copy.deepcopy(specs)
    mutate(broken)
    assert repr(broken) != repr(specs)
    told = problems(broken, weight_bytes(bundle))
    assert any(line.startswith(place) and "expected" in line for line in told), told


def test_live_and_mirrored_at_once_is_refused(specs: Specs) -> None:
    specs.endpoint.update(traffic={"blue": 100}, mirror_traffic={"blue": 10})
    assert any("without live traffic" in line for line in problems(specs, GIB))
    specs.endpoint.update(traffic={"blue": 100, "green": 0}, mirror_traffic={"green": 50})
    assert problems(specs, GIB) == []


def test_each_server_has_the_routes_that_it_answers(bundle: Bundle) -> None:
    """Azure's own server answers nothing before the model is there, so its liveness waits as long as readiness does."""
    for server, ready in (("extraction", "/ready"), ("vllm", "/ready"), ("azureml", "/")):
        made = make_specs(bundle, SETTINGS.model_copy(update={"server": server}))
        assert made.deployment["environment"]["inference_config"]["readiness_route"]["path"] == ready
        assert problems(made, weight_bytes(bundle), server) == []
    assert made.deployment["liveness_probe"]["failure_threshold"] >= made.deployment["readiness_probe"]["failure_threshold"]
    assert problems(made, weight_bytes(bundle), "extraction") != []


def test_vllm_needs_a_gpu_and_merged_weights(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a GPU"):
        checked_specs(bundle, SETTINGS.model_copy(update={"server": "vllm", "sku": "Standard_F16s_v2"}))
    apart = dataclasses.replace(bundle, folder=Path(shutil.copytree(bundle.folder, tmp_path / "copy")))
    (apart.folder / "adapter").mkdir()
    with pytest.raises(InputError, match=r"serving\.weights: merged"):
        checked_specs(apart, SETTINGS.model_copy(update={"server": "vllm"}))


def test_deploy_writes_what_az_takes_or_says_what_is_wrong(bundle: Bundle, tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from extraction_assets.cli import main

    home = tmp_path / "home"
    assert main(["init", str(home)]) == 0
    arguments = ["--home", str(home), "deploy", "--bundle", str(bundle.folder), "--out", str(tmp_path / "specs")]
    assert main(arguments) == 2
    assert "deployment.environment.image" in capsys.readouterr().err
    assert not (tmp_path / "specs").exists()
    settings = home / "settings.yaml"
    settings.write_text(settings.read_text().replace("image: null", f"image: {IMAGE}"))
    assert main(arguments) == 0
    written = {path.name for path in (tmp_path / "specs").iterdir()}
    assert written == {"endpoint.yml", "deployment.yml", "Dockerfile", "rollout.sh"}
    assert yaml.safe_load((tmp_path / "specs" / "deployment.yml").read_text())["environment"]["image"] == IMAGE


def test_settings_refuse_what_no_spec_could_have() -> None:
    with pytest.raises(ValueError, match="instances"):
        DeploymentSettings(instances=0)


def test_an_input_error_names_all_places(bundle: Bundle) -> None:
    from extraction_assets.serving.azure_files import write_specs

    with pytest.raises(InputError, match=r"instance_type.*image"):
        write_specs(bundle, DeploymentSettings(sku="Standard_Nothing"), bundle.folder.parent / "specs")
