"""Vendor names: what real companies are called passes, what would break folders or partitions does not."""

from __future__ import annotations

import unicodedata

import pytest

from extraction_assets.documents.names import check_vendor_name, fold, partition_key, split_key
from extraction_assets.errors import InputError


@pytest.mark.parametrize(
    "name",
    [
        "bei spiel gmbh",
        "mvm musterhafter versicherungsverein musterstadt a.g.",
        "O'Neil & Söhne (Köln), Ltd.",
        "株式会社サンプル",
        "شركة المثال",
        "a",
        "7-Eleven #12 @ 5th+Main = €",
        "x" * 100,
    ],
)
def test_names_of_real_vendors_pass(name: str) -> None:
    assert check_vendor_name(name) == unicodedata.normalize("NFC", name)


@pytest.mark.parametrize(
    "name",
    [
        "", " acme", "acme ", "\u00a0acme", ".hidden", "..", "acme..", "a/b", "a\\b", "a\u2044b", "a\u2215b", "a\u29f8b", "a\uff0fb", "a\uff3cb",
        "a|b", "a...b", "a*b", "a\nb", "a\x00b", "a\u200bb", "a\u202eb", "a\udc80b", "x" * 101, "x" * 200, "語" * 67,
    ],
)  # fmt: skip
def test_other_names_are_one_clear_error(name: str) -> None:
    with pytest.raises(InputError) as caught:
        check_vendor_name(name)
    line = str(caught.value)
    assert "\n" not in line
    assert line.isprintable()
    assert len(line) < 400


def test_a_key_is_the_same_however_its_letters_are_composed() -> None:
    decomposed = unicodedata.normalize("NFD", "Müller")
    assert partition_key("invoice", decomposed) == "invoice/Müller"
    assert split_key(f"invoice/{decomposed}") == ("invoice", "Müller")


def test_a_key_without_a_vendor_is_an_error() -> None:
    with pytest.raises(InputError, match="type/vendor"):
        split_key("invoice")


def test_case_and_composition_do_not_tell_folders_apart() -> None:
    assert fold("STRASSE Müller") == fold(unicodedata.normalize("NFD", "straße müller"))
    assert fold("acme") != fold("acne")
