"""A stand-in for an Azure ML workspace's jobs, behind the SDK's own entities: what the SDK would refuse or could not send is refused here too.

It does not leave this machine and is no deployment. It takes a command job as the service takes it (its REST body), uploads its inputs (a
copy), puts paths in for ${{...}}, and runs the command line by a shell, in an empty folder, with the spec's variables and nothing else.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import extraction_assets

_SCHEME = "azureml://"


class WorkspaceDouble:
    """MLClient as far as dagster_azure and a training run use it."""

    def __init__(self, root: Path) -> None:
        self.root, self.jobs = root, self
        self.bodies: dict[str, dict[str, Any]] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._canceled: set[str] = set()

    def create_or_update(self, command: Any) -> SimpleNamespace:
        command._validate(raise_error=True)
        spec = command._to_job()
        for name, value in spec.inputs.items():
            uploaded = shutil.copytree(value.path, self.root / "uploaded" / spec.name / name)
            value.path = f"{_SCHEME}datastores/workspaceblobstore/paths/{uploaded.relative_to(self.root)}"
        body = spec._to_rest_object().as_dict()["properties"]
        if spec.name in self.bodies:
            raise ValueError(f"a job named {spec.name} exists")
        self.bodies[spec.name] = body
        self._running[spec.name] = self._start(spec.name, body)
        return SimpleNamespace(name=spec.name)

    def get(self, name: str) -> SimpleNamespace:
        code = self._running[name].poll()
        if name in self._canceled:
            return SimpleNamespace(status="Canceled")
        return SimpleNamespace(status="Running" if code is None else "Failed" if code else "Completed")

    def begin_cancel(self, name: str) -> None:
        self._canceled.add(name)
        self._running[name].kill()
        self._running[name].wait()

    def download(self, name: str, *, download_path: str, output_name: str) -> None:
        shutil.copytree(
            self._mounted(self.bodies[name]["outputs"][output_name]["uri"]), Path(download_path) / "named-outputs" / output_name
        )

    def _start(self, name: str, body: dict[str, Any]) -> subprocess.Popen[bytes]:
        line = body["command"]
        for side in ("inputs", "outputs"):
            for key, value in body[side].items():
                line = line.replace(f"${{{{{side}.{key}}}}}", str(self._mounted(value["uri"])))
        assert "${{" not in line
        folder = self.root / "nodes" / name
        folder.mkdir(parents=True)
        package = str(Path(extraction_assets.__file__).parents[1])
        identity = {"AZURE_STORAGE_CONNECTION_STRING": os.environ["AZURE_STORAGE_CONNECTION_STRING"]}  # a node has one of its own
        variables = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": package,
            "OMP_NUM_THREADS": "1",
            **identity,
        }
        log = (folder / "std_log.txt").open("wb")
        environment = {**variables, **body["environmentVariables"]}
        return subprocess.Popen(["/bin/sh", "-c", f"exec {line}"], cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)

    def _mounted(self, uri: str) -> Path:
        match = re.fullmatch(_SCHEME + r"datastores/\w+/paths/(.+)", uri)
        assert match, uri
        path = self.root / match[1]
        path.mkdir(parents=True, exist_ok=True)
        return path
