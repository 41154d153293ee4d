from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from extraction_assets.inference.answers import Answer
from extraction_assets.inference.page_answer import PagePrompt
from extraction_assets.inference.side_by_side import side_by_side
from extraction_assets.model.examples import Example
from extraction_assets.schema import ROWS_AS_ARRAYS, TargetSchema
from extraction_assets.wire import write

ROWS = {
    "type": "array",
    "maxItems": 3,
    "items": {"type": "object", "required": ["text"], "properties": {"text": {"type": ["string", "null"]}}},
}
DOCUMENT: dict[str, Any] = {
    "type": "object",
    "required": ["number", "total", "items"],
    "properties": {
        "number": {"type": ["string", "null"], "x-type": "id"},
        "total": {"type": ["string", "null"], "x-type": "amount"},
        "items": ROWS,
    },
}
TARGET = '{"number":"A-1","total":"2.50","items":[{"text":"Bolt"}]}'


def _example(number: int, schema: TargetSchema) -> Example:
    return Example(f"page-{number}", Path("page.png"), "d", 64, 64, schema.instruction, write(schema, TARGET), schema.digest)


def _answering(texts: Sequence[str], asked: list[TargetSchema | None]) -> Any:
    def answer(prompts: Sequence[PagePrompt]) -> list[Answer]:
        asked.extend(prompt.schema for prompt in prompts)
        return [Answer(prompt.id, text, "stop", 1, 1.0) for prompt, text in zip(prompts, texts, strict=True)]

    return answer


@pytest.mark.parametrize("split_wire", ["objects", ROWS_AS_ARRAYS])
@pytest.mark.parametrize("taught_wire", ["objects", ROWS_AS_ARRAYS])
def test_pages_are_compared_one_by_one_and_scored_whatever_the_wire(split_wire: Any, taught_wire: Any) -> None:
    plain = TargetSchema(DOCUMENT, "test")
    of_split, taught = plain.on_wire(split_wire), plain.on_wire(taught_wire)
    half, unlike = TARGET.replace("2.50", "9.00"), TARGET.replace("A-1", "B")
    asked: list[TargetSchema | None] = []
    found = side_by_side(
        [_example(number, of_split) for number in range(3)],
        {of_split.digest: of_split},
        {taught.digest},
        _answering([TARGET, TARGET, half], asked),
        _answering([TARGET, unlike, "cut"], asked),
    )
    assert [schema.digest for schema in asked if schema] == [taught.digest] * 6
    assert [(page.equal, page.fields, page.right) for page in found.pages] == [(True, 2, (2, 2)), (False, 2, (2, 1)), (False, 2, (1, 0))]
    assert (found.equal, [page.id for page in found.different]) == (1, ["page-1", "page-2"])
    assert found.accuracy == (5 / 6, 3 / 6)


def test_no_page_is_no_accuracy_and_nobody_is_asked() -> None:
    def never(prompts: Sequence[PagePrompt]) -> list[Answer]:
        raise AssertionError

    assert side_by_side([], {}, (), never, never).accuracy is None
