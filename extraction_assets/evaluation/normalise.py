"""Typed normalisation: two spellings of the same value become the same string, two different values never do.

`normalise(value, type)` gives the canonical string of one JSON value, or None where the value is absent. It never raises on any
JSON value and guesses nothing: what cannot be read as its type is compared as text. Canonical strings are fixed points
(normalising one again changes nothing), so scores may be computed on either form.

    absent   null, "" (or white space only), []; the string "null" is a value
    text     NFKC, case folded, white space collapsed
    id       as text, without any white space, one kind of dash; leading zeros stay
    code     as text, without any white space
    date     YYYY-MM-DD. Year first, day with month name and dotted dates (day first) are read; 25/03/2024 has one reading,
             04/04/2024 too; 05/03/2024 has two and stays text unless the locale settles it
    amount   a decimal without grouping or trailing zeros. Separators, sign (-, trailing -, parentheses), currency signs and
             ISO 4217 codes are read; 1,190 is a grouped thousand unless the locale has decimal commas; 1.190 is 1.19
    number   as amount, with a percent sign instead of a currency
"""

from __future__ import annotations

import json
import math
import unicodedata
from decimal import Decimal
from functools import lru_cache
from typing import Any

from extraction_assets.evaluation.dates import read_date
from extraction_assets.evaluation.decimals import read_decimal
from extraction_assets.schema import ScoringType

_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"), "-")


def normalise(value: Any, type: ScoringType, locale: str | None = None) -> str | None:
    """Canonical string of a JSON value under its scoring type; None where it is absent.

    locale: a vendor's language or region ("de", "en_US", "en-GB"); settles day and month order, and whether 1,190 is a thousand.
    """
    if is_absent(value):
        return None
    if isinstance(value, str):
        return _normalise_text(value, type, locale)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return _normalise_text(_spell_number(value), type, locale)
    if isinstance(value, list) and not any(isinstance(item, (list, dict)) for item in value):
        return json.dumps(
            sorted(normalise(item, type, locale) or "" for item in value), ensure_ascii=False
        )  # a list of values has no order
    return _spell_structure(value)


def is_absent(value: Any) -> bool:
    """null, "", white space only and [] say that the page does not hold the field (an omitted key reads as null)."""
    return value is None or (isinstance(value, str) and not value.strip()) or (isinstance(value, list) and not value)


def raw(value: Any) -> str | None:
    """The value as it was written, for the raw exact match that stands beside the typed one; None where absent."""
    if is_absent(value):
        return None
    return value if isinstance(value, str) else _spell_structure(value)


@lru_cache(maxsize=1 << 17)
def _normalise_text(text: str, type: ScoringType, locale: str | None) -> str:
    folded = _fold(text)
    if type == "date":
        return read_date(folded, locale) or folded
    if type in ("amount", "number"):
        return read_decimal(folded, money=type == "amount", locale=locale) or folded
    if type in ("id", "code"):
        joined = "".join(folded.split())  # letter and accent may have met only now: fold again
        return _fold(joined.translate(_DASHES) if type == "id" else joined)
    return folded


def _fold(text: str) -> str:
    """Case folding can undo NFKC (and the other way round), so until nothing changes; two rounds are enough in practice."""
    for _ in range(4):
        folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
        if folded == text:
            break
        text = folded
    return text


def _spell_number(value: int | float) -> str:
    if isinstance(value, float):
        return format(Decimal(repr(value)), "f") if math.isfinite(value) else repr(value)
    try:
        return str(value)
    except ValueError:  # more digits than Python prints (sys.get_int_max_str_digits)
        return hex(value)


def _spell_structure(value: Any) -> str:
    """An object or a nested list where a plain value belongs: never equal to one, equal to itself."""
    try:
        return json.dumps(value, sort_keys=True, ensure_ascii=False)
    except (RecursionError, ValueError, TypeError):
        return f"<{type(value).__name__} that cannot be spelled>"
