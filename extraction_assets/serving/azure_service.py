"""An Azure ML workspace as a rollout sees it, through the SDK. The SDK's errors become one line each."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import httpx
import yaml

from extraction_assets.errors import InputError
from extraction_assets.serving.azure_double import TOKEN, WORKSPACE, AzureDouble
from extraction_assets.serving.azure_specs import Specs
from extraction_assets.serving.bundle import Bundle
from extraction_assets.serving.client import EndpointClient
from extraction_assets.settings import DeploymentSettings

Target = Literal["fake", "azure"]
_OPERATION_S = 3600.0
"""so long may the service take to make or change one thing"""
_PATIENCE_S = 60.0
"""so long is one page asked again"""
_CLOUD_URLS = ("azure_portal", "resource_manager", "active_directory", "aml_resource_id", "storage_endpoint", "registry_discovery_endpoint")
"""what the SDK wants to know of a cloud (cloud_metadata)"""
_CLOUD_VARIABLE = "AZUREML_CURRENT_CLOUD"


@dataclass(frozen=True)
class EndpointState:
    """What takes the requests. Deployments without a share are in neither map."""

    traffic: Mapping[str, int]
    mirror: Mapping[str, int]
    deployments: Mapping[str, str]
    """name -> provisioning state"""
    auth: str
    scoring_url: str


class AzureService:
    """One workspace. Raises InputError with what the service said."""

    def __init__(self, target: Target, client: Any, verify: ssl.SSLContext | bool) -> None:
        self.target, self._client, self._verify = target, client, verify

    def endpoint(self, name: str) -> EndpointState | None:
        """None: there is no such endpoint."""
        from azure.core.exceptions import ResourceNotFoundError

        with _asking(f"endpoint {name}"):
            try:
                found = self._client.online_endpoints.get(name)
            except ResourceNotFoundError:
                # a workspace that is not there is another matter, and is said
                self._client.workspaces.get(self._client.workspace_name)
                return None
            deployments = {one.name: str(one.provisioning_state) for one in self._client.online_deployments.list(name)}
        shares = ({key: share for key, share in (part or {}).items() if share} for part in (found.traffic, found.mirror_traffic))
        traffic, mirror = shares
        return EndpointState(traffic, mirror, deployments, str(found.auth_mode), str(found.scoring_uri))

    def deployment(self, endpoint: str, name: str) -> dict[str, Any]:
        """As a spec, in the SDK's own words."""
        with _asking(f"deployment {name}"):
            return _plain(self._client.online_deployments.get(name, endpoint))

    def spec_as_sent(self, specs: Specs) -> dict[str, Any]:
        """The deployment of `specs` in the same words as `deployment`'s."""
        with _asking("deployment"):
            return _plain(self._loaded(specs))

    def has_model(self, specs: Specs, bundle: Bundle) -> bool:
        """Is the bundle registered under the spec's name and version? Raises InputError where another bundle stands there."""
        from azure.core.exceptions import ResourceNotFoundError

        name, version = specs.deployment["model"]["name"], specs.deployment["model"]["version"]
        with _asking(f"model {name}:{version}"):
            try:
                model = self._client.models.get(name, version)
            except ResourceNotFoundError:
                return False
        said = (model.tags or {}).get("bundle")
        if said != bundle.digest:
            raise InputError(f"model {name}:{version}", f"holds the bundle {said}", bundle.digest, "Archive that version in the workspace")
        return True

    def upload_model(self, specs: Specs, bundle: Bundle) -> None:
        from azure.ai.ml.entities import Model

        spec = specs.deployment["model"]
        with _asking(f"model {spec['name']}:{spec['version']}"):
            model = Model(name=spec["name"], version=spec["version"], path=spec["path"], type=spec["type"], tags={"bundle": bundle.digest})
            self._client.models.create_or_update(model)

    def create_endpoint(self, specs: Specs) -> None:
        from azure.ai.ml import load_online_endpoint

        with _asking(f"endpoint {specs.endpoint['name']}"):
            endpoint = load_online_endpoint(io.StringIO(yaml.safe_dump(specs.endpoint)))
            _wait(self._client.online_endpoints.begin_create_or_update(endpoint))

    def create_deployment(self, specs: Specs) -> None:
        """Without traffic; when this returns, its container is ready."""
        with _asking(f"deployment {specs.deployment['name']}"):
            _wait(self._client.online_deployments.begin_create_or_update(self._loaded(specs)))

    def set_traffic(self, endpoint: str, traffic: Mapping[str, int], mirror: Mapping[str, int]) -> None:
        with _asking(f"traffic of {endpoint}"):
            found = self._client.online_endpoints.get(endpoint)
            found.traffic, found.mirror_traffic = dict(traffic), dict(mirror)
            _wait(self._client.online_endpoints.begin_create_or_update(found))
        after = self.endpoint(endpoint)
        if after is None or (after.traffic, after.mirror) != (dict(traffic), dict(mirror)):
            raise InputError(f"traffic of {endpoint}", f"is {after and (after.traffic, after.mirror)}", f"{dict(traffic)}, {dict(mirror)}")

    def delete_deployment(self, endpoint: str, name: str) -> None:
        with _asking(f"deployment {name}"):
            _wait(self._client.online_deployments.begin_delete(name, endpoint))

    def delete_endpoint(self, name: str) -> None:
        with _asking(f"endpoint {name}"):
            _wait(self._client.online_endpoints.begin_delete(name))

    @contextlib.contextmanager
    def scoring(self, endpoint: str, url: str, deployment: str | None) -> Iterator[EndpointClient]:
        """Asks pages. deployment: the one that shall answer; None: as the traffic says."""
        with _asking(f"key of {endpoint}"):
            keys = self._client.online_endpoints.get_keys(endpoint)
        key = getattr(keys, "primary_key", None) or keys.access_token
        with EndpointClient(
            url, key, patience_s=_PATIENCE_S, transport=httpx.HTTPTransport(verify=self._verify), deployment=deployment
        ) as client:
            yield client

    @staticmethod
    def _loaded(specs: Specs) -> Any:
        from azure.ai.ml import load_online_deployment

        model = specs.deployment["model"]
        spec = {**specs.deployment, "model": f"azureml:{model['name']}:{model['version']}"}
        return load_online_deployment(io.StringIO(yaml.safe_dump(spec)))


def azure_service(settings: DeploymentSettings) -> AzureService:
    """The workspace that settings name, as who is logged in (azure-identity's DefaultAzureCredential)."""
    missing = [name for name in ("subscription", "resource_group", "workspace") if not getattr(settings, name)]
    if missing:
        raise InputError("deployment", f"{', '.join(missing)} is not set", "the workspace to roll out to", "Set it in settings.yaml")
    client_class = _client_class()
    from azure.identity import DefaultAzureCredential

    where = (settings.subscription, settings.resource_group, settings.workspace)
    with _asking("Azure"):
        client = client_class(DefaultAzureCredential(), *where, enable_telemetry=False, show_progress=False)
    return AzureService("azure", client, True)


@contextlib.contextmanager
def double_service(double: AzureDouble) -> Iterator[AzureService]:
    """The double, through the same SDK: it is told of another cloud, and of the certificate to trust."""
    client_class = _client_class()
    from azure.core.credentials import AccessToken

    class Credential:
        def get_token(self, *_: str, **__: Any) -> AccessToken:
            return AccessToken(TOKEN, int(time.time()) + 3600)

    _, _, subscription, _, group, _, _, _, workspace = WORKSPACE.split("/")
    # the SDK takes a cloud's name but once in a process
    cloud = f"Fake{double.url.rpartition(':')[2]}x{id(double)}"
    metadata = dict.fromkeys(_CLOUD_URLS, double.url)
    before = os.environ.get(_CLOUD_VARIABLE)
    try:
        client = client_class(
            Credential(), subscription, group, workspace,
            cloud=cloud, cloud_metadata=metadata, connection_verify=str(double.certificate), enable_telemetry=False, show_progress=False,
        )  # fmt: skip
        yield AzureService("fake", client, ssl.create_default_context(cafile=double.certificate))
    finally:  # the SDK leaves the cloud's name to all that comes after
        if before is None:
            os.environ.pop(_CLOUD_VARIABLE, None)
        else:
            os.environ[_CLOUD_VARIABLE] = before


def _client_class() -> Any:
    try:
        from azure.ai.ml import MLClient
    except ImportError as error:
        raise InputError("deploy", f"needs a package: {error}", do="Run `pip install 'extraction-assets[azure]'`") from None
    for chatty in (
        "azure",
        "azure.ai.ml.operations._online_deployment_operations",
        "azure.ai.ml._utils._endpoint_utils",
        "msrest",
        "opencensus",
    ):
        logging.getLogger(chatty).setLevel(logging.ERROR)  # the second and third set a level of their own
    return MLClient


@contextlib.contextmanager
def _asking(where: str) -> Iterator[None]:
    """Azure's errors as one line each; the dots that the SDK prints while it waits do not belong to our stdout."""
    from azure.ai.ml.exceptions import MlException
    from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError
    from marshmallow import ValidationError

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except ClientAuthenticationError as error:
        raise InputError(where, f"Azure knows nobody here: {_first_line(error.message)}", do="Log in with `az login`") from None
    except HttpResponseError as error:
        code = getattr(error.error, "code", None) or error.status_code
        said = getattr(error.error, "message", None) or error.message
        raise InputError(where, f"Azure says {code}: {said}") from None
    except (AzureError, MlException, ValidationError) as error:
        raise InputError(where, _first_line(str(error))) from None


def _wait(poller: Any) -> None:
    poller.result(timeout=_OPERATION_S)
    if not poller.done():
        raise InputError("Azure", f"has not finished within {_OPERATION_S:g} s")


def _first_line(text: str) -> str:
    return next((line for line in text.splitlines() if line.strip()), text)[:500]


_COMPARED = ("model", "environment", "instance_type", "instance_count", "model_mount_path", "environment_variables", "app_insights_enabled", "egress_public_network_access")  # fmt: skip


def _plain(deployment: Any) -> dict[str, Any]:
    """What a diff compares: of the model and the environment, what names them."""
    found = {key: getattr(deployment, key, None) for key in _COMPARED}
    found["model"] = str(found["model"]).removeprefix("azureml:").rpartition("/models/")[2].replace("/versions/", ":")
    environment = found["environment"]
    found["environment"] = getattr(environment, "image", None) or str(environment).rpartition("/environments/")[2]
    for name in ("request_settings", "liveness_probe", "readiness_probe"):
        part = getattr(deployment, name, None)
        found[name] = {key: value for key, value in vars(part).items() if not key.startswith("_")} if part is not None else None
    return found
