"""LoRA training steps, ours beside TRL's SFTTrainer and a plain padded transformers Trainer: same base, same pages, same optimizer steps.

    python benchmarks/training.py --peers PYTHON [--home HOME] [--base demo|scaled-8b] [--steps N] [--epochs N] [--micro-batch N]
        [--precision bfloat16] [--json]

PYTHON is an interpreter in which the peers run: they need torchvision, which the project does without. All three sides run there, one process each:

    python3 -m venv peers && peers/bin/pip install torch torchvision transformers==5.23.0 peft trl accelerate datasets
    peers/bin/pip install bitsandbytes pydantic universal_pathlib filelock tensorboard jsonschema-rs orjson zlib-ng llguidance rapidfuzz

The examples are a draw from the train split of a home; without one, of the real documents in $EXTRACTION_REALDATA/open at 72 dpi (a home that
benchmarks/real_documents.py --quick --keep HOME leaves serves again); without these, of generated documents, whose lengths are nearly alike.
The base has random weights: the embedded one's shape, or Qwen3-VL-8B's with widths an eighth,
depths a third and the vocabulary a 24th, so that tower, layers and head have their shares of the weights. Each side takes the same optimizer
steps of the same 32 shuffled examples, in float32 (--precision bfloat16: all three by autocast), without gradient checkpointing, on two
threads. A forward pass of the peers has 8 examples (--micro-batch); one of ours packs as many tokens as 8 have on the mean.

The clock runs from the end of the first step to the end of the last, page files to weights. With several epochs there are as many examples as
the steps of one epoch take, and examples/s are those of the mean of the epochs' step times, so that the first epoch counts in full although
its first step is not timed. Memory is the whole process's peak. The losses are those of the untrained adapter on the same 32 examples, over
the tokens that all three answer (TRL's collator also teaches a line break behind the answer).

Last, the input pipeline alone, on one thread: A4 pages of generated documents at 150 dpi, 1,248 x 1,760 px on the grid, file to tensors, beside the stock
processor (in its PIL edition): on the same files, where neither has anything to resize, and on the same pages as a plain 150 dpi gives them, 1,241 x 1,754
px, which it resizes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from extraction_assets.home import Home

PROJECT = Path(__file__).resolve().parent.parent
BATCH, RANK, ALPHA, RATE = 32, 16, 32, 2e-4
SIDES = {"ours": "extraction_assets", "trl": "trl", "trainer": "padded_trainer"}
INPUT_PAGES, INPUT_ROUNDS, INPUT_DPI = 8, 5, 150


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, metavar="PYTHON", help="interpreter with torchvision, trl and the rest")
    parser.add_argument("--home", type=Path, help="whose train split is drawn from; default: see above")
    parser.add_argument("--base", choices=["demo", "scaled-8b"], default="demo", help="whose shape the random weights have")
    parser.add_argument("--steps", type=int, default=5, help="timed steps")
    parser.add_argument("--epochs", type=int, default=1, help="that the steps, and the first one, are shared out among")
    parser.add_argument("--micro-batch", type=int, default=8, help="examples of a forward pass; a divisor of 32")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32", help="of all sides' products")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", choices=[*SIDES, "input"], help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        side = {"ours": ours, "trl": trl, "trainer": trainer, "input": input_pipelines}[arguments.side]
        print(json.dumps(side(Task(arguments.work, arguments.steps + 1, arguments.epochs, arguments.micro_batch, arguments.precision))))
        return
    if arguments.peers is None:
        parser.error("--peers is needed: see --help")
    steps = arguments.steps + 1  # the first is not timed
    if arguments.epochs < 1 or steps % arguments.epochs or steps // arguments.epochs < 2:
        parser.error(f"{steps} steps, the untimed first one included, do not fill {arguments.epochs} epochs of two steps or more each")
    if arguments.micro_batch < 1 or BATCH % arguments.micro_batch:
        parser.error(f"--micro-batch {arguments.micro_batch} does not divide {BATCH}")
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        prepare(work, BATCH * (arguments.steps + 1) // arguments.epochs, arguments.home, arguments.base)
        prepare_pages(work / "pages")
        options = ["--steps", str(arguments.steps), "--epochs", str(arguments.epochs), "--precision", arguments.precision]
        options += ["--micro-batch", str(arguments.micro_batch)]
        lengths = lengths_of(work)
        results = {side: run_side(arguments.peers, side, work, options) for side in [*SIDES, "input"]}
    print_results(results, lengths, arguments.json)


def prepare(work: Path, examples: int, home_folder: Path | None, shape: str) -> None:
    """work/train.jsonl with exactly so many examples, work/base with random weights."""
    from random_weights import write_scaled_8b

    from extraction_assets.commands import latest, update_command
    from extraction_assets.demo.tiny_base import write_random_base
    from extraction_assets.home import Home

    home = Home.open(home_folder) if home_folder else home_of_examples(work / "home")
    walk, problems = update_command(home, ["train_split"], say)
    if walk.failures or problems:
        sys.exit("\n".join([*walk.failures, *map(str, problems)]))
    split = home.store.local_path(latest(home, "train_split")["jsonl"], ".jsonl")
    lines = [line for line in split.read_text(encoding="utf-8").split("\n") if line]  # not splitlines: JSON text may hold U+2028
    if len(lines) < examples:
        sys.exit(f"{len(lines)} training examples; --steps of at most {len(lines) // BATCH - 1}, please")
    records = [json.loads(line) for line in random.Random(0).sample(lines, examples)]
    for record in records:  # its path is relative to the split, and the home's store is not ours to write to
        image = record["messages"][0]["content"][0]
        image["image"] = str((split.parent / image["image"]).resolve())
    (work / "train.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    if shape == "demo":
        write_random_base(work / "base", seed=0, preset="demo")
    else:
        write_scaled_8b(work / "base", widths=8, depths=3)


def home_of_examples(folder: Path) -> Home:
    """With documents landed in it, the real ones where there are any."""
    import yaml
    from real_documents import SETTINGS

    from extraction_assets.commands import ingest_command
    from extraction_assets.demonstration import make_documents
    from extraction_assets.home import Home

    if not (real := os.environ.get("EXTRACTION_REALDATA")):
        return make_documents(folder, seed=11, say=say)
    home = Home.create(folder)
    home.settings_path.write_text(yaml.safe_dump(SETTINGS))
    ingest_command(home, Path(real) / "open" / "manifest.jsonl", None, None, say)
    return home


def lengths_of(work: Path) -> list[int]:
    """Tokens of each example."""
    from extraction_assets.model.base import load_base_format
    from extraction_assets.model.encoding import PageEncoder
    from extraction_assets.model.examples import read_examples

    encoder = PageEncoder(load_base_format(work / "base"))
    return [encoder.text(e.width, e.height, e.instruction, e.target).tokens for e in read_examples(work / "train.jsonl")]


def prepare_pages(folder: Path) -> None:
    """Page images of generated A4 documents: in grid/ as the graph draws them, in plain/ as PyMuPDF and Pillow do by themselves."""
    import pymupdf

    from extraction_assets.demo.vendors import TYPES, make_document
    from extraction_assets.documents.rendering import render_bytes
    from extraction_assets.settings import RenderSettings

    for kind in ("grid", "plain"):
        (folder / kind).mkdir(parents=True)
    settings = RenderSettings(dpi=INPUT_DPI, max_visual_tokens=4096)
    for number in range(INPUT_PAGES):
        document = make_document(11, number + 1, 1, TYPES[number % len(TYPES)], "a4")
        page = render_bytes(document.pdf, settings).pages[0]
        (folder / "grid" / f"{number}.png").write_bytes(page.png)
        with pymupdf.open(stream=document.pdf) as opened:
            opened[0].get_pixmap(dpi=INPUT_DPI).pil_save(str(folder / "plain" / f"{number}.png"))


def run_side(python: Path, side: str, work: Path, options: Sequence[str]) -> dict[str, Any]:
    say(f"{SIDES[side]}: optimizer steps of {BATCH} examples" if side in SIDES else "input pipelines")
    command = [str(python), str(Path(__file__).resolve()), "--side", side, "--work", str(work), *options]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{side} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def print_results(results: dict[str, dict[str, Any]], lengths: Sequence[int], as_json: bool) -> None:
    from printing import Row, print_rows

    mean, longest = round(statistics.mean(lengths)), max(lengths)
    own = results["ours"]
    rows = [Row("example_tokens", mean, f"tokens an example on the mean of {len(lengths)}; the longest has {longest:,}", "lower")]
    for side in ("trl", "trainer"):
        peer = results[side]
        rows += [
            Row("examples_per_s", own["examples_per_s"], "examples/s", "higher", peer["examples_per_s"], SIDES[side]),
            Row("peak_memory_mb", own["peak_memory_mb"], "MB resident", "lower", peer["peak_memory_mb"], SIDES[side]),
            Row("loss", own["loss"], "untrained adapter, 32 examples: equal is right", "lower", peer["loss"], SIDES[side]),
        ]
    pages = results["input"]
    for side, name in (
        ("stock", "stock PIL processor, same files"),
        ("stock_resizing", "stock PIL processor, same pages at a plain 150 dpi"),
    ):
        rows.append(Row("input_pages_per_s", pages["ours"], "pages/s on one core", "higher", pages[side], name))
    print_rows(rows, ("transformers", "peft"), as_json)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# --- the sides: each in a process of its own ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """What each side does."""

    work: Path
    steps: int
    epochs: int
    micro_batch: int
    precision: Literal["float32", "bfloat16"]


class Clock:
    """examples/s from the end of the first step to the end of the last, of the mean epoch."""

    def __init__(self, epochs: int) -> None:
        self.ends: list[float] = []
        self._epochs = epochs

    def step_ended(self) -> None:
        self.ends.append(time.perf_counter())

    def result(self, loss: float) -> dict[str, Any]:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        steps = len(self.ends) // self._epochs
        bounds = [0, *(steps * epoch - 1 for epoch in range(1, self._epochs + 1))]  # each epoch's last step
        a_step = [(self.ends[last] - self.ends[first]) / (last - first) for first, last in itertools.pairwise(bounds)]
        speed = BATCH * self._epochs / sum(a_step)
        return {"examples_per_s": round(speed, 3), "peak_memory_mb": round(peak, 1), "loss": round(loss, 6), "steps": len(self.ends)}


def ours(task: Task) -> dict[str, Any]:
    """The training run as the graph starts it, in this process."""
    from extraction_assets.settings import TrainingSettings
    from extraction_assets.training import progress, run
    from extraction_assets.training.job import make_job

    lengths = lengths_of(task.work)
    settings = TrainingSettings(
        r=RANK,
        alpha=ALPHA,
        learning_rate=RATE,
        effective_batch=BATCH,
        pack_tokens=max(*lengths, task.micro_batch * round(statistics.mean(lengths))),
        epochs=task.epochs,
        max_steps=task.steps,
        max_target_tokens=32768,  # the peers leave none out either
        checkpoint_every=1000,
        val_answers=0,
        precision=task.precision,
    )
    work = task.work
    (work / "val.jsonl").write_text("")
    job = make_job(work / "train.jsonl", work / "val.jsonl", work / "base", settings, work / "ours", threads=2)
    clock, told = Clock(task.epochs), progress.Progress.step

    def step(self: Any, metrics: Any) -> None:
        told(self, metrics)
        clock.step_ended()

    progress.Progress.step = step  # type: ignore[method-assign]
    run.train(job)
    return clock.result(loss_of_ours(work))


def loss_of_ours(work: Path) -> float:
    import torch

    from extraction_assets.model.attention import attend_within_pages
    from extraction_assets.model.base import load_base
    from extraction_assets.model.packing import pack
    from extraction_assets.training.loss import response_loss

    base = load_base(work / "base", dtype=torch.float32)
    attend_within_pages(base.model)
    pages = encoded(work, base, range(BATCH))
    with torch.no_grad():
        total = sum(float(response_loss(base.model, pack([page], base.format.pages.merge))) for page in pages)
    return total / sum(page.text.response_tokens for page in pages)


def encoded(work: Path, base: Any, rows: Sequence[int]) -> list[Any]:
    from extraction_assets.model.encoding import PageEncoder
    from extraction_assets.model.examples import read_examples

    encoder = PageEncoder(base.format)
    examples = read_examples(work / "train.jsonl")
    return [encoder.page(e.id, e.image.read_bytes(), e.instruction, e.target) for e in (examples[row] for row in rows)]


def trl(task: Task) -> dict[str, Any]:
    import torch
    from datasets import Dataset, Image, List
    from peft import LoraConfig
    from transformers import AutoTokenizer, Qwen2VLImageProcessor, Qwen3VLForConditionalGeneration, Qwen3VLProcessor, Qwen3VLVideoProcessor
    from trl import SFTConfig, SFTTrainer

    from extraction_assets.model.examples import read_examples
    from extraction_assets.model.lora import TARGETS

    torch.set_num_threads(2)
    work = task.work
    tokenizer = AutoTokenizer.from_pretrained(work / "base")
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor.from_pretrained(work / "base"),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(),
        chat_template=tokenizer.chat_template,
    )
    rows = [
        {
            "images": [str(example.image)],
            "prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": example.instruction}]}],
            "completion": [{"role": "assistant", "content": [{"type": "text", "text": example.target}]}],
        }
        for example in read_examples(work / "train.jsonl")
    ]
    data = Dataset.from_list(rows).cast_column("images", List(Image()))
    config = SFTConfig(
        **shared(task, "trl"),
        max_length=None,
        completion_only_loss=True,
        packing=False,
        gradient_checkpointing=False,
        dataset_num_proc=None,
    )
    lora = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=TARGETS["attention+mlp"], task_type="CAUSAL_LM")
    model = Qwen3VLForConditionalGeneration.from_pretrained(work / "base", dtype=torch.float32)
    clock = Clock(task.epochs)
    run = in_our_order(SFTTrainer, work / "train.jsonl")(
        model=model, args=config, train_dataset=data, processing_class=processor, peft_config=lora, callbacks=[told_by(clock)]
    )
    total, count = 0.0, 0
    with torch.no_grad():
        for row in range(BATCH):
            batch = run.data_collator([run.train_dataset[row]])
            labels = batch["labels"]
            last = int((labels[0] != -100).nonzero().max())
            labels[0, last] = -100  # the line break behind <|im_end|>
            answered = int((labels != -100).sum())
            total += float(run.model(**batch).loss) * answered
            count += answered
    run.train()
    return clock.result(total / count)


def trainer(task: Task) -> dict[str, Any]:
    import torch
    from transformers import Trainer, TrainingArguments

    from extraction_assets.model.base import load_base
    from extraction_assets.model.encoding import collate
    from extraction_assets.model.lora import add_lora
    from extraction_assets.settings import TrainingSettings

    torch.set_num_threads(2)
    work = task.work
    base = load_base(work / "base", dtype=torch.float32)
    model = add_lora(base, TrainingSettings(r=RANK, alpha=ALPHA), seed=0)
    pad = base.format.tokenizer.convert_tokens_to_ids("<|endoftext|>")

    def batch_of(rows: Sequence[int]) -> dict[str, Any]:
        batch = collate(encoded(work, base, rows), pad, base.format.pages.merge)
        return {name: value for name, value in vars(batch).items() if name != "ids"}

    pages = encoded(work, base, range(BATCH))
    total = 0.0
    with torch.no_grad():
        for row, page in enumerate(pages):
            total += float(model(**batch_of([row])).loss) * page.text.response_tokens
    clock = Clock(task.epochs)
    run = in_our_order(Trainer, work / "train.jsonl")(
        model=model,
        args=TrainingArguments(**shared(task, "trainer"), remove_unused_columns=False),
        train_dataset=list(range(BATCH * task.steps // task.epochs)),
        data_collator=batch_of,
        callbacks=[told_by(clock)],
    )
    run.train()
    return clock.result(total / sum(page.text.response_tokens for page in pages))


def input_pipelines(task: Task) -> dict[str, Any]:
    """Pages per second of both sides, the median of rounds taken in turn."""
    import numpy as np
    import torch
    from PIL import Image
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    from extraction_assets.model.base import load_base_format
    from extraction_assets.model.encoding import PageEncoder, read_page

    torch.set_num_threads(1)
    work = task.work
    encoder = PageEncoder(load_base_format(work / "base"))
    processor = Qwen2VLImageProcessorPil.from_pretrained(work / "base", min_pixels=1, max_pixels=2**31)
    files = sorted((work / "pages" / "grid").iterdir())
    plain = sorted((work / "pages" / "plain").iterdir())

    def own(path: Path) -> Any:
        return torch.from_numpy(encoder.patches(read_page(path.read_bytes(), str(path))))

    def stock(path: Path) -> Any:
        with Image.open(path) as image:
            return processor(images=[image.convert("RGB")], return_tensors="pt")["pixel_values"]

    for path in files:
        if not np.array_equal(own(path).numpy(), stock(path).numpy()):
            sys.exit(f"{path}: the two pipelines give different tensors")
    sides = {"ours": (own, files), "stock": (stock, files), "stock_resizing": (stock, plain)}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(INPUT_ROUNDS):
        for name, (side, paths) in sides.items():
            started = time.perf_counter()
            for path in paths:
                side(path)
            seconds[name].append(time.perf_counter() - started)
    return {name: round(len(files) / statistics.median(times), 2) for name, times in seconds.items()}


def shared(task: Task, side: str) -> dict[str, Any]:
    """What both peers' TrainingArguments are given."""
    return {
        "output_dir": str(task.work / side),
        "max_steps": task.steps,
        "per_device_train_batch_size": task.micro_batch,
        "gradient_accumulation_steps": BATCH // task.micro_batch,
        "learning_rate": RATE,
        "use_cpu": True,
        "bf16": task.precision == "bfloat16",
        "save_strategy": "no",
        "logging_steps": 1,
        "report_to": "none",
        "dataloader_num_workers": 0,
        "disable_tqdm": True,
    }


def in_our_order(trainer_class: Any, train: Path) -> Any:
    """The same trainer, taking the examples of `train` in the shuffled order of our run, another one each epoch."""
    from torch.utils.data import Sampler

    from extraction_assets.model.examples import read_examples
    from extraction_assets.settings import TrainingSettings
    from extraction_assets.store import digest_file
    from extraction_assets.training.order import epoch_order, run_seed

    ids = [example.id for example in read_examples(train)]
    seed = run_seed(TrainingSettings().seed, digest_file(train))

    class OurOrder(Sampler[int]):
        def __init__(self) -> None:
            self._epochs = itertools.count()

        def __len__(self) -> int:
            return len(ids)

        def __iter__(self) -> Iterator[int]:
            return iter(epoch_order(ids, seed, next(self._epochs)))

    class InOurOrder(trainer_class):  # type: ignore[misc]
        def _get_train_sampler(self, dataset: Any = None) -> Any:
            return OurOrder()

    return InOurOrder


def told_by(clock: Clock) -> Any:
    from transformers import TrainerCallback

    class Told(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.step_ended()

    return Told()


if __name__ == "__main__":
    main()
