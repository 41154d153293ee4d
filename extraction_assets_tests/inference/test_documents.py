"""Page answers merged into a document answer by the rule that documents.py states."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from extraction_assets.inference.documents import merge_pages
from extraction_assets.schema import TargetSchema

SCHEMA = TargetSchema(
    {
        "type": "object",
        "required": ["number", "date", "total", "seller", "references", "line_items"],
        "properties": {
            "number": {"type": ["string", "null"], "x-type": "id"},
            "date": {"type": ["string", "null"], "x-type": "date"},
            "total": {"type": ["string", "null"], "x-type": "amount"},
            "seller": {"type": "object", "required": ["name"], "properties": {"name": {"type": ["string", "null"]}}},
            "references": {"type": "array", "items": {"type": "string"}},
            "line_items": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["text", "amount"],
                    "properties": {"text": {"type": "string"}, "amount": {"type": ["string", "null"], "x-type": "amount"}},
                },
            },
        },
    },
    "invoice",
)


def page(**fields: Any) -> dict[str, Any]:
    return SCHEMA.complete(fields)


def row(text: str, amount: str | None = None) -> dict[str, Any]:
    return {"text": text, "amount": amount}


def test_each_field_comes_from_the_page_that_shows_it() -> None:
    first = page(number="A-1", seller={"name": "Müller"}, line_items=[row("bolt", "1.00")])
    last = page(total="3.50", line_items=[row("nut", "2.50")])
    merged = merge_pages([(2, last), (1, first)], SCHEMA)
    rows = [row("bolt", "1.00"), row("nut", "2.50")]
    assert merged.answer == page(number="A-1", seller={"name": "Müller"}, total="3.50", line_items=rows)
    assert list(merged.answer) == ["number", "date", "total", "seller", "references", "line_items"]
    assert merged.complete
    assert merged.conflicts == ()


def test_two_spellings_of_a_value_are_no_conflict() -> None:
    merged = merge_pages([(1, page(date="2024-05-03", total="1234.50")), (2, page(date="3 May 2024", total="1,234.50"))], SCHEMA)
    assert merged.conflicts == ()
    assert (merged.answer["date"], merged.answer["total"]) == ("2024-05-03", "1234.50")


def test_what_most_pages_say_counts_and_the_conflict_is_listed() -> None:
    merged = merge_pages([(1, page(number="A-7", total="1.00")), (2, page(number="A-1")), (3, page(number="a-1", total="1.00"))], SCHEMA)
    assert merged.answer["number"] == "A-1"
    (conflict,) = merged.as_json()["conflicts"]
    values = [{"page": 1, "value": "A-7"}, {"page": 2, "value": "A-1"}, {"page": 3, "value": "a-1"}]
    assert conflict == {"field": "number", "taken": "A-1", "values": values}


def test_between_equals_the_last_amount_and_the_first_of_anything_else_counts() -> None:
    merged = merge_pages([(1, page(number="A-1", total="10.00")), (2, page(number="A-2", total="25.00"))], SCHEMA)
    assert (merged.answer["number"], merged.answer["total"]) == ("A-1", "25.00")
    assert [conflict.field for conflict in merged.conflicts] == ["number", "total"]


def test_lists_are_joined_and_rows_that_repeat_are_kept() -> None:
    first, second = page(references=["a", "b"], line_items=[row("bolt")]), page(references=["b", "c"], line_items=[row("bolt")])
    merged = merge_pages([(1, first), (2, second)], SCHEMA)
    assert merged.answer["references"] == ["a", "b", "c"]
    assert merged.answer["line_items"] == [row("bolt"), row("bolt")]
    assert merged.conflicts == ()


def test_a_page_that_was_not_read_is_named() -> None:
    merged = merge_pages([(1, page(number="A-1")), (2, None)], SCHEMA)
    assert merged.answer["number"] == "A-1"
    assert not merged.complete
    assert merged.unread_pages == (2,)
    assert merge_pages([(1, None)], SCHEMA).answer == SCHEMA.empty()


@given(st.lists(st.dictionaries(st.sampled_from(["number", "date", "total"]), st.text(max_size=4)), min_size=1, max_size=5), st.randoms())
def test_the_order_in_which_pages_arrive_does_not_matter(answers: list[dict[str, str]], random: Any) -> None:
    pages = [(number, page(**answer)) for number, answer in enumerate(answers, 1)]
    shuffled = random.sample(pages, len(pages))
    assert merge_pages(shuffled, SCHEMA) == merge_pages(pages, SCHEMA)


@given(st.lists(st.fixed_dictionaries({"number": st.text(min_size=1, max_size=4)}), max_size=4))
def test_what_is_merged_stands_on_some_page(answers: list[dict[str, str]]) -> None:
    merged = merge_pages([(number, page(**answer)) for number, answer in enumerate(answers, 1)], SCHEMA)
    assert merged.answer["number"] in (None, *(answer["number"] for answer in answers))
