from __future__ import annotations

import json
from typing import Any

from extraction_assets.evaluation.label_audit import LabelledDocument, Reading, audit_labels
from extraction_assets_tests.evaluation.cases import GOLD, INVOICE, gold, with_rows


def read(answer: dict[str, Any], confidence: float | None, **values: float) -> tuple[Reading, ...]:
    return (Reading(1, GOLD, answer, confidence, {f"/{name}": sure for name, sure in values.items()}),)


def test_labels_without_a_sign_against_them_are_not_listed() -> None:
    sure = LabelledDocument("a", "v", GOLD, readings=read(gold(grand_total="2.856,60"), 0.99))
    assert audit_labels([sure, LabelledDocument("b", "v", GOLD, same_as="x"), LabelledDocument("c", "v", GOLD, same_as="x")], INVOICE) == []


def test_each_sign_names_its_field_and_why() -> None:
    unplaced = (("/buyer_name", "Northwind"), ("/line_items/2/amount", "1"), ("/line_items/3/amount", "2"))
    documents = [
        LabelledDocument("sum", "v", gold(grand_total="2856.70")),
        LabelledDocument("unplaced", "v", GOLD, unplaced=unplaced),
        LabelledDocument("sure", "v", GOLD, readings=read(gold(currency="USD", due_date=None), 1.0)),
        LabelledDocument("rows", "v", GOLD, readings=read(with_rows(lambda rows: rows.pop()), 0.95)),
        LabelledDocument("twin1", "v", GOLD, same_as="g"),
        LabelledDocument("twin2", "v", gold(invoice_number="X"), same_as="g"),
    ]
    found = {label.id: label for label in audit_labels(documents, INVOICE)}
    assert {id: [(d.sign, d.field) for d in label.doubts] for id, label in found.items()} == {
        "sum": [("sum", "grand_total")],
        "unplaced": [("unplaced", "buyer_name"), ("unplaced", "line_items")],
        "sure": [("disagreement", "currency")],
        "rows": [("disagreement", "line_items")],
        "twin1": [("duplicate", "invoice_number")],
        "twin2": [("duplicate", "invoice_number")],
    }
    assert "'usd'" in found["sure"].doubts[0].why
    assert "twin2" in found["twin1"].doubts[0].why


def test_an_unsure_model_and_one_without_confidence_do_not_count() -> None:
    for confidence in (0.89, None):
        assert audit_labels([LabelledDocument("a", "v", GOLD, readings=read(gold(currency="USD"), confidence))], INVOICE) == []


def test_the_most_doubtful_label_is_first_and_order_of_input_changes_nothing() -> None:
    one = LabelledDocument("one sign", "v", GOLD, unplaced=(("/buyer_name", "x"),))
    apart = LabelledDocument("two fields", "v", GOLD, unplaced=(("/buyer_name", "x"), ("/currency", "y")))
    both = LabelledDocument("two signs", "v", GOLD, unplaced=(("/currency", "EUR"),), readings=read(gold(currency="USD"), 1.0))
    found = audit_labels([one, apart, both], INVOICE)
    assert [label.id for label in found] == ["two signs", "two fields", "one sign"]
    assert found == audit_labels([both, one, apart], INVOICE)
    json.dumps([label.as_json() for label in found], allow_nan=False)


def test_what_counts_is_how_sure_the_model_is_of_that_very_value() -> None:
    unsure_of_it = LabelledDocument("a", "v", GOLD, readings=read(gold(currency="USD"), 0.99, currency=0.5))
    sure_of_it = LabelledDocument("b", "v", GOLD, readings=read(gold(currency="USD"), 0.5, currency=0.97))
    assert [(label.id, label.doubts[0].field) for label in audit_labels([unsure_of_it, sure_of_it], INVOICE)] == [("b", "currency")]
