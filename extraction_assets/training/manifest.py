"""The adapter's manifest: what made it. Deterministic: no time, no path, no machine name; timings stay in the work folder."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import extraction_assets
from extraction_assets.documents.records import Record
from extraction_assets.settings import TrainingSettings
from extraction_assets.store import digest_file, digest_of

MANIFEST = "manifest.json"
_LIBRARIES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "safetensors", "tokenizers", "numpy", "pillow")
_CODE = ("model", "training")
"""the folders whose code decides what weights come out"""


class AdapterManifest(Record):
    """manifest.json of an adapter folder."""

    job: str
    """identity of the training job; of an adopted adapter that of its weights, base and splits (training.adoption)"""
    trainer: str | None = None
    """who made it elsewhere, on an export of these splits; None: training here"""
    base: str
    """folder name or hub name, for people"""
    base_digest: str
    train_digest: str
    val_digest: str
    start: str | None = None
    """identity of the job whose adapter it started from; None: fresh weights"""
    schemas: tuple[str, ...]
    """digests of the target schemas its examples follow"""
    settings: TrainingSettings | None
    """None, like steps, epochs and losses: made elsewhere and not known"""
    code_version: str
    code_digest: str
    libraries: dict[str, str]
    audit: dict[str, Any]
    """model.lora.Audit: what was trainable, what was 4-bit"""
    train_examples: int
    val_examples: int
    left_out: int
    """training examples whose target was over length or unwritable"""
    steps: int | None
    """optimizer steps taken"""
    processes: int = 1
    """that finished the run; their number changes the weights by rounding"""
    sharding: str = "none"
    """compute.sharding of the run that finished it"""
    kept_step: int | None = None
    """the step whose weights these are: the last one, or that of the lowest val_loss (settings.keep). None: made before this was
    recorded, so the last one"""
    epochs: float | None
    first_loss: float | None
    last_loss: float | None
    """training loss of the first and the last step: mean over the response tokens of its global batch"""
    val_loss: float | None
    """response loss on val after kept_step"""
    val_answers: dict[str, float] | None = None
    """rates of the answers to a sample of val after kept_step: pages, strict_json, field_accuracy; None: none were given"""
    files: dict[str, str]
    """name -> SHA-256 of every other file of the folder"""


def code_digest() -> str:
    """Digest of the source of what trains."""
    package = Path(extraction_assets.__file__).parent
    return digest_of({f"{part}/{path.name}": digest_file(path) for part in _CODE for path in sorted((package / part).glob("*.py"))})


def library_versions() -> dict[str, str]:
    return {name: version(name) for name in _LIBRARIES}


def file_digests(folder: Path) -> dict[str, str]:
    return {path.name: digest_file(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}
