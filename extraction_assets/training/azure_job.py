"""A run as an Azure ML command job: its spec, checked before anything is sent, and what it reports through.

The cluster gets the run's parcel (training.parcel) as its input. Checkpoints lie on the workspace's datastore under the run's identity, so
that a run which was preempted or failed goes on at its last checkpoint when it is started again. No secret stands in the spec.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from extraction_assets.errors import InputError
from extraction_assets.settings import AzureTrainingSettings, ComputeSettings
from extraction_assets.training.job import TrainingJob
from extraction_assets.training.launch import remote_arguments

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import Command
    from azure.storage.blob import BlobServiceClient

MESSAGES_ACCOUNT = "EXTRACTION_MESSAGES_ACCOUNT"
"""environment variable of the job: account whose container takes what the run reports"""
ADAPTER = "adapter"
"""the job's output, and the folder in it"""
_PATTERNS = {
    "subscription": (r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", "a subscription's id"),
    "resource_group": (r"[\w().-]{1,90}", "its name"),
    "workspace": (r"[A-Za-z0-9][\w-]{1,32}", "its name"),
    "cluster": (r"[A-Za-z][A-Za-z0-9-]{1,31}", "the name of a compute cluster"),
    "environment": (r"azureml:[\w.-]+:[\w.-]+", "azureml:NAME:VERSION; without a version the same run is another one tomorrow"),
    "datastore": (r"\w{1,255}", "its name"),
    "messages": (r"https?://[^/?#\s]+(/[^/?#\s]+)?/[a-z0-9](-?[a-z0-9]){2,62}", "https://ACCOUNT.blob.core.windows.net/CONTAINER"),
}


def require_complete(settings: AzureTrainingSettings) -> None:
    """Raises InputError naming the first value of compute.azure_ml that is missing or cannot be."""
    for name, (pattern, expected) in _PATTERNS.items():
        value = getattr(settings, name)
        if not re.fullmatch(pattern, value):
            raise InputError(f"compute.azure_ml.{name}", f"found {value!r}" if value else "is missing", expected)


def training_spec(job: TrainingJob, compute: ComputeSettings, parcel: Path, name: str) -> Command:
    """parcel: folder that pack_job made. name: of the Azure ML job, new for each attempt. Raises InputError as require_complete does."""
    from azure.ai.ml import Input, Output, PyTorchDistribution, command

    azure = compute.azure_ml
    require_complete(azure)
    place = f"azureml://datastores/{azure.datastore}/paths/extraction_assets/{job.identity}"
    launch = "python -m extraction_assets.training.launch ${{inputs.job}}/job.json"
    where = f"--work ${{{{outputs.work}}}} --output ${{{{outputs.{ADAPTER}}}}}/{ADAPTER}"
    return command(
        name=name,
        display_name=f"train {job.identity[:12]}",
        experiment_name="extraction_assets",
        command=f"{launch} {where} {shlex.join(remote_arguments(compute))}",
        inputs={"job": Input(type="uri_folder", path=str(parcel), mode="ro_mount")},
        outputs={part: Output(type="uri_folder", path=f"{place}/{part}", mode="rw_mount") for part in ("work", ADAPTER)},
        environment=azure.environment,
        environment_variables={MESSAGES_ACCOUNT: messages_place(azure)[0]},
        compute=azure.cluster,
        instance_count=compute.machines,
        # one launcher a machine; the service tells it NODE_RANK, MASTER_ADDR and MASTER_PORT
        distribution=PyTorchDistribution(process_count_per_instance=1) if compute.machines > 1 else None,
        timeout=round(azure.hours * 3600),
        tags={"extraction_assets": job.identity},
    )


def messages_place(settings: AzureTrainingSettings) -> tuple[str, str]:
    """(account URL, container)"""
    account, _, container = settings.messages.rpartition("/")
    return account, container


def workspace_client(settings: AzureTrainingSettings) -> MLClient:
    """Nothing is asked of the service yet."""
    from azure.ai.ml import MLClient
    from azure.identity import DefaultAzureCredential

    return MLClient(DefaultAzureCredential(), settings.subscription, settings.resource_group, settings.workspace)


def blob_service(account: str) -> BlobServiceClient:
    """Of AZURE_STORAGE_CONNECTION_STRING where that names this account, else with the identity of whoever runs this."""
    from azure.identity import DefaultAzureCredential
    from azure.storage.blob import BlobServiceClient

    known = os.environ.get("AZURE_STORAGE_CONNECTION_STRING")
    if known:
        service = BlobServiceClient.from_connection_string(known)
        if service.url.rstrip("/") == account.rstrip("/"):
            return service
    return BlobServiceClient(account, credential=DefaultAzureCredential())
