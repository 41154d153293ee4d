"""State of a running recipe on disk: written to a temporary name and renamed, so a killed run leaves the one before."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

FILE = "checkpoint.pt"


@dataclass(frozen=True)
class Position:
    """Where the recipe stands: the next step to take."""

    stage: str
    step: int


def save(folder: Path, position: Position, parts: dict[str, Any], name: str = FILE) -> None:
    """parts: anything with a state_dict()."""
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f"{name}.{os.getpid()}.tmp"
    torch.save({"position": asdict(position), **{part: value.state_dict() for part, value in parts.items()}}, unfinished)
    os.replace(unfinished, folder / name)


def load(folder: Path, parts: dict[str, Any], name: str = FILE) -> Position | None:
    """Fill `parts` (those that the file holds) and say where it stands; None without a file."""
    path = folder / name
    if not path.exists():
        return None
    state = torch.load(path, map_location="cpu", weights_only=True)
    for part, value in parts.items():
        value.load_state_dict(state[part])
    return Position(**state["position"])


def position(folder: Path, name: str = FILE) -> Position | None:
    """Where the checkpoint in `folder` stands, without its weights in memory."""
    path = folder / name
    return Position(**torch.load(path, map_location="cpu", weights_only=True, mmap=True)["position"]) if path.exists() else None
