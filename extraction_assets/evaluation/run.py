"""What an eval report is made of: examples with gold and every system's answers, scored once for gate, plots and browser."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from extraction_assets.errors import InputError
from extraction_assets.evaluation.compare import SystemScores
from extraction_assets.evaluation.score_table import ScoredDocument, ScoreTable
from extraction_assets.evaluation.scoring import DocumentScore, score_document
from extraction_assets.schema import TargetSchema

Box = tuple[float, float, float, float]


class ImageFile(Protocol):
    """A Path or UPath."""

    def read_bytes(self) -> bytes: ...


@dataclass(frozen=True)
class Answer:
    """What one system answered to one page image."""

    text: str | None
    """raw; None: no answer"""
    finish_reason: str | None = None
    tokens: int | None = None
    """output tokens"""
    confidence: float | None = None
    """0 to 1; for the risk-coverage curve"""
    values: Mapping[str, float] | None = None
    """JSON pointer of each value -> probability of its tokens; None: not known"""


@dataclass(frozen=True)
class ReportExample:
    """One page image with its target and the systems' answers."""

    id: str
    vendor: str
    stratum: str
    document: str
    """digest or name of the document; its pages, twins and negatives are drawn together by the bootstrap"""
    gold: Mapping[str, Any]
    answers: Mapping[str, Answer]
    """system -> answer; a system without one counts as an empty answer"""
    page: int | None = None
    twin: str | None = None
    """id of the clean example that a hard negative was made of"""
    seen: bool | None = None
    """whether its vendor is in the training split"""
    what: str | None = None
    """what was done to the page, for people: "turned by 90 degrees" """
    image: ImageFile | None = None
    width: int = 0
    """px, the space of value_boxes"""
    height: int = 0
    value_boxes: Mapping[str, Sequence[Box]] = field(default_factory=dict)
    """JSON pointer into gold -> boxes (px) of the words that show the value"""
    locale: str | None = None


@dataclass(frozen=True)
class TypeExamples:
    """The examples of one document type."""

    type: str
    schema: TargetSchema
    examples: Sequence[ReportExample]


@dataclass(frozen=True)
class ScoredRun:
    """Everything scored: `systems` for the gate, `details` for the error browser."""

    types: tuple[TypeExamples, ...]
    systems: dict[str, SystemScores]
    """in the order in which they stand side by side; the last one is what the report is about"""
    details: dict[str, dict[str, list[DocumentScore]]]
    """type -> system -> scores in the order of the examples"""

    @property
    def main(self) -> str:
        return list(self.systems)[-1]


def score_examples(
    types: Sequence[TypeExamples],
    systems: Sequence[str],
    conditions: Mapping[str, str] | None = None,
    comparison: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ScoredRun:
    """Score every system's answers to every example.

    systems:    names in the order in which they stand side by side, e.g. base, champion, challenger
    conditions: digests under which all of them answered (dataset, instruction, decoding); comparisons refuse other ones

    Raises InputError for a repeated example id.
    """
    total = sum(len(one.examples) for one in types) * len(systems)
    done = 0
    tables: dict[str, dict[str, ScoreTable]] = {name: {} for name in systems}
    details: dict[str, dict[str, list[DocumentScore]]] = {}
    for one in types:
        _refuse_repeated(one)
        details[one.type] = {}
        for name in systems:
            table, scores = ScoreTable(one.schema), []
            for example in one.examples:
                answer = example.answers.get(name, Answer(None))
                score = score_document(answer.text, example.gold, one.schema, answer.finish_reason, example.locale, comparison)
                table.add(ScoredDocument(example.id, example.vendor, example.stratum, example.document, example.twin), score)
                scores.append(score)
                done += 1
                if progress:
                    progress(done, total)
            tables[name][one.type] = table
            details[one.type][name] = scores
    scored = {name: SystemScores(name, tables[name], dict(conditions or {})) for name in systems}
    return ScoredRun(tuple(types), scored, details)


def _refuse_repeated(one: TypeExamples) -> None:
    seen: set[str] = set()
    for example in one.examples:
        if example.id in seen:
            raise InputError(f"examples of {one.type}", f"{example.id!r} stands twice", "each id once")
        seen.add(example.id)
