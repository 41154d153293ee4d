"""The same pages answered by two models, page by page: are the answers the same, and how much of each is right?"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from extraction_assets.evaluation.scoring import score_document
from extraction_assets.inference.answers import Answer
from extraction_assets.inference.page_answer import PagePrompt
from extraction_assets.model.examples import Example
from extraction_assets.schema import TargetSchema
from extraction_assets.wire import gold


@dataclass(frozen=True)
class PagePair:
    """One page, answered by both."""

    id: str
    equal: bool
    """to the byte"""
    fields: int
    """header fields of the page's schema"""
    right: tuple[int, int]
    """of them, by the first model and by the second"""

    def to_json(self) -> dict[str, Any]:
        return {"id": self.id, "equal": self.equal, "fields": self.fields, "right": list(self.right)}


@dataclass(frozen=True)
class SideBySide:
    pages: tuple[PagePair, ...]

    @property
    def equal(self) -> int:
        return sum(page.equal for page in self.pages)

    @property
    def different(self) -> tuple[PagePair, ...]:
        return tuple(page for page in self.pages if not page.equal)

    @property
    def accuracy(self) -> tuple[float, float] | None:
        """Share of all header fields that are right, by each; None without a field."""
        fields = sum(page.fields for page in self.pages)
        first, second = (sum(page.right[which] for page in self.pages) for which in (0, 1))
        return (first / fields, second / fields) if fields else None


def side_by_side(
    examples: Sequence[Example],
    schemas: Mapping[str, TargetSchema],
    taught: Collection[str],
    first: Callable[[Sequence[PagePrompt]], Sequence[Answer]],
    second: Callable[[Sequence[PagePrompt]], Sequence[Answer]],
) -> SideBySide:
    """schemas: by digest, those of all the examples. taught: digests of those that the models know, maybe on another wire. first, second: give
    one answer for each prompt, in order; asked one after the other, so that one model at a time need be loaded."""
    prompts = [PagePrompt.of(example, schemas[example.schema].as_taught(taught)) for example in examples]
    answers = (first(prompts), second(prompts)) if prompts else ((), ())
    return SideBySide(tuple(_pair(example, schemas[example.schema], pair) for example, *pair in zip(examples, *answers, strict=True)))


def _pair(example: Example, schema: TargetSchema, answers: Sequence[Answer]) -> PagePair:
    wanted = gold(schema, example.target)
    first, second = (score_document(answer.text, wanted, schema, finish_reason=answer.finish_reason) for answer in answers)
    return PagePair(example.id, answers[0].text == answers[1].text, len(first.fields), (first.right_fields, second.right_fields))
