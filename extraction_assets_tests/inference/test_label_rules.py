"""The baseline of rules reads a plain page, invents nothing on an empty one, and always answers the schema."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extraction_assets.documents.records import PageText, Word
from extraction_assets.home import PROJECT
from extraction_assets.inference.label_rules import read_by_rules
from extraction_assets.schema import TargetSchema

DEMO = {path.name.split(".")[0]: TargetSchema.load(path) for path in sorted((PROJECT / "data" / "demo" / "schemas").iterdir())}


def page(*lines: tuple[float, float, str]) -> PageText:
    """Lines at (x, y): 8 px a character, 12 px high."""
    words = []
    for number, (x, y, line) in enumerate(lines):
        for part in line.split():
            words.append(Word(text=part, box=(x, y, x + 8 * len(part), y + 12), line=number))
            x += 8 * (len(part) + 1)
    return PageText(words=tuple(words))


INVOICE = (
    (20, 20, "Nordwind Handels GmbH"),
    (20, 60, "Rechnung Nr."),
    (140, 60, "RE-2024/117"),
    (20, 80, "Rechnungsdatum"),
    (160, 80, "3. März 2024"),
    (20, 100, "Zahlbar bis"),
    (20, 116, "17.03.2024"),
    (20, 300, "Zwischensumme"),
    (300, 300, "1.234,50 €"),
    (20, 320, "MwSt"),
    (300, 320, "234,56 €"),
    (20, 340, "Gesamtbetrag"),
    (300, 340, "1.469,06 €"),
)


def test_a_plain_invoice_is_read_beside_and_below_its_labels() -> None:
    assert read_by_rules(page(*INVOICE), DEMO["invoice"]) == {
        "biller": "Nordwind Handels GmbH",
        "bill_no": "RE-2024/117",
        "billed_on": "2024-03-03",
        "pay_by": "2024-03-17",
        "cur": "EUR",
        "net": "1234.50",
        "vat": "234.56",
        "payable": "1469.06",
        "rows": [],
    }


@pytest.mark.parametrize("kind", DEMO)
def test_an_empty_page_has_nothing(kind: str) -> None:
    answer = read_by_rules(page(), DEMO[kind])
    assert all(value is None or value == [] for value in answer.values())
    assert list(answer) == DEMO[kind].document["required"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 600), st.floats(0, 800), st.text(min_size=1, max_size=30)), max_size=12))
def test_it_never_raises_and_answers_with_the_schemas_keys(lines: list[tuple[float, float, str]]) -> None:
    for schema in DEMO.values():
        answer = read_by_rules(page(*lines), schema)
        assert list(answer) == schema.document["required"]
        json.dumps(answer)
