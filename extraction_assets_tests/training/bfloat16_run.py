"""training.run as on a GPU: bfloat16 weights beside float32 adapters, which a CPU is not given by itself."""

import sys
from functools import partial

import torch

from extraction_assets.model.base import load_base
from extraction_assets.training import run, setup

if __name__ == "__main__":
    setup.load_base = partial(load_base, dtype=torch.bfloat16)
    sys.exit(run.main())
