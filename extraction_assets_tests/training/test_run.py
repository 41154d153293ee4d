from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from extraction_assets.errors import InputError
from extraction_assets.home import PROJECT
from extraction_assets.model.base import load_base
from extraction_assets.model.recompute import LEVELS
from extraction_assets.store import digest_folder
from extraction_assets.training import run
from extraction_assets.training.adapter import read_manifest, verify_adapter
from extraction_assets.training.checkpoints import RunState, save_checkpoint
from extraction_assets.training.job import TrainingJob, read_job, write_job
from extraction_assets.training.launch import training_command
from extraction_assets.training.order import global_batches
from extraction_assets_tests.model.pages import write_split
from extraction_assets_tests.training.conftest import SETTINGS, Data


@pytest.fixture(scope="module")
def undisturbed(data: Data, tmp_path_factory: pytest.TempPathFactory) -> TrainingJob:
    job = data.job(tmp_path_factory.mktemp("undisturbed"))
    run.train(job)
    return job


class Killed(BaseException):
    """Stands for the moment of a kill: nothing in the run may catch it."""


# --- what a run leaves ---------------------------------------------------------------------------------------------------------


def test_the_loss_falls(data: Data, tmp_path: Path) -> None:
    job = data.job(tmp_path, SETTINGS.model_copy(update={"epochs": 12, "dropout": 0.0, "learning_rate": 1e-2, "r": 16}))
    manifest = read_manifest(run.train(job))
    assert manifest.last_loss < manifest.first_loss - 0.8
    assert manifest.val_loss is not None
    assert manifest.val_loss < manifest.first_loss


def test_the_best_weights_are_kept_and_a_run_that_gets_no_better_stops(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses on val are put in; what follows from them is the run's own doing."""
    settings = SETTINGS.model_copy(update={"validate_every": 2, "keep": "best", "patience": 2})
    stopped = data.job(tmp_path / "stopped", settings)
    curve = iter([3.0, 1.0, 1.0, 2.0])  # after steps 2, 4, 6, 8 of 9
    monkeypatch.setattr(run, "validate", lambda _: next(curve))
    manifest = read_manifest(run.train(stopped))
    assert (manifest.steps, manifest.kept_step, manifest.val_loss) == (8, 4, 1.0)
    kept = Path(stopped.work) / "checkpoints"
    assert sorted(folder.name for folder in kept.iterdir()) == ["step-00000004", "step-00000006", "step-00000008"]
    weights = (Path(stopped.output) / "adapter_model.safetensors").read_bytes()
    assert weights == (kept / "step-00000004" / "adapter_model.safetensors").read_bytes()

    shutil.rmtree(stopped.output)  # killed before the adapter was written: it does not train on
    monkeypatch.setattr(run, "optimizer_step", lambda *_: pytest.fail("a step"))
    assert (run.train(stopped) / "adapter_model.safetensors").read_bytes() == weights


def test_best_weights_that_are_damaged_are_never_replaced_silently(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = data.job(tmp_path / "job", SETTINGS.model_copy(update={"validate_every": 2, "keep": "best"}))
    curve = iter([1.0, 2.0, 2.0, 2.0, 2.0])
    monkeypatch.setattr(run, "validate", lambda _: next(curve))
    run.train(job)
    shutil.rmtree(job.output)
    (Path(job.work) / "checkpoints" / "step-00000002" / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=r"step-00000002: holds the best weights and cannot be used: adapter_model.safetensors is damaged"):
        run.train(job)


def test_the_adapter_is_plain_peft_and_its_manifest_says_what_made_it(undisturbed: TrainingJob, data: Data) -> None:
    from peft import PeftModel

    folder = Path(undisturbed.output)
    manifest = verify_adapter(folder)
    assert sorted(p.name for p in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors", "manifest.json"]
    assert (manifest.base_digest, manifest.train_digest) == (undisturbed.base_digest, undisturbed.train_digest)
    assert manifest.settings == SETTINGS
    assert manifest.schemas == ("b" * 64,)
    assert (manifest.steps, manifest.epochs, manifest.train_examples, manifest.val_examples) == (9, 3.0, 10, 3)
    assert manifest.audit["trainable_parameters"] == undisturbed.plan.adapter_parameters
    assert manifest.libraries["torch"] == torch.__version__
    model = PeftModel.from_pretrained(load_base(data.base, dtype=torch.float32).model, str(folder))
    assert any(parameter.any() for name, parameter in model.named_parameters() if "lora_B" in name)


def test_no_time_and_no_path_of_this_machine_is_in_the_adapter(undisturbed: TrainingJob, data: Data) -> None:
    for path in Path(undisturbed.output).iterdir():
        content = path.read_bytes()
        for place in (undisturbed.work, str(data.base.parent), str(data.train.parent)):
            assert place.encode() not in content


def test_metrics_are_kept_beside_the_adapter(undisturbed: TrainingJob) -> None:
    lines = [json.loads(line) for line in (Path(undisturbed.work) / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "step"] == list(range(1, 10))
    assert [line["step"] for line in lines if line["kind"] == "validation"] == [3, 6, 9]
    assert list((Path(undisturbed.work) / "tensorboard").iterdir())


def test_the_same_job_in_another_place_gives_the_same_bytes(undisturbed: TrainingJob, data: Data, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(data.train.parent, tmp_path / "moved"))
    job = Data(moved / "train.jsonl", moved / "val.jsonl", data.base).job(tmp_path / "work")
    assert job.identity == undisturbed.identity
    assert digest_folder(run.train(job)) == digest_folder(Path(undisturbed.output))


def test_a_job_that_is_done_is_not_done_again(undisturbed: TrainingJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "setup", lambda *_: pytest.fail("trained again"))
    assert run.train(undisturbed) == Path(undisturbed.output)


# --- how a batch is cut does not matter -----------------------------------------------------------------------------------------


def test_packs_and_accumulation_change_the_loss_curve_by_rounding_only(data: Data, tmp_path: Path) -> None:
    curves = []
    for micro_batch, accumulation in ((4, 1), (2, 2), (1, 4)):
        settings = SETTINGS.model_copy(update={"micro_batch": micro_batch, "dropout": 0.0, "max_steps": 5})
        job = data.job(tmp_path / str(micro_batch), settings)
        assert job.plan.accumulation == accumulation
        run.train(job)
        curves.append(_losses(job))
    for other in curves[1:]:
        assert other == pytest.approx(curves[0], rel=1e-5)


def test_bfloat16_is_a_setting_and_stays_close_to_float32(data: Data, tmp_path: Path) -> None:
    curves = {}
    for precision in ("float32", "bfloat16"):
        settings = SETTINGS.model_copy(update={"precision": precision, "dropout": 0.0, "max_steps": 5})
        job = data.job(tmp_path / precision, settings)
        run.train(job)
        curves[precision] = _losses(job)
    assert curves["bfloat16"] != curves["float32"]
    assert curves["bfloat16"] == pytest.approx(curves["float32"], rel=0.02)


@pytest.mark.slow
def test_recompute_changes_memory_and_no_number(data: Data, tmp_path: Path) -> None:
    """With dropout: random numbers are drawn again as they were."""
    ends = {}
    for level in LEVELS:
        job = data.job(tmp_path / level, SETTINGS.model_copy(update={"recompute": level, "dropout": 0.1, "max_steps": 4}))
        ends[level] = ((run.train(job) / "adapter_model.safetensors").read_bytes(), _losses(job))
    assert ends["none"] == ends["mlp"] == ends["layers"]


def _losses(job: TrainingJob) -> list[float]:
    state = json.loads((Path(job.work) / "checkpoints" / f"step-{job.plan.steps:08d}" / "state.json").read_text())
    losses: list[float] = state["losses"]
    return losses


# --- kill and resume --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "call"), [("optimizer_step", 1), ("optimizer_step", 5), ("save_checkpoint", 2), ("validate", 3), ("write_adapter", 1)]
)
def test_stopped_anywhere_and_started_again_it_ends_bitwise_the_same(
    undisturbed: TrainingJob, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, call: int
) -> None:
    job = data.job(tmp_path)
    calls = 0
    real = getattr(run, moment)

    def stop(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise Killed
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(run, moment, stop)
        with pytest.raises(Killed):
            run.train(job)
    assert not Path(job.output).exists()
    run.train(job)
    assert digest_folder(Path(job.output)) == digest_folder(Path(undisturbed.output))


def test_it_resumes_at_the_last_checkpoint_not_at_zero(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = data.job(tmp_path)
    steps: list[int] = []
    real = run.optimizer_step

    def watched(r: run.Run, batch: Any, *rest: Any) -> Any:
        steps.append(batch.step)
        if steps == [1, 2, 3, 4, 5, 6, 7]:
            raise Killed
        return real(r, batch, *rest)

    monkeypatch.setattr(run, "optimizer_step", watched)
    with pytest.raises(Killed):
        run.train(job)
    run.train(job)
    assert steps == [1, 2, 3, 4, 5, 6, 7, 7, 8, 9]


@pytest.mark.slow
def test_kill_9_at_several_moments_ends_bitwise_the_same(
    undisturbed: TrainingJob, data: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real process: killed during step 1 and after the second validation."""
    job = data.job(tmp_path)
    command = training_command(write_job(job))
    for moment in ("step 1/9", "step 6/9, val"):
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            seen = next((line for line in process.stderr if moment in line), None)
            process.send_signal(signal.SIGKILL)
        assert seen is not None
    run.train(job)
    assert "resumes after step" in capsys.readouterr().err
    assert digest_folder(Path(job.output)) == digest_folder(Path(undisturbed.output))


# --- bad input --------------------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_examples(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = run.response_loss
    monkeypatch.setattr(run, "response_loss", lambda model, pack: real(model, pack) * (float("nan") if "train-7" in pack.ids else 1.0))
    with pytest.raises(InputError, match=r"training step \d: the loss is not a finite number.*train-7") as caught:
        run.train(data.job(tmp_path))
    assert "train-1," not in str(caught.value) or "train-1, train-7" in str(caught.value)
    assert not (tmp_path / "adapter").exists()


EMBEDDED_BASE = PROJECT / "data" / "base_models" / "tiny-qwen3-vl"
EXPLODES = SETTINGS.model_copy(update={"learning_rate": 1.0, "warmup_ratio": 0.0, "epochs": 4, "checkpoint_every": 1})
"""for the embedded base, which has something to lose: a random one's head says next to nothing whatever its adapters do"""


def test_a_loss_that_explodes_stops_the_run_and_names_the_examples(data: Data, tmp_path: Path) -> None:
    job = Data(data.train, data.val, EMBEDDED_BASE).job(tmp_path, EXPLODES)
    with pytest.raises(
        InputError, match=r"training step \d+: the loss explodes: .* since step \d+, 1\.\d+ at the first.*train-\d"
    ) as caught:
        run.train(job)
    stopped, since = (int(found) for found in re.findall(r"step (\d+)", str(caught.value))[:2])
    (batch,) = global_batches([f"train-{n}" for n in range(10)], job.seed, 4, since, since - 1)
    assert all(f"train-{row}" in str(caught.value) for row in batch.rows)
    metrics = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in metrics if line["kind"] == "step"] == list(range(1, stopped + 1))
    assert not (tmp_path / "adapter").exists()
    assert not (tmp_path / f"checkpoints/step-{stopped:08d}").exists()
    with pytest.raises(InputError) as again:  # from its last checkpoint
        run.train(job)
    assert str(again.value) == str(caught.value)


def test_an_exploding_run_goes_on_where_settings_say_so(data: Data, tmp_path: Path) -> None:
    run.train(Data(data.train, data.val, EMBEDDED_BASE).job(tmp_path, EXPLODES.model_copy(update={"exploding": "continue"})))
    assert (tmp_path / "adapter").exists()


def test_an_altered_page_stops_the_run_and_names_the_example(data: Data, tmp_path: Path) -> None:
    train = write_split(tmp_path / "own", "train", 4)
    job = Data(train, data.val, data.base).job(tmp_path / "work")
    page = tmp_path / "own" / "pages" / "train-2.png"
    page.write_bytes((tmp_path / "own" / "pages" / "train-0.png").read_bytes())
    with pytest.raises(InputError, match=r"example train-2 \(.*\): page image is .* as recorded"):
        run.train(job)


@pytest.mark.parametrize("what", ["train", "base"])
def test_inputs_that_changed_since_the_job_was_made_are_an_error(data: Data, tmp_path: Path, what: str) -> None:
    train = write_split(tmp_path / "own", "train", 4)
    folder = Path(shutil.copytree(data.base, tmp_path / "base"))
    job = Data(train, data.val, folder).job(tmp_path / "work")
    changed = train if what == "train" else folder / "config.json"
    changed.write_text(changed.read_text() + "\n")
    with pytest.raises(InputError, match="has changed since the job was made" if what == "train" else "as the job says"):
        run.train(job)


def test_an_output_of_another_job_is_never_overwritten(undisturbed: TrainingJob, data: Data, tmp_path: Path) -> None:
    other = data.job(tmp_path, SETTINGS.model_copy(update={"seed": 1})).model_copy(update={"output": undisturbed.output})
    with pytest.raises(InputError, match="holds the adapter of another job"):
        run.train(other)


def test_a_work_folder_of_another_job_is_refused(data: Data, tmp_path: Path) -> None:
    write_job(data.job(tmp_path))
    with pytest.raises(InputError, match="holds another run"):
        write_job(data.job(tmp_path, SETTINGS.model_copy(update={"seed": 1})))


def test_a_second_process_on_the_same_work_folder_is_refused(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from filelock import FileLock

    monkeypatch.setattr(run, "_LOCK_SECONDS", 0)
    with FileLock(tmp_path / ".lock"), pytest.raises(InputError, match="another process is training here"):
        run.train(data.job(tmp_path))


def test_an_altered_adapter_is_noticed(undisturbed: TrainingJob, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(undisturbed.output, tmp_path / "adapter"))
    weights = folder / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(InputError, match="is not the file that training wrote"):
        verify_adapter(folder)
    weights.unlink()
    with pytest.raises(InputError, match="is missing"):
        verify_adapter(folder)


def test_bad_input_is_one_line_exit_2_and_kept_in_the_work_folder(data: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = data.job(tmp_path)
    path = write_job(job.model_copy(update={"train": str(tmp_path / "absent.jsonl")}))
    assert run.main([str(path)]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line == f"{tmp_path}/absent.jsonl: no such split. Materialize the splits first"
    assert (tmp_path / run.FAILURE).read_text().strip() == line
    assert run.main([str(tmp_path / "no-job.json")]) == 2
    assert "no such job file" in capsys.readouterr().err


def test_a_job_survives_its_file(data: Data, tmp_path: Path) -> None:
    job = data.job(tmp_path)
    assert read_job(write_job(job)) == job


def test_a_checkpoint_from_a_full_disk_is_an_input_error(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("extraction_assets.training.checkpoints.save_adapter", full)
    with pytest.raises(InputError, match="No space left on device"):
        save_checkpoint(tmp_path, "job", RunState(1), None, None)  # type: ignore[arg-type]
    assert not list((tmp_path / "checkpoints").iterdir())
