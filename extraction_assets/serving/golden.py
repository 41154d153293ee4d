"""Does this machine answer the golden pages as the bundle says? A server that does not never becomes ready."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from extraction_assets.errors import InputError
from extraction_assets.evaluation.strict_json import parse_answer
from extraction_assets.inference.page_answer import Answer, PagePrompt
from extraction_assets.serving.bundle import Bundle
from extraction_assets.settings import DecodingSettings


@dataclass(frozen=True)
class GoldenCheck:
    pages: int
    equal: int
    """pages answered to the byte"""
    agreement: float
    """share of the golden answers' values that were given"""


class Answers(Protocol):
    """A model, wherever it runs (Answerer, VllmAnswerer)."""

    def answer(self, pages: Sequence[PagePrompt], settings: DecodingSettings) -> list[Answer]: ...


def check_golden(bundle: Bundle, answerer: Answers) -> GoldenCheck:
    """Raises InputError where fewer values agree than the bundle's golden_agreement asks for."""
    manifest = bundle.manifest
    answers = answerer.answer(bundle.prompts(), manifest.decoding)
    equal = sum(answer.text == page.text for page, answer in zip(manifest.golden, answers, strict=True))
    found = [parse_answer(answer.text, answer.finish_reason).value for answer in answers]
    check = GoldenCheck(len(answers), equal, agreement(bundle, found))
    asked = manifest.serving.golden_agreement
    if check.agreement < asked:
        raise InputError(
            str(bundle.folder),
            f"this machine answers {check.agreement:.3f} of the golden values as the bundle says",
            f"at least {asked:g}",
            "Serve it with the library versions that it was made with, or make the bundle anew here",
        )
    return check


def agreement(bundle: Bundle, answers: Sequence[object]) -> float:
    """Share of the golden answers' values that `answers` give, page by page; None stands for an answer that is no JSON."""
    same, values = 0, 0
    for page, answer in zip(bundle.manifest.golden, answers, strict=True):
        wanted, found = _leaves(parse_answer(page.text, "stop").value), _leaves(answer)
        values += max(len(wanted), len(found))
        same += sum(key in found and found[key] == value for key, value in wanted.items())
    return same / values if values else 1.0


def _leaves(value: object, pointer: str = "") -> dict[str, object]:
    """JSON pointer -> value that holds no other; an answer that is no JSON is one value, None."""
    if isinstance(value, dict) and value:
        return {at: leaf for key, part in value.items() for at, leaf in _leaves(part, f"{pointer}/{key}").items()}
    if isinstance(value, list) and value:
        return {at: leaf for index, part in enumerate(value) for at, leaf in _leaves(part, f"{pointer}/{index}").items()}
    return {pointer: value}
