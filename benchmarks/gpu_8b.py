"""Training and answering at the shape of Qwen3-VL-8B on one GPU, by the product's own code, with random weights: no download, under 100 s.

    python benchmarks/gpu_8b.py [--json FILE] [--seconds N] [--profile] [--only SECTION]
    python benchmarks/gpu_8b.py --tiny          (a CPU, a tiny model: every path runs, its figures say nothing)

Training: steps of training.run (packs, attention within pages, response loss, clipping, AdamW) over pages of 1,200 visual and 300 text
tokens, 251 of them answer; pages lie in memory, the vision tower runs at every step. "share_of_ideal" is of the 15.2 pages/s that 790 TFLOP/s
of bfloat16 would give without recomputing; memory is that of whole steps beside what the plan predicts. Pages' pixels travel to the GPU as in a run.
Answering: inference.answers, one page at a time. A whole answer begins at the page's PNG and ends at its text. "free" answers have no grammar and no
draft: a pass a token. "held" ones follow a schema of short text fields, "drafted" ones have a text layer that says every value, the best that
drafts can do. The tokenizer is a small one, so masks cost less than with Qwen's. The floor of a pass is its weights' bytes over the bandwidth of a copy.
Needs no Dagster: torch, transformers, peft, accelerate, llguidance, pydantic, jsonschema-rs, rapidfuzz, universal-pathlib; bitsandbytes for QLoRA.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
import os
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

STARTED = time.perf_counter()
IDEAL_PAGES_PER_S, IDEAL_FLOPS = 15.2, 790e12
GIB = 2**30
STEP_PAGES, TIMED_STEPS = 16, 2
TRAINING = (("none", 4), ("mlp", 8), ("layers", 16))
"""recompute level, pages a pack"""
BUCKETS = (250, 128, 64)
"""output tokens; the longest first, so that its recorded steps serve them all"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="written anew after each section")
    parser.add_argument("--seconds", type=float, default=90, help="no section begins that would end later")
    parser.add_argument("--profile", action="store_true", help="also what a training step's and a prefill's time goes into")
    parser.add_argument("--only", choices=("train", "answers"), help="the sections of this kind; machine, kernel and weights in any case")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, on a CPU if there is no GPU")
    arguments = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch

    if not torch.cuda.is_available() and not arguments.tiny:
        parser.error("no GPU; --tiny runs on a CPU")
    report = Report(arguments.json, arguments.seconds)
    with tempfile.TemporaryDirectory() as folder:
        sections(report, Path(folder), arguments)
    report.end()
    sys.exit(bool(report.failures))


def sections(report: Report, folder: Path, arguments: argparse.Namespace) -> None:
    """The seconds are what a section may take on an H100, with some to spare."""
    report.run("machine", 5, machine)
    report.run("kernel", 5, kernel)
    bench = report.run("weights", 25, lambda say: Bench.make(say, folder, arguments.tiny))
    if bench is None:
        return
    if arguments.only != "answers":
        for level, pages in TRAINING:
            report.run(f"train {level} x{pages}", 12, lambda say, level=level, pages=pages: train(bench, say, level, pages))
    if arguments.only != "train":
        report.run("answers", 20, lambda say: free_answers(bench, say, report.figure("machine", "copy_bandwidth")))
        for tokens in BUCKETS:
            report.run(f"answers held {tokens}", 8, lambda say, tokens=tokens: held_answers(bench, say, tokens))
        report.run("answers eager", 8, lambda say: eager_answers(bench, say))
    if arguments.profile:
        report.run("profile", 12, lambda say: profile(bench, say))
    if arguments.only != "answers":
        report.run("train nf4 x4", 12, lambda say: train_four_bit(bench, say))  # last: it leaves no weights in 16 bits


# --- report ------------------------------------------------------------------------------------------------------------------

Say = Callable[..., None]
"""(name, value, unit, note="")"""


@dataclass(frozen=True)
class Figure:
    section: str
    name: str
    value: float
    unit: str
    note: str


@dataclass
class Report:
    """Figures as they come: each section prints its own, and the file holds all so far."""

    file: Path | None
    seconds: float
    figures: list[Figure] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def run(self, section: str, needs: float, work: Callable[[Say], Any]) -> Any:
        """What `work` returns; None where it failed or no time was left."""
        left = self.seconds - (time.perf_counter() - STARTED)
        if left < needs:
            self._fail(f"{section}: left out, {left:.0f} s left and up to {needs:.0f} s needed")
            return None

        def say(name: str, value: float, unit: str, note: str = "") -> None:
            self.figures.append(Figure(section, name, float(f"{value:.6g}"), unit, note))
            print(f"{section:18} {name:26} {value:>12,.4g} {unit:10} {note}".rstrip(), flush=True)

        began = time.perf_counter()
        result = None
        try:
            result = work(say)
        except Exception as error:
            self._fail(f"{section}: {type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}")
            print("".join(traceback.format_exception(error)[-8:]), file=sys.stderr, flush=True)
            error.__traceback__ = None  # its frames hold tensors
        tidy()
        print(f"{section:18} {'':26} {time.perf_counter() - began:>12,.1f} s          done", flush=True)
        self._write()
        return result

    def figure(self, section: str, name: str) -> float | None:
        return next((figure.value for figure in self.figures if (figure.section, figure.name) == (section, name)), None)

    def end(self) -> None:
        print(f"{time.perf_counter() - STARTED:.1f} s in all, {len(self.failures)} sections failed or left out")
        self._write()

    def _fail(self, line: str) -> None:
        self.failures.append(line)
        print(f"FAILED {line}", flush=True)

    def _write(self) -> None:
        if self.file is None:
            return
        document = {
            "about": about(),
            "seconds": round(time.perf_counter() - STARTED, 1),
            "figures": [asdict(figure) for figure in self.figures],
            "failures": self.failures,
        }
        half = self.file.with_name(self.file.name + ".half")
        half.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        half.replace(self.file)


def about() -> dict[str, str]:
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    libraries = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "peft")}
    return {"gpu": gpu, "python": sys.version.split()[0], **libraries}


def tidy() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def timed(work: Callable[[], Any]) -> float:
    """Seconds until the device is done."""
    import torch

    synchronize = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    synchronize()
    began = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - began


# --- the machine -------------------------------------------------------------------------------------------------------------


def machine(say: Say) -> None:
    import torch

    print(", ".join(f"{name} {value}" for name, value in about().items()), flush=True)
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    source = torch.zeros(2**31 if on_gpu else 2**24, dtype=torch.bfloat16, device=device)
    target = torch.empty_like(source)
    say("copy_bandwidth", 2 * source.nbytes / per_round(lambda: target.copy_(source)) / 1e9, "GB/s", "read + written")
    size = 8192 if on_gpu else 256
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = per_round(lambda: a @ b)
    say("matrix_product", 2 * size**3 / seconds / 1e12, "TFLOP/s", f"{size} cubed, bfloat16")


def per_round(work: Callable[[], Any], rounds: int = 5) -> float:
    """Seconds of one, of several launched at once; the first time does not count."""
    work()
    return statistics.median(timed(lambda: [work() for _ in range(rounds)]) / rounds for _ in range(3))


def kernel(say: Say) -> None:
    """Attention within pages beside stock sdpa page by page: the same numbers, forward and backward, with grouped heads?"""
    import torch

    from extraction_assets.model import attention

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    lengths = (300, 47, 400)
    shapes = [(1, heads, sum(lengths), 128) for heads in (32, 8, 8)]
    inputs = [torch.randn(shape, device=device, dtype=torch.bfloat16, requires_grad=True) for shape in shapes]
    starts = torch.tensor([0, *[sum(lengths[: page + 1]) for page in range(len(lengths))]], dtype=torch.int32, device=device)
    module: Any = SimpleNamespace(num_key_value_groups=4, is_causal=True)
    packed, _ = attention.within_pages(module, *inputs, None, page_lengths=lengths, page_starts=starts)
    alone = attention._page_by_page(module, *inputs, lengths, lengths, None, 0.0)
    weight = torch.randn_like(packed)
    gradients = [torch.autograd.grad((out * weight).sum(), inputs) for out in (packed, alone)]
    worst = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(*gradients, strict=True))
    chosen = attention._varlen(device, torch.bfloat16, 128)
    difference = float((packed - alone).detach().abs().max() / alone.detach().abs().max())
    say("forward_difference", difference, "", f"largest, of the largest value; kernel: {chosen.__name__ if chosen else 'sdpa'}")
    say("gradient_difference", worst, "", "likewise; bfloat16 rounds by 0.004")
    if max(difference, worst) > 0.03:
        raise RuntimeError("the packed kernel gives other numbers than sdpa page by page")


# --- the model ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bench:
    base: Any
    device: Any
    tiny: bool
    shape: Any
    size: Any
    engines: dict[bool, Any] = field(default_factory=dict)
    """answerers made so far: with steps that are recorded on a GPU, and without"""

    @classmethod
    def make(cls, say: Say, folder: Path, tiny: bool) -> Bench:
        import torch
        from random_weights import PAGE_8B, PAGE_TINY, make_base

        from extraction_assets.training.arithmetic import ModelShape

        began = time.perf_counter()
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        base = make_base(folder, device, torch.bfloat16 if device.type == "cuda" else torch.float32, tiny)
        shape = ModelShape.of(base.format)
        counted = sum(weight.numel() for weight in base.model.parameters())
        if counted != shape.language_linears + shape.other_parameters:
            raise RuntimeError(f"{counted:,} parameters, the plan counts {shape.language_linears + shape.other_parameters:,}")
        say("parameters", counted / 1e9, "billion", f"as the plan counts; made in {time.perf_counter() - began:.1f} s, imports included")
        return cls(base, device, tiny, shape, PAGE_TINY if tiny else PAGE_8B)


# --- training ----------------------------------------------------------------------------------------------------------------


def train(bench: Bench, say: Say, level: str, pages: int, method: str = "lora") -> None:
    """Optimizer steps over STEP_PAGES pages in packs of `pages`."""
    import torch
    from random_weights import training_pack

    from extraction_assets.settings import TrainingSettings
    from extraction_assets.training.preflight import MemoryMeter

    settings = TrainingSettings(recompute=level, effective_batch=STEP_PAGES, micro_batch=pages, method=method)
    size, packs = bench.size, STEP_PAGES // pages
    pack = training_pack(bench.base, size, pages)
    with trained(bench, settings) as run:
        step(run, pack, 1, size.response)
        seconds: list[float] = []
        learning = [parameter for group in run.stepper.optimizer.param_groups for parameter in group["params"]]
        moments = [
            value for parameter in learning for value in run.stepper.optimizer.state[parameter].values() if isinstance(value, torch.Tensor)
        ]
        held = [*run.model.parameters(), *run.model.buffers(), *moments]

        def steps() -> None:
            seconds.extend(timed(lambda: step(run, pack, packs, size.response)) for _ in range(TIMED_STEPS))

        measured, taken = MemoryMeter(bench.device).measure(held, steps)
    rate = STEP_PAGES / statistics.mean(seconds)
    plain = settings.model_copy(update={"recompute": "none"})
    flops, done = (bench.shape.training_flops(size.visual, size.tokens, size.response, each) for each in (plain, settings))
    visual, weight = size.visual, 2 if bench.device.type == "cuda" else 4
    predicted = bench.shape.memory(settings, weight, size.tokens * pages, size.response * pages, visual * pages, visual).peak
    say("pages_per_s", rate, "pages/s", f"mean of {len(seconds)} steps of {STEP_PAGES} pages: {', '.join(f'{s:.2f} s' for s in seconds)}")
    say("share_of_ideal", rate / IDEAL_PAGES_PER_S, "", f"of {IDEAL_PAGES_PER_S} pages/s; at least 0.45")
    say("model_flops", rate * flops / 1e12, "TFLOP/s", f"{flops / 1e12:.1f} TFLOP a page: {rate * flops / IDEAL_FLOPS:.3f} of 790")
    say("hardware_flops", rate * done / 1e12, "TFLOP/s", "what is computed twice counted twice")
    say("peak_memory", measured / GIB, "GiB", f"{'not told' if taken is None else f'{taken / GIB:.4g} GiB'} taken from the system")
    say("predicted_memory", predicted / GIB, "GiB", "the plan's")
    say("memory_ratio", measured / predicted, "", "measured / predicted; 0.85 to 1.15")


def step(run: Any, pack: Any, packs: int, response: int) -> None:
    """One optimizer step of the training run, over the same pack again and again."""
    from extraction_assets.training.order import GlobalBatch
    from extraction_assets.training.run import Share, optimizer_step

    rows = tuple(range(packs * len(pack.ids)))
    run.train.response_tokens, run.train.ids = [response] * len(rows), [f"page {row}" for row in rows]
    optimizer_step(run, GlobalBatch(1, 0, 0, rows, False), iter([pack] * packs), Share([tuple(range(len(pack.ids)))] * packs, []))


@contextmanager
def trained(bench: Bench, settings: Any) -> Iterator[Any]:
    """A training run as training.setup makes it, but for its files; afterwards the base is as it was."""
    import torch
    from accelerate import Accelerator

    from extraction_assets.model.attention import attend_within_pages
    from extraction_assets.model.fused import fuse
    from extraction_assets.model.kept_pages import OwnPages
    from extraction_assets.model.last_layer import narrow_last_layer
    from extraction_assets.model.lora import add_lora, audit_lora
    from extraction_assets.model.recompute import recompute_in_backward
    from extraction_assets.model.visual_memory import VisualMemory
    from extraction_assets.training.setup import Run
    from extraction_assets.training.stepping import Stepper

    qwen = bench.base.model
    accelerator = Accelerator(cpu=bench.device.type == "cpu")
    job: Any = SimpleNamespace(seed=0, settings=settings, plan=SimpleNamespace(epochs=1, steps=1000, warmup_steps=10))
    model = None
    try:
        attend_within_pages(qwen)
        model = add_lora(bench.base, settings, seed=0)
        fuse(model)
        narrow_last_layer(model)
        recompute_in_backward(model, settings.recompute)
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(learning, lr=0.0, weight_decay=settings.weight_decay)
        stepper = Stepper(accelerator, model, optimizer, settings.max_grad_norm)
        visual = VisualMemory(qwen, OwnPages(0))
        unused: Any = None
        train: Any = SimpleNamespace()
        audit = audit_lora(model)
        yield Run(job, accelerator, bench.base.format, model, stepper.model, stepper, train, unused, audit, unused, unused, unused, visual)
    finally:
        for layer in qwen.model.language_model.layers:
            for module in layer.modules():
                vars(module).pop("forward", None)
        for name in ("get_image_features", "get_placeholder_mask"):
            vars(qwen.model).pop(name, None)
        vars(qwen.model.language_model).pop("_deepstack_process", None)
        if model is not None:
            model.unload()
        accelerator.free_memory()
        qwen.set_attn_implementation({"text_config": "sdpa"})
        qwen.requires_grad_(False).eval()


def train_four_bit(bench: Bench, say: Say) -> None:
    try:
        import bitsandbytes
    except ImportError as error:
        print(f"bitsandbytes is not here ({error}): no QLoRA figures", flush=True)
        return
    bench.engines.clear()  # their caches would be counted
    tidy()
    began = time.perf_counter()
    quantize(bench, bitsandbytes)
    say("quantized_in", time.perf_counter() - began, "s", f"bitsandbytes {bitsandbytes.__version__}, nf4, double quantisation")
    train(bench, say, "none", 4, method="qlora")


def quantize(bench: Bench, bitsandbytes: Any) -> None:
    """The language model's linears, in place, as model.lora.four_bit_config has them loaded."""
    import torch

    for layer in bench.base.model.model.language_model.layers:
        for parent in (layer.self_attn, layer.mlp):
            for name, linear in list(parent.named_children()):
                if not isinstance(linear, torch.nn.Linear):
                    continue
                four = bitsandbytes.nn.Linear4bit(
                    linear.in_features, linear.out_features, bias=False, compute_dtype=linear.weight.dtype, quant_type="nf4", device="meta"
                )
                four.weight = bitsandbytes.nn.Params4bit(linear.weight.data, requires_grad=False, quant_type="nf4", module=four)
                setattr(parent, name, four.to(bench.device))
    bench.base.model.is_loaded_in_4bit = True  # peft asks for it


# --- answering ---------------------------------------------------------------------------------------------------------------


def engine_of(bench: Bench, graphs: bool = True) -> Any:
    from extraction_assets.inference.answers import Answerer

    if graphs not in bench.engines:
        bench.engines[graphs] = Answerer(bench.base.model, bench.base.format, graphs=graphs)
    return bench.engines[graphs]


def ask(engine: Any, prompt: Any, most: int) -> tuple[float, Any]:
    """(seconds from the PNG to the text, the answer)"""
    from extraction_assets.settings import DecodingSettings

    answers: list[Any] = []
    settings = DecodingSettings(max_output_tokens=most, batch_size=1)
    seconds = timed(lambda: answers.extend(engine.answer([prompt], settings)))
    return seconds, answers[0]


def rounds_of(engine: Any, prompt: Any, most: int, expected: str, rounds: int) -> list[tuple[float, Any]]:
    """After one round that does not count. Raises where an answer is not the expected one."""
    results = [ask(engine, prompt, most) for _ in range(rounds + 1)][1:]
    for _, answer in results:
        if answer.text != expected:
            raise RuntimeError(f"the answer is {answer.text[:60]!r}..., and not {expected[:60]!r}...")
    return results


def say_answers(say: Say, name: str, results: list[tuple[float, Any]]) -> float:
    """Median seconds inside the loop, from the prefill on."""
    whole = sorted(seconds for seconds, _ in results)
    answer = results[0][1]
    note = f"{answer.tokens} tokens, {answer.passes} passes; {len(whole)} answers"
    say(f"{name}_p50", statistics.median(whole) * 1000, "ms", note)
    say(f"{name}_p95", whole[min(len(whole) - 1, round(0.95 * len(whole)))] * 1000, "ms")
    return statistics.median(answer.seconds for _, answer in results)


def free_answers(bench: Bench, say: Say, bandwidth: float | None) -> None:
    from random_weights import free_answer, prompt

    engine, page = engine_of(bench), prompt(bench.size)
    inside = {}
    for tokens in BUCKETS:
        results = rounds_of(engine, page, tokens, free_answer(tokens), 3)
        inside[tokens] = say_answers(say, f"free_{tokens}", results)
    prefill = statistics.median(answer.seconds for _, answer in rounds_of(engine, page, 1, free_answer(1), 5))
    reading = statistics.median(timed(lambda: engine._encode(page)) for _ in range(5))
    say("reading_page", reading * 1000, "ms", "PNG to patches, on the host, before the prefill")
    say("prefill", prefill * 1000, "ms", f"{bench.size.visual} visual tokens, to the first token; floor 32 ms on an H100")
    most, least = max(BUCKETS), min(BUCKETS)
    a_pass = (inside[most] - inside[least]) / (most - least)
    say("decode_pass", a_pass * 1000, "ms", "one token, between the shortest and the longest answers")
    shape, weight = bench.shape, 2 if bench.device.type == "cuda" else 4
    read = weight * (shape.language_linears + shape.vocabulary * shape.hidden)
    if bandwidth:
        floor = read / (bandwidth * 1e9)
        say("decode_floor", floor * 1000, "ms", f"{read / 1e9:.1f} GB of weights at the bandwidth of a copy")
        say("decode_ratio", a_pass / floor, "", "pass / floor")
    if engine._kept is not None:
        say("recorded_widths", len(engine._kept._recorded), "", "CUDA graphs; 0: steps were not recorded")


def held_answers(bench: Bench, say: Say, tokens: int) -> None:
    from random_weights import held_page, prompt

    page = held_page(bench.base, tokens)
    engine, times = engine_of(bench), {}
    for name, text in (("held", None), ("drafted", page.text)):
        results = rounds_of(engine, prompt(bench.size, page.schema, text), 2 * tokens, page.answer, 5)
        times[name] = say_answers(say, name, results)
    say("drafts_save", 1 - times["drafted"] / times["held"], "", "share of the time from the prefill on")


def eager_answers(bench: Bench, say: Say) -> None:
    """The same loop without recorded steps, as a reference."""
    from random_weights import free_answer, prompt

    engine, page = engine_of(bench, graphs=False), prompt(bench.size)
    short, long = 8, 40
    times = [
        statistics.median(answer.seconds for _, answer in rounds_of(engine, page, tokens, free_answer(tokens), 2))
        for tokens in (short, long)
    ]
    say("decode_pass", (times[1] - times[0]) / (long - short) * 1000, "ms", "launched kernel by kernel")


# --- profile -----------------------------------------------------------------------------------------------------------------


def profile(bench: Bench, say: Say) -> None:
    """The ten most expensive operators, by what their kernels take."""
    from random_weights import prompt, training_pack

    from extraction_assets.settings import TrainingSettings

    level, pages = TRAINING[0]
    pack = training_pack(bench.base, bench.size, pages)
    with trained(bench, TrainingSettings(recompute=level)) as run:
        step(run, pack, 1, bench.size.response)
        say_operators(say, "step", lambda: step(run, pack, 1, bench.size.response))
    engine, page = engine_of(bench), prompt(bench.size)
    ask(engine, page, 1)
    say_operators(say, "prefill", lambda: ask(engine, page, 1))


def say_operators(say: Say, what: str, work: Callable[[], Any]) -> None:
    import torch
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as recorded

    on_gpu = torch.cuda.is_available()
    with recorded(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as result:
        timed(work)
    key = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    events = sorted(result.key_averages(), key=lambda event: -getattr(event, key))
    total = sum(getattr(event, key) for event in events) or 1
    say(f"{what}_total", total / 1000, "ms", "of all operators and kernels")
    for event in events[:10]:
        say(f"{what}_part", getattr(event, key) / total, "", f"{event.count} x {event.key[:70]}")


if __name__ == "__main__":
    main()
