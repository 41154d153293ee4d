"""Several processes: CPU processes that talk through gloo, started as a home's training is started."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file

from extraction_assets.errors import InputError
from extraction_assets.model.base import load_base
from extraction_assets.settings import ComputeSettings, TrainingSettings
from extraction_assets.settings_file import load_settings
from extraction_assets.training import run, setup, zero
from extraction_assets.training.adapter import verify_adapter
from extraction_assets.training.job import TrainingJob, write_job
from extraction_assets.training.launch import accelerate_config, launch_command, remote_arguments, training_command
from extraction_assets.training.packs import fillers
from extraction_assets.training.parcel import pack_job, take_adapter
from extraction_assets.training.zero import STAGES
from extraction_assets_tests.model.pages import write_split
from extraction_assets_tests.training.conftest import SETTINGS, Data

WEIGHTS = "adapter_model.safetensors"
STEPS = SETTINGS.model_copy(update={"dropout": 0.0, "max_steps": 5})
"""of 4, 4, 2, 4, 4 examples"""
UNEVEN = STEPS.model_copy(update={"effective_batch": 3, "pack_tokens": 1, "max_steps": 4})
"""three packs of one example each: one process has two, the other one; in the last step there is one example for both"""
LAYOUTS = {
    "ddp": ComputeSettings(processes=2),
    "fsdp2": ComputeSettings(processes=2, sharding="fsdp2"),
    "zero2": ComputeSettings(processes=2, sharding="zero2"),
    "zero3": ComputeSettings(processes=2, sharding="zero3"),
}


@pytest.fixture(scope="module")
def alone(data: Data, tmp_path_factory: pytest.TempPathFactory) -> TrainingJob:
    """STEPS by one process."""
    job = data.job(tmp_path_factory.mktemp("alone"), STEPS)
    run.train(job)
    return job


@pytest.fixture(scope="module")
def by_one(data: Data, alone: TrainingJob, tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrainingJob]:
    """What two processes will be asked for, by one."""
    jobs = {**_jobs(data, tmp_path_factory.mktemp("one")), "even": alone}
    for name, job in jobs.items():
        with pytest.MonkeyPatch.context() as patch:
            if name == "16 bits":
                patch.setattr(setup, "load_base", partial(load_base, dtype=torch.bfloat16))
            run.train(job)
    return jobs


def _jobs(data: Data, folder: Path) -> dict[str, TrainingJob]:
    one_val_page = Data(data.train, write_split(folder / "splits", "val", 1), data.base)  # one process has none, and waits
    answered = STEPS.model_copy(update={"max_steps": 2, "validate_every": 1, "val_answers": 3, "max_target_tokens": 40})
    bits_16 = STEPS.model_copy(update={"precision": "bfloat16", "val_answers": 2, "max_target_tokens": 40, "max_steps": 3})
    return {
        "even": data.job(folder / "even", STEPS),
        "forgetful": data.job(folder / "forgetful", STEPS).model_copy(update={"visual_memory": 0}),
        "uneven": data.job(folder / "uneven", UNEVEN),
        "answers": one_val_page.job(folder / "answers", answered),
        "16 bits": data.job(folder / "16 bits", bits_16),
        "4 bits": data.job(folder / "4 bits", STEPS.model_copy(update={"method": "qlora", "max_steps": 3})),
    }


@pytest.fixture(scope="module")
def killed(data: Data, tmp_path_factory: pytest.TempPathFactory) -> dict[str | None, TrainingJob]:
    """Layout -> STEPS, begun and killed behind a checkpoint of step 2. None: by one process, which stops there."""
    folder = tmp_path_factory.mktemp("killed")
    return {begins: _killed_run(data.job(folder / (begins or "alone"), STEPS), begins) for begins in ("fsdp2", None, "zero3")}


GOES_ON: dict[str, tuple[str | None, ...]] = {"fsdp2": (None, "fsdp2", "zero3"), "zero2": ("zero3",), "zero3": (None,)}
"""layout -> those whose killed runs go on under it"""


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_processes_learn_what_one_learns_and_go_on_where_others_were_killed(
    data: Data, by_one: dict[str, TrainingJob], killed: dict[str | None, TrainingJob], tmp_path: Path, layout: str
) -> None:
    """In one launch: its start takes longer than all of them."""
    two = _jobs(data, tmp_path)
    if layout in ("fsdp2", "zero3"):  # they divide weights, and 4-bit ones cannot be
        del two["4 bits"]
    resumed = [_copy(data, killed[begins], tmp_path / f"begun by {begins}") for begins in GOES_ON.get(layout, ())]
    said = _launch_all([*two.values(), *resumed], LAYOUTS[layout])
    times = [float(times) for times in re.findall(r"measured \(([0-9.]+) times\)", said)]
    assert len(times) == len(two) + len(resumed)
    assert max(times) < 2, said  # of the plan's memory. Buffers count here, beside a model of 5 MB
    assert len(re.findall(r"resumes after step [234]", said)) == len(resumed), said
    for job in resumed:
        assert _state(job)["losses"] == pytest.approx(_state(by_one["even"])["losses"], rel=1e-5), job.work

    for name in two.keys() - {"16 bits"}:
        _require_same_learning(by_one[name], two[name], name)
        manifest = verify_adapter(Path(two[name].output))
        assert (manifest.processes, manifest.sharding) == (2, LAYOUTS[layout].sharding)
    # pages that the other process saw in the first epoch are not another's pages in the second
    assert (Path(two["forgetful"].output) / WEIGHTS).read_bytes() == (Path(two["even"].output) / WEIGHTS).read_bytes()
    assert not any((Path(job.work) / setup.SEEN_PAGES).exists() for job in two.values())
    assert _state(two["answers"])["val_answers"] == _state(by_one["answers"])["val_answers"]  # each page counted once
    for job in (by_one["16 bits"], two["16 bits"]):
        assert {weights.dtype for weights in load_file(Path(job.output) / "adapter_model.safetensors").values()} == {torch.float32}
    # packs differ, and with them the rounding to 8 bits
    assert _state(two["16 bits"])["losses"] == pytest.approx(_state(by_one["16 bits"])["losses"], rel=2e-3)


def _require_same_learning(one: TrainingJob, two: TrainingJob, name: str) -> None:
    one_state, two_state = _state(one), _state(two)
    assert two_state["losses"] == pytest.approx(one_state["losses"], rel=1e-5), name
    assert two_state["val_losses"] == pytest.approx(one_state["val_losses"], rel=1e-5), name
    one_weights, two_weights = (load_file(Path(job.output) / "adapter_model.safetensors") for job in (one, two))
    assert list(two_weights) == list(one_weights)
    for weight, values in one_weights.items():
        assert two_weights[weight].shape == values.shape
        assert (two_weights[weight] - values).abs().max() < 1e-5, f"{name}: {weight}"


@pytest.mark.slow
@pytest.mark.parametrize("begins", ["fsdp2", "zero3"])
def test_one_process_goes_on_where_several_were_killed(
    data: Data, alone: TrainingJob, killed: dict[str | None, TrainingJob], tmp_path: Path, begins: str
) -> None:
    job = _copy(data, killed[begins], tmp_path)
    assert re.search(r"resumes after step [234]", _train_here(job))
    assert _state(job)["losses"] == pytest.approx(_state(alone)["losses"], rel=1e-5)


def _copy(data: Data, begun: TrainingJob, folder: Path) -> TrainingJob:
    job = data.job(folder, STEPS)
    shutil.copytree(begun.work, job.work, dirs_exist_ok=True)
    return job


def _killed_run(job: TrainingJob, layout: str | None) -> TrainingJob:
    if layout is None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run, "answer_val", _stop_in_step_3)
            with pytest.raises(KeyboardInterrupt):
                run.train(job)
        return job
    command = training_command(write_job(job), LAYOUTS[layout])
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any("step 3/5, val" in line for line in process.stderr)
        launcher = psutil.Process(process.pid)
        for each in (launcher, *launcher.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):  # a helper that has just ended
                each.kill()
        process.stderr.read()
    assert not Path(job.output).exists()
    return job


def _stop_in_step_3(r: run.Run) -> None:
    if r.state.step == 3:
        raise KeyboardInterrupt


@pytest.mark.slow
def test_two_machines_meet_where_the_scheduler_says_and_a_sent_run_finds_its_files(data: Data, alone: TrainingJob, tmp_path: Path) -> None:
    """Two launchers on this machine, each with a copy of the run's parcel; what they were sent from is out of reach."""
    own = shutil.copytree(data.train.parent, tmp_path / "own")
    job = Data(own / "train.jsonl", own / "val.jsonl", data.base).job(tmp_path / "nowhere", STEPS)
    pack_job(job, tmp_path / "node0")
    shutil.copytree(tmp_path / "node0", tmp_path / "node1")
    shutil.rmtree(own)
    work = tmp_path / "shared"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    compute = ComputeSettings(where="azure_ml", processes=1, machines=2, sharding="fsdp2")
    launch = [sys.executable, "-m", "extraction_assets.training.launch"]
    nodes = [
        subprocess.Popen(
            [*launch, f"{tmp_path}/node{rank}/job.json", "--work", work, "--output", work / "adapter", *remote_arguments(compute)],
            env={**os.environ, **place, "NODE_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [node.communicate()[1] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    manifest = verify_adapter(work / "adapter")
    assert (manifest.job, manifest.processes, manifest.sharding) == (alone.identity, 2, "fsdp2")
    state = json.loads((work / "checkpoints" / "step-00000005" / "state.json").read_text())
    assert state["losses"] == pytest.approx(_state(alone)["losses"], rel=1e-5)
    arrived = take_adapter(job, work / "adapter")
    assert verify_adapter(arrived) == manifest


def test_a_machine_that_does_not_know_its_place_is_told(data: Data, tmp_path: Path) -> None:
    path = write_job(data.job(tmp_path, STEPS))
    with pytest.raises(InputError, match=r"--machines: 2, and NODE_RANK is not set"):
        launch_command(path, processes=1, machines=2, environment={})


def test_an_adapter_of_another_job_is_not_taken(data: Data, alone: TrainingJob, tmp_path: Path) -> None:
    job = data.job(tmp_path, STEPS.model_copy(update={"seed": 1}))
    with pytest.raises(InputError, match="is the adapter of another job"):
        take_adapter(job, Path(alone.output))
    assert not Path(job.output).exists()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"where": "ray"}, "where: ray needs processes"),
        ({"where": "ray", "processes": 1, "machines": 2}, "machines: 2 needs where: azure_ml"),
    ],
)
def test_settings_that_cannot_be_are_one_line(tmp_path: Path, values: dict[str, Any], expected: str) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump({"compute": values}))
    with pytest.raises(InputError, match=expected):
        load_settings(path)


def test_without_deepspeed_its_layouts_say_how_to_install_it(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zero, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"zero2 and zero3 need DeepSpeed. pip install 'extraction-assets\[deepspeed\]'"):
        training_command(write_job(data.job(tmp_path, STEPS)), LAYOUTS["zero3"])


@pytest.mark.slow
def test_four_bit_weights_are_not_sharded_and_a_failure_ends_all_processes_and_is_said_once(data: Data, tmp_path: Path) -> None:
    job = data.job(tmp_path, STEPS.model_copy(update={"method": "qlora"}))
    done = subprocess.run(training_command(write_job(job), LAYOUTS["fsdp2"]), capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert (tmp_path / run.FAILURE).read_text().count("fsdp2 does not go with training.method: qlora") == 1


def test_one_process_has_nobody_to_share_with(data: Data, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"compute.sharding: fsdp2 with one process"):
        training_command(write_job(data.job(tmp_path, STEPS)), ComputeSettings(processes=1, sharding="fsdp2"))


def test_no_setting_of_the_processes_makes_another_run(data: Data, tmp_path: Path) -> None:
    """compute.* names no adapter: the same home on another machine finds the adapter it has."""
    assert "compute" not in TrainingSettings.model_fields
    assert "compute" not in data.job(tmp_path, STEPS).model_dump()


@pytest.mark.parametrize(
    ("sharding", "expected"), [("none", "MULTI_GPU"), ("fsdp2", "FSDP"), ("zero2", "DEEPSPEED"), ("zero3", "DEEPSPEED")]
)
def test_the_shipped_configs_are_what_accelerate_takes(sharding: str, expected: str) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    path = accelerate_config(sharding)
    config = load_config_from_file(str(path))  # raises on an unknown key
    assert config.distributed_type == expected
    if expected == "DEEPSPEED":
        assert config.deepspeed_config["zero_stage"] == STAGES[sharding]
    layer = yaml.safe_load(path.read_text()).get("fsdp_config", {}).get("fsdp_transformer_layer_cls_to_wrap")
    if layer:
        from transformers.models.qwen3_vl import modeling_qwen3_vl

        assert hasattr(modeling_qwen3_vl, layer)


def test_a_process_with_fewer_packs_takes_part_in_as_many_passes() -> None:
    dealt = [[(0, 1), (2,)], [(3,)], []]
    assert [fillers(dealt, rank, range(4)) for rank in range(3)] == [[], [(3,)], [(0,), (0,)]]


def _train_here(job: TrainingJob) -> str:
    """By one process: this one. Returns what it said."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        run.train(job)
    return said.getvalue()


def _launch_all(jobs: Sequence[TrainingJob], compute: ComputeSettings) -> str:
    """One after the other by one group of processes. Returns what they said."""
    command = training_command(write_job(jobs[0]), compute)
    command[command.index("extraction_assets.training.process")] = "extraction_assets_tests.training.runs"
    done = subprocess.run([*command, *(str(write_job(job)) for job in jobs[1:])], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def _state(job: TrainingJob) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((Path(job.work) / "checkpoints" / f"step-{job.plan.steps:08d}" / "state.json").read_text())
    return values
