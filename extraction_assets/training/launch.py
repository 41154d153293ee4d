"""The processes of a run: training.process itself, or several of them by `accelerate launch` with one of the configs in training/accelerate/.

On the machine that trains, wherever that is:  python -m extraction_assets.training.launch JOB.json --processes 8 [--machines 2] [--sharding fsdp2]
With several machines, each starts this; NODE_RANK, MASTER_ADDR and MASTER_PORT tell them apart and bring them together, as Azure ML, torchrun
and most schedulers set them. --work and --output put a run that was sent there (training.parcel) where it may write.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from extraction_assets.errors import InputError
from extraction_assets.settings import ComputeSettings
from extraction_assets.store import write_atomically
from extraction_assets.training.job import read_job
from extraction_assets.training.parcel import unpack_job
from extraction_assets.training.zero import STAGES, require_deepspeed

_CONFIGS = Path(__file__).parent / "accelerate"
_CONFIG = {"none": "ddp.yaml", "fsdp2": "fsdp2.yaml", "zero2": "zero2.yaml", "zero3": "zero3.yaml"}


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    parser = argparse.ArgumentParser(prog="python -m extraction_assets.training.launch")
    parser.add_argument("job", type=Path)
    parser.add_argument("--processes", type=int, help="of this machine; default: one for each GPU")
    parser.add_argument("--machines", type=int, default=1)
    parser.add_argument("--sharding", choices=_CONFIG, default="none")
    parser.add_argument("--work", type=Path, help="folder for checkpoints, of a job that was sent here")
    parser.add_argument("--output", type=Path, help="adapter folder to be made, of a job that was sent here")
    asked = parser.parse_args(arguments)
    try:
        path = asked.job
        if asked.work or asked.output:
            if not (asked.work and asked.output):
                raise InputError("--work, --output", "one without the other", do="Give both")
            path = Path(tempfile.mkdtemp()) / "job.json"  # each machine has paths of its own
            write_atomically(path, unpack_job(asked.job, asked.work, asked.output).model_dump_json().encode())
        command = launch_command(path, asked.processes, asked.sharding, asked.machines, os.environ)
    except InputError as error:
        print(error, file=sys.stderr, flush=True)
        sys.exit(2)
    os.execv(command[0], command)


def training_command(job: Path, compute: ComputeSettings | None = None) -> list[str]:
    """argv that runs a job on this machine. Raises InputError as launch_command does."""
    compute = compute or ComputeSettings()
    return launch_command(job, compute.processes, compute.sharding)


def remote_arguments(compute: ComputeSettings) -> list[str]:
    """What this module is told on the machine that trains."""
    return ["--processes", str(compute.processes), "--machines", str(compute.machines), "--sharding", compute.sharding]


def launch_command(
    job: Path, processes: int | None = None, sharding: str = "none", machines: int = 1, environment: Mapping[str, str] | None = None
) -> list[str]:
    """argv of the run's processes on this machine. environment: where several machines find NODE_RANK, MASTER_ADDR and MASTER_PORT.

    One process needs no launcher, and an interruption reaches it directly: a launcher would end at once, and leave it behind.
    Raises InputError: more processes than GPUs, nobody to share a sharded model with, a machine that does not know its place.
    """
    import torch

    if sharding in STAGES:
        require_deepspeed()
    gpus = torch.cuda.device_count()
    own = processes or gpus or 1
    if gpus and own > gpus:
        raise InputError("compute.processes", f"{own} on a machine with {gpus} GPUs", "one GPU for each process at least")
    run = ["-m", "extraction_assets.training.process", str(job)]
    if own * machines == 1:
        if sharding != "none":
            raise InputError("compute.sharding", f"{sharding} with one process", "two or more", "Set compute.processes, or sharding: none")
        return [sys.executable, *run]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--config_file", str(accelerate_config(sharding))]
    place = [*_meeting_place(machines, environment or {}), "--num_processes", str(own * machines), "--num_machines", str(machines)]
    fixed = ["--mixed_precision", "no", "--dynamo_backend", "no", "--num_cpu_threads_per_process", str(read_job(job).threads)]
    return [*launch, *place, *fixed, *run]


def accelerate_config(sharding: str) -> Path:
    """The file of this package that `accelerate launch --config_file` takes for a compute.sharding."""
    return _CONFIGS / _CONFIG[sharding]


def sharding_of_launch() -> str:
    """The compute.sharding that this process was launched with."""
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        return "fsdp2"
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        return f"zero{os.environ['ACCELERATE_DEEPSPEED_ZERO_STAGE']}"
    return "none"


def _meeting_place(machines: int, environment: Mapping[str, str]) -> list[str]:
    if machines == 1:
        return ["--main_process_port", "0"]  # any that is free
    missing = [name for name in ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT") if not environment.get(name)]
    if missing:
        raise InputError(
            "--machines", f"{machines}, and {missing[0]} is not set", "NODE_RANK, MASTER_ADDR and MASTER_PORT in the environment"
        )
    place = {"--machine_rank": "NODE_RANK", "--main_process_ip": "MASTER_ADDR", "--main_process_port": "MASTER_PORT"}
    return ["--same_network", *(word for option, name in place.items() for word in (option, environment[name]))]


if __name__ == "__main__":
    main()
