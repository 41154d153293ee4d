"""Promises about the example index."""

import pytest

from extraction_assets.dataset.index import build_index, contradictions, example_id, holds_values, read_index, write_index
from extraction_assets.dataset.records import HardNegative, PageTarget, VendorNegatives, VendorTargets
from extraction_assets.errors import InputError
from extraction_assets.store import Store
from extraction_assets_tests.dataset.rows import sha


def targets(vendor: str, *pages: tuple[str, int, str, str]) -> VendorTargets:
    """pages: (document, page, image, target)"""
    made = tuple(PageTarget(document=sha(d), page=p, image=sha(i), width=64, height=64, dpi=100, target=t) for d, p, i, t in pages)
    return VendorTargets(type="invoice", vendor=vendor, schema_digest=sha("schema"), instruction="read", targets=made)


def negatives(vendor: str, *pages: tuple[str, int, str, str, str]) -> VendorNegatives:
    """pages: (document, page, kind, image, twin image)"""
    made = tuple(
        HardNegative(
            document=sha(d), page=p, kind=k, image=sha(i), width=64, height=64, dpi=100, target='{"a":null}', twin=sha(t), what="x"
        )
        for d, p, k, i, t in pages
    )
    return VendorNegatives(
        type="invoice", vendor=vendor, schema_digest=sha("schema"), instruction="read", targets=sha("targets"), negatives=made
    )


def test_rows_are_sorted_and_negatives_name_the_example_of_their_clean_page() -> None:
    rows = build_index(
        [targets("b", ("d", 1, "i1", '{"a":"1"}')), targets("a", ("e", 2, "i3", '{"a":"3"}'), ("e", 1, "i2", '{"a":"2"}'))],
        [negatives("b", ("d", 1, "noisy", "n1", "i1")), negatives("a")],
    )
    assert [(row.vendor, row.page, row.stratum) for row in rows] == [
        ("invoice/a", 1, "clean"),
        ("invoice/a", 2, "clean"),
        ("invoice/b", 1, "clean"),
        ("invoice/b", 1, "noisy"),
    ]
    assert rows[3].twin == rows[2].id == example_id(sha("i1"), '{"a":"1"}', "read")
    assert len(rows[0].id) == 32


def test_equal_examples_are_one_row_that_names_its_copies_in_any_order() -> None:
    vendors = [
        targets("b", ("d", 1, "same", '{"a":"1"}')),
        targets("a", ("e", 4, "same", '{"a":"1"}')),
        targets("c", ("d", 1, "same", '{"a":"2"}')),
    ]
    first, second = build_index(vendors, [])
    assert (first.vendor, first.copies) == ("invoice/a", (("invoice/b", sha("d"), 1),))
    assert second.copies == ()
    assert build_index(vendors[::-1], []) == [first, second]


def test_one_picture_with_two_answers_is_a_contradiction_and_an_equal_copy_is_none() -> None:
    rows = build_index(
        [
            targets("a", ("d", 1, "same", '{"a":"1"}'), ("e", 1, "own", '{"a":"1"}')),
            targets("b", ("d", 1, "same", '{"a":"1"}')),
            targets("c", ("d", 1, "same", '{"a":"2"}')),
        ],
        [],
    )
    assert [(one.vendor, other.vendor) for one, other in contradictions(rows)] == [("invoice/a", "invoice/c")]


def test_a_negative_without_its_clean_page_is_an_error_not_an_orphan() -> None:
    with pytest.raises(InputError, match=r"hard_negatives\[invoice/a\]: noisy of page 1 .* has no clean page"):
        build_index([targets("a", ("d", 1, "new", '{"a":"1"}'))], [negatives("a", ("d", 1, "noisy", "n", "old"))])


def test_the_table_comes_back_as_it_was_written(store: Store) -> None:
    rows = build_index([targets("ä", ("d", 1, "i", '{"a":"größe"}'), ("e", 1, "i", '{"a":"größe"}'))], [])
    digest = write_index(rows, store)
    assert read_index(digest, store) == rows
    assert write_index(list(rows), store) == digest


@pytest.mark.parametrize(
    ("target", "holds"), [('{"a":null,"b":[]}', False), ('{"a":{"b":null},"c":[{"d":null}]}', False), ('{"a":0}', True)]
)
def test_a_target_of_nulls_holds_nothing(target: str, holds: bool) -> None:
    assert holds_values(target) is holds
