"""What stands on the generated pages: words, names, ids, dates and amounts, drawn from a `random.Random`.

A value has two sides: how it is printed, and what a strict JSON target holds for it. None of these lists is shared with the demo's
vendors; most words are made of syllables, because a base has to read letters, not to know words.
"""

from __future__ import annotations

import datetime
import random
import re
import string
from dataclasses import dataclass
from typing import Literal

from extraction_assets.demo.base_recipe.tokenizer_sample import ACCENTED, SYMBOLS, WORDS, listed

CHARACTERS = string.digits + string.ascii_letters + ACCENTED + "".join(c for c in SYMBOLS)
"""Every character that a generated page may show; class k of the glyph head is CHARACTERS[k - 1], class 0 is a blank."""

_ONSETS = listed(
    "b c d f g h j k l m n p r s t v w z br ch cl cr dr fl fr gl gr kl kr pl pr qu sch sh sk sl sm sn sp st str th tr tw wh x y"
)
_NUCLEI = listed("a e i o u a e i o u a e i o ai au ea ee ei eu ie oa oo ou ay")
_CODAS = ["", "", "", "", *listed("b ck d f g l ll m n nd ng nk nt p r rd rk rm rn rt s ss st t tt x z")]
_ENDINGS = listed("a er en in o um al on is el ing ung ia ers mann son ton ski berg ley")
_LOWER_ACCENTED = "".join(character for character in ACCENTED if character.islower())
_PLAIN = tuple(word for word in WORDS if len(word) > 2)
_FORMS = listed("GmbH AG Ltd Inc LLC SARL SpA BV AB Oy KG Co Corp SA Group Sons Ltd. Inc. e.K. s.r.o. A/S d.o.o. N.V. S.A.S.")
_SHORT_MONTHS = listed("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec")
_LONG_MONTHS = tuple(
    listed(line)
    for line in (
        "January February March April May June July August September October November December",
        "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
        "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
        "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
        "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
        "januari februari maart april mei juni juli augustus september oktober november december",
    )
)
CURRENCIES = {
    "EUR": "€",
    "USD": "$",
    "GBP": "£",
    "JPY": "¥",
    "CHF": "CHF",
    "SEK": "kr",
    "PLN": "zł",
    "CZK": "Kč",
    "DKK": "DKK",
    "NOK": "NOK",
}


@dataclass(frozen=True)
class Value:
    printed: str
    canonical: str
    """what a target holds: ISO dates, plain decimals, ISO currency codes, text as printed"""

    def sources(self) -> list[range]:
        """For each character of `canonical`, the characters of `printed` that it is read from."""
        everything = range(len(self.printed))
        if self.canonical == self.printed:
            return [range(i, i + 1) for i in everything]
        if re.fullmatch(r"\d{4}-\d\d-\d\d", self.canonical):
            year, month, day = _date_parts(self.printed)
            return [year] * 5 + [month] * 3 + [day] * 2
        if re.fullmatch(r"[\d.]+", self.canonical):
            return _digit_sources(self.printed, self.canonical)
        return [everything] * len(self.canonical)


def as_printed(text: str) -> Value:
    return Value(text, text)


def _date_parts(printed: str) -> tuple[range, range, range]:
    """Where year, month and day stand in one of `date`'s forms: y m d where the year leads, d m y else; a month may be a word."""
    numbers = [range(*match.span()) for match in re.finditer(r"\d+", printed)]
    if len(numbers) == 3:
        return (numbers[0], numbers[1], numbers[2]) if len(numbers[0]) == 4 else (numbers[2], numbers[1], numbers[0])
    month = max((range(*match.span()) for match in re.finditer(r"[^\W\d]+", printed)), key=len)
    day, year = sorted(numbers, key=len)
    return year, month, day


def _digit_sources(printed: str, canonical: str) -> list[range]:
    """Digits in their order; a point is read from what follows the digit before it."""
    sources: list[range] = []
    place = 0
    for character in canonical:
        while character != "." and place < len(printed) - 1 and printed[place] != character:
            place += 1
        sources.append(range(place, place + 1))
        place = min(place + 1, len(printed) - 1)
    return sources


def pseudo_word(rng: random.Random, most: int = 3) -> str:
    """One made-up lower-case word; one in five carries an accent."""
    word = ""
    for _ in range(rng.randint(1, most)):
        word += rng.choice(_ONSETS) + rng.choice(_NUCLEI) + rng.choice(_CODAS)
    if rng.random() < 0.35:
        word += rng.choice(_ENDINGS)
    if rng.random() < 0.2:
        place = rng.randrange(len(word)) if rng.random() < 0.7 else len(word) - 1
        word = word[:place] + rng.choice(_LOWER_ACCENTED) + word[place + 1 :]
    return word


def word(rng: random.Random) -> str:
    chosen = rng.choice(_PLAIN) if rng.random() < 0.35 else pseudo_word(rng)
    style = rng.random()
    if style < 0.55:
        return chosen[0].upper() + chosen[1:]
    return chosen.upper() if style > 0.92 and "ß" not in chosen else chosen


def phrase(rng: random.Random, least: int = 1, most: int = 3) -> str:
    return " ".join(word(rng) for _ in range(rng.randint(least, most)))


def company(rng: random.Random) -> str:
    name = phrase(rng, 1, 2)
    if rng.random() < 0.15:
        name = f"{word(rng)} & {name}"
    form = rng.random()
    if form < 0.4:
        return f"{name} {rng.choice(_FORMS)}"
    return f"{name} {dotted(rng)}" if form < 0.65 else name


def dotted(rng: random.Random) -> str:
    """An abbreviation of two to four letters, in any mixture of cases: its points and the height of its letters must be seen, not guessed."""
    return "".join(rng.choice(string.ascii_letters) + "." for _ in range(rng.randint(2, 4)))


def person(rng: random.Random) -> str:
    first, last = (pseudo_word(rng, 2).capitalize() if rng.random() < 0.6 else rng.choice(_PLAIN).capitalize() for _ in range(2))
    return f"{first[0]}. {last}" if rng.random() < 0.15 else f"{first} {last}"


def address(rng: random.Random) -> str:
    street = pseudo_word(rng, 2).capitalize() + rng.choice(["straße", " Street", " Road", "weg", "gatan", " Lane", "platz", " 8a", "allee"])
    return f"{street} {rng.randint(1, 240)}, {rng.randint(1000, 99999)} {pseudo_word(rng, 2).capitalize()}"


def identifier(rng: random.Random) -> str:
    """Numbers and codes of many makes: 4711, RX-20931, 22/0451, K8-PL.4402, 2025-000317, ..."""
    digits = lambda least, most: "".join(rng.choices(string.digits, k=rng.randint(least, most)))  # noqa: E731
    letters = lambda least, most: "".join(rng.choices(string.ascii_uppercase, k=rng.randint(least, most)))  # noqa: E731
    make = rng.random()
    sep = rng.choice(["-", "-", "/", ".", ".", " ", "", "_"])
    if make < 0.3:
        return digits(3, 9)
    if make < 0.55:
        return f"{letters(1, 3)}{sep}{digits(3, 8)}"
    if make < 0.7:
        return f"20{rng.randint(10, 29)}{sep}{digits(3, 6)}"
    if make < 0.8:
        return f"{digits(2, 4)}{sep}{digits(2, 5)}{rng.choice(['', '', letters(1, 2)])}"
    if make < 0.9:
        return f"{letters(1, 2)}{digits(1, 2)}{sep or '-'}{letters(1, 2)}{digits(2, 5)}"
    return "".join(rng.choices(string.ascii_uppercase + string.digits, k=rng.randint(5, 10)))


DATE_FORMS = (
    "{d:02d}.{m:02d}.{y}",
    "{d:02d}.{m:02d}.{y}",
    "{d}.{m}.{y}",
    "{d:02d}/{m:02d}/{y}",
    "{d:02d}-{m:02d}-{y}",
    "{y}-{m:02d}-{d:02d}",
    "{y}-{m:02d}-{d:02d}",
    "{y}/{m:02d}/{d:02d}",
    "{d} {short} {y}",
    "{d:02d}-{short}-{y}",
    "{short} {d}, {y}",
    "{long} {d}, {y}",
    "{d} {long} {y}",
    "{d}. {long} {y}",
    "{d} de {long} de {y}",
    "{d:02d}.{m:02d}.{yy:02d}",
)
"""short and long: the month's name"""
NUMBER_FORMS = ((",", "."), (",", "."), (".", ","), (".", ","), (" ", ","), ("'", "."), ("", "."), ("", ","))
"""thousands separator, decimal separator"""


@dataclass(frozen=True)
class Spelling:
    """How one page spells dates and money: real papers keep to one way."""

    day: str
    """one of DATE_FORMS"""
    months: tuple[str, ...]
    thousands: str
    point: str
    currency: str
    """ISO code"""
    mark: str
    """what is printed for it: the code or a sign"""
    marked: Literal["before", "after", "glued", "never"]
    """where the mark stands beside an amount"""

    def date(self, day: datetime.date) -> Value:
        names = {"short": _SHORT_MONTHS[day.month - 1], "long": self.months[day.month - 1]}
        return Value(self.day.format(y=day.year, yy=day.year % 100, m=day.month, d=day.day, **names), day.isoformat())

    def amount(self, cents: int, marked: bool = True) -> Value:
        whole, rest = divmod(cents, 100)
        printed = f"{whole:,}".replace(",", self.thousands) + f"{self.point}{rest:02d}"
        if marked and self.marked != "never":
            gap = "" if self.marked == "glued" else " "
            printed = f"{printed} {self.mark}" if self.marked == "after" else f"{self.mark}{gap}{printed}"
        return Value(printed, f"{whole}.{rest:02d}")


def spelling(rng: random.Random, marks: float) -> Spelling:
    """marks: how often amounts carry the currency."""
    thousands, point = rng.choice(NUMBER_FORMS)
    code = rng.choice(list(CURRENCIES))
    mark = rng.choice([code, CURRENCIES[code]])
    marked: Literal["before", "after", "glued", "never"] = "never"
    if rng.random() < marks:
        marked = rng.choice(["before", "after", "glued" if len(mark) == 1 else "after"])
    return Spelling(rng.choice(DATE_FORMS), rng.choice(_LONG_MONTHS), thousands, point, code, mark, marked)


def some_day(rng: random.Random) -> datetime.date:
    return datetime.date(2000, 1, 1) + datetime.timedelta(days=rng.randrange(11_300))


def some_cents(rng: random.Random) -> int:
    cents = int(10 ** rng.uniform(1.5, 6.6))
    return cents - cents % 100 if rng.random() < 0.2 else cents


def date(rng: random.Random) -> Value:
    return spelling(rng, 0).date(some_day(rng))


def amount(rng: random.Random) -> Value:
    """Money, printed in one of the ways of the world; canonical has a point and two decimals."""
    return spelling(rng, 0.3).amount(some_cents(rng))


def currency(rng: random.Random) -> Value:
    code = rng.choice(list(CURRENCIES))
    sign = CURRENCIES[code]
    return Value(sign if sign in "€$£¥" and rng.random() < 0.4 else code, code)


def count(rng: random.Random) -> Value:
    number = rng.choice([rng.randint(1, 12), rng.randint(1, 99), rng.randint(1, 999)])
    if rng.random() < 0.08:
        part = rng.choice(["5", "25", "75", str(rng.randint(1, 9))])
        return Value(f"{number}{rng.choice('.,')}{part}", f"{number}.{part}")
    return Value(str(number), str(number))


def percent(rng: random.Random) -> Value:
    number = rng.choice([0, 5, 7, 8, 10, 12, 15, 19, 20, 21, 22, 25, rng.randint(1, 99), 5.5, 7.7, 2.5])
    text = f"{number}".replace(".", rng.choice([".", ","]))
    return Value(text + rng.choice(["%", " %"]), str(number))


def contact(rng: random.Random) -> str:
    ascii_word = lambda: "".join(c for c in pseudo_word(rng, 2) if c.isascii())  # noqa: E731
    kind = rng.random()
    if kind < 0.35:
        return (
            f"{ascii_word()}{rng.choice(['.', '_', ''])}{ascii_word()}@{ascii_word()}.{rng.choice(['com', 'de', 'eu', 'fr', 'net', 'org'])}"
        )
    if kind < 0.5:
        return f"www.{ascii_word()}.{rng.choice(['com', 'de', 'eu', 'it', 'co.uk'])}"
    if kind < 0.8:
        return f"+{rng.randint(1, 99)} {rng.choice(['', '(0)'])}{rng.randint(10, 999)} {rng.randint(1000, 999999)}"
    return rng.choice(["DE", "FR", "NL", "IT", "SE"]) + "".join(rng.choices(string.digits, k=rng.randint(9, 20)))


def scrap(rng: random.Random) -> str:
    """Any of the above as printed, and now and then a run of arbitrary characters: rare glyphs must be read as well."""
    kind = rng.random()
    if kind < 0.30:
        return phrase(rng, 1, 3)
    if kind < 0.44:
        return identifier(rng)
    if kind < 0.62:
        return amount(rng).printed
    if kind < 0.72:
        return date(rng).printed
    if kind < 0.77:
        return company(rng)
    if kind < 0.80:
        return address(rng)
    if kind < 0.84:
        return contact(rng)
    if kind < 0.87:
        return percent(rng).printed
    if kind < 0.93:
        return "".join(rng.choices(string.digits + string.ascii_letters, k=rng.randint(2, 9)))
    return "".join(rng.choices(CHARACTERS, k=rng.randint(2, 8)))
