"""Scores any system's predictions against gold: `extraction evaluate PRED.jsonl GOLD.jsonl --schema F`.

Both files are indexed by id first, so that a bad line is refused before anything is scored; then gold is walked in file order, one
document in memory at a time. What stays is a few hundred bytes per document (score_table.py).
"""

from __future__ import annotations

import json
import os
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from extraction_assets.errors import InputError
from extraction_assets.evaluation.jsonl import Gold, Lines, Prediction, find_lines, read_gold, read_prediction
from extraction_assets.evaluation.score_table import ScoredDocument, ScoreTable
from extraction_assets.evaluation.scoring import METRIC_VERSION, DocumentScore, score_document
from extraction_assets.evaluation.strict_json import BUCKETS
from extraction_assets.evaluation.summary import summarise
from extraction_assets.schema import TargetSchema
from extraction_assets.settings import EvaluationSettings
from extraction_assets.store import TEMPORARY_PREFIX, digest_file

COMPARISON_LIMIT = 200
"""up to so many documents, ANLS* and the Donut metrics are computed without being asked for"""


def evaluate_files(
    predictions: Path,
    gold: Path,
    schema: TargetSchema,
    per_document: Path | None = None,
    settings: EvaluationSettings | None = None,
    comparison: bool | None = None,
    locale: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Score a file of predictions; every metric, overall, per field, per stratum, per vendor, with intervals, as one JSON value.

    predictions:  lines `{"id", "text"}`, the raw answer as one string; optional `"finish_reason"`
    gold:         lines `{"id", "target"}`; optional `"vendor"`, `"stratum"`, `"document"` (what the bootstrap draws together),
                  `"twin"` (id of the clean example), `"locale"` (settles dd/mm)
    per_document: where one line a document goes, in the order of gold
    comparison:   also ANLS* and Donut's metrics (slow); None: only up to COMPARISON_LIMIT documents
    locale:       of gold lines that give none

    A gold line without a prediction counts as an empty answer and is reported. Raises InputError (file:line and pointer) for bad
    lines, ids that stand twice, predictions that no gold line asks for, and targets that the schema could not score.
    """
    settings = settings or EvaluationSettings()
    _refuse_overwriting(per_document, (predictions, gold, Path(schema.source)))
    gold_lines, prediction_lines = find_lines(gold), find_lines(predictions)
    if not gold_lines.places:
        raise InputError(str(gold), "holds no line", '{"id", "target", "vendor", "stratum"} per document')
    _refuse_unknown(prediction_lines, gold_lines)
    with_comparison = len(gold_lines.places) <= COMPARISON_LIMIT if comparison is None else comparison
    table = ScoreTable(schema)
    notes = _Notes()
    with _output(per_document) as out:
        for done, (asked, said) in enumerate(_pairs(gold_lines, prediction_lines, schema), 1):
            score = score_document(
                said.text if said else None,
                asked.target,
                schema,
                finish_reason=said.finish_reason if said else None,
                locale=asked.locale or locale,
                comparison=with_comparison,
            )
            table.add(ScoredDocument(asked.id, asked.vendor, asked.stratum, asked.document, asked.twin), score)
            notes.add(asked, said, score)
            if out:
                out.write(json.dumps({"id": asked.id} | score.as_json(schema), ensure_ascii=False) + "\n")
            if progress:
                progress(done, len(gold_lines.places))
    return {
        "metric_version": METRIC_VERSION,
        "schema": {"name": schema.name, "digest": schema.digest},
        "inputs": {"predictions": digest_file(predictions), "gold": digest_file(gold)},
        "settings": settings.model_dump(mode="json"),
        "comparison_metrics": with_comparison,
        **notes.as_json(),
        **summarise(table, settings),
    }


class _Notes:
    """What a reader must know beside the rates."""

    def __init__(self) -> None:
        self.buckets: Counter[str] = Counter()
        self.problems: Counter[str] = Counter()
        self.extra_keys: Counter[str] = Counter()
        self.unanswered: list[str] = []
        self.odd_gold: list[str] = []
        self.n_unanswered = self.n_odd = 0

    def add(self, asked: Gold, said: Prediction | None, score: DocumentScore) -> None:
        self.buckets[score.bucket] += 1
        if score.problem:
            self.problems[score.problem.split(" at character ")[0]] += 1
        self.extra_keys.update(score.extra_keys)
        if said is None:
            self.n_unanswered += 1
            self.unanswered += [asked.id] if len(self.unanswered) < 10 else []
        if asked.odd:
            self.n_odd += 1
            self.odd_gold += [asked.odd] if len(self.odd_gold) < 10 else []

    def as_json(self) -> dict[str, Any]:
        return {
            "answers": {bucket: self.buckets[bucket] for bucket in BUCKETS},
            "problems": dict(sorted(self.problems.items(), key=lambda item: (-item[1], item[0]))[:20]),
            "extra_keys": dict(sorted(self.extra_keys.items(), key=lambda item: (-item[1], item[0]))[:20]),
            "missing_predictions": {"count": self.n_unanswered, "first": self.unanswered},
            "gold_outside_schema": {"count": self.n_odd, "first": self.odd_gold},
        }


def _refuse_unknown(predictions: Lines, gold: Lines) -> None:
    unknown = [id for id in predictions.places if id not in gold.places]
    if unknown:
        line = predictions.places[unknown[0]][1]
        more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
        raise InputError(
            f"{predictions.path}:{line} /id", f"{unknown[0]!r} stands in no line of {gold.path}{more}", do="Take it out, or add its gold"
        )


def _pairs(gold: Lines, predictions: Lines, schema: TargetSchema) -> Iterator[tuple[Gold, Prediction | None]]:
    """Gold in file order with its prediction."""
    with gold.path.open("rb") as gold_file, predictions.path.open("rb") as prediction_file:
        for id in gold.places:
            line, number = gold.read(gold_file, id)
            asked = read_gold(gold.path, number, line, schema)
            said = None
            if id in predictions.places:
                line, number = predictions.read(prediction_file, id)
                said = read_prediction(predictions.path, number, line)
            yield asked, said


def _refuse_overwriting(out: Path | None, inputs: tuple[Path, ...]) -> None:
    """The output takes its name by a rename, which would put a file in the place of an input, or of a device such as /dev/null."""
    if out is None or not out.exists():
        return
    if not out.is_file():
        raise InputError(str(out), "is no regular file", "the name of a file, new or to be replaced")
    if any(path.exists() and out.samefile(path) for path in inputs):
        raise InputError(str(out), "is one of the inputs", "another file for the scores")


@contextmanager
def _output(path: Path | None) -> Iterator[TextIO | None]:
    """A temporary neighbour that takes the name once everything is written; nothing stays behind after an error."""
    if path is None:
        yield None
        return
    temporary = path.parent / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(str(path), f"cannot be written: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)
