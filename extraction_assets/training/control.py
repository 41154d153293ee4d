"""The control run: the same pages and the same targets, but which belongs to which is left to chance.

What an adapter trained so scores on the test pages is what can be had without reading them: frequent values, empty fields. The rest
of a real adapter's score was learnt. (Label randomization: Zhang et al. 2017, "Understanding deep learning requires rethinking
generalization".)
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from extraction_assets.model.examples import Example


def with_shuffled_targets(examples: Sequence[Example], seed: int) -> tuple[Example, ...]:
    """The examples in their order, their targets permuted among those of one schema. The same seed gives the same permutation."""
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, example in enumerate(examples):
        rows_of[example.schema].append(row)
    chance = random.Random(f"shuffled targets:{seed}")
    target_of: dict[int, str] = {}
    for rows in rows_of.values():
        sources = chance.sample(rows, len(rows))
        target_of |= {row: examples[source].target for row, source in zip(rows, sources, strict=True)}
    return tuple(replace(example, target=target_of[row]) for row, example in enumerate(examples))
