"""Promises about page targets: the text layer decides which page shows which value."""

import json
import sys
from typing import Any

import pymupdf
import pytest

from extraction_assets.dataset.page_targets import build_page_targets
from extraction_assets.dataset.records import VendorTargets
from extraction_assets.demo.vendors import TYPES, make_document
from extraction_assets.demonstration import DEMO_FOLDER
from extraction_assets.documents.records import PageText, Word
from extraction_assets.errors import InputError
from extraction_assets.inference.documents import merge_pages
from extraction_assets.schema import TargetSchema
from extraction_assets.settings import TargetSettings
from extraction_assets.store import Store
from extraction_assets_tests.dataset.paper import document_id, field, invoice_schema, page_of, pdf_page, table, vendor_labels, vendor_pages

DOC = document_id("one")
ROWS = [
    ["Description", "Qty", "Unit", "Price", "Amount"],
    ["Blue paint", "2", "pcs", "10,00", "20,00"],
    ["Brush, large", "1", "pcs", "4,50", "4,50"],
    ["Blue paint", "2", "pcs", "10,00", "20,00"],
]
LABEL: dict[str, Any] = {
    "number": "RE-2024/17",
    "date": "2024-03-05",
    "seller": "Müller & Söhne GmbH",
    "currency": "EUR",
    "total": "44.50",
    "rows": [
        {"description": "Blue paint", "quantity": "2.0000", "unit": "C62", "price": "10.00", "amount": "20.00"},
        {"description": "Brush, large", "quantity": "1", "unit": "C62", "price": "4.50", "amount": "4.50"},
        {"description": "Blue paint", "quantity": "2", "unit": "C62", "price": "10", "amount": "20"},
    ],
}
HEAD = [(50, 60, "MÜLLER & SÖHNE GMBH"), (50, 100, "Rechnung RE - 2024 / 17"), (50, 120, "vom 5. März 2024")]


def build(
    store: Store, pages: list[list[Any]], label: dict[str, Any] = LABEL, schema: TargetSchema | None = None, **settings: Any
) -> VendorTargets:
    images = [page_of(store, DOC, number, lines) for number, lines in enumerate(pages, start=1)]
    return build_page_targets(
        vendor_labels({DOC: label}), vendor_pages(images), schema or invoice_schema(), TargetSettings(**settings), store
    )


def parsed(targets: VendorTargets) -> list[dict[str, Any]]:
    return [json.loads(target.target) for target in targets.targets]


def test_every_value_that_a_page_shows_is_in_its_target_however_it_is_spelled(store: Store) -> None:
    targets = build(store, [[*HEAD, *table(ROWS), (400, 300, "Summe 44,50 €")]])
    assert parsed(targets) == [LABEL]
    assert targets.unplaced == ()


def test_a_target_is_spelled_compactly_in_schema_order(store: Store) -> None:
    backwards = dict(reversed(list(LABEL.items())))
    spelled = build(store, [[*HEAD, *table(ROWS), (400, 300, "44,50 €")]], backwards).targets[0].target
    assert spelled == invoice_schema().spell(LABEL)
    assert list(json.loads(spelled)) == ["number", "date", "seller", "currency", "total", "rows"]


def test_rows_and_values_go_to_the_page_where_they_stand_and_are_null_elsewhere(store: Store) -> None:
    first = [*HEAD, *table(ROWS[:3])]
    second = [(50, 60, "Seite 2 zu RE-2024/17"), *table([ROWS[0], ROWS[3]]), (400, 400, "Gesamt EUR 44,50")]
    one, two, three = parsed(build(store, [first, second, [(50, 60, "Allgemeine Bedingungen")]]))
    assert [row["description"] for row in one["rows"]] == ["Blue paint", "Brush, large"]
    assert [row["description"] for row in two["rows"]] == ["Blue paint"]
    assert (one["total"], two["total"]) == (None, "44.50")
    assert (one["number"], two["number"]) == ("RE-2024/17", "RE-2024/17"), "a value that stands on several pages stays on each"
    assert (one["date"], two["date"]) == ("2024-03-05", None)
    assert three == json.loads(invoice_schema().spell({}))


def test_a_value_that_stands_nowhere_is_null_and_reported(store: Store) -> None:
    targets = build(store, [[*HEAD, *table(ROWS)]])
    assert parsed(targets)[0]["total"] is None
    assert [(value.pointer, value.value) for value in targets.unplaced] == [("/currency", "EUR"), ("/total", "44.50")]


def test_or_its_document_is_dropped_by_setting(store: Store) -> None:
    targets = build(store, [[*HEAD, *table(ROWS)]], unplaced_values="drop")
    assert targets.targets == ()
    assert targets.dropped_documents == (DOC,)
    assert targets.unplaced


def test_a_cell_that_its_row_does_not_show_is_null_and_a_row_that_stands_nowhere_is_gone(store: Store) -> None:
    label = {**LABEL, "rows": [{**LABEL["rows"][0], "price": "12.34"}, {"description": "Gold leaf", "amount": "999.00"}]}
    targets = build(store, [[*HEAD, *table(ROWS), (400, 300, "44,50 €")]], label)
    (row,) = parsed(targets)[0]["rows"]
    assert row == {"description": "Blue paint", "quantity": "2.0000", "unit": "C62", "price": None, "amount": "20.00"}
    assert {value.pointer for value in targets.unplaced} == {"/rows/0/price", "/rows/1"}


def test_a_printed_row_serves_one_row_of_the_label(store: Store) -> None:
    label = {**LABEL, "rows": [LABEL["rows"][0]] * 3}
    targets = build(store, [[*HEAD, *table(ROWS), (400, 300, "44,50 €")]], label)
    assert len(parsed(targets)[0]["rows"]) == 2, "Blue paint is printed twice, not three times"


def test_a_number_of_the_next_row_does_not_fill_a_gap(store: Store) -> None:
    rows = [["Anvil", "", "", "50,00", "50,00"], ["Bolt", "7", "", "1,00", "7,00"]]
    label = {
        **LABEL,
        "rows": [{"description": "Anvil", "quantity": "7", "price": "50", "amount": "50"}, {"description": "Bolt", "quantity": "7"}],
    }
    first, second = parsed(build(store, [[*HEAD, *table(rows)]], label))[0]["rows"]
    assert first["quantity"] is None
    assert second["quantity"] == "7"


def test_a_kind_is_answered_by_the_pages_that_show_something(store: Store) -> None:
    kinds = {"type": ["string", "null"], "enum": ["invoice", "credit_note", None], "x-type": "code"}
    schema = invoice_schema(kind=kinds, paid=field("code", "boolean"))
    pages = [HEAD, [(50, 60, "Allgemeine Bedingungen")], [(50, 60, "Seite 3 zu RE-2024/17")]]
    found = parsed(build(store, pages, {"number": "RE-2024/17", "kind": "credit_note", "paid": False}, schema))
    assert [(target["kind"], target["paid"]) for target in found] == [("credit_note", False), (None, None), ("credit_note", False)]


def test_each_value_of_a_plain_list_is_looked_for_by_itself(store: Store) -> None:
    orders = {"type": "array", "items": {"type": ["string", "null"]}, "x-type": "id"}
    label = {"number": "RE-2024/17", "orders": ["PO-11", "PO-12", "PO-13"]}
    targets = build(store, [[*HEAD, (50, 200, "PO-11")], [(50, 60, "PO-11 PO-13")]], label, invoice_schema(orders=orders))
    assert [target["orders"] for target in parsed(targets)] == [["PO-11"], ["PO-11", "PO-13"]]
    assert [value.pointer for value in targets.unplaced] == ["/orders/1"]


def test_a_description_that_is_wrapped_in_its_cell_is_found(store: Store) -> None:
    lines = [(50, 200, "Künstliche Gestal-"), (250, 200, "1"), (400, 200, "160,00"), (480, 200, "160,00"), (50, 213, "tung (Stunde)")]
    label = {**LABEL, "rows": [{"description": "Künstliche Gestaltung (Stunde)", "quantity": "1", "price": "160", "amount": "160"}]}
    assert parsed(build(store, [[*HEAD, *lines]], label))[0]["rows"][0]["description"] == "Künstliche Gestaltung (Stunde)"


def test_the_amount_of_a_row_is_not_the_total_where_the_total_stands_by_itself(store: Store) -> None:
    label = {**LABEL, "total": "20.00", "rows": [LABEL["rows"][0]]}
    one, two = parsed(build(store, [[*HEAD, *table(ROWS[:2])], [(50, 60, "Zu zahlen: 20,00 €")]], label))
    assert (one["total"], two["total"]) == (None, "20.00")


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        ("12", "2012"),
        ("501", "RE-2014/501"),
        ("20.00", "120.00"),
        ("20.00", "20.001"),
        ("1234", "12345"),
        ("-20.00", "20.00"),
        ("20.00", "-20.00"),
    ],
)
def test_a_value_is_not_found_inside_another(store: Store, value: str, printed: str) -> None:
    kind = "amount" if "." in value else "id"
    schema = invoice_schema(extra=field(kind))
    targets = build(store, [[*HEAD, (50, 200, f"Nummer {printed} Ende")]], {"number": "RE-2024/17", "extra": value}, schema)
    assert parsed(targets)[0]["extra"] is None


@pytest.mark.parametrize(
    ("kind", "value", "lines"),
    [
        ("id", "AB-12 345", ["Ref: AB12345."]),
        ("id", "AB12345", ["AB-12-", "345"]),
        ("text", "Office supplies", ["oﬃce", "SUPPLIES,"]),
        ("text", "Straße 5", ["STRASSE 5"]),
        ("amount", "1234567.5", ["1 234 567,50"]),
        ("amount", "850.00", ["£850"]),
        ("amount", "-12.50", ["- 12,50"]),
        ("number", "20.0000", ["20"]),
        ("number", "19", ["19,00%"]),
        ("code", "USD", ["$12.00"]),
        ("code", "CHF", ["Fr. 12.00"]),
        ("code", "PLN", ["12,00 zł"]),
        ("date", "6/30/20", ["Jun30/20"]),
    ],
)
def test_spelling_does_not_hide_a_value(store: Store, kind: str, value: str, lines: list[str]) -> None:
    schema = invoice_schema(extra=field(kind))
    page = [*HEAD, *((50, 200 + 12 * i, line) for i, line in enumerate(lines))]
    assert parsed(build(store, [page], {"number": "RE-2024/17", "extra": value}, schema))[0]["extra"] == value


def test_boxes_name_the_words_of_every_value(store: Store) -> None:
    targets = build(store, [[*HEAD, *table(ROWS), (400, 300, "Summe 44,50 €"), (50, 700, "44,50")]])
    target = targets.targets[0]
    words = PageText.model_validate(store.read_json(target.text or "")).words
    shown = {pointer: [word.text for word in words if word.box in boxes] for pointer, boxes in target.value_boxes.items()}
    assert shown["/total"] == ["44,50", "44,50"]
    assert shown["/rows/1/description"] == ["Brush,", "large"]
    assert shown["/rows/2/amount"] == ["20,00"]
    assert target.value_boxes["/rows/0/amount"] != target.value_boxes["/rows/2/amount"]


def test_a_single_scan_shows_all_of_its_label_and_several_scans_are_undecided(store: Store) -> None:
    one = build_page_targets(
        vendor_labels({DOC: LABEL}), vendor_pages([page_of(store, DOC, 1, HEAD, scan=True)]), invoice_schema(), TargetSettings(), store
    )
    assert parsed(one) == [LABEL]
    assert one.targets[0].value_boxes == {}
    scans = vendor_pages([page_of(store, DOC, n, HEAD, scan=True) for n in (1, 2)])
    two = build_page_targets(vendor_labels({DOC: LABEL}), scans, invoice_schema(), TargetSettings(), store)
    assert two.targets == ()
    assert two.undecided[0].pages == (1, 2)
    per_page = {"pages": [{"number": "RE-2024/17"}, {"total": "44.50"}]}
    told = build_page_targets(vendor_labels({DOC: per_page}), scans, invoice_schema(), TargetSettings(), store)
    assert [(t["number"], t["total"]) for t in parsed(told)] == [("RE-2024/17", None), (None, "44.50")]


def test_a_label_per_page_must_name_every_page(store: Store) -> None:
    with pytest.raises(InputError, match=r"invoice/acme/.*json /pages: holds 1 pages; expected 2"):
        build(store, [HEAD, HEAD], {"pages": [LABEL]})


def test_a_label_that_fits_no_word_of_its_document_teaches_nothing(store: Store) -> None:
    prose = [(50, 100 + 14 * i, "Sehr geehrte Damen und Herren, dies ist ein ganz anderer Brief") for i in range(5)]
    targets = build(store, [prose])
    assert targets.targets == ()
    assert "is it this document's label" in targets.undecided[0].reason


def test_pages_of_documents_without_a_label_yield_nothing(store: Store) -> None:
    other = page_of(store, document_id("other"), 1, HEAD)
    targets = build_page_targets(
        vendor_labels({DOC: LABEL}), vendor_pages([page_of(store, DOC, 1, HEAD), other]), invoice_schema(), TargetSettings(), store
    )
    assert {target.document for target in targets.targets} == {DOC}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"total": 44.5}, r"\.json /total: 44.5 is not of type"),
        ({"rows": {"description": "x"}}, r"\.json /rows: .* is not of type \"array\""),
        ({"rows": [{"description": 5}]}, r"\.json /rows/0/description"),
        ({"seler": "Müller"}, r"\.json /seler: unknown key.*Did you mean seller\?"),
        ({"seller": "half \ud800"}, r"\.json /seller: holds half of a character"),
    ],
)
def test_a_label_that_violates_its_schema_is_one_clear_error(store: Store, change: dict[str, Any], message: str) -> None:
    label = {**LABEL, **change}
    if "seler" in change:
        del label["seller"]
    with pytest.raises(InputError, match=message):
        build(store, [HEAD], label)


def test_keys_that_the_schema_lacks_are_ignored_and_reported_or_refused(store: Store) -> None:
    label = {**LABEL, "iban": "DE00", "rows": [{**LABEL["rows"][0], "weight": 3}]}
    assert build(store, [HEAD], label).ignored_keys == ("/iban", "/rows/weight")
    with pytest.raises(InputError, match="/rows/0/weight: the schema has no such key"):
        build(store, [HEAD], label, unknown_label_keys="error")


def test_a_schema_that_cannot_say_null_is_refused(store: Store) -> None:
    with pytest.raises(InputError, match=r"/properties/total: does not allow null"):
        build(store, [HEAD], LABEL, invoice_schema(total={"type": "string", "x-type": "amount"}))


def test_the_work_of_a_page_grows_with_its_words_and_rows_and_not_with_their_square(store: Store) -> None:
    def calls(words: int, rows_of_page: int) -> int:
        lines = [(40 + 60 * (i % 9), 60 + 11 * (i // 9), f"w{i}") for i in range(words)]
        rows = [[f"Article number {i}", str(i), "pcs", f"{i},50", f"{i * i},50"] for i in range(1, rows_of_page + 1)]
        label = {**LABEL, "rows": [{"description": r[0], "quantity": r[1], "price": r[3], "amount": r[4]} for r in rows]}
        images = vendor_pages([page_of(store, DOC, 1, [*HEAD, *lines, *table(rows, y=630, step=9)])])
        labels, schema = vendor_labels({DOC: label}), invoice_schema()
        counted = 0

        def count(frame: object, event: str, argument: object) -> None:
            nonlocal counted
            counted += event in ("call", "c_call")

        sys.setprofile(count)
        try:
            targets = build_page_targets(labels, images, schema, TargetSettings(), store)
        finally:
            sys.setprofile(None)
        assert len(parsed(targets)[0]["rows"]) == rows_of_page
        return counted

    calls(50, 2)  # what is imported and compiled once
    assert calls(500, 20) < 2.5 * calls(250, 10)


def test_words_in_any_reading_order_give_the_same_rows(store: Store) -> None:
    image = page_of(store, DOC, 1, [*HEAD, *table(ROWS), (400, 300, "Summe 44,50 €")])
    words = PageText.model_validate(store.read_json(image.text or "")).words
    by_column: list[Word] = sorted(words, key=lambda word: (word.box[0], word.box[1]))
    shuffled = image.model_copy(update={"text": store.put_json(PageText(words=tuple(by_column)).model_dump(mode="json"))})
    targets = build_page_targets(vendor_labels({DOC: LABEL}), vendor_pages([shuffled]), invoice_schema(), TargetSettings(), store)
    assert parsed(targets)[0]["rows"] == LABEL["rows"]


def test_nested_objects_are_filled_leaf_by_leaf(store: Store) -> None:
    inner = {"name": field("text"), "vat": field("id")}
    party = {"type": "object", "properties": inner, "required": list(inner), "additionalProperties": False}
    label = {"number": "RE-2024/17", "buyer": {"name": "Jane Doe", "vat": "DE999"}}
    targets = build(store, [[*HEAD, (50, 200, "Jane Doe")]], label, invoice_schema(buyer=party))
    assert parsed(targets)[0]["buyer"] == {"name": "Jane Doe", "vat": None}
    assert [value.pointer for value in targets.unplaced] == ["/buyer/vat"]
    assert "/buyer/name" in targets.targets[0].value_boxes


# --- and back ---------------------------------------------------------------------------------------------------------------------


def test_page_targets_merge_back_into_the_label_of_the_document(store: Store) -> None:
    """On generated documents of several pages: what a perfect model answers page by page becomes the label, without a conflict."""
    total = 0
    for kind in TYPES:
        schema = TargetSchema.load(DEMO_FOLDER / "schemas" / f"{kind}.schema.json")
        made = [make_document(78, vendor, number, kind, "small") for vendor in range(1, 13) for number in range(1, 9)]
        several = [document for document in made if len(document.page_sizes) > 1]
        total += len(several)
        for document in several:
            name = document_id(document.stem)
            with pymupdf.open("pdf", document.pdf) as pdf:
                images = [pdf_page(page, name, number, store) for number, page in enumerate(pdf, 1)]
            targets = build_page_targets(vendor_labels({name: document.label}), vendor_pages(images), schema, TargetSettings(), store)
            merged = merge_pages([(target.page, json.loads(target.target)) for target in targets.targets], schema)
            assert merged.answer == document.label, document.stem
            assert (merged.conflicts, merged.unread_pages) == ((), ())
    assert total >= 10
