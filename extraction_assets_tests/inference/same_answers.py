"""Every way to compute an answer gives the same one: forced tokens or none, drafts true, wrong or none, one page at a time or eight.

    python -m extraction_assets_tests.inference.same_answers [--pages 500]

The reference is the plainest way: one page, one token a pass, the grammar's mask alone. The command answers generated demo pages with the
embedded base in float32 and prints, for each other way, how many answers are the same to the byte and how far any logit behind a chosen
token is from the reference's. Exits 1 if an answer differs or a logit is off by more than TOLERANCE.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from unittest import mock

import torch

from extraction_assets.documents.records import PageText
from extraction_assets.inference.answers import Answerer
from extraction_assets.inference.matcher import Matcher
from extraction_assets.inference.page_answer import Answer, PagePrompt
from extraction_assets.settings import DecodingSettings

TOLERANCE = 1e-4
"""between logits of float32; they are of the order of 10"""
_GROUP = 8
"""pages whose reference logits are in memory together"""
Logits = dict[tuple[str, int], torch.Tensor]
"""(page, tokens of the answer before it) -> (vocabulary,) what the next token was chosen from, before any mask"""
Drafts = Callable[[Sequence[PagePrompt], int], PageText | None]
"""(pages, number of one) -> the text that it is drafted from"""


@dataclass(frozen=True)
class Way:
    name: str
    batch: int
    forced: bool
    drafts: Drafts


@dataclass
class Compared:
    """What one way did beside the reference."""

    same: int = 0
    different: list[str] = field(default_factory=list)
    farthest: float = 0.0
    """largest difference of any logit at a place where both have said the same so far"""
    logits: int = 0
    """places compared"""
    passes: int = 0
    tokens: int = 0
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        return not self.different and self.farthest <= TOLERANCE


def none(pages: Sequence[PagePrompt], number: int) -> PageText | None:
    return None


def own(pages: Sequence[PagePrompt], number: int) -> PageText | None:
    return pages[number].text


def another_page(pages: Sequence[PagePrompt], number: int) -> PageText | None:
    return pages[number - 1].text


def shuffled(pages: Sequence[PagePrompt], number: int) -> PageText | None:
    """The page's own words, each in another's place."""
    text = pages[number].text
    if text is None:
        return None
    words = random.Random(pages[number].id).sample(text.words, len(text.words))
    return PageText(words=tuple(word.model_copy(update={"line": at.line}) for word, at in zip(words, text.words, strict=True)))


REFERENCE = Way("one token a pass", 1, False, none)
WAYS = (
    Way("one token a pass, batch 8", 8, False, none),
    Way("forced tokens", 1, True, none),
    Way("forced tokens, batch 8", 8, True, none),
    Way("forced tokens, drafts", 1, True, own),
    Way("forced tokens, drafts, batch 8", 8, True, own),
    Way("drafts alone", 1, False, own),
    Way("shuffled words as drafts, batch 8", 8, True, shuffled),
    Way("another page's text as drafts, batch 8", 8, True, another_page),
)


def compare(
    answerer: Answerer, pages: Sequence[PagePrompt], most: int, go_on: Callable[[int], bool] = lambda done: True
) -> tuple[Compared, dict[str, Compared]]:
    """(the reference's own counts; each of WAYS beside it). most: output tokens of an answer. go_on: told the pages done, may end it."""
    told = {way.name: Compared() for way in WAYS}
    plain = Compared()
    for start in range(0, len(pages), _GROUP):
        group = pages[start : start + _GROUP]
        expected, reference = _answer(answerer, group, REFERENCE, most, plain)
        for way in WAYS:
            answers, logits = _answer(answerer, group, way, most, told[way.name])
            _compare(told[way.name], expected, answers, reference, logits)
        plain.same += len(group)
        if not go_on(plain.same):
            break
    return plain, told


def _answer(answerer: Answerer, pages: Sequence[PagePrompt], way: Way, most: int, counts: Compared) -> tuple[list[Answer], Logits]:
    asked = [replace(page, text=way.drafts(pages, number)) for number, page in enumerate(pages)]
    started = time.perf_counter()
    with _recorded(answerer) as logits, _forced(way.forced):
        answers = answerer.answer(asked, DecodingSettings(max_output_tokens=most, batch_size=way.batch))
    counts.seconds += time.perf_counter() - started
    counts.passes += sum(answer.passes for answer in answers)
    counts.tokens += sum(answer.tokens for answer in answers)
    return answers, logits


def _compare(told: Compared, expected: Sequence[Answer], answers: Sequence[Answer], reference: Logits, logits: Logits) -> None:
    for answer, other in zip(answers, expected, strict=True):
        if (answer.text, answer.finish_reason, answer.tokens) == (other.text, other.finish_reason, other.tokens):
            told.same += 1
        else:
            told.different.append(_difference(answer, other, reference))
            continue  # behind the first difference the two are asked different questions
        for place in (place for place in logits if place[0] == answer.id):
            told.farthest = max(told.farthest, float((logits[place] - reference[place]).abs().max()))
            told.logits += 1


def _difference(answer: Answer, other: Answer, reference: Logits) -> str:
    at = next((i for i, (a, b) in enumerate(zip(answer.text, other.text, strict=False)) if a != b), min(len(answer.text), len(other.text)))
    return f"{answer.id}, character {at}: {answer.text[at : at + 24]!r} instead of {other.text[at : at + 24]!r}"


@contextmanager
def _recorded(answerer: Answerer) -> Iterator[Logits]:
    """Every choice's logits, while inside."""
    logits: Logits = {}
    real = answerer._choose

    def choose(sequences: list, given: torch.Tensor) -> None:  # type: ignore[type-arg]  # the loop's own sequences
        for sequence, row in zip(sequences, given, strict=True):
            logits[sequence.id, len(sequence.tokens)] = row.float().cpu().clone()
        real(sequences, given)

    with mock.patch.object(answerer, "_choose", choose):
        yield logits


@contextmanager
def _forced(forced: bool) -> Iterator[None]:
    if forced:
        yield
    else:
        with mock.patch.object(Matcher, "forced", _nothing):  # the mask then leaves one token where one must follow
            yield


def _nothing(_: Matcher) -> list[int]:
    return []


def demo_pages(count: int, seed: int) -> list[PagePrompt]:
    """Generated invoices, receipts and purchase orders as the demo home has them, with their text layers."""
    from extraction_assets.demo.vendors.generated_set import make_document
    from extraction_assets.demo.vendors.vendor import TYPES
    from extraction_assets.demonstration import DEMO_FOLDER
    from extraction_assets.documents.rendering import render_bytes
    from extraction_assets.schema import TargetSchema
    from extraction_assets.settings_file import load_settings

    render = load_settings(DEMO_FOLDER / "settings.yaml").render
    schemas = {kind: TargetSchema.load(DEMO_FOLDER / "schemas" / f"{kind}.schema.json") for kind in TYPES}
    pages: list[PagePrompt] = []
    for number in range(count):
        kind = TYPES[number % len(TYPES)]
        document = make_document(seed, number % 30 + 1, number // 30 + 1, kind)
        for page in render_bytes(document.pdf, render).pages:
            record = page.record
            name = f"{document.stem} p{record.page}"
            pages.append(
                PagePrompt(name, schemas[kind].instruction, page.png, record.width, record.height, schema=schemas[kind], text=page.text)
            )
        if len(pages) >= count:
            break
    return pages[:count]


def main() -> int:
    from extraction_assets.demonstration import DEMO_FOLDER
    from extraction_assets.home import PROJECT
    from extraction_assets.model.base import load_base
    from extraction_assets.settings_file import load_settings

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=500)
    parser.add_argument("--seed", type=int, default=77, help="of the generated vendors; the demo's own is 0")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no further group of pages after so long")
    arguments = parser.parse_args()
    settings = load_settings(DEMO_FOLDER / "settings.yaml")
    answerer = Answerer.of(load_base(PROJECT / "data" / settings.base_model, dtype=torch.float32))
    pages = demo_pages(arguments.pages, arguments.seed)
    most = settings.decoding.max_output_tokens
    end = time.monotonic() + 60 * arguments.minutes

    def go_on(done: int) -> bool:
        print(f"{done} of {len(pages)} pages", file=sys.stderr, flush=True)
        return time.monotonic() < end

    plain, told = compare(answerer, pages, most, go_on)
    print(
        f"{plain.same} of {len(pages)} pages; {REFERENCE.name}: {plain.passes:,} passes for {plain.tokens:,} tokens, {plain.seconds:.0f} s"
    )
    print(f"{'':42}{'same':>6}{'farthest logit':>16}{'logits':>9}{'passes':>9}{'s':>7}")
    for name, one in told.items():
        print(f"{name:42}{one.same:>6}{one.farthest:>16.1e}{one.logits:>9,}{one.passes:>9,}{one.seconds:>7.0f}")
        for line in one.different[:5]:
            print(f"    {line}")
    return 0 if all(one.holds for one in told.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
