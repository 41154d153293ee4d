"""Promises about what printed dates and numbers can mean."""

from datetime import date, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extraction_assets.dataset.printed_values import date_readings, fold, label_numbers, number_readings, printed_dates, printed_numbers


@pytest.mark.parametrize(
    "printed",
    [
        "2024-03-05", "2024/03/05", "20240305", "05.03.2024", "5.3.2024", "05. 03. 2024", "05.03.24", "5 March 2024", "5th of March, 2024",
        "Mar 5, 2024", "Mar. 5 2024", "March 5th, 2024", "05-Mar-2024", "5-MAR-24", "05MAR2024", "Mar05/24", "5. März 2024", "5 mars 2024",
        "5 de marzo de 2024", "5 marzo 2024", "5 maart 2024", "5 de março de 2024", "5 marca 2024", "5 března 2024", "2024 März 5",
        "2024年3月5日", "03/05/2024", "5/3/2024", "2024-03-05T10:15:00", "202403051015",
    ],
)  # fmt: skip
def test_the_fifth_of_march_is_read_however_it_is_printed(printed: str) -> None:
    assert date(2024, 3, 5) in date_readings(printed)


@pytest.mark.parametrize("printed", ["31.02.2024", "13/13/2024", "2024-00-10", "5 Foo 2024", "Paris", "12345678", "4 pieces of 2024 stock"])
def test_what_is_no_day_has_no_reading(printed: str) -> None:
    assert date_readings(printed) == ()


def test_a_dot_means_day_first_and_a_slash_leaves_it_open() -> None:
    assert date_readings("04.05.2024") == (date(2024, 5, 4),)
    assert set(date_readings("04/05/2024")) == {date(2024, 5, 4), date(2024, 4, 5)}


@given(st.dates(date(1970, 1, 1), date(2069, 12, 31)))
def test_any_day_survives_any_common_format(day: date) -> None:
    for pattern in ("%Y-%m-%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d %B %Y", "%b %d, %Y", "%d.%m.%y", "%d-%b-%y"):
        assert day in date_readings(day.strftime(pattern))
        assert day + timedelta(days=40) not in date_readings(day.strftime(pattern))


def test_a_day_in_running_text_is_found_with_its_place() -> None:
    text = fold("Rechnung vom 5. März 2024, fällig am 04.04.2024")
    assert {(text[start:end], days[0]) for start, end, days in printed_dates(text)} == {
        ("5. marz 2024", date(2024, 3, 5)),
        ("04.04.2024", date(2024, 4, 4)),
    }


@pytest.mark.parametrize(
    ("printed", "value"),
    [
        (1234.5, "1234.5"), (20, "20"), ("1234.5", "1234.5"), ("1.234,50", "1234.5"), ("1,234.50", "1234.5"), ("$1,234.50", "1234.5"),
        ("1'234.50", "1234.5"), ("1 234,50 €", "1234.5"), ("12,34,567.00", "1234567"), ("RM39.00", "39"), ("20.0000", "20"),
        ("-12.5", "-12.5"),
        ("(12.50)", "-12.5"), ("12.50-", "-12.5"), ("−7", "-7"), ("19 %", "19"), (".5", "0.5"), ("50,--", "50"), ("EUR 0,00", "0"),
    ],
)  # fmt: skip
def test_amounts_are_read_whatever_their_separators(printed: object, value: str) -> None:
    assert Decimal(value) in label_numbers(printed)


def test_three_digits_after_one_separator_are_decimals_or_thousands() -> None:
    assert number_readings("1.234") == (Decimal("1.234"), Decimal("1234"))
    assert number_readings("0.234") == (Decimal("0.234"),)
    assert number_readings("05.03.2024") == ()


@pytest.mark.parametrize("value", ["n/a", "", "05.03.2024", "12-34", "as agreed with Mr. Smith 5", True])
def test_what_is_no_number_has_no_reading(value: object) -> None:
    assert label_numbers(value) == ()


@pytest.mark.parametrize("word", ["C62", "RE-2014/501", "05.03.2024", "DE136695976", "12/30"])
def test_digits_inside_names_are_no_numbers(word: str) -> None:
    values = {reading for readings, _, _ in printed_numbers(word) for reading in readings}
    assert not values & {Decimal(n) for n in ("62", "2014", "501", "5", "136695976", "30")}


@pytest.mark.parametrize(
    ("word", "value", "strong"),
    [("20", "20", False), ("20,00", "20", True), ("€20", "20", True), ("20EUR", "20", True), ("100ml", "100", False), ("19%", "19", False),
     ("-5.00", "-5", True), ("(5.00)", "-5", True), ("5,00-", "-5", True), ("Total:12.30", "12.3", True), ("3x", "3", False)],
)  # fmt: skip
def test_a_printed_number_is_strong_where_it_looks_like_money(word: str, value: str, strong: bool) -> None:
    found = {reading: strength for readings, strength, _ in printed_numbers(word) for reading in readings}
    assert found[Decimal(value)] is strong


@given(st.decimals(min_value=0, max_value=10**9, places=2))
def test_any_amount_survives_english_and_german_print(value: Decimal) -> None:
    english = f"{value:,.2f}"
    german = english.translate(str.maketrans(",.", ".,"))
    assert value in label_numbers(english)
    assert value in label_numbers(german)
    assert value + 1 not in label_numbers(english)
