"""Addresses to share a home at: memory, a folder, S3 (moto's server) and Azure Blob Storage (Azurite), the last two as processes that speak HTTP."""

from __future__ import annotations

import atexit
import functools
import logging
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import pytest

KINDS = ("memory", "file", "s3", "azure")
# of Azurite, published by Microsoft, the same for everybody
_ACCOUNT, _KEY = "devstoreaccount1", "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@contextmanager
def place(kind: str, scratch: Path) -> Iterator[str]:
    """An empty folder's address; the environment knows how to reach it."""
    name = f"shared-{uuid.uuid4().hex[:12]}"
    if kind == "memory":
        yield f"memory://{name}"
    elif kind == "file":
        yield f"file://{scratch / name}"
    else:
        with pytest.MonkeyPatch.context() as patch:
            address = f"{'s3' if kind == 's3' else 'abfs'}://{name}/company"
            for variable, value in (s3_server() if kind == "s3" else _azure_server()).items():
                patch.setenv(variable, value)
            fs, _ = fsspec.core.url_to_fs(address, skip_instance_cache=True)
            fs.mkdir(name)
            yield address


@functools.cache
def s3_server() -> dict[str, str]:
    """The environment that leads to it; started once in a process, gone with it."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line for every request hides what failed
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    return {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_DEFAULT_REGION": "us-east-1", **keys}


@functools.cache
def _azure_server() -> dict[str, str]:
    azurite = shutil.which("azurite-blob")
    if azurite is None:
        pytest.skip("no azurite-blob in PATH: npm install -g azurite")
    folder = tempfile.mkdtemp()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [azurite, "--silent", "--skipApiVersionCheck", "--disableTelemetry", "--blobPort", str(port), "--location", folder]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(process.kill)
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    endpoint = f"http://127.0.0.1:{port}/{_ACCOUNT}"
    told = f"DefaultEndpointsProtocol=http;AccountName={_ACCOUNT};AccountKey={_KEY};BlobEndpoint={endpoint};"
    return {"AZURE_STORAGE_CONNECTION_STRING": told}
