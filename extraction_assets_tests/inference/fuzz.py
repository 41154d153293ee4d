"""Answers of models that know nothing, held to odd schemas: strict JSON that follows the schema, or an explicit truncation; never a hang.

    python -m extraction_assets_tests.inference.fuzz [--answers 10000]

Each schema is answered by models of random weights, a new one for every page batch, through the very loop of predictions and serving
(batches, forced tokens, a text layer of odd words to draft from). Prints what came out; exits 1 if anything but the two outcomes did.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from extraction_assets.documents.records import PageText, Word
from extraction_assets.evaluation.strict_json import parse_answer
from extraction_assets.inference.answers import Answerer
from extraction_assets.inference.page_answer import Answer, PagePrompt
from extraction_assets.model.base import Base
from extraction_assets.schema import TargetSchema
from extraction_assets.settings import DecodingSettings
from extraction_assets_tests.inference.grammar_schemas import ODD, all_schemas
from extraction_assets_tests.model.pages import page_png

BATCH = 8
LIMITS = (24, 96, 384)
"""max_output_tokens, in turns: the short ones cut answers off in all kinds of places"""
LONGEST_ANSWER_S = 120.0
"""an answer that took longer counts as a hang; the slowest of 10,000 took a few seconds"""
_SIZES = ((64, 64), (96, 64), (32, 32), (64, 96))
_SPREADS = (0.02, 0.1, 0.25, 0.6)
"""standard deviations of the weights: from near-uniform models to ones that insist"""


@dataclass
class Outcome:
    schemas: int
    valid: int = 0
    """ended by themselves: strict JSON that follows its schema"""
    truncated: int = 0
    """cut off at exactly their limit, and said so"""
    distinct: int = 0
    longest_s: float = 0.0
    faults: list[str] = field(default_factory=list)
    """anything else"""
    characters: Counter[str] = field(default_factory=Counter)
    """kinds of what valid answers held, to see that the fuzz reaches them"""

    @property
    def answers(self) -> int:
        return self.valid + self.truncated + len(self.faults)


def fuzz(base: Base, schemas: Sequence[TargetSchema], answers: int, seed: int = 0, progress: bool = False) -> Outcome:
    """About `answers` answers, spread evenly over the schemas. base: its weights are overwritten again and again."""
    outcome = Outcome(len(schemas))
    seen: set[str] = set()
    rounds = -(-answers // (BATCH * len(schemas)))
    answerer = Answerer.of(base)
    for turn in range(rounds):
        for number, schema in enumerate(schemas):
            chosen = random.Random(f"{seed}/{turn}/{schema.digest}")
            _randomise(base, chosen)
            settings = DecodingSettings(max_output_tokens=LIMITS[turn % len(LIMITS)], batch_size=BATCH)
            pages = list(_pages(schema, chosen))
            for answer in answerer.answer(pages, settings):
                judge(answer, schema, settings.max_output_tokens, outcome)
                seen.add(f"{number}{answer.text}")
            if progress:
                print(f"{outcome.answers} answers, {len(outcome.faults)} faults", end="\r", file=sys.stderr, flush=True)
    outcome.distinct = len(seen)
    return outcome


def judge(answer: Answer, schema: TargetSchema, limit: int, outcome: Outcome) -> None:
    outcome.longest_s = max(outcome.longest_s, answer.seconds)
    parsed = parse_answer(answer.text, answer.finish_reason)
    if answer.seconds > LONGEST_ANSWER_S:
        outcome.faults.append(f"{schema.name}: took {answer.seconds:.0f} s: {answer.text[:200]!r}")
    elif answer.tokens > limit:
        outcome.faults.append(f"{schema.name}: {answer.tokens} tokens, {limit} were allowed: {answer.text[:200]!r}")
    elif answer.finish_reason == "length" and answer.tokens != limit:
        outcome.faults.append(f"{schema.name}: called truncated at {answer.tokens} of {limit} tokens: {answer.text[:200]!r}")
    elif answer.finish_reason == "length" and not parsed.strict:  # strict: it lacks nothing but the token that ends it
        outcome.truncated += 1
    elif not parsed.strict:
        outcome.faults.append(f"{schema.name}: {parsed.problem}: {answer.text[:200]!r}")
    elif violations := schema.violations(parsed.value):
        outcome.faults.append(f"{schema.name} {violations[0].pointer}: {violations[0].message}: {answer.text[:200]!r}")
    else:
        outcome.valid += 1
        outcome.characters["escapes"] += "\\" in answer.text
        outcome.characters["non-ASCII"] += not answer.text.isascii()
        outcome.characters["null"] += "null" in answer.text
        outcome.characters["rows"] += "[{" in answer.text
        outcome.characters["strings of over 100 characters"] += any(len(part) > 100 for part in answer.text.split('"'))


def _randomise(base: Base, chosen: random.Random) -> None:
    generator = torch.Generator().manual_seed(chosen.randrange(2**31))
    spread = chosen.choice(_SPREADS)
    with torch.no_grad():
        for name, parameter in base.model.named_parameters():
            if parameter.ndim >= 2 and "patch_embed" not in name:
                parameter.normal_(0, spread, generator=generator)


def _pages(schema: TargetSchema, chosen: random.Random) -> Iterator[PagePrompt]:
    for number in range(BATCH):
        width, height = chosen.choice(_SIZES)
        words = ["".join(chosen.choices([*ODD, *"0123456789.-"], k=chosen.randint(1, 12))).strip() or "x" for _ in range(20)]
        text = PageText(words=tuple(Word(text=word, box=(0, 0, 1, 1), line=index // 4) for index, word in enumerate(words)))
        png = page_png(width, height, chosen.randrange(2**31))
        instruction = "Extract" + "." * chosen.randint(0, 9)
        yield PagePrompt(f"{schema.name} {number}", instruction, png, width, height, schema=schema, text=chosen.choice([text, None]))


def main() -> int:
    from extraction_assets.demo.tiny_base import write_random_base
    from extraction_assets.model.base import load_base

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        write_random_base(Path(folder) / "base", seed=arguments.seed, preset="test")
        base = load_base(Path(folder) / "base", dtype=torch.float32)
        outcome = fuzz(base, all_schemas(), arguments.answers, arguments.seed, progress=sys.stderr.isatty())
    print(
        f"{outcome.answers} answers ({outcome.distinct} different ones) over {outcome.schemas} schemas, {time.perf_counter() - started:.0f} s"
    )
    print(
        f"  {outcome.valid} strict JSON that follows its schema; {outcome.truncated} cut off and said so; {len(outcome.faults)} anything else"
    )
    print(f"  slowest answer, beside {BATCH - 1} others: {outcome.longest_s:.1f} s")
    print(f"  of the valid ones: {', '.join(f'{count} with {kind}' for kind, count in outcome.characters.items())}")
    for fault in outcome.faults[:20]:
        print(f"  {fault}")
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
