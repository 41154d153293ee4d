"""What a printed date or number can mean, and how codes are printed. Pure text: no pages, no boxes.

A printed value has readings: 03/05/2024 is 3 May or 5 March, 1.234 is one and a bit or a thousand odd. Two spellings are the
same value when they share a reading. Nothing here decides which reading is meant: that is the label's to say.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any

_MONTHS = (
    # a prefix of three letters or more that two languages give to different months belongs to the earlier language
    "january february march april may june july august september october november december",
    "januar februar marz april mai juni juli august september oktober november dezember",
    "janvier fevrier mars avril mai juin juillet aout septembre octobre novembre decembre",
    "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
    "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
    "januari februari maart april mei juni juli augustus september oktober november december",
    "janeiro fevereiro marco abril maio junho julho agosto setembro outubro novembro dezembro",
    "januari februari mars april maj juni juli augusti september oktober november december",
    "januar februar marts april maj juni juli august september oktober november desember",
    "stycznia lutego marca kwietnia maja czerwca lipca sierpnia wrzesnia pazdziernika listopada grudnia",
    "styczen luty marzec kwiecien maj czerwiec lipiec sierpien wrzesien pazdziernik listopad grudzien",
    "ledna unora brezna dubna kvetna cervna cervence srpna zari rijna listopadu prosince",
    "ianuarie februarie martie aprilie mai iunie iulie august septembrie octombrie noiembrie decembrie",
    "januar februar marcius aprilis majus junius julius augusztus szeptember oktober november december",
    "tammikuuta helmikuuta maaliskuuta huhtikuuta toukokuuta kesakuuta heinakuuta elokuuta syyskuuta lokakuuta marraskuuta joulukuuta",
)


def _month_prefixes() -> dict[str, int]:
    prefixes: dict[str, int] = {"maerz": 3, "jaenner": 1, "janner": 1, "febr": 2, "sept": 9}
    for names in _MONTHS:
        for month, name in enumerate(names.split(), start=1):
            for end in range(3, len(name) + 1):
                prefixes.setdefault(name[:end], month)
    return prefixes


_MONTH_OF = _month_prefixes()

_ORDINAL = r"(?:st|nd|rd|th|er|[.ºª])?"
_OF = r"(?:(?:of|de|del|di|den)(?![a-z]))?"
_YEAR = r"(\d{4}|\d{2})(?!\d)"
_YMD = re.compile(r"(?<!\d)(\d{4})\s?([./\-])\s?(\d{1,2})\s?\2\s?(\d{1,2})(?!\d)|(?<!\d)(\d{4})\s?年\s?(\d{1,2})\s?月\s?(\d{1,2})\s?日")
_DMY = re.compile(r"(?<!\d)(\d{1,2})\s?([./\-])\s?(\d{1,2})\s?\2\s?" + _YEAR)
_D_MONTH_Y = re.compile(rf"(?<!\d)(\d{{1,2}}){_ORDINAL}[\s\-/.,]*{_OF}[\s\-/.]*([a-z]{{3,12}})[\s\-/.,']*{_OF}\s*{_YEAR}")
_MONTH_D_Y = re.compile(rf"(?<![a-z])([a-z]{{3,12}})\.?[\s\-/]*(\d{{1,2}}){_ORDINAL}[\s\-/.,']+{_YEAR}")
_Y_MONTH_D = re.compile(r"(?<!\d)(\d{4})[\s\-/.,]*([a-z]{3,12})[\s\-/.]*(\d{1,2})(?!\d)")
_COMPACT = re.compile(r"(?<![\w.,])((?:19|20)\d{2})(\d{2})(\d{2})(?:\d{4}|\d{6})?(?!\w)")  # a time of day may follow: 202003311232


def fold(text: str) -> str:
    """NFKC, ligatures apart, case and accents folded: what is left is what an eye calls the same letters."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
    return "".join(char for char in decomposed if not unicodedata.combining(char)).replace("ı", "i").replace("ł", "l").replace("ø", "o")


def printed_dates(folded: str) -> Iterator[tuple[int, int, tuple[date, ...]]]:
    """Every date in folded text: (start, end, readings), the likeliest reading first. Offsets count folded characters."""
    for match in _YMD.finditer(folded):
        year, month, day = (int(part) for part in (match[1], match[3], match[4]) if part) if match[1] else map(int, match.group(5, 6, 7))
        yield from _found(match, (year, month, day))
    for match in _DMY.finditer(folded):
        first, second, year = int(match[1]), int(match[3]), _full_year(match[4])
        # a dot means day first everywhere; a slash or a dash may be either
        orders = [(year, second, first)] if match[2] == "." else [(year, second, first), (year, first, second)]
        yield from _found(match, *orders)
    for match in _D_MONTH_Y.finditer(folded):
        yield from _found(match, (_full_year(match[3]), _MONTH_OF.get(match[2], 0), int(match[1])))
    for match in _MONTH_D_Y.finditer(folded):
        yield from _found(match, (_full_year(match[3]), _MONTH_OF.get(match[1], 0), int(match[2])))
    for match in _Y_MONTH_D.finditer(folded):
        yield from _found(match, (int(match[1]), _MONTH_OF.get(match[2], 0), int(match[3])))
    for match in _COMPACT.finditer(folded):
        yield from _found(match, (int(match[1]), int(match[2]), int(match[3])))


def date_readings(value: str) -> tuple[date, ...]:
    """The days that a label's date can mean; empty if the value is no date."""
    folded = re.sub(r"[t ]+\d{1,2}:\d{2}.*$", "", " ".join(fold(value).split()))  # a time of day is not part of the day
    readings: dict[date, None] = {}
    for start, end, days in printed_dates(folded):
        if end - start >= 0.6 * len(folded):  # else the value is a sentence with a date in it
            readings.update(dict.fromkeys(days))
    return tuple(readings)


def _found(match: re.Match[str], *orders: tuple[int, int, int]) -> Iterator[tuple[int, int, tuple[date, ...]]]:
    days: dict[date, None] = {}
    for year, month, day in orders:
        if 1900 <= year <= 2199 and 1 <= month <= 12 and 1 <= day <= 31:
            try:
                days[date(year, month, day)] = None
            except ValueError:  # 31 February
                continue
    if days:
        yield match.start(), match.end(), tuple(days)


def _full_year(digits: str) -> int:
    year = int(digits)
    return year if len(digits) == 4 else year + (2000 if year < 70 else 1900)


# --- numbers ------------------------------------------------------------------------------------------------------------------

_CURRENCY_SYMBOLS = "$€£¥₹₩₪₺₴₽₫฿₱₦¢"
DASHES = str.maketrans(
    {"−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "’": "'", "ʼ": "'", "`": "'", "´": "'", "\u00a0": " ", "\u202f": " "}
)
_DIGITS = re.compile(r"\d[\d.,']*")
_AFTER = re.compile(r"(?:[.,]?-{1,2}|[A-Za-zµ°²³%‰€$£¥₹()\[\]*:;.,!?\"'+|/\u00c0-\u024f]*)$")


def number_readings(digits: str) -> tuple[Decimal, ...]:
    """Values that an unsigned run of digits and separators can have; the reading with a decimal point first.

    "1.234,50" and "1,234.50" have one, "1.234" has two (1.234, 1234), "05.03.2024" has none.
    """
    digits = digits.rstrip(".,'")
    points, commas = digits.count("."), digits.count(",")
    if "'" in digits or " " in digits:
        whole, _, rest = re.sub(r"[' ]", "\x00", digits).rpartition("\x00")
        groups = [*whole.split("\x00"), re.split(r"[.,]", rest)[0]]
        if not _grouped(groups) or (points + commas) > 1:
            return ()
        return _decimals(re.sub(r"[' ]", "", digits).replace(",", "."))
    if points and commas:
        mark = "." if digits.rfind(".") > digits.rfind(",") else ","
        other = "," if mark == "." else "."
        whole, _, fraction = digits.rpartition(mark)
        if digits.count(mark) > 1 or not _grouped(whole.split(other)):
            return ()
        return _decimals(f"{whole.replace(other, '')}.{fraction}")
    if points + commas == 0:
        return _decimals(digits)
    mark = "." if points else ","
    groups = digits.split(mark)
    if points + commas == 1:
        readings = _decimals(digits.replace(",", "."))
        return readings + _decimals("".join(groups)) if _grouped(groups) and groups[0] != "0" else readings
    return _decimals("".join(groups)) if _grouped(groups) else ()


def _grouped(groups: list[str]) -> bool:
    """Thousands in threes (1.234.567), or the Indian way (12,34,567)."""
    if not 1 <= len(groups[0]) <= 3 or any(len(group) not in (2, 3) for group in groups[1:]):
        return False
    in_threes, in_twos = all(len(group) == 3 for group in groups[1:]), all(len(group) == 2 for group in groups[1:-1])
    return len(groups) == 1 or (len(groups[-1]) == 3 and (in_threes or in_twos))


def _decimals(text: str) -> tuple[Decimal, ...]:
    try:
        return (Decimal(text),)
    except InvalidOperation:
        return ()


def label_numbers(value: Any) -> tuple[Decimal, ...]:
    """Readings of a label's amount or number, with its sign: 1234.5, "1.234,50", "$1,234.50", "(12.00)", "RM39.00", "19 %"."""
    if isinstance(value, bool):
        return ()
    if isinstance(value, int | float):
        return _decimals(repr(value))
    text = unicodedata.normalize("NFKC", str(value)).translate(DASHES).strip()
    found = re.fullmatch(r"(?P<before>[^\d]*?)(?P<digits>[.,]?\d(?:[\d.,' ]*\d)?)(?P<after>[^\d]*)", text)
    if found is None or len(re.sub(r"[^A-Za-z]", "", found["before"] + found["after"])) > 8:
        return ()
    digits = "0" + found["digits"] if found["digits"][0] in ".," else found["digits"]
    negative = _negative(found["before"], found["after"])
    return tuple(-reading if negative else reading for reading in number_readings(digits))


def printed_numbers(word: str) -> Iterator[tuple[tuple[Decimal, ...], bool, str]]:
    """Every number in one printed word: (readings with sign, strong, its digits).

    strong: decimals, thousands separators or a currency beside it make it an amount rather than a count. Digits inside names
    (C62, RE-2014/501) are no numbers.
    """
    word = word.translate(DASHES)
    for match in _DIGITS.finditer(word):
        before, after = word[: match.start()], word[match.end() :]
        digits = match[0].rstrip(".,'")
        after = match[0][len(digits) :] + after
        if not _may_precede(before) or not _AFTER.match(after):
            continue
        readings = number_readings("0" + digits if digits[0] in ".," else digits)
        if not readings:
            continue
        money = any(char in _CURRENCY_SYMBOLS for char in before + after) or currency_of(re.sub(r"[^A-Za-z]", "", before or after))
        strong = bool(money) or not digits.isdigit() or after.startswith((",-", ".-"))
        if _negative(before, after):
            readings = tuple(-reading for reading in readings)
        yield readings, strong, digits


def _may_precede(before: str) -> bool:
    """Whether digits after these characters of the same word start a number of their own."""
    if not before or before[-1] in ':;(=|*"[x@×+#~' + _CURRENCY_SYMBOLS:
        return True
    letters = before.strip("-+(.:").strip()
    return before.strip("-+(") == "" or (letters.isalpha() and bool(currency_of(letters)))


def _negative(before: str, after: str) -> bool:
    if "(" in before and ")" in after:
        return True
    return (
        before.rstrip(_CURRENCY_SYMBOLS + " ").endswith("-") or before.startswith("-") or re.fullmatch(r"-\s*[^\d\-]*", after) is not None
    )


# --- codes --------------------------------------------------------------------------------------------------------------------

_CURRENCY_PRINTS = {
    "EUR": "€ euro euros",
    "USD": "$ us$ dollar dollars",
    "GBP": "£ pound pounds",
    "CHF": "fr sfr franken",
    "JPY": "¥ yen",
    "CNY": "¥ rmb yuan",
    "INR": "₹ rs rupees",
    "KRW": "₩ won",
    "PLN": "zł zl",
    "CZK": "kč kc",
    "SEK": "kr kronor",
    "NOK": "kr kroner",
    "DKK": "kr kroner",
    "ISK": "kr",
    "HUF": "ft",
    "RON": "lei",
    "TRY": "₺ tl",
    "RUB": "₽ руб",
    "UAH": "₴ грн",
    "ILS": "₪",
    "VND": "₫",
    "THB": "฿ baht",
    "PHP": "₱",
    "NGN": "₦",
    "MYR": "rm ringgit",
    "ZAR": "r rand",
    "BRL": "r$ $",
    "CAD": "$ c$ ca$",
    "AUD": "$ a$ au$",
    "NZD": "$ nz$",
    "SGD": "$ s$",
    "HKD": "$ hk$",
    "MXN": "$ mx$",
}

_PIECES = (
    "stk stck st stuck stucke stueck pc pcs pce piece pieces ea each unit units un szt ks pz st. pza buc kpl db unite einheit einheiten"
)
_UNIT_PRINTS = {
    "C62": _PIECES,
    "H87": _PIECES,
    "PCE": _PIECES,
    "EA": _PIECES,
    "XPP": _PIECES,
    "HUR": "h hr hrs hour hours std stunde stunden heure heures ora ore uur hora horas",
    "MIN": "min mins minute minutes minuten",
    "SEC": "s sec seconds sekunden",
    "DAY": "d day days tag tage jour jours giorno giorni dag dagen",
    "WEE": "week weeks woche wochen semaine",
    "MON": "month months monat monate mois mese mesi maand",
    "ANN": "year years jahr jahre an ans anno jaar",
    "KGM": "kg kilo kilogramm kilogram",
    "GRM": "g gr gramm gram",
    "TNE": "t to tonne tonnen ton",
    "LTR": "l ltr liter litre litres",
    "MLT": "ml",
    "MTR": "m mtr lfm meter metre metres",
    "CMT": "cm",
    "MMT": "mm",
    "KMT": "km kilometer",
    "MTK": "m2 m² qm",
    "MTQ": "m3 m³ cbm",
    "KWH": "kwh",
    "LS": "psch pausch pauschal pauschale lump flat forfait",
    "SET": "set sets satz",
    "PR": "pair pairs paar",
    "P1": "%",
    "XPK": "pack packs pkg pck packung paket",
    "XBX": "box boxes karton",
    "XCT": "carton cartons karton ctn",
    "NPR": "pair pairs paar",
    "BX": "box boxes",
    "DZN": "doz dozen dutzend",
}
_CURRENCY_MARKS = {code.lower(): code for code in _CURRENCY_PRINTS} | {
    mark: code for code, marks in _CURRENCY_PRINTS.items() for mark in marks.split() if mark.isalpha() and len(mark) > 1
}


def is_currency(value: str) -> bool:
    return value.upper() in _CURRENCY_PRINTS


def currency_of(letters: str) -> str | None:
    """The currency that these letters beside a number stand for (EUR, Euro, RM, kr), if any."""
    return _CURRENCY_MARKS.get(letters.casefold())


def code_prints(value: str) -> tuple[str, ...]:
    """How a code may be printed beside its own letters: EUR as a sign, HUR as Std. Folded, without dots."""
    prints = _CURRENCY_PRINTS.get(value.upper()) or _UNIT_PRINTS.get(value.upper()) or ""
    return tuple(prints.split())
