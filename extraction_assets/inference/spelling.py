r"""How values are spelled in an answer, as regular expressions (Rust's syntax, which llguidance reads).

The one spelling is json.dumps(..., ensure_ascii=False)'s: `"` and `\` and five control characters have short escapes, the other
control characters are \u00xx in lower case, and everything else stands as it is. Knows nothing of schemas and of grammars.
"""

from __future__ import annotations

CHARACTER = r"""(?:[^"\\\x00-\x1f]|\\["\\bfnrt]|\\u00(?:0[0-7be-f]|1[0-9a-f]))"""
"""one character of a string, escaped or not"""

WHOLE_DIGITS = 18
"""digits before the decimal point of a JSON number: what fits 64 bits"""
DECIMALS = 17
"""digits behind it: as many as a double's shortest spelling has"""

_REGULAR_DAY = "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
_LEAP_YEAR = "(?:[1-9][0-9](?:0[48]|[2468][048]|[13579][26])|(?:[2468][048]|[13579][26])00)"
CALENDAR_DATE = f"(?:[1-9][0-9]{{3}}-{_REGULAR_DAY}|{_LEAP_YEAR}-02-29)"
"""YYYY-MM-DD of a day that exists (Gregorian), years 1000 to 9999"""


def plain_decimal(max_length: int) -> str:
    """A decimal in text: sign, digits, at most one point. At most about twice max_length long: the caller cuts it."""
    more = max(max_length - 1, 0)
    return rf"-?(?:0|[1-9][0-9]{{0,{more}}})(?:\.[0-9]{{1,{max(more, 1)}}})?"


def number(
    low: int | None, low_open: bool, high: int | None, high_open: bool, decimals: int = DECIMALS, whole_only: bool = False
) -> str | None:
    """A JSON number between low and high (None: no bound; open: the bound itself is left out); None if there is none.

    Plain decimals as json.dumps spells a Python int or float: no exponent, no spare zero (1.5, 2.0, but not 1.50), no -0.
    decimals: digits behind the point. whole_only: 3 and 3.0, which JSON Schema calls an integer too.
    """
    from_zero = (0, False) if low is None or low < 0 else (low, low_open)
    below_zero = (0, True) if high is None or high >= 0 else (-high, high_open)
    positive = [] if high is not None and high < 0 else _magnitudes(*from_zero, high, high_open, decimals, whole_only)
    depth = None if low is None else -low
    negative = [] if low is not None and low >= 0 else _magnitudes(*below_zero, depth, low_open, decimals, whole_only)
    parts = positive + [f"-{part}" for part in negative]
    return f"(?:{'|'.join(parts)})" if parts else None


def _magnitudes(low: int, low_open: bool, high: int | None, high_open: bool, decimals: int, whole_only: bool) -> list[str]:
    """Regular expressions of the numbers from low to high, 0 <= low."""
    parts = []
    if whole := _whole_between(low + low_open, None if high is None else high - high_open):
        parts.append(rf"{whole}(?:\.0)?" if decimals or whole_only else whole)
    # low.5 lies above low, so low's own openness does not matter; high.5 lies above high
    if decimals and not whole_only and (floor := _whole_between(low, None if high is None else high - 1)):
        parts.append(rf"{floor}\.[0-9]{{0,{decimals - 1}}}[1-9]")
    return parts


def _whole_between(low: int, high: int | None) -> str | None:
    """Whole numbers from low to high, without leading zeros; None if there are none."""
    longest = WHOLE_DIGITS if high is None else len(str(high))
    parts = []
    for digits in range(len(str(low)), longest + 1):
        smallest = 10 ** (digits - 1) if digits > 1 else 0
        first, last = max(low, smallest), 10**digits - 1 if high is None else min(high, 10**digits - 1)
        if high is None and first == smallest > 0:
            parts.append(f"[1-9][0-9]{{{digits - 1},{longest - 1}}}")
            break
        if first <= last:
            parts.append(_same_length(str(first), str(last)))
    return f"(?:{'|'.join(parts)})" if parts else None


def _same_length(low: str, high: str) -> str:
    """Digit strings from low to high, both of the same length."""
    if low == high:
        return low
    rest = len(low) - 1
    if set(low[1:]) <= {"0"} and set(high[1:]) <= {"9"}:
        return _digit(low[0], high[0]) + (f"[0-9]{{{rest}}}" if rest else "")
    if low[0] == high[0]:
        return low[0] + _same_length(low[1:], high[1:])
    parts = [low[0] + _same_length(low[1:], "9" * rest), high[0] + _same_length("0" * rest, high[1:])]
    if int(high[0]) - int(low[0]) > 1:
        parts.append(f"{_digit(chr(ord(low[0]) + 1), chr(ord(high[0]) - 1))}[0-9]{{{rest}}}")
    return f"(?:{'|'.join(parts)})"


def _digit(low: str, high: str) -> str:
    return low if low == high else f"[{low}-{high}]"
