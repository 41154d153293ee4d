"""Training killed with SIGKILL at random moments and started again: is the adapter bitwise the one of an undisturbed run?

    python benchmarks/resume.py [--kills N] [--seed S] [--method lora|qlora] [--processes N] [--json]

Each trial has a process of its own, or several, as the graph starts them. It is killed at a moment drawn over the whole length of an undisturbed run:
while it loads, in a step, in a validation, while it writes a checkpoint or the adapter. Then the same job file is started again,
without a word about where to go on, and must end with the same bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from printing import Row, print_rows  # noqa: E402

from extraction_assets.demo.tiny_base import write_random_base  # noqa: E402
from extraction_assets.settings import ComputeSettings, TrainingSettings  # noqa: E402
from extraction_assets.store import digest_folder  # noqa: E402
from extraction_assets.training.adapter import read_manifest  # noqa: E402
from extraction_assets.training.job import TrainingJob, make_job, write_job  # noqa: E402
from extraction_assets.training.launch import training_command  # noqa: E402
from extraction_assets.training.manifest import MANIFEST, code_digest  # noqa: E402
from extraction_assets_tests.model.pages import SCHEMA, SCHEMA_DIGEST, write_split  # noqa: E402

SETTINGS = TrainingSettings(
    r=4, effective_batch=4, micro_batch=2, epochs=8, dropout=0.1, checkpoint_every=1, validate_every=3, val_answers=2, max_target_tokens=64
)
"""80 steps' worth of moments at which something is being written; with dropout, so that random numbers matter"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--method", choices=("lora", "qlora"), default="lora")
    parser.add_argument("--processes", type=int, default=1, help="that train together")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_random_base(folder / "base", seed=0)
        train, val = write_split(folder, "train", 40), write_split(folder, "val", 3)
        compute = ComputeSettings(processes=arguments.processes)
        settings, code = SETTINGS.model_copy(update={"method": arguments.method}), code_digest()

        def job(name: str) -> TrainingJob:
            return make_job(train, val, folder / "base", settings, folder / name, threads=1, schemas={SCHEMA_DIGEST: SCHEMA})

        started = time.monotonic()
        undisturbed = job("undisturbed")
        _run(undisturbed, compute)
        length = time.monotonic() - started
        wanted = digest_folder(Path(undisturbed.output))
        chosen = random.Random(arguments.seed)
        equal = killed = resumed = trials = 0
        while killed < arguments.kills:
            one = job(f"trial-{trials}")
            trials += 1
            moment = chosen.uniform(0, length)
            if _kill(one, moment, compute):
                killed += 1
                resumed += any((Path(one.work) / "checkpoints").glob("step-*"))
                _run(one, compute)
            else:  # the machine is less busy than it was when the undisturbed run was timed
                length = moment
            if read_manifest(Path(one.output)).code_digest != code:
                sys.exit(f"{PROJECT}/extraction_assets was changed while this ran. Start it again in a checkout that nobody edits.")
            same = digest_folder(Path(one.output)) == wanted
            equal += same
            found = "the same bytes" if same else f"OTHER bytes in {', '.join(_differing(Path(undisturbed.output), Path(one.output)))}"
            print(
                f"{killed} kills, after {moment:.1f} of {length:.1f} s: {found}",
                file=sys.stderr,
                flush=True,
            )
    rows = [
        Row("kills", killed, "runs that SIGKILL found alive, and that were started again", "higher"),
        Row("after_a_checkpoint", resumed, "of them with a checkpoint to go on from", "higher"),
        Row("bitwise_equal", equal, f"of {trials} adapters", "higher"),
    ]
    print_rows(rows, ("torch", "peft"), arguments.json)
    if equal != trials:
        sys.exit(1)


def _differing(wanted: Path, found: Path) -> list[str]:
    """Names of the files that are not the same in both folders, and of the manifest its fields."""
    names = sorted({path.name for folder in (wanted, found) for path in folder.iterdir()})
    files = [name for name in names if not all((folder / name).is_file() for folder in (wanted, found))]
    files += [name for name in names if name not in files and (wanted / name).read_bytes() != (found / name).read_bytes()]
    ours, theirs = (json.loads((folder / MANIFEST).read_text(encoding="utf-8")) for folder in (wanted, found))
    return files + [f"{MANIFEST}: {field}" for field in ours if ours[field] != theirs.get(field)]


def _run(job: TrainingJob, compute: ComputeSettings) -> None:
    done = subprocess.run(training_command(write_job(job), compute), capture_output=True, text=True, cwd=PROJECT, check=False)
    if done.returncode:
        sys.exit(done.stderr[-3000:])


def _kill(job: TrainingJob, seconds: float, compute: ComputeSettings) -> bool:
    """Kill the training's processes after so long, all at once; were they still there?"""
    command = training_command(write_job(job), compute)
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=quiet, stderr=quiet, cwd=PROJECT, env=os.environ) as process:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            started = psutil.Process(process.pid)
            for one in (*started.children(recursive=True), started):
                with contextlib.suppress(psutil.NoSuchProcess):  # a helper that has just ended
                    one.kill()
            return True
    return False


if __name__ == "__main__":
    main()
