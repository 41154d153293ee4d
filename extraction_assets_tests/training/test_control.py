"""The control run: same pages, same targets, other pairs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from extraction_assets.model.examples import Example
from extraction_assets.training.control import with_shuffled_targets


def example(number: int, schema: str) -> Example:
    return Example(f"e{number}", Path(f"{number}.png"), "d", 32, 32, "Extract as JSON: a", f'{{"a":"{number}"}}', schema)


EXAMPLES = tuple(example(number, "ab"[number % 2]) for number in range(40))


def test_targets_move_within_their_schema_and_nothing_else_does() -> None:
    shuffled = with_shuffled_targets(EXAMPLES, 1)
    assert [replace(one, target="") for one in shuffled] == [replace(one, target="") for one in EXAMPLES]
    for schema in "ab":
        before, after = ([one.target for one in pages if one.schema == schema] for pages in (EXAMPLES, shuffled))
        assert sorted(before) == sorted(after)
        assert sum(a == b for a, b in zip(before, after, strict=True)) < 5


def test_the_seed_decides() -> None:
    assert with_shuffled_targets(EXAMPLES, 1) == with_shuffled_targets(EXAMPLES, 1)
    assert with_shuffled_targets(EXAMPLES, 1) != with_shuffled_targets(EXAMPLES, 2)
