from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extraction_assets.evaluation.normalise import is_absent, normalise
from extraction_assets.schema import ScoringType
from extraction_assets_tests.evaluation.cases import JSON

TYPES = st.sampled_from(get_args(ScoringType))
LOCALES = st.sampled_from([None, "de", "en_US", "en-GB", "fr_CH", "xx", ""])


@pytest.mark.parametrize(
    ("printed", "value"),
    [
        ("1190.00", "1190"),
        ("1190", "1190"),
        ("1,190.00", "1190"),
        ("1.190,00", "1190"),
        ("1 190,00", "1190"),
        ("1\u202f190,00 €", "1190"),
        ("1'190.00", "1190"),
        ("1’190.–", "1190"),
        ("1,190", "1190"),
        ("1.190", "1.19"),
        ("1.190.000", "1190000"),
        ("1,19,000.50", "119000.5"),
        ("0,125", "0.125"),
        ("1190,5", "1190.5"),
        ("$1,190.50", "1190.5"),
        ("US$ 1190.50", "1190.5"),
        ("EUR 1190,50", "1190.5"),
        ("1190,50 Kč", "1190.5"),
        ("-5.00", "-5"),
        ("−5.00", "-5"),
        ("5.00-", "-5"),
        ("(5.00)", "-5"),
        ("($5.00)", "-5"),
        ("-$5.00", "-5"),
        ("$-5.00", "-5"),
        ("5,-", "5"),
        ("+5", "5"),
        (".5", "0.5"),
        ("-0.00", "0"),
        ("１１９０", "1190"),
        ("١١٩٠", "1190"),
        (1190.0, "1190"),
        (1190, "1190"),
        (1e22, "10000000000000000000000"),
        ("0" * 50 + "1." + "0" * 50, "1"),
    ],
)
def test_amounts_of_all_countries_read_as_one_decimal(printed: object, value: str) -> None:
    assert normalise(printed, "amount") == value


@pytest.mark.parametrize(
    "printed", ["n/a", "12..5", "1,19,00", "1.2.3", "5 EUR 3", "12-5", "--5--", "1190 pcs", "1e3", "EUR", "null", "(5", "1,190.000,5", "."]
)
def test_what_is_no_amount_stays_text(printed: str) -> None:
    assert normalise(printed, "amount") == printed.casefold()


def test_a_locale_with_decimal_commas_settles_the_single_comma() -> None:
    assert normalise("1,190", "amount", "de") == "1.19"
    assert normalise("1,190", "amount", "de_CH") == "1190"
    assert normalise("1,190", "amount", "en_US") == "1190"


def test_a_percent_sign_belongs_to_numbers_and_a_currency_to_amounts() -> None:
    assert normalise("19,0 %", "number") == "19"
    assert normalise("19 %", "amount") != normalise("19", "amount")
    assert normalise("5 EUR", "number") != normalise("5", "number")


@pytest.mark.parametrize(
    ("printed", "value"),
    [
        ("2024-03-05", "2024-03-05"),
        ("2024-03-05T10:00:00Z", "2024-03-05"),
        ("2024/3/5", "2024-03-05"),
        ("20240305", "2024-03-05"),
        ("05.03.2024", "2024-03-05"),
        ("5.3.24", "2024-03-05"),
        ("25/03/2024", "2024-03-25"),
        ("03/25/2024", "2024-03-25"),
        ("04/04/2024", "2024-04-04"),
        ("25/12/2018 8:13:39 PM", "2018-12-25"),
        ("5 March 2024", "2024-03-05"),
        ("March 5, 2024", "2024-03-05"),
        ("Mar 5th, 2024", "2024-03-05"),
        ("5. März 2024", "2024-03-05"),
        ("le 5 mars 2024", "2024-03-05"),
        ("5 de marzo de 2024", "2024-03-05"),
        ("05-Mar-24", "2024-03-05"),
        ("1er août 2024", "2024-08-01"),
        ("01/01/70", "1970-01-01"),
    ],
)
def test_dates_with_one_reading_are_read(printed: str, value: str) -> None:
    assert normalise(printed, "date") == value


@pytest.mark.parametrize(
    "printed", ["05/03/2024", "5-3-24", "2024-02-30", "31/31/2024", "March 2024", "yesterday", "null", "12 foo 2024", "2024-13-01"]
)
def test_dates_with_two_readings_or_none_stay_text(printed: str) -> None:
    assert normalise(printed, "date") == printed.casefold()


def test_the_locale_settles_day_and_month() -> None:
    assert normalise("05/03/2024", "date", "de") == "2024-03-05"
    assert normalise("05/03/2024", "date", "en_GB") == "2024-03-05"
    assert normalise("05/03/2024", "date", "en_US") == "2024-05-03"
    assert normalise("25/03/2024", "date", "en_US") == "2024-03-25"


def test_ids_lose_white_space_and_keep_leading_zeros() -> None:
    assert normalise("INV 0042", "id") == normalise("inv0042", "id") != normalise("INV42", "id")
    assert normalise("A–1", "id") == normalise("A-1", "id") != normalise("A1", "id")


def test_text_folds_case_width_and_white_space_but_not_letters() -> None:
    assert normalise("  MÜLLER\u00a0 &\nSöhne", "text") == normalise("müller & söhne", "text") != normalise("muller & sohne", "text")
    assert normalise("ﬁne", "text") == normalise("FINE", "text")
    assert normalise("Straße", "text") == normalise("STRASSE", "text")


def test_lists_of_values_have_no_order() -> None:
    assert normalise(["b", "A"], "text") == normalise(["a", "B"], "text") != normalise(["a"], "text")


def test_absent_is_null_empty_text_and_empty_list_and_nothing_else() -> None:
    assert [v for v in (None, "", "  ", [], "null", "0", 0, False, {}, [None]) if is_absent(v)] == [None, "", "  ", []]


@given(JSON, TYPES, LOCALES)
def test_no_json_value_raises_and_only_absent_ones_give_none(value: object, type: ScoringType, locale: str | None) -> None:
    assert (normalise(value, type, locale) is None) == is_absent(value)


@pytest.mark.parametrize("type", ["id", "code"])
def test_an_accent_that_stood_apart_is_folded_with_its_letter(type: ScoringType) -> None:
    assert normalise("E\u00af", type) == normalise("\u0112", type) == "\u0113"  # a macron of its own is a space and an accent


@settings(max_examples=300)
@given(
    st.text(max_size=20)
    | st.from_regex(r"[-(€$]?[0-9.,' ]{1,12}[-)%€]?", fullmatch=True)
    | st.from_regex(r"[0-9./ -]{6,10}", fullmatch=True),
    TYPES,
    LOCALES,
)
def test_canonical_values_are_fixed_points(text: str, type: ScoringType, locale: str | None) -> None:
    once = normalise(text, type, locale)
    assert normalise(once, type, None) == once


@given(st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-(10**12), max_value=10**12))
def test_printing_an_amount_in_two_countries_gives_one_value(amount: object) -> None:
    english = f"{amount:,.2f}"
    german = english.translate(str.maketrans(",.", ".,"))
    assert normalise(english, "amount") == normalise(german, "amount") == normalise(f"{amount:f}", "amount")


def test_values_that_python_cannot_print_do_not_raise() -> None:
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    assert normalise(deep, "text")
    assert normalise(10**5000, "amount")
