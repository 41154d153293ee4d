"""Reads one printed amount or number into its canonical spelling. Text comes in folded (NFKC, lower case, single spaces)."""

from __future__ import annotations

import re
import unicodedata

_MINUS = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2212\ufe63"), "-")
_APOSTROPHES = dict.fromkeys(map(ord, "\u2018\u2019\u02bc`\u00b4"), "'")
# ISO 4217, and the signs that are written with letters.
_CURRENCY_WORDS = """
aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bhd bif bmd bnd bob brl bsd btn bwp byn bzd cad cdf chf clp cny cop crc
cup cve czk djf dkk dop dzd egp ern etb eur fjd fkp gbp gel ghs gip gmd gnf gtq gyd hkd hnl htg huf idr ils inr iqd irr isk jmd
jod jpy kes kgs khr kmf kpw krw kwd kyd kzt lak lbp lkr lrd lsl lyd mad mdl mga mkd mmk mnt mop mru mur mvr mwk mxn myr mzn nad
ngn nio nok npr nzd omr pab pen pgk php pkr pln pyg qar ron rsd rub rwf sar sbd scr sdg sek sgd shp sle sos srd ssp stn svc syp
szl thb tjs tmt tnd top try ttd twd tzs uah ugx usd uyu uzs ves vnd vuv wst xaf xcd xof xpf yer zar zmw zwl euro rm rs rs. rp kr
kr. zł kč ft fr fr. sfr sfr. lei лв руб руб.
"""
_CURRENCIES = frozenset(_CURRENCY_WORDS.split())
_LETTERS = re.compile(r"[^\W\d_]+\.?")
_DECIMAL_COMMA_WORDS = "de fr es it pt nl pl cs sk da sv nb nn no fi ru uk tr hu ro bg hr sl sr el lt lv et id vi is ca"
_DECIMAL_COMMA_LANGUAGES = frozenset(_DECIMAL_COMMA_WORDS.split())
_POINT_REGIONS = {"ch", "li", "mx", "us", "pr", "gt", "hn", "ni", "sv", "do", "pa", "pe"}


def read_decimal(text: str, money: bool, locale: str | None = None) -> str | None:
    """`1190.5` for "1.190,50 EUR", `-5` for "(5.00)"; None if it is no number. Exact at any length, nothing is rounded.

    money: currency signs and codes may stand around it (else a percent sign).
    """
    text = text.translate(_MINUS).translate(_APOSTROPHES)
    if not text.isascii():
        text = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)
    digits, negative = _strip_marks(text, money)
    parts = _split(digits, locale) if digits else None
    if parts is None:
        return None
    whole, fraction = parts[0].lstrip("0") or "0", parts[1].rstrip("0")
    spelled = f"{whole}.{fraction}" if fraction else whole
    return f"-{spelled}" if negative and spelled != "0" else spelled


def _strip_marks(text: str, money: bool) -> tuple[str | None, bool]:
    """The digits with their separators, and whether the value is negative; None for what is more than marks around digits."""
    negative = False
    text = re.sub(r"(?<=\d)[.,] ?-{1,2}$", "", text)  # "5,-" is five, not minus five
    signs = 0
    while text and not (text[0].isdigit() and text[-1].isdigit()):
        before = text
        text = text.strip()
        if text.startswith("(") and text.endswith(")"):
            negative, signs, text = True, signs + 1, text[1:-1]
        elif text[:1] in {"-", "+"} or (text[-1:] in {"-", "+"} and text[:1].isdigit()):
            sign = text[0] if text[0] in "-+" else text[-1]
            text = text[1:] if text[0] == sign else text[:-1]
            negative, signs = negative or sign == "-", signs + 1
        elif money:
            text = _strip_currency(text)
        elif text.endswith("%"):
            text = text[:-1]
        if text == before:
            if text[:1] in {".", ","} and text[-1].isdigit():  # ".5"
                return text, negative
            return None, False
        if signs > 2:
            return None, False
    return (text or None), negative


def _strip_currency(text: str) -> str:
    """Without one currency mark at either end: "us$ 5" -> "5", "5 eur" -> "5"."""
    if unicodedata.category(text[0]) == "Sc":
        return text[1:]
    if unicodedata.category(text[-1]) == "Sc":
        return text[:-1]
    head = _LETTERS.match(text)
    if head:
        rest = text[head.end() :]
        if head[0] in _CURRENCIES or (len(head[0]) <= 3 and rest[:1] and unicodedata.category(rest[0]) == "Sc"):
            return rest
        if head[0].endswith(".") and head[0][:-1] in _CURRENCIES:
            return rest
    tail = re.search(r"[^\W\d_]+\.?$", text)
    if tail and (tail[0] in _CURRENCIES or tail[0].rstrip(".") in _CURRENCIES):
        return text[: tail.start()]
    return text


def _split(text: str, locale: str | None) -> tuple[str, str] | None:
    """(whole digits, fraction digits) of digits with separators, or None."""
    if re.fullmatch(r"[0-9]+", text):
        return text, ""
    if not re.fullmatch(r"[0-9., ']+", text):
        return None
    points, commas = text.count("."), text.count(",")
    if points and commas:
        mark = "." if text.rfind(".") > text.rfind(",") else ","
    elif points == 1 or (commas == 1 and not _is_grouped_once(text, locale)):
        mark = "." if points else ","
    else:
        mark = ""
    whole, fraction = text.rsplit(mark, 1) if mark else (text, "")
    if fraction and not fraction.isdigit():
        return None
    digits = _ungroup(whole)
    return None if digits is None or (not digits and not fraction) else (digits, fraction)


def _is_grouped_once(text: str, locale: str | None) -> bool:
    """Is the only comma a thousands separator? 1,190 is, unless the locale has decimal commas; 0,125 and 1190,000 cannot be."""
    head, tail = text.split(",")
    if len(tail) != 3 or not head or head.startswith("0"):
        return False
    if not head.isdigit() or len(head) > 3:
        return False
    return not _has_decimal_comma(locale)


def _has_decimal_comma(locale: str | None) -> bool:
    if locale is None:
        return False
    language, _, region = locale.replace("-", "_").casefold().partition("_")
    return language in _DECIMAL_COMMA_LANGUAGES and region.partition(".")[0] not in _POINT_REGIONS


def _ungroup(whole: str) -> str | None:
    """Digits of a whole part whose groups are well formed with one kind of separator (thousands, or Indian lakhs)."""
    if whole.isdigit() or not whole:
        return whole
    marks = {c for c in whole if not c.isdigit()}
    if len(marks) != 1:
        return None
    first, *middle, last = whole.split(marks.pop())
    if len(last) != 3 or not 1 <= len(first) <= 3:
        return None
    if all(len(group) == 3 for group in middle) or (len(first) <= 2 and all(len(group) == 2 for group in middle)):
        return "".join((first, *middle, last))
    return None
