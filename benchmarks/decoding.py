"""Answers a page: ours, with and without drafts from the text layer, beside transformers' generate held to the same grammar and beside plain generate.

    python benchmarks/decoding.py [--home HOME] [--pages N] [--grammar-only] [--json]

HOME is a finished home (default: demo_home, what `make demo` leaves). Its challenger answers the same clean test pages on every side, one
page at a time (batch 1), on all cores, in float32, with the adapter merged; sides take turns page by page. The peer under a grammar is
generate with a logits processor over the same llguidance grammar: one token a pass. "same_answers" counts pages where it and ours say the
same to the byte; where they differ, two tokens tie to within float rounding.

The rows grammar_* are of another model: the embedded base's shape with Qwen's 151,936 tokens and random weights (qwen_vocabulary.py). They need
the ranks that come with the package dashscope (pip install --no-deps dashscope), and are left out without it. --grammar-only needs no home.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from printing import Row, print_rows

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))  # same_answers stands in the tests, which are not installed


@dataclass
class Side:
    seconds: float = 0.0
    passes: int = 0
    tokens: int = 0
    texts: list[str] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=PROJECT / "demo_home")
    parser.add_argument("--pages", type=int, default=40)
    parser.add_argument("--quick", action="store_true", help="8 pages")
    parser.add_argument("--grammar-only", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    count = 8 if arguments.quick else arguments.pages
    rows = [] if arguments.grammar_only else sides_rows(measure(arguments.home, count))
    rows += grammar_rows(count)
    if rows:
        print_rows(rows, ("torch", "transformers", "llguidance"), arguments.json)


def measure(folder: Path, count: int) -> dict[str, Side]:
    from extraction_assets.assets.report_source import page_texts, split_schemas
    from extraction_assets.commands import latest
    from extraction_assets.home import Home
    from extraction_assets.inference.answers import Answerer
    from extraction_assets.inference.page_answer import PagePrompt
    from extraction_assets.model.base import load_base
    from extraction_assets.model.examples import read_examples

    home = Home.open(folder)
    split = latest(home, "test_split")["jsonl"]
    schemas, texts = split_schemas(home.store, split), page_texts(home.store, split, latest(home, "example_index")["targets"])
    examples = [example for example in read_examples(home.store.local_path(split, ".jsonl")) if example.page_digest in texts][:count]
    if not examples:
        sys.exit(f"{folder}: its test split has no page with a text layer")
    answerer = Answerer.of(load_base(home.base_model()), home.store.folder(latest(home, "lora_adapter")["adapter"]))
    one_page = home.settings().decoding.model_copy(update={"batch_size": 1, "constrained": True})
    drafted = [PagePrompt.of(one, schemas[one.schema], texts[one.page_digest]) for one in examples]

    def ours(prompt: PagePrompt) -> tuple[str, int, int]:
        (answer,) = answerer.answer([prompt], one_page)
        return answer.text, answer.passes, answer.tokens

    runs: dict[str, Callable[[PagePrompt], tuple[str, int, int]]] = {
        "drafts": ours,
        "no_drafts": lambda prompt: ours(replace(prompt, text=None)),
        "generate_grammar": lambda prompt: generate(answerer, prompt, one_page.max_output_tokens, held=True),
        "generate": lambda prompt: generate(answerer, prompt, one_page.max_output_tokens, held=False),
    }
    sides = {name: Side() for name in runs}
    for number, prompt in enumerate([drafted[0], *drafted]):  # the first time warms up and does not count
        for name, run in runs.items():
            started = time.perf_counter()
            text, passes, tokens = run(prompt)
            if number:
                side = sides[name]
                side.seconds += time.perf_counter() - started
                side.passes, side.tokens = side.passes + passes, side.tokens + tokens
                side.texts.append(text)
        print(f"{number}/{len(drafted)} pages", file=sys.stderr, flush=True)
    return sides


def generate(answerer: Any, prompt: Any, most: int, held: bool) -> tuple[str, int, int]:
    """(text, forward passes, tokens) of transformers' own greedy loop."""
    import torch
    from transformers import LogitsProcessor, LogitsProcessorList

    from extraction_assets.inference.matcher import allowed, mask_buffer
    from extraction_assets.model.encoding import collate
    from extraction_assets.wire import read

    encoder = answerer.encoder
    page = encoder.page(prompt.id, prompt.page.read_bytes(), prompt.instruction)
    batch = collate([page], encoder.end_token)
    length = batch.input_ids.shape[1]

    class Held(LogitsProcessor):
        def __init__(self) -> None:
            grammar = answerer._grammars.of(prompt.schema)
            self.matcher, self.mask = grammar.matcher(), mask_buffer(grammar.vocabulary, 1)

        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            self.matcher.consume(input_ids[0, length + self.matcher.consumed :].tolist())
            self.matcher.fill_mask(self.mask)
            return scores.masked_fill(~torch.from_numpy(allowed(self.mask, scores.shape[-1])), float("-inf"))

    with torch.inference_mode():
        out = answerer.model.generate(
            input_ids=batch.input_ids,
            attention_mask=torch.ones_like(batch.input_ids),
            mm_token_type_ids=batch.mm_token_type_ids,
            pixel_values=batch.pixel_values,
            image_grid_thw=batch.image_grid_thw,
            do_sample=False,
            max_new_tokens=most,
            eos_token_id=encoder.end_token,
            pad_token_id=encoder.end_token,
            logits_processor=LogitsProcessorList([Held()] if held else []),
        )[0, length:].tolist()
    stopped = out[-1] == encoder.end_token
    text = encoder.decode(out[:-1] if stopped else out)
    return read(prompt.schema, text) or text, len(out), len(out)


def grammar_rows(count: int) -> list[Row]:
    """What the grammar costs at Qwen's vocabulary. Pages are generated ones, small: what they show is not asked."""
    from qwen_vocabulary import grammar_cost, ranks_file, write_qwen_base

    from extraction_assets.home import PROJECT
    from extraction_assets.inference.answers import Answerer
    from extraction_assets.model.base import load_base
    from extraction_assets.schema import TargetSchema
    from extraction_assets_tests.inference.same_answers import demo_pages

    ranks = ranks_file()
    if ranks is None:
        print("no rows grammar_*: they need dashscope (pip install --no-deps dashscope)", file=sys.stderr)
        return []
    files = sorted((PROJECT / "schemas").glob("*.schema.json")) + sorted((PROJECT / "data" / "demo" / "schemas").glob("*.schema.json"))
    schemas = [TargetSchema.load(path) for path in files if "qwen_vl" not in path.name]
    with tempfile.TemporaryDirectory() as folder:
        write_qwen_base(Path(folder), ranks)
        cost = grammar_cost(Answerer.of(load_base(folder)), schemas, demo_pages(count, 0), 256)
    return [
        Row("grammar_compile_ms", round(cost.compile_ms, 1), f"ms, the slowest of {len(schemas)} schemas", "lower"),
        Row("grammar_share", round(cost.share, 4), "of the time of all steps, 8 layers of width 256 under 151,936 logits", "lower"),
        Row("grammar_ms_per_choice", round(cost.ms_per_choice, 3), "ms for a chosen token and what must follow it", "lower"),
        Row("step_ms", round(cost.ms_per_pass, 2), "ms a pass of that model", "lower"),
    ]


def sides_rows(sides: dict[str, Side]) -> list[Row]:
    def passes(name: str) -> float:
        return round(sides[name].passes / sides[name].tokens, 3)

    def pages(name: str) -> float:
        return round(len(sides[name].texts) / sides[name].seconds, 3)

    peer = "generate + llguidance"
    same = sum(a == b for a, b in zip(sides["drafts"].texts, sides["generate_grammar"].texts, strict=True))
    alike = sum(a == b for a, b in zip(sides["drafts"].texts, sides["no_drafts"].texts, strict=True))
    unit = "forward passes per output token"
    return [
        Row("passes_per_token", passes("drafts"), unit, "lower", passes("generate_grammar"), peer),
        Row("passes_per_token_without_drafts", passes("no_drafts"), unit, "lower", passes("generate_grammar"), peer),
        Row("pages_per_s", pages("drafts"), "pages/s, batch 1", "higher", pages("generate_grammar"), peer),
        Row("pages_per_s", pages("drafts"), "pages/s, batch 1", "higher", pages("generate"), "plain generate"),
        Row("pages_per_s_without_drafts", pages("no_drafts"), "pages/s, batch 1", "higher", pages("generate_grammar"), peer),
        Row("same_answers", same, f"of {len(sides['drafts'].texts)} pages", "higher", None, peer),
        Row("same_answers_without_drafts", alike, f"of {len(sides['drafts'].texts)} pages", "higher"),
    ]


if __name__ == "__main__":
    main()
