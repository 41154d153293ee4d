"""Reads one printed date, or says that it cannot be read without guessing. Text comes in folded (NFKC, lower case, single spaces)."""

from __future__ import annotations

import datetime
import re

_TIME = re.compile(r"[ ,t]+\d{1,2}[:h.]\d{2}([:.]\d{2}(\.\d+)?)?( ?[ap]\.?m\.?)?( ?(z|utc|gmt|[+-]\d{2}:?\d{2}))?$")
_YEAR_FIRST = re.compile(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})")
_COMPACT = re.compile(r"(\d{4})(\d{2})(\d{2})")
_NUMERIC = re.compile(r"(\d{1,2})( ?[-/.] ?)(\d{1,2})\2(\d{4}|\d{2})")
_DAY_MONTH = re.compile(
    r"(?:[^\W\d_]+\.?,? )?(\d{1,2})(?:st|nd|rd|th|er|º|\.)?[ /.-]*(?:of |de |d')?([^\W\d_]+)\.?,?[ /.-]*(?:de |del )?(\d{4}|\d{2})"
)
_MONTH_DAY = re.compile(r"(?:[^\W\d_]+\.?, ?)?([^\W\d_]+)\.?[ -]*(\d{1,2})(?:st|nd|rd|th)?(?:,[ ]?|[ -]+)(\d{4})")
_YEAR_MONTH = re.compile(r"(\d{4})[ /.-]+([^\W\d_]+)\.?[ /.-]+(\d{1,2})")

# English, German, French, Spanish, Italian, Portuguese, Dutch; folded. A name with two meanings would not be in here.
_MONTH_NAMES = (
    "jan january januar jänner janvier janv enero ene gennaio gen janeiro januari",
    "feb february februar feber février fevrier févr fev fév febrero febbraio fevereiro februari",
    "mar march märz maerz mrz mär mars marzo março marco maart mrt",
    "apr april avril avr abril abr aprile",
    "may mai mayo maggio mag maio mei",
    "jun june juni juin junio giugno giu junho",
    "jul july juli juillet juil julio luglio lug julho",
    "aug august août aout agosto ago augustus",
    "sep sept september septembre septiembre settembre set setembro",
    "oct october oktober okt octobre octubre ottobre ott outubro out",
    "nov november novembre noviembre novembro",
    "dec december dezember dez décembre decembre déc diciembre dic dicembre dezembro",
)
_MONTHS = {name: number for number, names in enumerate(_MONTH_NAMES, 1) for name in names.split()}
_MONTH_FIRST_REGIONS = {"us", "ph", "fm", "pw", "mh", "gu", "as", "pr"}


def read_date(text: str, locale: str | None = None) -> str | None:
    """YYYY-MM-DD, or None: no date, an impossible one, or one with two readings (05/03/2024) that no locale settles.

    Two-digit years follow POSIX: 69 to 99 are 19xx, 00 to 68 are 20xx. A time of day behind the date is left out.
    """
    text = _TIME.sub("", text) if ":" in text or "h" in text else text
    if found := _YEAR_FIRST.fullmatch(text) or _COMPACT.fullmatch(text):
        year, month, day = (int(found[i]) for i in ((1, 3, 4) if found.re is _YEAR_FIRST else (1, 2, 3)))
        return _spell(year, month, day)
    if found := _NUMERIC.fullmatch(text):
        return _settle(int(found[1]), int(found[3]), _year(found[4]), found[2].strip(), locale)
    for pattern, groups in ((_DAY_MONTH, (3, 2, 1)), (_MONTH_DAY, (3, 1, 2)), (_YEAR_MONTH, (1, 2, 3))):
        found = pattern.fullmatch(text)
        if found and found[groups[1]] in _MONTHS:
            return _spell(_year(found[groups[0]]), _MONTHS[found[groups[1]]], int(found[groups[2]]))
    return None


def _settle(first: int, second: int, year: int, separator: str, locale: str | None) -> str | None:
    day_first, month_first = _spell(year, second, first), _spell(year, first, second)
    if day_first is None or month_first is None or day_first == month_first:
        return day_first or month_first
    if separator == ".":
        return day_first  # dots are written day first wherever they are in use
    if locale is None:
        return None
    return month_first if _is_month_first(locale) else day_first


def _is_month_first(locale: str) -> bool:
    """ "en_US" and the bare "en" are month first; "en_GB" and every other language day first."""
    language, _, region = locale.replace("-", "_").casefold().partition("_")
    region = region.partition(".")[0]
    return region in _MONTH_FIRST_REGIONS if region else language in {"en", "us"}


def _year(digits: str) -> int:
    year = int(digits)
    return year if len(digits) == 4 else year + (1900 if year >= 69 else 2000)


def _spell(year: int, month: int, day: int) -> str | None:
    try:
        return datetime.date(year, month, day).isoformat()
    except ValueError:
        return None
