"""A bundle on Azure ML: the specs of a managed online endpoint and of one deployment behind it, and everything that can be wrong with them.

The container runs `extraction serve` itself (bring your own container: liveness, readiness and scoring routes are ours), so what answers on
Azure is what answers here. The SDK and the service take many a spec that cannot work (an unknown SKU, no instance, a timeout of -5, mirrored
traffic of 60 %) without a word; `problems` refuses them. Limits: Azure ML's documentation of managed online endpoints, 2026.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from extraction_assets.errors import InputError
from extraction_assets.serving.bundle import ADAPTER, Bundle
from extraction_assets.settings import DeploymentSettings

PORT = 5001
MODEL_MOUNT = "/bundle"
_OURS = {"liveness_route": "/live", "readiness_route": "/ready", "scoring_route": "/score"}
ROUTES: Mapping[str, Mapping[str, str]] = {
    "extraction": _OURS,
    "vllm": _OURS,
    "azureml": {"liveness_route": "/", "readiness_route": "/", "scoring_route": "/score"},
}
"""by deployment.server; Azure's own server has no other path, and answers none before the model is there"""
_SCHEMAS = "https://azuremlschemas.azureedge.net/latest/"
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]{1,30}[a-zA-Z0-9]")
_IMAGE = re.compile(r"[a-z0-9.-]+(:\d+)?/[a-z0-9._/-]+@sha256:[0-9a-f]{64}")
_SECRET = re.compile(r"key|token|secret|password|credential|connection_?string|sas", re.IGNORECASE)
_LONGEST_REQUEST_MS = 180_000
_MOST_MIRRORED = 50
_ROOM = 1.35
"""GPU memory over the weights' own: cache, activations, CUDA's own share"""


@dataclass(frozen=True)
class Sku:
    gpu: str | None
    gib: float
    """memory of one GPU, or of the machine where it has none"""


SKUS: Mapping[str, Sku] = {
    "Standard_NC24ads_A100_v4": Sku("A100", 80),
    "Standard_NC48ads_A100_v4": Sku("A100", 80),
    "Standard_NC96ads_A100_v4": Sku("A100", 80),
    "Standard_NC40ads_H100_v5": Sku("H100", 94),
    "Standard_NC80adis_H100_v5": Sku("H100", 94),
    "Standard_NV36ads_A10_v5": Sku("A10", 24),
    "Standard_NV72ads_A10_v5": Sku("A10", 24),
    "Standard_NC4as_T4_v3": Sku("T4", 16),
    "Standard_NC8as_T4_v3": Sku("T4", 16),
    "Standard_NC16as_T4_v3": Sku("T4", 16),
    "Standard_DS3_v2": Sku(None, 14),
    "Standard_DS4_v2": Sku(None, 28),
    "Standard_F8s_v2": Sku(None, 16),
    "Standard_F16s_v2": Sku(None, 32),
}
"""those that this package was thought through for; a model is served by one GPU"""


@dataclass(frozen=True)
class Specs:
    endpoint: dict[str, Any]
    deployment: dict[str, Any]


def make_specs(bundle: Bundle, settings: DeploymentSettings) -> Specs:
    """What `az ml online-endpoint create -f` and `az ml online-deployment create -f` take."""
    serving = bundle.manifest.serving
    weights_gb = weight_bytes(bundle) / 1e9
    # a 17 GB model is copied, read, and proves itself on the golden pages before it is ready
    start_s = max(60, round(120 + 30 * weights_gb))
    probe = {"period": 10, "timeout": 5, "success_threshold": 1}
    start_probes = max(30, -(-start_s // probe["period"])) if settings.server == "azureml" else -(-start_s // probe["period"])
    endpoint = {
        "$schema": f"{_SCHEMAS}managedOnlineEndpoint.schema.json",
        "name": settings.endpoint,
        "auth_mode": settings.auth,
        "identity": {"type": "system_assigned"},
        "public_network_access": "enabled" if settings.public else "disabled",
        "traffic": {},
        "mirror_traffic": {},
    }
    deployment = {
        "$schema": f"{_SCHEMAS}managedOnlineDeployment.schema.json",
        "name": f"bundle-{bundle.digest[:12]}",
        "endpoint_name": settings.endpoint,
        "model": {"name": f"{settings.endpoint}-bundle", "version": bundle.digest[:12], "path": str(bundle.folder), "type": "custom_model"},
        "model_mount_path": MODEL_MOUNT,
        "environment": {
            "image": settings.image,
            "inference_config": {route: {"port": PORT, "path": path} for route, path in ROUTES[settings.server].items()},
        },
        "environment_variables": {"OMP_NUM_THREADS": "4"},
        "instance_type": settings.sku,
        "instance_count": settings.instances,
        "request_settings": {
            "request_timeout_ms": round(1000 * serving.request_seconds),
            "max_concurrent_requests_per_instance": min(serving.waiting, 2 * bundle.manifest.decoding.batch_size),
            "max_queue_wait_ms": 500,
        },
        "liveness_probe": {"initial_delay": 30, "failure_threshold": start_probes if settings.server == "azureml" else 30, **probe},
        "readiness_probe": {"initial_delay": 30, "failure_threshold": start_probes, **probe},
        # with Application Insights on, request and answer bodies are logged
        "app_insights_enabled": False,
        "egress_public_network_access": "disabled",
    }
    return Specs(endpoint, deployment)


def checked_specs(bundle: Bundle, settings: DeploymentSettings) -> Specs:
    """make_specs, refused with all that is wrong (InputError)."""
    specs = make_specs(bundle, settings)
    wrong = problems(specs, weight_bytes(bundle), settings.server)
    sku = SKUS.get(settings.sku)
    if settings.server == "vllm" and sku is not None and sku.gpu is None:
        wrong.append(f"deployment.instance_type: found {settings.sku!r}, expected a GPU: server is vllm")
    if settings.server == "vllm" and (bundle.folder / ADAPTER).is_dir():
        wrong.append("bundle.weights: found 'adapter', expected 'merged': server is vllm (serving.weights: merged)")
    if wrong:
        raise InputError("deployment", "; ".join(wrong), do="Correct the section deployment: of settings.yaml")
    return specs


def weight_bytes(bundle: Bundle) -> int:
    return sum((bundle.folder / name).stat().st_size for name in bundle.manifest.files if name.endswith(".safetensors"))


def needed_gib(weight_bytes: int) -> float:
    """GPU memory for weights of this size, with room to work."""
    return round(weight_bytes * _ROOM / 2**30, 1)


def problems(specs: Specs, bundle_bytes: int, server: str = "extraction") -> list[str]:
    """Everything that keeps these specs from working or from being safe, each with what would be right; [] is good.

    bundle_bytes: size of the weights, to be held against the SKU's memory; server: what the container runs.
    """
    found: list[str] = []

    def need(holds: bool, where: str, value: Any, right: str) -> None:
        if not holds:
            found.append(f"{where}: found {value!r}, expected {right}")

    endpoint, deployment = specs.endpoint, specs.deployment
    for where, spec in (("endpoint", endpoint), ("deployment", deployment)):
        name = spec.get("name")
        need(
            isinstance(name, str) and bool(_NAME.fullmatch(name)),
            f"{where}.name",
            name,
            "3 to 32 letters, digits and hyphens, a letter first",
        )
    need(
        deployment.get("endpoint_name") == endpoint.get("name"),
        "deployment.endpoint_name",
        deployment.get("endpoint_name"),
        "the endpoint's name",
    )
    need(
        endpoint.get("auth_mode") in ("key", "aml_token", "aad_token"),
        "endpoint.auth_mode",
        endpoint.get("auth_mode"),
        "key, aml_token or aad_token",
    )
    identity = _part(endpoint, "identity").get("type")
    need(identity in ("system_assigned", "user_assigned"), "endpoint.identity.type", identity, "system_assigned or user_assigned")
    public = endpoint.get("public_network_access")
    need(public in ("enabled", "disabled"), "endpoint.public_network_access", public, "enabled or disabled")
    _traffic(endpoint, need)
    _machine(deployment, bundle_bytes, need)
    _requests(deployment, need)
    _container(deployment, ROUTES[server], need)
    need(deployment.get("app_insights_enabled") is False, "deployment.app_insights_enabled", deployment.get("app_insights_enabled"), "false: it logs page and answer")  # fmt: skip
    egress = deployment.get("egress_public_network_access")
    need(egress == "disabled", "deployment.egress_public_network_access", egress, "disabled: the server fetches nothing")
    return found


def _traffic(endpoint: Mapping[str, Any], need: Any) -> None:
    traffic, mirror = endpoint.get("traffic", {}), endpoint.get("mirror_traffic", {})
    for where, shares in (("traffic", traffic), ("mirror_traffic", mirror)):
        whole = isinstance(shares, dict) and all(_whole(share) and 0 <= share <= 100 for share in shares.values())
        need(whole, f"endpoint.{where}", shares, "deployment names with whole percentages from 0 to 100")
        if not whole:
            return
    need(sum(traffic.values()) in (0, 100), "endpoint.traffic", traffic, "shares that add up to 0 or 100")
    need(len(mirror) <= 1, "endpoint.mirror_traffic", mirror, "at most one deployment")
    need(sum(mirror.values()) <= _MOST_MIRRORED, "endpoint.mirror_traffic", mirror, f"at most {_MOST_MIRRORED} %")
    need(
        not set(mirror) & {name for name, share in traffic.items() if share},
        "endpoint.mirror_traffic",
        mirror,
        "a deployment without live traffic",
    )


def _machine(deployment: Mapping[str, Any], bundle_bytes: int, need: Any) -> None:
    sku = deployment.get("instance_type")
    known = SKUS.get(sku) if isinstance(sku, str) else None
    need(known is not None, "deployment.instance_type", sku, f"one of {', '.join(SKUS)}")
    if known is not None:
        gib = needed_gib(bundle_bytes)
        need(
            gib <= known.gib,
            "deployment.instance_type",
            sku,
            f"{gib:g} GiB of {'GPU ' if known.gpu else ''}memory or more; it has {known.gib:g}",
        )
    count = deployment.get("instance_count")
    need(_whole(count) and 1 <= count <= 50, "deployment.instance_count", count, "1 to 50")


def _requests(deployment: Mapping[str, Any], need: Any) -> None:
    requests = _part(deployment, "request_settings")
    timeout = requests.get("request_timeout_ms")
    need(_whole(timeout) and 1000 <= timeout <= _LONGEST_REQUEST_MS, "deployment.request_settings.request_timeout_ms", timeout, f"1000 to {_LONGEST_REQUEST_MS}")  # fmt: skip
    at_once = requests.get("max_concurrent_requests_per_instance")
    need(_whole(at_once) and 2 <= at_once <= 1000, "deployment.request_settings.max_concurrent_requests_per_instance", at_once, "2 to 1000: pages that wait together are read together")  # fmt: skip
    wait = requests.get("max_queue_wait_ms")
    need(
        _whole(wait) and 0 <= wait <= _LONGEST_REQUEST_MS,
        "deployment.request_settings.max_queue_wait_ms",
        wait,
        f"0 to {_LONGEST_REQUEST_MS}",
    )
    for name in ("liveness_probe", "readiness_probe"):
        probe = _part(deployment, name)
        for key, low, high in (("initial_delay", 0, 3600), ("period", 1, 3600), ("timeout", 1, 3600), ("success_threshold", 1, 100), ("failure_threshold", 1, 1000)):  # fmt: skip
            value = probe.get(key)
            need(_whole(value) and low <= value <= high, f"deployment.{name}.{key}", value, f"{low} to {high}")


def _container(deployment: Mapping[str, Any], routes: Mapping[str, str], need: Any) -> None:
    environment = _part(deployment, "environment")
    image = environment.get("image")
    need(
        isinstance(image, str) and bool(_IMAGE.fullmatch(image)),
        "deployment.environment.image",
        image,
        "REGISTRY/NAME@sha256:...: a tag may be moved",
    )
    for route, path in routes.items():
        given = _part(_part(environment, "inference_config"), route)
        need(given == {"port": PORT, "path": path}, f"deployment.environment.inference_config.{route}", given, f"port {PORT}, path {path}")
    model = _part(deployment, "model")
    need(bool(model.get("path")), "deployment.model.path", model.get("path"), "the bundle's folder")
    need(model.get("type") == "custom_model", "deployment.model.type", model.get("type"), "custom_model")
    need(deployment.get("model_mount_path") == MODEL_MOUNT, "deployment.model_mount_path", deployment.get("model_mount_path"), MODEL_MOUNT)
    need("code_configuration" not in deployment, "deployment.code_configuration", "...", "none: the container brings its own server")
    variables = deployment.get("environment_variables", {})
    for key, value in variables.items() if isinstance(variables, dict) else [("", variables)]:
        need(isinstance(value, str), f"deployment.environment_variables.{key}", value, "text")
        need(
            not _SECRET.search(str(key)),
            f"deployment.environment_variables.{key}",
            "...",
            "no secret in an environment variable: use the endpoint's identity",
        )


def _part(spec: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = spec.get(key)
    return value if isinstance(value, dict) else {}


def _whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
