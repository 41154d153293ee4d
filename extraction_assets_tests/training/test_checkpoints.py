from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel

from extraction_assets.errors import InputError
from extraction_assets.model.base import load_base
from extraction_assets.model.lora import add_lora
from extraction_assets.settings import TrainingSettings
from extraction_assets.training.checkpoints import RunState, load_checkpoint, save_checkpoint


def _fresh(base_folder: Path, seed: int = 1) -> tuple[PeftModel, torch.optim.Optimizer]:
    settings = TrainingSettings(r=2)
    model = add_lora(load_base(base_folder, dtype=torch.float32), settings, seed)
    return model, torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)


def _move(model: PeftModel, optimizer: torch.optim.Optimizer) -> None:
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.ones_like(parameter)
    optimizer.step()


def _weights(model: PeftModel) -> list[torch.Tensor]:
    return [p.detach().clone() for p in model.parameters() if p.requires_grad]


@pytest.fixture
def work(base_folder: Path, tmp_path: Path) -> Path:
    """Checkpoints of steps 1, 2 and 3."""
    model, optimizer = _fresh(base_folder)
    for step in (1, 2, 3):
        _move(model, optimizer)
        save_checkpoint(tmp_path, "job", RunState(step, 0, step * 4, [1.0] * step, {"2": 0.5}), model, optimizer.state_dict())
    return tmp_path


def test_weights_optimizer_and_state_come_back_exactly(base_folder: Path, tmp_path: Path) -> None:
    model, optimizer = _fresh(base_folder)
    _move(model, optimizer)
    state = RunState(7, 1, 12, [0.1 + 0.2, 1e-9], {"4": 1 / 3})
    save_checkpoint(tmp_path, "job", state, model, optimizer.state_dict())
    other, other_optimizer = _fresh(base_folder, seed=2)
    loaded, passed_over = load_checkpoint(tmp_path, "job", other, other_optimizer)
    assert loaded == state
    assert passed_over == []
    _move(model, optimizer)
    _move(other, other_optimizer)
    assert all(torch.equal(a, b) for a, b in zip(_weights(model), _weights(other), strict=True))


def test_the_last_two_are_kept(work: Path) -> None:
    assert sorted(p.name for p in (work / "checkpoints").iterdir()) == ["step-00000002", "step-00000003"]


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "optimizer.pt", "state.json", "digests.json"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(base_folder: Path, work: Path, file: str, damage: str) -> None:
    path = work / "checkpoints" / "step-00000003" / file
    path.unlink() if damage == "gone" else path.write_bytes(path.read_bytes()[:-9])
    state, passed_over = load_checkpoint(work, "job", *_fresh(base_folder))
    assert state.step == 2
    assert len(passed_over) == 1
    assert passed_over[0].startswith("step-00000003 is not used: ")


def test_a_half_written_one_is_no_checkpoint(base_folder: Path, work: Path) -> None:
    (work / "checkpoints" / "step-00000003").rename(work / "checkpoints" / ".tmp-123")
    model, optimizer = _fresh(base_folder)
    state, _ = load_checkpoint(work, "job", model, optimizer)
    assert state.step == 2
    save_checkpoint(work, "job", RunState(3), model, optimizer.state_dict())
    assert not list((work / "checkpoints").glob(".tmp-*"))


def test_without_a_checkpoint_a_run_begins_at_zero(base_folder: Path, tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path, "job", *_fresh(base_folder)) == (RunState(), [])


def test_another_jobs_checkpoints_are_an_error(base_folder: Path, work: Path) -> None:
    with pytest.raises(InputError, match="belongs to another training job"):
        load_checkpoint(work, "other", *_fresh(base_folder))
