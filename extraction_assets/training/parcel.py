"""A run as one folder that can be sent to another machine: its job, splits, page images, and the base and the adapter it starts from.

    job.json   train/...  val/...  base/NAME/  start/NAME/        paths in job.json begin with "./" and mean this folder

The job's identity says nothing of places, and the run proves its inputs by their digests wherever it starts: what comes back carries the
same name as if it had been trained here.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from extraction_assets.errors import InputError
from extraction_assets.model.examples import read_examples
from extraction_assets.store import write_atomically
from extraction_assets.training.adapter import verify_adapter
from extraction_assets.training.job import TrainingJob, read_job

_HERE = "./"


def pack_job(job: TrainingJob, folder: Path) -> Path:
    """Fill an empty folder; returns it. Files are linked where they can be, else copied. Raises InputError where a page image is missing."""
    places = {"train": _split(Path(job.train), folder / "train"), "val": _split(Path(job.val), folder / "val")}
    for name in ("base", "start"):
        source = getattr(job, name)
        if source is not None and Path(source).is_dir():
            places[name] = folder / name / Path(source).name  # adapters name their base by its folder
            shutil.copytree(source, places[name], copy_function=_link)
    values = {name: _HERE + path.relative_to(folder).as_posix() for name, path in places.items()}
    sent = job.model_copy(update={**values, "work": _HERE, "output": _HERE})
    write_atomically(folder / "job.json", sent.model_dump_json(indent=2).encode())
    return folder


def unpack_job(path: Path, work: Path, output: Path) -> TrainingJob:
    """A job that was sent here, with this machine's paths. work: for checkpoints. output: the adapter folder to be made."""
    job = read_job(path)
    sent = {name: getattr(job, name) for name in ("train", "val", "base", "start")}
    here = {name: str((path.parent / value).absolute()) for name, value in sent.items() if value and value.startswith(_HERE)}
    return job.model_copy(update={**here, "work": str(work.absolute()), "output": str(output.absolute())})


def take_adapter(job: TrainingJob, arrived: Path) -> Path:
    """Put an adapter that came back where the job wants it; returns the place. Raises InputError where it is not whole, or another job's."""
    output = Path(job.output)
    if (made := verify_adapter(arrived).job) != job.identity:
        raise InputError(str(arrived), f"is the adapter of another job ({made[:12]})", f"{job.identity[:12]}", "Train again")
    temporary = output.parent / f".tmp-{job.identity}"
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(arrived, temporary)
    if output.exists():
        verify_adapter(output)
        shutil.rmtree(temporary)
    else:
        os.replace(temporary, output)
    return output


def _split(jsonl: Path, folder: Path) -> Path:
    """The split and its pages under the folder, lying to each other as they did: the JSONL's digest names its relative paths too."""
    top = jsonl.parent.parent
    for path in (jsonl, *(Path(os.path.normpath(example.image)) for example in read_examples(jsonl))):
        if not path.is_relative_to(top):
            raise InputError(str(jsonl), f"names a page outside of {top}: {path}", do="Make this split with `extraction update`")
        target = folder / path.relative_to(top)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(str(path), str(target))
    return folder / jsonl.relative_to(top)


def _link(source: str, target: str) -> None:
    try:
        os.link(os.path.realpath(source), target)
    except FileNotFoundError:
        raise InputError(source, "is missing", do="Materialize page_images and the splits again") from None
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
