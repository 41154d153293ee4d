"""Promises about twins: what must share a split, and what must not be forced to."""

import io
import random
from typing import Any

import pytest
from PIL import Image

from extraction_assets.dataset.records import IndexRow
from extraction_assets.dataset.twins import TwinGroups, find_twins
from extraction_assets.settings import SplitSettings
from extraction_assets.store import Store
from extraction_assets_tests.dataset.paper import document_id, invoice_schema, page_of
from extraction_assets_tests.dataset.rows import row, sha, text_of

SCHEMAS = {"invoice": invoice_schema()}


def twins(rows: list[IndexRow], store: Store, **settings: Any) -> TwinGroups:
    return find_twins(rows, SCHEMAS, SplitSettings(**settings), store)


def groups(found: TwinGroups) -> set[frozenset[str]]:
    members: dict[str, set[str]] = {}
    for document, group in found.group.items():
        members.setdefault(group, set()).add(document)
    return {frozenset(group) for group in members.values()}


def names(*groups: str) -> set[frozenset[str]]:
    return {frozenset(sha(name) for name in group) for group in groups}


def scanned(name: str, image: str, **more: Any) -> IndexRow:
    return row(name, **more).model_copy(update={"image": image})


def invoice_words(number: int, boilerplate: int = 250, rows: int = 4) -> list[str]:
    """An invoice of one template: much common prose, and numbers of its own."""
    prose = random.Random(0)
    its = random.Random(number)
    common = ["".join(prose.choices("aeinrst", k=4)) for _ in range(boilerplate)]
    figures = [f"{its.randint(10, 9999)},{its.randint(10, 99)}" for _ in range(3 * rows)]
    return [*common[:100], "Rechnung", f"RE-{number}", f"{number % 28 + 1}.03.2024", *figures, *common[100:]]


def test_two_invoices_of_one_template_are_no_twins(store: Store) -> None:
    rows = [row(f"d{n}", text=text_of(store, invoice_words(n)), target={"number": f"RE-{n}"}) for n in range(12)]
    assert twins(rows, store).links == ()
    longer = [row(f"d{n}", text=text_of(store, invoice_words(n, boilerplate=1200)), target={"number": f"RE-{n}"}) for n in range(12)]
    assert twins(longer, store).links == (), "not even where 95 % of the words are the template's"


def test_a_copy_with_a_few_other_words_is_a_twin(store: Store) -> None:
    words = invoice_words(1)
    rows = [
        row("a", text=text_of(store, words), target={"total": "1"}),
        row("b", text=text_of(store, ["Kopie", *words]), target={"total": "2"}),
        row("c", text=text_of(store, [word.upper() for word in words]), target={"total": "3"}),
        row("d", text=text_of(store, invoice_words(2)), target={"total": "4"}),
    ]
    found = twins(rows, store)
    assert groups(found) == names("abc", "d")
    assert {link.reason for link in found.links} == {"text"}
    assert groups(twins(rows, store, near_duplicate=1.0)) == names("ac", "b", "d")


def test_equal_pictures_targets_and_numbers_make_twins(store: Store) -> None:
    text = [text_of(store, [f"{name}{i}" for i in range(30)]) for name in "abcdefgh"]
    full = {"number": None, "date": "2024-01-01", "total": "5.00", "seller": "X"}
    rows = [
        row("a", image="same", target={"total": "1"}, text=text[0]),
        row("b", image="same", target={"total": "2"}, text=text[1]),
        row("c", target=full, text=text[2]),
        row("d", target=full, text=text[3], vendor="invoice/other"),
        row("e", target={"number": "RE 17-a"}, text=text[4]),
        row("f", target={"number": "re17A", "total": "9"}, text=text[5]),
        row("g", target={"number": "RE17A"}, text=text[6], vendor="invoice/other"),
        row("h", target={"total": "5.00"}, text=text[7]),
    ]
    found = twins(rows, store)
    assert groups(found) == names("ab", "cd", "ef", "g", "h")
    assert {link.reason for link in found.links} == {"picture", "target", "number"}


def test_an_example_that_several_documents_hold_makes_them_twins(store: Store) -> None:
    text = text_of(store, ["x"])
    rows = [row("a", text=text, copies=[("invoice/b", "b", 1)]), row("c", text=text)]
    assert groups(twins(rows, store)) == names("ab", "c")


def test_pages_that_say_nothing_and_labels_that_say_little_link_nobody(store: Store) -> None:
    terms = text_of(store, [f"terms{i}" for i in range(300)])
    rows = []
    for name in "abc":
        rows.append(row(name, 1, target={"total": "5.00"}, text=text_of(store, [f"{name}{i}" for i in range(30)])))
        rows.append(row(name, 2, target={"total": None}, image="terms", text=terms))
    assert twins(rows, store).links == ()


def test_scans_are_twins_only_where_the_eye_sees_one_picture(store: Store) -> None:
    lines = [(40 + 37 * (i % 11), 60 + 31 * i, f"Item {i * i} costs {i * 7}.50") for i in range(22)]
    page = page_of(store, document_id("a"), 1, lines, scan=True)
    other = page_of(store, document_id("c"), 1, [(x, y, text[::-1]) for x, y, text in lines[::-1]], scan=True)
    picture = Image.open(io.BytesIO(store.read_bytes(page.image, ".png"))).convert("RGB")
    jpeg, again = io.BytesIO(), io.BytesIO()
    picture.save(jpeg, "JPEG", quality=80)
    Image.open(jpeg).save(again, "PNG")
    rows = [
        scanned("a", page.image, target={"total": "1"}),
        scanned("b", store.put_bytes(again.getvalue(), ".png"), target={"total": "2"}),
        scanned("c", other.image, target={"total": "3"}),
    ]
    found = twins(rows, store)
    assert groups(found) == names("ab", "c")
    assert found.links[0].reason == "scan"


def test_groups_fall_apart_without_the_document_that_joined_them(store: Store) -> None:
    text = text_of(store, ["x"])
    rows = [
        row("a", image="one", target={"total": "1"}, text=text),
        row("b", image="one", target={"total": "2"}, text=text),
        row("b", 2, image="two", target={"total": "3"}, text=text),
        row("c", image="two", target={"total": "4"}, text=text),
    ]
    found = twins(rows, store)
    assert groups(found) == names("abc")
    assert found.sizes == {3: 1}
    assert groups(found.without([sha("b")])) == names("a", "c")


def test_the_order_of_rows_means_nothing_and_fingerprints_are_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row(f"d{n}", text=text_of(store, invoice_words(n // 2)), target={"total": str(n)}) for n in range(10)]
    first = twins(rows, store)
    assert first.sizes == {2: 5}
    monkeypatch.setattr("extraction_assets.dataset.twins._signature", lambda words: pytest.fail("computed again"))
    random.Random(1).shuffle(rows)
    assert twins(rows, store) == first
