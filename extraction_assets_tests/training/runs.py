"""Several runs by one group of processes, one after the other: the group's start takes longer than any of them.

    accelerate launch ... -m extraction_assets_tests.training.runs JOB.json [JOB.json ...]

Each is training.run's main. One in bfloat16 gets bfloat16 weights too, as on a GPU; a CPU is not given them by itself.
"""

import sys
from functools import partial
from pathlib import Path

import torch

from extraction_assets.model.base import load_base
from extraction_assets.training import run, setup
from extraction_assets.training.job import read_job

if __name__ == "__main__":
    for path in sys.argv[1:]:
        half = read_job(Path(path)).settings.precision == "bfloat16"
        setup.load_base = partial(load_base, dtype=torch.bfloat16) if half else load_base
        code = run.main([path])
        if code:
            sys.exit(code)
