"""`python -m extraction_assets.demo.base_recipe --work FOLDER [--out FOLDER]`: pre-train the embedded base, from where FOLDER stands."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m extraction_assets.demo.base_recipe", description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="checkpoints and log.jsonl; a second call continues there")
    parser.add_argument("--out", type=Path, help="write the checkpoint folder here when the run ends")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--preset", choices=("test", "demo"), default="demo")
    parser.add_argument("--minutes", type=float, help="save and stop after this long")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default=None, help="cpu or cuda; default: cuda where there is one")
    arguments = parser.parse_args()
    # threads that share their cores with other work must sleep at barriers, not spin
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    import torch

    from extraction_assets.demo.base_recipe.recipe import StepCounts, train
    from extraction_assets.demo.base_recipe.trainer import Pace

    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    deadline = time.monotonic() + 60 * arguments.minutes if arguments.minutes else None
    train(arguments.work, arguments.seed, arguments.preset, StepCounts(), Pace(deadline=deadline), device)


if __name__ == "__main__":
    main()
