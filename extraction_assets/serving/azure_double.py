"""A stand-in for Azure ML's management API and its scoring front, on this machine: HTTPS with a certificate of its own, so that the real SDK
runs against it as it is. What stands behind a deployment is real: `extraction serve` on the bundle's folder, ready before the deployment is.

It keeps the service's rules (api-version and token asked for, operations that are polled, traffic of 0 or 100 %, one mirror of at most 50 %, no
deployment deleted under traffic, ARM's error envelope, 424 for what a container refuses). It does not upload: it holds the model versions that
it was given, by their folder. What it rehearses is not deployed anywhere.
"""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from extraction_assets.serving import BUNDLE_SEAL
from extraction_assets.serving.azure_specs import Specs
from extraction_assets.serving.client import DEPLOYMENT

WORKSPACE = (
    "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/fake/providers/Microsoft.MachineLearningServices/workspaces/fake"
)
"""of the double; a real one has another subscription"""
TOKEN = "fake-token"
_KEY = "fake-key"
_READY_S = 600.0
_POLL_S = "0.05"


@dataclass(frozen=True)
class Fault:
    """An error that the service is to give: to requests of `method` whose path ends as `path` says, from the `nth` on, `times` times."""

    method: str
    path: str
    """regular expression, matched to the path's end"""
    code: str
    message: str
    status: int = 409
    """of the refusal; 0: the request is taken, and its operation fails"""
    nth: int = 1
    times: int = 1_000_000


class ArmError(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message

    @property
    def error(self) -> dict[str, Any]:
        return {"code": self.code, "message": self.message, "details": [], "additionalInfo": []}


class BundleServers:
    """`extraction serve` by bundle folder, started when first asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[Path, tuple[subprocess.Popen[str], str]] = {}

    def url(self, folder: Path) -> str:
        """Once it is ready. Raises ArmError (ContainerCrashed) where it never becomes so."""
        with self._lock:
            if folder not in self._running or self._running[folder][0].poll() is not None:
                self._running[folder] = self._start(folder)
            return self._running[folder][1]

    def close(self) -> None:
        for process, _ in self._running.values():
            process.terminate()
        for process, _ in self._running.values():
            process.wait(60)
        self._running.clear()

    @staticmethod
    def _start(folder: Path) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-m", "extraction_assets.cli", "serve", "--bundle", str(folder), "--port", "0"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        lines: list[str] = []
        address: list[str] = []

        def read() -> None:
            assert process.stderr is not None
            for line in process.stderr:
                lines.append(line.strip())
                if found := re.search(r"http://[\d.]+:\d+", line):
                    address.append(found.group())

        threading.Thread(target=read, daemon=True).start()
        deadline = time.monotonic() + _READY_S
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
            if not address:
                continue
            try:
                with urllib.request.urlopen(f"{address[0]}/ready", timeout=10) as answer:
                    if answer.status == 200:
                        return process, address[0]
            except OSError:  # also HTTPError: 503 until it is ready
                continue
        process.kill()
        process.wait()
        raise ArmError(400, "ResourceNotReady", f"User container has crashed or terminated: {' | '.join(lines[-3:])}")


@dataclass
class _Deployment:
    body: dict[str, Any]
    state: str = "Creating"
    url: str | None = None


@dataclass
class _Endpoint:
    body: dict[str, Any]
    deployments: dict[str, _Deployment] = field(default_factory=dict)
    turn: int = 0


@dataclass(frozen=True)
class Asked:
    """One request to the management API, as it came."""

    method: str
    path: str
    body: Any


class AzureDouble:
    """Use it as a context manager: it listens on a free port of 127.0.0.1 meanwhile."""

    def __init__(self, servers: BundleServers, models: Mapping[tuple[str, str], Path]) -> None:
        """models: (name, version) -> the bundle's folder, as if it had been uploaded."""
        self._servers, self._models = servers, models
        self.faults: list[Fault] = []
        self.asked: list[Asked] = []
        self.scored: Counter[str] = Counter()
        """requests answered, by deployment"""
        self.mirrored: Counter[str] = Counter()
        self._seen: Counter[Fault] = Counter()
        self._endpoints: dict[str, _Endpoint] = {}
        self._environments: dict[str, Any] = {}
        self._operations: dict[str, dict[str, Any]] = {}
        self._lock = threading.RLock()
        self._copies: list[threading.Thread] = []

    def __enter__(self) -> AzureDouble:
        self._folder = tempfile.TemporaryDirectory(prefix="extraction-double-")
        self.certificate = Path(self._folder.name) / "certificate.pem"
        _write_certificate(self.certificate)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate)
        self._http = _Server(("127.0.0.1", 0), _Handler)
        self._http.double, self._http.context = self, context
        self.url = f"https://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, name="azure double", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        for copy in self._copies:
            copy.join(60)
        self._folder.cleanup()

    def seed(self, specs: Specs, deployment: str) -> None:
        """An endpoint whose whole traffic goes to a deployment of this name, of the specs' bundle. Returns when it is ready."""
        auth = {"key": "Key", "aml_token": "AMLToken", "aad_token": "AADToken"}[specs.endpoint["auth_mode"]]
        model = specs.deployment["model"]
        path = f"{WORKSPACE}/models/{model['name']}/versions/{model['version']}"
        standing = _Deployment(
            {
                "location": "fake",
                "sku": {"name": "Default", "capacity": specs.deployment["instance_count"]},
                "properties": {"endpointComputeType": "Managed", "model": path, "instanceType": specs.deployment["instance_type"]},
            },
            "Succeeded",
            self._servers.url(self._model_folder(path)),
        )
        properties = {"authMode": auth, "traffic": {deployment: 100}, "mirrorTraffic": {}, "properties": {}}
        body = {"location": "fake", "tags": {}, "identity": {"type": "SystemAssigned"}, "properties": properties}
        self._endpoints[specs.endpoint["name"]] = _Endpoint(body, {deployment: standing})

    # --- what a test or a rehearsal looks at ---------------------------------------------------------------------------------

    def state(self, endpoint: str) -> dict[str, Any] | None:
        """Traffic, mirror and deployments (with their provisioning state) of an endpoint; None: there is none."""
        with self._lock:
            found = self._endpoints.get(endpoint)
            if found is None:
                return None
            properties = found.body["properties"]
            return {
                "traffic": dict(properties.get("traffic") or {}),
                "mirror": dict(properties.get("mirrorTraffic") or {}),
                "deployments": {name: one.state for name, one in found.deployments.items()},
            }

    # --- management ----------------------------------------------------------------------------------------------------------

    def manage(self, method: str, path: str, query: str, body: Any) -> tuple[int, Any, dict[str, str]]:
        if not re.search(r"(^|&)api-version=\d{4}-\d\d-\d\d", query):
            raise ArmError(
                400, "MissingApiVersionParameter", "The api-version query parameter (?api-version=) is required for all requests."
            )
        if path.startswith("/operations/"):
            return self._operation(path.removeprefix("/operations/"))
        if not path.lower().startswith(WORKSPACE.lower()):
            raise ArmError(404, "ResourceNotFound", f"The Resource '{path}' was not found.")
        rest = path[len(WORKSPACE) :].strip("/")
        with self._lock:
            self.asked.append(Asked(method, rest, body))
            failing = self._fault(method, rest)
        for pattern, handle in self._routes():
            if match := re.fullmatch(pattern, rest):
                return handle(method, match.groups(), body, failing)
        raise ArmError(404, "ResourceNotFound", f"This double has no '{rest}'.")

    def _routes(self) -> list[tuple[str, Callable[[str, tuple[str, ...], Any, Fault | None], tuple[int, Any, dict[str, str]]]]]:
        return [
            ("", self._workspace),
            ("models/([^/]+)/versions/([^/]+)", self._model),
            ("environments/([^/]+)/versions/([^/]+)", self._environment),
            ("onlineEndpoints/([^/]+)", self._endpoint),
            ("onlineEndpoints/([^/]+)/(listKeys|token)", self._credential),
            ("onlineEndpoints/([^/]+)/deployments", self._list),
            ("onlineEndpoints/([^/]+)/deployments/([^/]+)", self._deployment),
            ("onlineEndpoints/([^/]+)/deployments/([^/]+)/getLogs", self._logs),
        ]

    def _fault(self, method: str, rest: str) -> Fault | None:
        for fault in self.faults:
            if fault.method == method and re.search(f"(?:{fault.path})$", rest):
                self._seen[fault] += 1
                if fault.nth <= self._seen[fault] < fault.nth + fault.times:
                    if fault.status:
                        raise ArmError(fault.status, fault.code, fault.message)
                    return fault
        return None

    def _workspace(self, method: str, names: tuple[str, ...], body: Any, fault: Fault | None) -> tuple[int, Any, dict[str, str]]:
        properties = {"friendlyName": "fake", "provisioningState": "Succeeded", "workspaceId": str(uuid.UUID(int=0))}
        return 200, {"id": WORKSPACE, "name": "fake", "location": "fake", "type": "Microsoft.MachineLearningServices/workspaces", "properties": properties}, {}  # fmt: skip

    def _model(self, method: str, names: tuple[str, ...], body: Any, fault: Fault | None) -> tuple[int, Any, dict[str, str]]:
        folder = self._models.get((names[0], names[1]))
        if method != "GET":
            raise ArmError(501, "NotImplemented", "This double takes no uploads.")
        if folder is None:
            raise ArmError(404, "UserError", f"Model {names[0]}:{names[1]} was not found.")
        seal = (folder / BUNDLE_SEAL).read_text(encoding="ascii").strip()
        properties = {"modelUri": f"fake:{folder}", "modelType": "custom_model", "flavors": {}, "tags": {"bundle": seal}, "properties": {}}
        return 200, _resource(f"models/{names[0]}/versions/{names[1]}", {"properties": properties}), {}

    def _environment(self, method: str, names: tuple[str, ...], body: Any, fault: Fault | None) -> tuple[int, Any, dict[str, str]]:
        path = f"environments/{names[0]}/versions/{names[1]}"
        with self._lock:
            if method == "PUT":
                self._environments[path] = _resource(path, body)
            if path not in self._environments:
                raise ArmError(404, "UserError", f"Environment {names[0]}:{names[1]} was not found.")
            return 200, self._environments[path], {}

    def _endpoint(self, method: str, names: tuple[str, ...], body: Any, fault: Fault | None) -> tuple[int, Any, dict[str, str]]:
        name = names[0]
        with self._lock:
            if method == "GET":
                return 200, self._endpoint_body(name), {}
            if method == "DELETE":
                return self._begin(202, None, lambda: _drop(self._endpoints, name), fault)
            if method != "PUT":
                raise ArmError(405, "MethodNotAllowed", method)
            known = self._endpoints.get(name)
            self._check_traffic(body["properties"], known.deployments if known else {})

            def apply() -> None:
                with self._lock:
                    endpoint = self._endpoints.setdefault(name, _Endpoint(body))
                    endpoint.body = body

            if known is None:
                self._endpoints[name] = _Endpoint(body)
            return self._begin(200 if known else 201, self._endpoint_body(name), apply, fault)

    def _endpoint_body(self, name: str) -> dict[str, Any]:
        endpoint = self._found(name)
        properties = {
            **endpoint.body["properties"],
            "provisioningState": "Succeeded",
            "scoringUri": f"{self.url}/endpoints/{name}/score",
            "swaggerUri": f"{self.url}/endpoints/{name}/swagger.json",
        }
        return _resource(f"onlineEndpoints/{name}", {**endpoint.body, "properties": properties})

    def _check_traffic(self, properties: Mapping[str, Any], deployments: Mapping[str, _Deployment]) -> None:
        traffic, mirror = properties.get("traffic") or {}, properties.get("mirrorTraffic") or {}
        for name in (*traffic, *mirror):
            if name not in deployments or deployments[name].state != "Succeeded":
                raise ArmError(400, "BadArgument", f"Traffic names the deployment {name}, which is not there or not ready.")
        if sum(traffic.values()) not in (0, 100):
            raise ArmError(400, "BadArgument", f"Traffic adds up to {sum(traffic.values())}, not to 0 or 100.")
        if len(mirror) > 1 or sum(mirror.values()) > 50:
            raise ArmError(400, "BadArgument", "Mirrored traffic goes to one deployment and is 50 % at most.")
        if any(traffic.get(name) for name in mirror):
            raise ArmError(400, "BadArgument", "A deployment with live traffic takes no mirrored traffic.")

    def _credential(self, method: str, names: tuple[str, ...], body: Any, fault: Fault | None) -> tuple[int, Any, dict[str, str]]:
        self._found(names[0])
        if names[1] == "listKeys":
            return 200, {"primaryKey": _KEY, "secondaryKey": _KEY}, {}
        return 200, {"accessToken": _KEY, "expiryTimeUtc": 0, "refreshAfterTimeUtc": 0, "tokenType": "Bearer"}, {}

    def _list(self, method: str, names: tuple[str, ...], body: Any, fault: Fault | None) -> tuple[int, Any, dict[str, str]]:
        with self._lock:
            return 200, {"value": [self._deployment_body(names[0], name) for name in self._found(names[0]).deployments]}, {}

    def _deployment(self, method: str, names: tuple[str, ...], body: Any, fault: Fault | None) -> tuple[int, Any, dict[str, str]]:
        endpoint, name = self._found(names[0]), names[1]
        with self._lock:
            if method == "GET":
                return 200, self._deployment_body(names[0], name), {}
            if method == "DELETE":
                properties = endpoint.body["properties"]
                if (properties.get("traffic") or {}).get(name) or (properties.get("mirrorTraffic") or {}).get(name):
                    raise ArmError(400, "BadRequest", f"Deployment {name} has traffic: set it to 0 first.")
                return self._begin(202, None, lambda: _drop(endpoint.deployments, name), fault)
            if method != "PUT":
                raise ArmError(405, "MethodNotAllowed", method)
            folder = self._model_folder(body["properties"].get("model"))
            deployment = endpoint.deployments[name] = _Deployment(body)

            def start() -> None:
                try:
                    deployment.url = self._servers.url(folder)
                    deployment.state = "Succeeded"
                except ArmError:
                    deployment.state = "Failed"
                    raise

            def failed() -> None:
                deployment.state = "Failed"

            return self._begin(201, self._deployment_body(names[0], name), start, fault, failed)

    def _model_folder(self, model: str | None) -> Path:
        match = re.search(r"/models/([^/]+)/versions/([^/]+)$", model or "")
        folder = self._models.get((match.group(1), match.group(2))) if match else None
        if folder is None:
            raise ArmError(400, "BadRequest", f"The deployment's model {model} is not registered.")
        return folder

    def _deployment_body(self, endpoint: str, name: str) -> dict[str, Any]:
        deployment = self._found(endpoint).deployments.get(name)
        if deployment is None:
            raise ArmError(404, "ResourceNotFound", f"Deployment {name} was not found.")
        properties = {"scaleSettings": {"scaleType": "Default"}, **deployment.body["properties"], "provisioningState": deployment.state}
        return _resource(f"onlineEndpoints/{endpoint}/deployments/{name}", {**deployment.body, "properties": properties})

    def _logs(self, method: str, names: tuple[str, ...], body: Any, fault: Fault | None) -> tuple[int, Any, dict[str, str]]:
        self._deployment_body(names[0], names[1])
        return 200, {"content": "the double keeps no log"}, {}

    def _found(self, name: str) -> _Endpoint:
        if name not in self._endpoints:
            raise ArmError(404, "ResourceNotFound", f"Online endpoint {name} was not found.")
        return self._endpoints[name]

    # --- operations that take time -------------------------------------------------------------------------------------------

    def _begin(
        self, status: int, body: Any, work: Callable[[], None], fault: Fault | None, failed: Callable[[], None] | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        number = uuid.uuid4().hex
        operation = self._operations[number] = {"id": number, "name": number, "status": "InProgress"}

        def run() -> None:
            try:
                if fault is not None:
                    if failed:
                        failed()
                    raise ArmError(400, fault.code, fault.message)
                work()
            except ArmError as error:
                operation.update(status="Failed", error=error.error)
            else:
                operation.update(status="Succeeded")

        threading.Thread(target=run, daemon=True).start()
        url = f"{self.url}/operations/{number}?api-version=2024-01-01"
        # the SDK reads the header of a 202 as a whole number
        return status, body, {"azure-asyncoperation": url, "location": url, "retry-after": "1" if status == 202 else _POLL_S}

    def _operation(self, number: str) -> tuple[int, Any, dict[str, str]]:
        if number not in self._operations:
            raise ArmError(404, "NotFound", "No such operation.")
        return 200, dict(self._operations[number]), {"retry-after": _POLL_S}

    # --- scoring -------------------------------------------------------------------------------------------------------------

    def score(self, name: str, query: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes, dict[str, str]]:
        with self._lock:
            endpoint = self._endpoints.get(name)
            if endpoint is None:
                return 404, b"", {}
            wanted = headers.get(DEPLOYMENT) or self._next(endpoint)
            deployment = endpoint.deployments.get(wanted)
            copies = self._mirror(endpoint) if DEPLOYMENT not in headers else None
        if deployment is None or deployment.url is None:
            return 404, b'{"error": {"code": "NotFound", "message": "no deployment takes this request"}}', {}
        if copies is not None and copies[1].url is not None:
            self.mirrored[copies[0]] += 1
            thread = threading.Thread(target=_pass_on, args=(copies[1].url, query, headers, body), daemon=True)
            self._copies.append(thread)
            thread.start()
        status, answer, media = _pass_on(deployment.url, query, headers, body)
        self.scored[wanted] += 1
        told = {"content-type": media, DEPLOYMENT: wanted}
        if status >= 400 and status != 429:
            return 424, answer, {**told, "ms-azureml-model-error-statuscode": str(status)}
        return status, answer, told

    @staticmethod
    def _next(endpoint: _Endpoint) -> str:
        """By traffic: each hundred requests in a row are shared out exactly, the smaller shares spread through it."""
        traffic = endpoint.body["properties"].get("traffic") or {}
        turn = endpoint.turn
        endpoint.turn += 1
        taken = 0
        for name, share in sorted(traffic.items(), key=lambda item: (item[1], item[0])):
            # 37 and 100 have no common divisor, so turn * 37 mod 100 meets each of 0..99 once
            taken += share
            if turn * 37 % 100 < taken:
                return str(name)
        return ""

    @staticmethod
    def _mirror(endpoint: _Endpoint) -> tuple[str, _Deployment] | None:
        for name, share in (endpoint.body["properties"].get("mirrorTraffic") or {}).items():
            if endpoint.turn * 37 % 100 < share:
                return name, endpoint.deployments[name]
        return None


def _drop(things: dict[str, Any], name: str) -> None:
    things.pop(name, None)


def _pass_on(url: str, query: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes, str]:
    kept = {name: headers[name] for name in ("content-type", "x-document-type", "x-request-id") if name in headers}
    request = urllib.request.Request(f"{url}/score{'?' + query if query else ''}", data=body, headers=kept)
    try:
        with urllib.request.urlopen(request, timeout=200) as answer:
            return answer.status, answer.read(), answer.headers.get("content-type", "")
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers.get("content-type", "")
    except OSError as error:
        return 502, str(error).encode(), "text/plain"


def _resource(path: str, body: dict[str, Any]) -> dict[str, Any]:
    when = {"createdBy": "fake", "createdByType": "User", "createdAt": "2026-01-01T00:00:00Z", "lastModifiedAt": "2026-01-01T00:00:00Z"}
    return {"systemData": when, **body, "id": f"{WORKSPACE}/{path}", "name": path.rpartition("/")[2]}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    double: AzureDouble
    context: ssl.SSLContext

    def finish_request(self, request: Any, client_address: Any) -> None:
        try:  # the handshake in the connection's own thread: one that stalls holds up nobody
            super().finish_request(self.context.wrap_socket(request, server_side=True), client_address)
        except (ssl.SSLError, ConnectionError):
            return


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _handle(self) -> None:
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        scoring = re.fullmatch(r"/endpoints/([^/]+)/score", path)
        if headers.get("authorization") not in (f"Bearer {TOKEN}", f"Bearer {_KEY}"):
            self._send(401, json.dumps({"error": {"code": "InvalidAuthenticationToken", "message": "no token, or another"}}).encode(), {})
        elif scoring:
            self._send(*self.server.double.score(scoring.group(1), query, headers, body))
        else:
            try:
                status, value, told = self.server.double.manage(self.command, path, query, json.loads(body) if body else None)
            except ArmError as error:
                status, value, told = error.status, {"error": error.error}, {}
            data = b"" if value is None else json.dumps(value).encode()
            self._send(status, data, {"content-type": "application/json", **told})

    do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = _handle

    def _send(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"x-double": "fake", **headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def _write_certificate(path: Path) -> None:
    """A key and its own certificate for 127.0.0.1, good for a day."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.touch(mode=0o600)
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
