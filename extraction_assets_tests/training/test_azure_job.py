"""A run as an Azure ML command job: the spec through the SDK's own checks, and dagster-azure's client against a stand-in for the workspace.

Without `from __future__ import annotations`: Dagster compares the annotation of `context` itself.
"""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from extraction_assets.errors import InputError
from extraction_assets.settings import AzureTrainingSettings, ComputeSettings
from extraction_assets.training import run
from extraction_assets.training.adapter import verify_adapter
from extraction_assets.training.azure_job import require_complete, training_spec
from extraction_assets.training.job import TrainingJob
from extraction_assets.training.parcel import pack_job
from extraction_assets_tests.training.azure_jobs import WorkspaceDouble
from extraction_assets_tests.training.conftest import SETTINGS, Data

AZURE = AzureTrainingSettings(
    subscription="00000000-0000-0000-0000-000000000000",
    resource_group="fake",
    workspace="fake",
    cluster="gpus",
    environment="azureml:training:3",
    messages="https://fake.blob.core.windows.net/pipes",
    hours=2.5,
)
COMPUTE = ComputeSettings(where="azure_ml", processes=2, azure_ml=AZURE)
SHORT = SETTINGS.model_copy(update={"dropout": 0.0, "max_steps": 3, "checkpoint_every": 1})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"cluster": ""}, r"compute.azure_ml.cluster: is missing"),
        ({"subscription": "mine"}, r"compute.azure_ml.subscription: found 'mine'"),
        ({"environment": "azureml:training@latest"}, r"compute.azure_ml.environment: .* azureml:NAME:VERSION"),
        ({"messages": "https://fake.blob.core.windows.net"}, r"compute.azure_ml.messages: "),
    ],
)
def test_settings_that_could_not_work_are_named_before_anything_is_sent(change: dict[str, str], expected: str) -> None:
    require_complete(AZURE)
    with pytest.raises(InputError, match=expected):
        require_complete(AZURE.model_copy(update=change))


def test_the_spec_is_what_the_service_takes(data: Data, tmp_path: Path) -> None:
    pytest.importorskip("dagster_azure")  # asks for an azure.ai.ml whose REST bodies have these names
    job = data.job(tmp_path / "work", SHORT)
    compute = COMPUTE.model_copy(update={"machines": 2, "processes": 4, "sharding": "fsdp2"})
    node = training_spec(job, compute, pack_job(job, tmp_path / "parcel"), "train-1")
    node._validate(raise_error=True)
    spec = node._to_job()
    spec.inputs["job"].path = "azureml://datastores/workspaceblobstore/paths/uploaded"
    body = spec._to_rest_object().as_dict()["properties"]
    assert body["command"] == (
        "python -m extraction_assets.training.launch ${{inputs.job}}/job.json --work ${{outputs.work}} "
        "--output ${{outputs.adapter}}/adapter --processes 4 --machines 2 --sharding fsdp2"
    )
    assert body["resources"]["instanceCount"] == 2
    assert body["distribution"] == {"distributionType": "PyTorch", "processCountPerInstance": 1}
    assert body["computeId"] == "gpus"
    assert body["environmentId"] == "azureml:training:3"
    assert body["limits"] == {"jobLimitsType": "Command", "timeout": "PT2H30M"}
    assert {name: output["mode"] for name, output in body["outputs"].items()} == {"work": "ReadWriteMount", "adapter": "ReadWriteMount"}
    assert all(job.identity in output["uri"] for output in body["outputs"].values())  # a new attempt finds the last one's checkpoints
    assert body["environmentVariables"] == {"EXTRACTION_MESSAGES_ACCOUNT": "https://fake.blob.core.windows.net"}


@pytest.mark.slow
def test_the_same_job_gives_the_same_adapter_there(data: Data, tmp_path: Path, blobs: str) -> None:
    here = data.job(tmp_path / "here", SHORT)
    run.train(here)
    there = data.job(tmp_path / "there", SHORT)
    workspace = WorkspaceDouble(tmp_path / "azure")
    result, messages, logged = _materialize(there, COMPUTE.model_copy(update={"processes": 1, "azure_ml": _reporting_to(blobs)}), workspace)
    assert result.success, logged
    assert verify_adapter(Path(there.output)).files == verify_adapter(Path(here.output)).files
    assert messages[-1]["steps"] == 3
    assert any("step 3/3, val loss" in line for line in logged)
    assert not [path for path in Path(there.work).iterdir() if path.name.startswith("tmp")]  # the parcel is gone


@pytest.mark.slow
def test_a_job_that_was_cancelled_failed_and_the_next_attempt_goes_on_where_it_stood(data: Data, tmp_path: Path, blobs: str) -> None:
    job = data.job(tmp_path / "there", SHORT.model_copy(update={"max_steps": None, "epochs": 40, "checkpoint_every": 5}))
    compute = COMPUTE.model_copy(update={"processes": 1, "azure_ml": _reporting_to(blobs)})
    checkpoints = tmp_path / "azure" / "extraction_assets" / job.identity / "work" / "checkpoints"

    class CancelledAtStep5(WorkspaceDouble):
        def get(self, name: str):  # type: ignore[no-untyped-def]
            if list(checkpoints.glob("step-*5")):
                self.begin_cancel(name)
            return super().get(name)

    workspace = CancelledAtStep5(tmp_path / "azure")
    result, _, logged = _materialize(job, compute, workspace)
    assert not result.success
    assert any("Canceled" in line for line in logged)
    assert not Path(job.output).exists()

    result, _, logged = _materialize(job, compute, WorkspaceDouble(tmp_path / "azure"))
    assert result.success
    assert any(line.startswith("resumes after step") for line in logged)
    assert verify_adapter(Path(job.output)).steps == job.plan.steps


@pytest.mark.slow
def test_a_run_that_is_interrupted_here_cancels_its_job_and_is_no_success(data: Data, tmp_path: Path, blobs: str) -> None:
    """dagster-azure itself returns then as if the job had been completed."""
    from dagster._core.errors import DagsterExecutionInterruptedError

    class Interrupted(WorkspaceDouble):
        interrupted = False

        def get(self, name: str):  # type: ignore[no-untyped-def]
            if not self.interrupted:
                self.interrupted = True
                raise DagsterExecutionInterruptedError
            return super().get(name)

    job = data.job(tmp_path / "there", SHORT)
    workspace = Interrupted(tmp_path / "azure")
    result, _, logged = _materialize(job, COMPUTE.model_copy(update={"processes": 1, "azure_ml": _reporting_to(blobs)}), workspace)
    assert not result.success
    assert any("Canceled" in line for line in logged)
    assert not Path(job.output).exists()


@pytest.mark.slow
def test_a_job_that_failed_says_why(data: Data, tmp_path: Path, blobs: str) -> None:
    job = data.job(tmp_path / "there", SHORT)
    compute = COMPUTE.model_copy(update={"processes": 1, "sharding": "none", "azure_ml": _reporting_to(blobs)})
    broken = job.model_copy(update={"base_digest": "0" * 64})
    result, _, logged = _materialize(broken, compute, WorkspaceDouble(tmp_path / "azure"))
    assert not result.success
    assert any("the base model is" in line and "as the job says" in line for line in logged)


def _reporting_to(messages: str) -> AzureTrainingSettings:
    return AZURE.model_copy(update={"messages": messages})


def _materialize(
    job: TrainingJob, compute: ComputeSettings, workspace: WorkspaceDouble
) -> tuple[dg.ExecuteInProcessResult, list[dict[str, object]], list[str]]:
    from extraction_assets.assets.training_places import train_on_azure

    messages: list[dict[str, object]] = []

    @dg.asset
    def lora_adapter(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        messages.extend(train_on_azure(context, job, compute, client=workspace, poll_s=0.2))  # type: ignore[arg-type]
        return dg.MaterializeResult()

    with dg.instance_for_test() as instance:
        result = dg.materialize([lora_adapter], instance=instance, raise_on_error=False)
        entries = instance.all_logs(result.run_id)
    logged = [entry.user_message for entry in entries]
    errors = [
        str(entry.dagster_event.event_specific_data) for entry in entries if entry.dagster_event and entry.dagster_event.is_step_failure
    ]
    return result, messages, logged + errors


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a container in Azurite, Microsoft's own stand-in for Blob Storage (npm install -g azurite)."""
    pytest.importorskip("dagster_azure")
    azurite = shutil.which("azurite-blob")
    if azurite is None:
        pytest.skip("no azurite-blob in PATH: npm install -g azurite")
    from azure.storage.blob import BlobServiceClient

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = str(tmp_path_factory.mktemp("azurite"))
    command = [azurite, "--blobPort", str(port), "--location", folder, "--silent", "--disableTelemetry", "--skipApiVersionCheck"]
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # Azurite's, the same everywhere
    url = f"http://127.0.0.1:{port}/devstoreaccount1"
    connection = f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={key};BlobEndpoint={url};"
    with subprocess.Popen(command) as server, pytest.MonkeyPatch.context() as patch:
        try:
            patch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection)
            service = BlobServiceClient.from_connection_string(connection, retry_total=0)
            for _ in range(100):
                try:
                    service.create_container("pipes")
                    break
                except Exception:
                    time.sleep(0.2)
            yield f"{url}/pipes"
        finally:
            server.kill()
