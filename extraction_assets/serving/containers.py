"""The container of a deployment, as files: a Dockerfile, and for vLLM the script that starts both of its processes.

No base image has a default: who builds names the digest that they trust. Nothing here has been built (no Docker was at hand).
"""

from __future__ import annotations

import json
import shlex

from extraction_assets.page_budget import GRID_PX
from extraction_assets.serving.azure_specs import MODEL_MOUNT, PORT
from extraction_assets.serving.bundle import BASE, Bundle
from extraction_assets.serving.vllm import SERVED_NAME
from extraction_assets.settings import DeploymentSettings

VLLM_PORT = 8000
_TEMPLATE_TOKENS = 256
"""room for what a chat template puts around image and instruction"""

_WHEEL = """\
#   pip wheel --no-deps -w . PATH-TO-extraction_assets && cp PATH-TO-extraction_assets/constraints.txt .
"""
_PUSH = """\
# Push prints the digest that deployment.image in settings.yaml wants. BASE has no default: name the digest that you trust.
ARG BASE
FROM ${BASE}
"""
_PACKAGES = """\
RUN pip install --no-cache-dir "torch==$(sed -n 's/^torch==//p' /tmp/constraints.txt)" \\
 && pip install --no-cache-dir --constraint /tmp/constraints.txt /tmp/extraction_assets-*.whl \\
 && rm /tmp/constraints.txt /tmp/extraction_assets-*.whl
"""

EXTRACTION = f"""\
# The endpoint's container: `extraction serve` on a bundle that is mounted at {MODEL_MOUNT}. Build it with the wheel beside this file:
{_WHEEL}#   docker build --build-arg BASE=python:3.11-slim@sha256:... -t REGISTRY/extraction-serve . && docker push REGISTRY/extraction-serve
{_PUSH}RUN useradd --uid 1001 --create-home serve
COPY constraints.txt extraction_assets-*.whl /tmp/
{_PACKAGES}USER 1001
EXPOSE {PORT}
ENTRYPOINT ["extraction", "serve", "--bundle", "{MODEL_MOUNT}", "--host", "0.0.0.0", "--port", "{PORT}"]
"""

AZUREML = f"""\
# The endpoint's container: Azure's own inference server with score.py, on a bundle that is mounted at {MODEL_MOUNT}. It pins another pydantic and
# another OpenTelemetry than constraints.txt, which are therefore left to it. Build it with the wheel beside this file:
{_WHEEL}#   docker build --build-arg BASE=python:3.11-slim@sha256:... -t REGISTRY/extraction-azureml . && docker push REGISTRY/extraction-azureml
{_PUSH}RUN useradd --uid 1001 --create-home serve
COPY constraints.txt extraction_assets-*.whl /tmp/
RUN sed -i -E '/^(pydantic|pydantic_core|opentelemetry-|importlib_metadata|packaging)/d' /tmp/constraints.txt
RUN pip install --no-cache-dir "torch==$(sed -n 's/^torch==//p' /tmp/constraints.txt)" \\
 && pip install --no-cache-dir --constraint /tmp/constraints.txt /tmp/extraction_assets-*.whl azureml-inference-server-http==1.5.1 \\
 && rm /tmp/constraints.txt /tmp/extraction_assets-*.whl \\
 && ln -s "$(python -c 'import importlib.util as u; print(u.find_spec("extraction_assets.serving.score").origin)')" /srv/score.py
# threads: pages that wait together are decoded together, and liveness does not wait behind them
ENV GUNICORN_CMD_ARGS="--threads 32" WORKER_COUNT=1 WORKER_PRELOAD=false WORKER_TIMEOUT=3600 AML_APP_INSIGHTS_ENABLED=false
USER 1001
EXPOSE {PORT}
ENTRYPOINT ["azmlinfsrv", "--entry_script", "/srv/score.py", "--model_dir", "{MODEL_MOUNT}", "--port", "{PORT}"]
"""

VLLM = f"""\
# The endpoint's container for GPUs: vLLM holds the merged weights of the bundle that is mounted at {MODEL_MOUNT}, `extraction serve` stands in front.
# vLLM 0.33 needs torch 2.14 and transformers below 5.21, this package newer transformers: two environments, one for each. Build it with the
# wheel and start.sh beside this file:
{_WHEEL}#   docker build --build-arg BASE=vllm/vllm-openai:v0.33.0@sha256:... -t REGISTRY/extraction-vllm . && docker push REGISTRY/extraction-vllm
{_PUSH}RUN useradd --uid 1001 --create-home serve
COPY constraints.txt extraction_assets-*.whl /tmp/
# the front never computes: torch's CPU build is enough for it
RUN uv venv --python 3.12 /opt/extraction \\
 && uv pip install --no-cache --python /opt/extraction/bin/python --index-url https://download.pytorch.org/whl/cpu \\
      "torch==$(sed -n 's/^torch==//p' /tmp/constraints.txt)" \\
 && uv pip install --no-cache --python /opt/extraction/bin/python --constraint /tmp/constraints.txt /tmp/extraction_assets-*.whl \\
 && rm /tmp/constraints.txt /tmp/extraction_assets-*.whl
COPY --chmod=755 start.sh /usr/local/bin/start-extraction
ENV HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1
USER 1001
EXPOSE {PORT}
ENTRYPOINT ["/usr/local/bin/start-extraction"]
"""

_START = """\
#!/bin/bash
# vLLM on this machine's own address, the contract in front of it. Where either ends, both do, and the container is started again.
set -euo pipefail
{vllm} &
model=$!
/opt/extraction/bin/extraction serve --bundle {mount} --vllm http://127.0.0.1:{vllm_port} --host 0.0.0.0 --port {port} &
front=$!
stop() {{
  kill -TERM "$front" 2>/dev/null || true # first, so that what it has begun is still answered
  wait "$front" || true
  kill -TERM "$model" 2>/dev/null || true
  wait "$model" || true
}}
trap 'stop; exit 0' TERM INT
wait -n "$model" "$front" || true
stop
exit 1
"""


def container_files(bundle: Bundle, settings: DeploymentSettings) -> dict[str, str]:
    """File name -> text, of the container that settings.server names."""
    if settings.server == "vllm":
        return {"Dockerfile": VLLM, "start.sh": start_script(bundle, settings)}
    return {"Dockerfile": AZUREML if settings.server == "azureml" else EXTRACTION}


def start_script(bundle: Bundle, settings: DeploymentSettings) -> str:
    command = " \\\n  ".join(
        " ".join(map(shlex.quote, part)) for part in [["vllm", "serve", f"{MODEL_MOUNT}/{BASE}"], *vllm_options(bundle, settings)]
    )
    return _START.format(vllm=command, mount=MODEL_MOUNT, vllm_port=VLLM_PORT, port=PORT)


def vllm_options(bundle: Bundle, settings: DeploymentSettings) -> list[list[str]]:
    """Options of `vllm serve`, each with its value.

    No prompt and no answer is ever cut: the model's length is bounded by the page budget, and a byte-level tokenizer makes no more tokens of an
    instruction than it has bytes.
    """
    manifest = bundle.manifest
    most_pixels = manifest.render.max_visual_tokens * GRID_PX**2
    instruction = max(len(schema.instruction.encode()) for schema in bundle.schemas.values())
    length = manifest.render.max_visual_tokens + instruction + _TEMPLATE_TOKENS + manifest.decoding.max_output_tokens
    return [
        ["--host", "127.0.0.1"],
        ["--port", str(VLLM_PORT)],
        ["--served-model-name", SERVED_NAME],
        ["--dtype", "bfloat16"],
        *([["--quantization", "fp8"]] if settings.fp8 else []),
        ["--max-model-len", str(length)],
        ["--max-num-seqs", str(2 * manifest.decoding.batch_size)],
        ["--limit-mm-per-prompt", json.dumps({"image": 1, "video": 0})],
        # pages come on the grid and within the budget: the processor's own resize has nothing to do
        ["--mm-processor-kwargs", json.dumps({"size": {"shortest_edge": GRID_PX**2, "longest_edge": most_pixels}})],
        ["--structured-outputs-config", json.dumps({"backend": "guidance", "disable_any_whitespace": True})],
        ["--logprobs-mode", "raw_logprobs"],
        ["--generation-config", "vllm"],
        ["--seed", "0"],
    ]
