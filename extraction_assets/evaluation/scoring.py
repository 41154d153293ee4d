"""Scores one answer against one gold target: the definitions, in one place, for one document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from extraction_assets.evaluation.comparison_metrics import ComparisonScores, score_comparison
from extraction_assets.evaluation.consistency import amount_roles, amounts_consistent
from extraction_assets.evaluation.normalise import normalise, raw
from extraction_assets.evaluation.rows import RowScore, score_rows, value_at
from extraction_assets.evaluation.strict_json import MAX_DEPTH, Bucket, ParsedAnswer, depth, parse_answer
from extraction_assets.schema import TargetSchema

METRIC_VERSION = "1"
"""goes up whenever the same answer could get another score; reports of different versions are not compared"""

Outcome = Literal["match", "wrong", "missing", "hallucinated", "correct_absence"]
OUTCOMES: tuple[Outcome, ...] = ("match", "wrong", "missing", "hallucinated", "correct_absence")
RIGHT: frozenset[Outcome] = frozenset({"match", "correct_absence"})


@dataclass(frozen=True)
class DocumentScore:
    """One answer's score. Field names are dotted paths in target order."""

    bucket: Bucket
    strict_json: bool
    recoverable: bool
    truncated: bool
    problem: str | None
    schema_valid: bool
    fields: Mapping[str, Outcome]
    raw_exact: Mapping[str, bool]
    """per field: right without any normalisation"""
    rows: Mapping[str, RowScore]
    """per array"""
    extra_keys: tuple[str, ...]
    """keys that the schema does not have, dotted, each once"""
    document_exact: bool
    amounts_consistent: bool | None
    """None: nothing to add up"""
    gold_consistent: bool | None
    comparison: ComparisonScores | None

    @property
    def right_fields(self) -> int:
        return sum(outcome in RIGHT for outcome in self.fields.values())

    @property
    def field_accuracy(self) -> float:
        """(match + correct_absence) / fields; 1 for a schema without header fields"""
        return self.right_fields / len(self.fields) if self.fields else 1.0

    def pooled(self, metric: Literal["row_exact_f1", "row_detect_f1", "cell_f1"]) -> tuple[int, int]:
        """(2 hits, gold + answer) summed over the arrays: numerator and denominator of the F1."""
        scores = self.rows.values()
        if metric == "row_exact_f1":
            return 2 * sum(s.exact for s in scores), sum(s.gold_rows + s.answer_rows for s in scores)
        if metric == "row_detect_f1":
            return 2 * sum(len(s.pairs) for s in scores), sum(s.gold_rows + s.answer_rows for s in scores)
        return 2 * sum(s.equal_cells for s in scores), sum(s.gold_cells + s.answer_cells for s in scores)

    def as_json(self, schema: TargetSchema) -> dict[str, Any]:
        """One line of --per-document (without its id). Row metrics carry the array's name where there is more than one."""
        line: dict[str, Any] = {
            "strict_json": self.strict_json,
            "schema_valid": self.schema_valid,
            "recoverable": self.recoverable,
            "truncated": self.truncated,
            "problem": self.problem,
            "fields": dict(self.fields),
            "raw_exact": dict(self.raw_exact),
            "field_accuracy": rounded(self.field_accuracy),
        }
        for array in schema.row_arrays:
            prefix = f"{array.name}." if len(schema.row_arrays) > 1 else ""
            score = self.rows[array.name]
            line |= {
                f"{prefix}row_exact_f1": rounded(score.row_exact_f1),
                f"{prefix}row_detect_f1": rounded(score.row_detect_f1),
                f"{prefix}cell_f1": rounded(score.cell_f1),
                f"{prefix}column_accuracy": {c.name: rounded(v) for c, v in zip(array.columns, score.column_accuracy(), strict=True)},
                f"{prefix}row_order_kept": score.order_kept,
                f"{prefix}row_count_error": score.count_error,
            }
        line |= {
            "extra_keys": list(self.extra_keys),
            "document_exact": self.document_exact,
            "amount_consistency": self.amounts_consistent,
        }
        if self.comparison:
            line |= {name: rounded(getattr(self.comparison, name)) for name in ("anls_star", "donut_f1", "donut_nted")}
        return line


def rounded(value: float | None) -> float | None:
    """Six digits behind the point: enough to compare, few enough to be the same on every machine."""
    return None if value is None else round(value, 6)


def score_document(
    answer: Any,
    gold: Mapping[str, Any],
    schema: TargetSchema,
    finish_reason: str | None = None,
    locale: str | None = None,
    comparison: bool = False,
) -> DocumentScore:
    """Score one answer. Never raises, whatever the answer is.

    answer:     the raw text (str or bytes; None: there is none), or an already parsed JSON value
    gold:       the target
    locale:     the vendor's, settles dd/mm against mm/dd
    comparison: also ANLS* and the Donut metrics (slow)

    An answer that is not strict JSON is scored as an empty one: what it holds cannot be used by whoever parses it.
    """
    parsed = parse_answer(answer, finish_reason) if isinstance(answer, (str, bytes, type(None))) else _already_parsed(answer)
    value = parsed.value or {}
    fields, raw_exact = _score_fields(value, gold, schema, locale)
    rows = {array.name: score_rows(value_at(value, array.path), value_at(gold, array.path), array, locale) for array in schema.row_arrays}
    extra = tuple(sorted(_extra_keys(value, schema.document, "")))
    schema_valid = parsed.strict and _is_valid(value, schema)
    roles = _roles(schema)
    return DocumentScore(
        bucket=parsed.bucket,
        strict_json=parsed.strict,
        recoverable=parsed.recoverable,
        truncated=parsed.truncated,
        problem=parsed.problem,
        schema_valid=schema_valid,
        fields=fields,
        raw_exact=raw_exact,
        rows=rows,
        extra_keys=extra,
        document_exact=(
            parsed.strict
            and schema_valid
            and not extra
            and all(outcome in RIGHT for outcome in fields.values())
            and all(score.all_exact for score in rows.values())
        ),
        amounts_consistent=amounts_consistent(value, roles, locale),
        gold_consistent=amounts_consistent(gold, roles, locale),
        comparison=score_comparison(parsed.value, dict(gold)) if comparison else None,
    )


def field_outcome(answer: str | None, gold: str | None) -> Outcome:
    """One of five, from two canonical values."""
    if gold is None:
        return "correct_absence" if answer is None else "hallucinated"
    if answer is None:
        return "missing"
    return "match" if answer == gold else "wrong"


def _score_fields(
    value: Mapping[str, Any], gold: Mapping[str, Any], schema: TargetSchema, locale: str | None
) -> tuple[dict[str, Outcome], dict[str, bool]]:
    outcomes: dict[str, Outcome] = {}
    raw_exact: dict[str, bool] = {}
    for leaf in schema.fields:
        said, asked = value_at(value, leaf.path), value_at(gold, leaf.path)
        outcomes[leaf.name] = field_outcome(normalise(said, leaf.type, locale), normalise(asked, leaf.type, locale))
        raw_exact[leaf.name] = raw(said) == raw(asked)
    return outcomes, raw_exact


def _already_parsed(value: Any) -> ParsedAnswer:
    if depth(value) > MAX_DEPTH:
        return ParsedAnswer(False, None, False, None, f"nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        return ParsedAnswer(True, value, False, None, None)
    return ParsedAnswer(False, None, False, None, f"the top is {type(value).__name__}, not an object")


def _extra_keys(value: Any, schema: dict[str, Any], path: str) -> set[str]:
    found: set[str] = set()
    if isinstance(value, dict) and "properties" in schema:
        for key, child in value.items():
            here = f"{path}.{key}" if path else str(key)
            found |= _extra_keys(child, schema["properties"][key], here) if key in schema["properties"] else {here}
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for item in value:
            found |= _extra_keys(item, schema["items"], path)
    return found


def _is_valid(value: Any, schema: TargetSchema) -> bool:
    try:
        return schema.is_valid(value)
    except (ValueError, OverflowError, TypeError, RecursionError):  # numbers beyond 64 bits and other values that the validator cannot hold
        return False


@lru_cache(maxsize=64)
def _roles(schema: TargetSchema) -> Any:
    return amount_roles(schema)
