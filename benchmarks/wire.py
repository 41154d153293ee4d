"""Rows as objects or as arrays (targets.wire): tokens of a target, and forward passes of a model that writes it without a fault.

    python benchmarks/wire.py [--quick] [--json]

Labels of generated demo documents as targets. A pass is a token that the grammar leaves a choice for; drafts would save more on either side.
In the embedded base's vocabulary and, where dashscope is installed (for its ranks: pip install --no-deps dashscope), in Qwen's. What either
wire costs in accuracy takes two adapters to say, each taught its own; that is not measured here.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from printing import Row, print_rows
from qwen_vocabulary import LOGITS, ranks_file, tokenizer_of, write_qwen_base

from extraction_assets.demo.vendors.generated_set import make_document
from extraction_assets.demo.vendors.vendor import TYPES
from extraction_assets.demonstration import DEMO_FOLDER
from extraction_assets.home import PROJECT
from extraction_assets.inference.grammar import Grammar, Grammars
from extraction_assets.inference.vocabulary import Vocabulary
from extraction_assets.model.base import load_base_format
from extraction_assets.schema import TargetSchema, Wire
from extraction_assets.settings_file import load_settings
from extraction_assets.wire import write

WIRES: tuple[Wire, Wire] = ("rows_as_arrays", "objects")
SEED = 77


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="30 documents instead of 300")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    count = 30 if arguments.quick else 300
    base = load_base_format(PROJECT / "data" / load_settings(DEMO_FOLDER / "settings.yaml").base_model)
    rows = vocabulary_rows("base", Vocabulary.of(base), count)
    if ranks := ranks_file():
        with tempfile.TemporaryDirectory() as folder:
            write_qwen_base(Path(folder), ranks)
            rows += vocabulary_rows("qwen", Vocabulary.from_tokenizer(tokenizer_of(Path(folder)), LOGITS), count)
    else:
        print("no rows of Qwen's vocabulary: they need dashscope (pip install --no-deps dashscope)", file=sys.stderr)
    print_rows(rows, ("transformers", "llguidance"), arguments.json)


def vocabulary_rows(name: str, vocabulary: Vocabulary, count: int) -> list[Row]:
    grammars = Grammars(vocabulary)
    tokens: dict[Wire, list[int]] = {wire: [] for wire in WIRES}
    passes: dict[Wire, list[int]] = {wire: [] for wire in WIRES}
    for number in range(count):
        kind = TYPES[number % len(TYPES)]
        plain = TargetSchema.load(DEMO_FOLDER / "schemas" / f"{kind}.schema.json")
        target = plain.spell(make_document(SEED, number % 30 + 1, number // 30 + 1, kind).label)
        for wire in WIRES:
            schema = plain.on_wire(wire)
            written = vocabulary.tokenizer(write(schema, target), add_special_tokens=False).input_ids
            tokens[wire].append(len(written))
            passes[wire].append(choices(grammars.of(schema), written))
    return [
        _row(f"{name}_tokens_mean", [statistics.mean(tokens[wire]) for wire in WIRES], f"tokens of a target, {count} documents"),
        _row(f"{name}_tokens_p95", [_p95(tokens[wire]) for wire in WIRES], f"tokens of a target, {count} documents"),
        _row(f"{name}_passes_mean", [statistics.mean(passes[wire]) for wire in WIRES], "passes of a faultless model, no drafts"),
    ]


def choices(grammar: Grammar, target: Sequence[int]) -> int:
    """Of the target's tokens, those that do not have to follow."""
    matcher, at, chosen = grammar.matcher(), 0, 0
    while at < len(target):
        forced = matcher.forced()
        if not forced or list(target[at : at + len(forced)]) != forced:  # a target may be split otherwise; then each token is a choice
            forced = [target[at]]
            chosen += 1
        if matcher.consume(forced) != len(forced):
            raise RuntimeError("the grammar rejects a generated target")
        at += len(forced)
    return chosen


def _row(name: str, values: Sequence[float], unit: str) -> Row:
    arrays, objects = values
    return Row(name, round(arrays, 1), unit, "lower", round(objects, 1), "objects")


def _p95(lengths: Sequence[int]) -> float:
    return statistics.quantiles(lengths, n=20)[-1]


if __name__ == "__main__":
    main()
