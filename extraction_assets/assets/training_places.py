"""Where lora_adapter trains: this machine, an Azure ML cluster, a Ray cluster. The engines are Dagster's Pipes clients; each gets the same job.

A cancelled run is a failed one everywhere: success is the adapter in its place, whole and of this very job.
"""

import os
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from extraction_assets.errors import InputError
from extraction_assets.settings import ComputeSettings
from extraction_assets.training.job import TrainingJob, write_job

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

_POLL_S = 15.0
_PACKAGES = {"azure_ml": ("dagster_azure", "azure-training"), "ray": ("dagster_ray", "ray")}
"""compute.where -> what has to be installed, and this package's extra that brings it"""


@contextmanager
def ended_by_interruption() -> Iterator[None]:
    """Inside, who interrupts a training (Ctrl-C, SIGTERM, Terminate in the UI) ends it: Dagster's retry policies cover interruptions too.

    Raises dg.Failure, which no policy retries.
    """
    try:
        yield
    except (dg.DagsterExecutionInterruptedError, KeyboardInterrupt) as interruption:
        raise dg.Failure("interrupted: asked for again, it resumes at its last checkpoint", allow_retries=False) from interruption


def threads_of(compute: ComputeSettings) -> int:
    """CPU threads of each process, on a machine with as many cores as this one."""
    return max(1, (os.cpu_count() or 1) // (compute.processes or 1))


def train_here(
    context: dg.AssetExecutionContext, job: TrainingJob, compute: ComputeSettings, pipes: dg.PipesSubprocessClient
) -> Sequence[Any]:
    """Run or resume a job on this machine; returns the custom messages of its Pipes session."""
    from extraction_assets.training.launch import training_command

    return _messages(pipes.run(context=context, command=training_command(write_job(job), compute)))


def train_on_ray(context: dg.AssetExecutionContext, job: TrainingJob, compute: ComputeSettings) -> Sequence[Any]:
    """Run or resume a job on a Ray cluster that sees the same paths, as a Ray job on one machine; returns its custom messages."""
    from extraction_assets.training.launch import remote_arguments

    require_engine(compute)
    from dagster_ray import PipesRayJobClient

    launch = [compute.ray.python, "-m", "extraction_assets.training.launch", str(write_job(job)), *remote_arguments(compute)]
    submitted = PipesRayJobClient(address=compute.ray.address).run(
        context=context, submit_job_params={"entrypoint": shlex.join(launch), "entrypoint_num_gpus": compute.ray.gpus}
    )
    return _messages(submitted)


def train_on_azure(
    context: dg.AssetExecutionContext,
    job: TrainingJob,
    compute: ComputeSettings,
    client: "MLClient | None" = None,
    messages: dg.PipesMessageReader | None = None,
    poll_s: float = _POLL_S,
) -> Sequence[Any]:
    """Run or resume a job as an Azure ML command job, and bring its adapter home; returns its custom messages.

    client, messages: the workspace, and how the job reports; default: those of compute.azure_ml. Raises InputError where these settings are
    not complete, dg.Failure where the job did not complete.
    """
    from extraction_assets.training.azure_job import (
        ADAPTER,
        blob_service,
        messages_place,
        require_complete,
        training_spec,
        workspace_client,
    )
    from extraction_assets.training.parcel import pack_job, take_adapter

    require_engine(compute)
    require_complete(compute.azure_ml)
    from dagster_azure.pipes import PipesAzureBlobStorageMessageReader, PipesAzureMLClient

    client = client or workspace_client(compute.azure_ml)
    if messages is None:
        account, container = messages_place(compute.azure_ml)
        messages = PipesAzureBlobStorageMessageReader(container=container, client=blob_service(account))
    name = f"train-{job.identity[:12]}-{context.run.run_id[:8]}-{context.retry_number}"
    work = Path(job.work)
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work) as folder:
        parcel = pack_job(job, Path(folder) / "parcel")
        pipes = PipesAzureMLClient(client, dg.PipesEnvContextInjector(), messages, poll_interval_seconds=poll_s)
        done = pipes.run(context=context, command=training_spec(job, compute, parcel, name))
        # dagster-azure 0.29 cancels the job of a run that is interrupted, and then returns as if it had been completed
        if (status := client.jobs.get(name).status) != "Completed":
            raise dg.Failure(f"Azure ML job {name}: {status}", allow_retries=False)
        reported = _messages(done)
        client.jobs.download(name, download_path=str(Path(folder) / "back"), output_name=ADAPTER)
        take_adapter(job, Path(folder) / "back" / "named-outputs" / ADAPTER / ADAPTER)
    return reported


def require_engine(compute: ComputeSettings) -> None:
    """Raises InputError where compute.where needs a package that is not installed."""
    package, extra = _PACKAGES[compute.where]
    if find_spec(package) is None:
        raise InputError(
            f"compute.where: {compute.where}",
            f"needs the package {package.replace('_', '-')}",
            do=f"pip install 'extraction-assets[{extra}]'",
        )


def _messages(done: dg.PipesClientCompletedInvocation) -> Sequence[Any]:
    # with implicit materializations a lost message would be recorded as a success
    done.get_results(implicit_materializations=False)
    return done.get_custom_messages()
