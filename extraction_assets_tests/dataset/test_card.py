"""Promises about the dataset card and the leak check."""

import json
from pathlib import Path

from extraction_assets.dataset.card import DatasetCard, dataset_card
from extraction_assets.dataset.chat import ChatRecord, load_split, write_split
from extraction_assets.dataset.leaks import find_leaks
from extraction_assets.dataset.records import SPLITS, IndexRow, Split, UndecidedPages, UnplacedValue, VendorTargets
from extraction_assets.dataset.splits import Assignment, LeftOut
from extraction_assets.dataset.twins import TwinGroups, TwinLink
from extraction_assets.store import Store
from extraction_assets_tests.dataset.rows import row, sha

A, B = row("a"), row("b", vendor="invoice/other")
NOISY = row("a", stratum="noisy", twin=A.id)


def records(store: Store, schema: Path, **rows: list[IndexRow]) -> list[ChatRecord]:
    found: list[ChatRecord] = []
    for split in SPLITS:
        found += load_split(Path(str(store.path(write_split(rows.get(split, []), split, store, schema), ".jsonl"))), schema)
    return found


def test_clean_splits_have_no_leak(store: Store, chat_schema: Path) -> None:
    assert find_leaks(records(store, chat_schema, train=[A, NOISY], test=[B]), {A.document: "x", B.document: "y"}) == []


def test_a_document_a_picture_a_twin_and_a_group_in_two_splits_are_found(store: Store, chat_schema: Path) -> None:
    same_document = row("a", 2)
    same_picture = row("c", image="a/1/clean")
    negative_of_a = row("d", stratum="stamped", twin=A.id)
    leaks = find_leaks(
        records(store, chat_schema, train=[A], val=[same_document], test=[same_picture, negative_of_a, B]),
        {A.document: "g", B.document: "g"},
    )
    assert [(leak.kind, leak.key, leak.splits) for leak in leaks] == [
        ("document", A.document, ("train", "val")),
        ("image", A.image, ("test", "train")),
        ("twin", A.id, ("test", "train")),
        ("twin_group", "g", ("test", "train", "val")),
    ]
    assert set(leaks[1].examples) == {A.id, same_picture.id}


def test_the_same_example_in_two_splits_is_found(store: Store, chat_schema: Path) -> None:
    leaks = find_leaks(records(store, chat_schema, train=[A], test=[A]))
    assert [leak.kind for leak in leaks] == ["document", "example", "image", "twin"]


def card() -> DatasetCard:
    rows: dict[Split, list[IndexRow]] = {"train": [A, NOISY], "val": [], "test": [B]}
    targets = VendorTargets(
        type="invoice",
        vendor="acme",
        schema_digest=sha("schema"),
        instruction="read",
        targets=(),
        unplaced=(
            UnplacedValue(document=sha("a"), pointer="/line_items/3/amount", value="1"),
            UnplacedValue(document=sha("a"), pointer="/line_items/4/amount", value="2"),
            UnplacedValue(document=sha("a"), pointer="/pages/0/total", value="2"),
        ),
        ignored_keys=("/iban",),
        undecided=(UndecidedPages(document=sha("x"), pages=(1, 2), reason="2 scanned pages and one label"),),
    )
    groups = TwinGroups({A.document: "g", B.document: "h", sha("c"): "g"}, (TwinLink(A.document, sha("c"), "text"),))
    assignment = Assignment(
        {A.document: "train", B.document: "test"}, (LeftOut(sha("z"), "invoice/acme", "its twins are in train and test"),), groups=groups
    )
    digests: dict[Split, str] = {"train": sha("1"), "val": sha("2"), "test": sha("3")}
    return dataset_card(rows, digests, assignment, [targets], {"splits": sha("s")}, [], count_tokens=lambda text: len(text) // 2)


def test_the_card_counts_what_is_in_the_splits() -> None:
    it = card()
    assert (it.splits["train"].examples, it.splits["train"].pages, it.splits["train"].documents) == (2, 1, 1)
    assert it.splits["val"].examples == 0
    assert it.by_stratum["noisy"]["train"].examples == 1
    assert it.by_vendor["invoice/other"]["test"].documents == 1
    assert it.visual_tokens["train"].total == 2 * 2 * 3
    assert it.target_characters["test"].most == len(B.target)
    assert it.target_tokens is not None
    assert it.target_tokens["test"].median == len(B.target) // 2


def test_the_card_tells_what_was_left_out_and_why() -> None:
    it = card()
    assert it.unplaced == {"invoice line_items[].amount": 2, "invoice total": 1}
    assert it.undecided == {"n scanned pages and one label": 2}
    assert it.left_out == {"its twins are in train and test": 1}
    assert it.ignored_keys == {"invoice": ("/iban",)}
    assert it.twin_groups == {1: 1, 2: 1}
    assert it.twin_reasons == {"text": 1}


def test_the_card_is_json_and_markdown_and_the_same_every_time() -> None:
    it = card()
    assert DatasetCard.model_validate(json.loads(json.dumps(it.model_dump(mode="json")))) == it
    text = it.to_markdown()
    assert text == card().to_markdown()
    for wanted in ("| train | 2 | 1 | 1 |", "Leaks: none", "line_items[].amount", sha("1"), sha("schema")):
        assert wanted in text
