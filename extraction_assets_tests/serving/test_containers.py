"""The containers' files, linted: hadolint for each Dockerfile, shellcheck and a real shell for what starts vLLM. Nothing is built here."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from extraction_assets.serving.azure_files import write_specs
from extraction_assets.serving.bundle import Bundle
from extraction_assets.serving.containers import container_files, start_script, vllm_options
from extraction_assets.settings import DeploymentSettings
from extraction_assets_tests.serving.running import LIMIT_S, wait_for

IMAGE = f"registry.example.com/extraction-serve@sha256:{'a' * 64}"
SERVERS = ("extraction", "azureml", "vllm")


def settings(server: str, **more: object) -> DeploymentSettings:
    return DeploymentSettings.model_validate({"image": IMAGE, "server": server, **more})


def tool(name: str) -> str:
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.mark.parametrize("server", SERVERS)
def test_each_dockerfile_is_linted_and_runs_as_nobody_special(bundle: Bundle, tmp_path: Path, server: str) -> None:
    path = tmp_path / "Dockerfile"
    path.write_text(text := container_files(bundle, settings(server))["Dockerfile"])
    # DL3006, DL3013: the base is a build argument with a digest, versions are those of constraints.txt
    linted = subprocess.run(
        [tool("hadolint"), "--ignore", "DL3006", "--ignore", "DL3013", str(path)], capture_output=True, text=True, check=False
    )
    assert (linted.returncode, linted.stdout) == (0, "")
    lines = text.splitlines()
    assert "ARG BASE" in lines  # without a default: whoever builds names a digest
    assert "@sha256:" in text
    assert lines.index("USER 1001") > max(number for number, line in enumerate(lines) if line.startswith("RUN"))
    assert json.loads(lines[-1].removeprefix("ENTRYPOINT "))


@pytest.mark.parametrize("server", SERVERS)
def test_deploy_writes_the_container_that_the_settings_name(bundle: Bundle, tmp_path: Path, server: str) -> None:
    written = {path.name for path in write_specs(bundle, settings(server), tmp_path)}
    assert written == {"endpoint.yml", "deployment.yml", "Dockerfile", "rollout.sh", *(["start.sh"] if server == "vllm" else [])}
    for script in tmp_path.glob("*.sh"):
        linted = subprocess.run([tool("shellcheck"), str(script)], capture_output=True, text=True, check=False)
        assert (linted.returncode, linted.stdout) == (0, "")


def test_vllm_is_told_what_the_bundle_says(bundle: Bundle) -> None:
    options = {option[0]: option[1] for option in vllm_options(bundle, settings("vllm"))}
    assert options["--host"] == "127.0.0.1"  # nobody outside talks to it without the contract
    assert json.loads(options["--structured-outputs-config"]) == {"backend": "guidance", "disable_any_whitespace": True}
    assert json.loads(options["--mm-processor-kwargs"]) == {"size": {"shortest_edge": 1024, "longest_edge": 40 * 1024}}
    assert "--quantization" not in options
    assert ["--quantization", "fp8"] in vllm_options(bundle, settings("vllm", fp8=True))
    # the longest prompt and the longest answer fit
    answerer = bundle.load()
    longest = max(answerer.encoder.text(32, 32 * 40, schema.instruction).tokens for schema in bundle.schemas.values())
    assert int(options["--max-model-len"]) >= longest + bundle.manifest.decoding.max_output_tokens


def test_fp8_without_vllm_is_refused() -> None:
    with pytest.raises(ValueError, match="fp8 needs server: vllm"):
        settings("extraction", fp8=True)


@pytest.fixture
def started(bundle: Bundle, tmp_path: Path) -> tuple[Path, Path]:
    """(start.sh with its two programs replaced by ones that note their arguments and run, folder of the notes)."""
    notes = tmp_path / "notes"
    notes.mkdir()
    program = tmp_path / "program"
    program.write_text(
        f'#!/bin/bash\nname=$(basename "$0")\nprintf "%s\\n" "$$" "$@" > {shlex.quote(str(notes))}/"$name"\nexec sleep 600\n'
    )
    program.chmod(0o755)
    for name in ("vllm", "extraction"):
        (tmp_path / name).symlink_to(program)
    script = tmp_path / "start.sh"
    script.write_text(start_script(bundle, settings("vllm")).replace("/opt/extraction/bin/extraction", str(tmp_path / "extraction")))
    script.chmod(0o755)
    return script, notes


def run(started: tuple[Path, Path]) -> tuple[subprocess.Popen[bytes], dict[str, list[str]]]:
    script, notes = started
    process = subprocess.Popen([str(script)], env={**os.environ, "PATH": f"{script.parent}{os.pathsep}{os.environ['PATH']}"})
    wait_for(lambda: all((notes / name).is_file() and (notes / name).read_text().endswith("\n") for name in ("vllm", "extraction")))
    return process, {name: (notes / name).read_text().splitlines() for name in ("vllm", "extraction")}


def gone(pid: str) -> bool:
    return not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("dying", ["vllm", "extraction"])
def test_where_one_of_the_two_ends_the_container_ends(started: tuple[Path, Path], dying: str) -> None:
    process, told = run(started)
    os.kill(int(told[dying][0]), signal.SIGKILL)
    assert process.wait(LIMIT_S) == 1
    assert all(gone(lines[0]) for lines in told.values())


def test_a_stopped_container_stops_both(started: tuple[Path, Path]) -> None:
    process, told = run(started)
    assert told["vllm"][1:3] == ["serve", "/bundle/base"]
    assert told["extraction"][1:] == [
        "serve",
        "--bundle",
        "/bundle",
        "--vllm",
        "http://127.0.0.1:8000",
        "--host",
        "0.0.0.0",
        "--port",
        "5001",
    ]
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT_S) == 0
    assert all(gone(lines[0]) for lines in told.values())
