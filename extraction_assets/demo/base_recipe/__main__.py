"""Pre-train the embedded base from where the work folder stands, and write it as a checkpoint folder.

`python -m extraction_assets.demo.base_recipe --work FOLDER [--from BASE] [--out FOLDER] [--minutes N]`; SIGTERM or Ctrl-C saves and stops.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m extraction_assets.demo.base_recipe", description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="checkpoint.pt and log.jsonl; a second call continues there")
    parser.add_argument(
        "--from", dest="begin", type=Path, help="a base made by this recipe to go on from; give --steps 0 for the stages it has behind it"
    )
    parser.add_argument("--out", type=Path, help="write the base with its measured model card here when training stops")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--preset", choices=("test", "demo"), default="demo")
    parser.add_argument("--minutes", type=float, help="save and stop after this long; 0: only write --out")
    parser.add_argument(
        "--steps",
        type=int,
        nargs=7,
        metavar=("SMALL_GLYPHS", "GLYPHS", "LINES", "WORDS", "CROPS", "PAGES", "FINISH"),
        help="steps of the stages",
    )
    parser.add_argument("--measure-pages", type=int, default=48, help="pages per size behind the model card's figures")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1, help="processes that render pages ahead")
    parser.add_argument("--scale", type=int, default=1, help="times as many pages in a batch; a GPU wants 8 or more")
    parser.add_argument("--eager", action="store_true", help="without torch.compile: slower, for machines without a C++ compiler")
    parser.add_argument("--device", default=None, help="cpu or cuda; default: cuda where there is one")
    arguments = parser.parse_args()
    import torch

    from extraction_assets.demo.base_recipe.export import export, steps_behind, write_card
    from extraction_assets.demo.base_recipe.measure import measure
    from extraction_assets.demo.base_recipe.recipe import StepCounts, restore, train
    from extraction_assets.demo.base_recipe.trainer import Pace

    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    counts = StepCounts(*arguments.steps) if arguments.steps else StepCounts()
    behind = f"{steps_behind(arguments.begin)}; then " if arguments.begin else ""
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: asked.append(received))
    if arguments.minutes != 0:
        deadline = time.monotonic() + 60 * arguments.minutes if arguments.minutes else None
        pace = Pace(deadline=deadline, stop=lambda: bool(asked), workers=arguments.workers)
        train(arguments.work, arguments.seed, arguments.preset, counts, pace, device, arguments.scale, not arguments.eager, arguments.begin)
    if arguments.out:
        model, heads, guide_heads, position = restore(arguments.work, arguments.seed, arguments.preset, torch.device("cpu"))
        export(model, heads, guide_heads, arguments.out, arguments.preset)
        print("measuring", file=sys.stderr)
        measures = measure(arguments.out, 20_260, arguments.measure_pages, device)
        write_card(arguments.out, {**measures, "run_seed": arguments.seed, "steps": behind + counts.walked(position)})


if __name__ == "__main__":
    main()
