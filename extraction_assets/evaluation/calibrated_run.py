"""Calibration of a scored run: learnt on its val answers, judged on its test answers."""

from __future__ import annotations

from typing import Any

from extraction_assets.evaluation.calibration import JudgedPage, judge, judged_page, route, units_of
from extraction_assets.evaluation.run import ScoredRun
from extraction_assets.evaluation.strict_json import parse_answer
from extraction_assets.settings import EvaluationSettings


def calibrate(val: ScoredRun, test: ScoredRun, settings: EvaluationSettings) -> dict[str, Any]:
    """What the main system's confidences are worth: see calibration.judge, and under "val_pages" how many pages it was learnt on."""
    learnt, _ = judged_pages(val)
    routing = route(learnt, settings.target_error, settings.bootstrap, settings.seed)
    pages, unread = judged_pages(test)
    return {"val_pages": len(learnt), **judge(pages, routing, unread)}


def judged_pages(run: ScoredRun) -> tuple[list[JudgedPage], int]:
    """(the main system's pages in strict JSON of the schema, how many others there are)."""
    pages: list[JudgedPage] = []
    others = 0
    for one in run.types:
        for example, score in zip(one.examples, run.details[one.type][run.main], strict=True):
            answer = example.answers.get(run.main)
            if answer is None or answer.values is None or not score.schema_valid:
                others += 1
                continue
            value = parse_answer(answer.text, answer.finish_reason).value or {}
            units = units_of(value, answer.values, one.schema)
            pages.append(judged_page(example.vendor, example.document, units, score))
    return pages, others
