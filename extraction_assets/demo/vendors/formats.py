"""How a vendor prints dates, numbers and money: one spelling a vendor, never ambiguous in its language."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Literal

MONTHS: dict[str, tuple[str, ...]] = {
    "en": ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"),
    "de": ("Januar", "Februar", "März", "April", "Mai", "Juni", "Juli", "August", "September", "Oktober", "November", "Dezember"),
    "fr": ("janvier", "février", "mars", "avril", "mai", "juin", "juillet", "août", "septembre", "octobre", "novembre", "décembre"),
    "es": ("enero", "febrero", "marzo", "abril", "mayo", "junio", "julio", "agosto", "septiembre", "octubre", "noviembre", "diciembre"),
    "it": (
        "gennaio",
        "febbraio",
        "marzo",
        "aprile",
        "maggio",
        "giugno",
        "luglio",
        "agosto",
        "settembre",
        "ottobre",
        "novembre",
        "dicembre",
    ),
    "nl": ("januari", "februari", "maart", "april", "mei", "juni", "juli", "augustus", "september", "oktober", "november", "december"),
}

DATE_FORMATS: dict[str, tuple[str, ...]] = {
    "en": ("{y}-{mm}-{dd}", "{d} {month} {y}", "{mon} {d}, {y}", "{month} {d}, {y}", "{dd} {mon} {y}", "{dd}-{mon}-{y}"),
    "de": ("{dd}.{mm}.{y}", "{d}.{m}.{y}", "{d}. {month} {y}", "{y}-{mm}-{dd}"),
    "fr": ("{dd}/{mm}/{y}", "{d} {month} {y}", "{dd}.{mm}.{y}", "{y}-{mm}-{dd}"),
    "es": ("{dd}/{mm}/{y}", "{d} de {month} de {y}", "{dd}-{mm}-{y}", "{y}-{mm}-{dd}"),
    "it": ("{dd}/{mm}/{y}", "{d} {month} {y}", "{dd}.{mm}.{y}", "{y}-{mm}-{dd}"),
    "nl": ("{dd}-{mm}-{y}", "{d} {month} {y}", "{y}-{mm}-{dd}"),
}
"""By language. Numeric dates are day first (as these countries write them) or ISO; English spells the month or writes ISO, because
03/04/2024 means two days there"""

NUMBER_FORMATS: dict[str, tuple[tuple[str, str], ...]] = {
    "en": ((",", "."), (",", "."), ("", ".")),
    "de": ((".", ","), (".", ","), (" ", ","), ("'", ".")),
    "fr": ((" ", ","), (" ", ","), ("'", ".")),
    "es": ((".", ","), (" ", ",")),
    "it": ((".", ","), ("'", ".")),
    "nl": ((".", ","),),
}
"""By language: (thousands separator, decimal separator); 1'234.50 is the Swiss one"""

SYMBOLS = {"EUR": "€", "USD": "$", "GBP": "£", "CHF": "CHF"}

CurrencyStyle = Literal["symbol_before", "symbol_after", "code_before", "code_after", "in_head"]


@dataclass(frozen=True)
class Formats:
    """One vendor's spelling of values."""

    language: str
    day: str
    """one of DATE_FORMATS"""
    thousands: str
    decimal: str
    currency: str
    """ISO 4217 code"""
    currency_style: CurrencyStyle
    """in_head: the code stands in the table's head and beside the grand total's word, amounts are bare"""
    rows_bare: bool
    """rows are printed without the currency sign"""

    def print_date(self, day: date) -> str:
        month = MONTHS[self.language][day.month - 1]
        return self.day.format(y=day.year, m=day.month, mm=f"{day.month:02d}", d=day.day, dd=f"{day.day:02d}", month=month, mon=month[:3])

    def print_amount(self, amount: Decimal) -> str:
        """1234.5 -> 1.234,50"""
        return f"{amount:,.2f}".translate({ord(","): self.thousands, ord("."): self.decimal})

    def print_number(self, number: Decimal) -> str:
        """A quantity or a rate, no more decimals than it has: 3, 1,5"""
        return plain(number).replace(".", self.decimal)

    def print_money(self, amount: Decimal, row: bool = False) -> str:
        digits = self.print_amount(amount)
        if (row and self.rows_bare) or self.currency_style == "in_head":
            return digits
        sign = SYMBOLS[self.currency]
        return {
            "symbol_before": f"{sign}{digits}" if len(sign) == 1 and sign != "€" else f"{sign} {digits}",
            "symbol_after": f"{digits} {sign}",
            "code_before": f"{self.currency} {digits}",
            "code_after": f"{digits} {self.currency}",
        }[self.currency_style]

    @property
    def currency_sign(self) -> str:
        """What stands on the page for the currency."""
        return SYMBOLS[self.currency] if self.currency_style.startswith("symbol") else self.currency


def plain(number: Decimal) -> str:
    """The canonical spelling of a label's number: a plain decimal with a point, no exponent, no trailing zeros."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def plain_amount(amount: Decimal) -> str:
    """The canonical spelling of a label's amount: two decimals and a point."""
    return f"{amount:.2f}"
