"""How sure a model was of each value: the probability that it gave to the value's own tokens, the closing one included.

Raw, before any calibration: good for ranking values, not yet a share of right ones. Tokens that the grammar leaves no choice in count as 1.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence

_PART = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')
_CLOSES = {b"{": b"}", b"[": b"]"}


def value_confidence(text: str, tokens: Sequence[bytes], logprobs: Sequence[float]) -> dict[str, float]:
    """JSON pointer of each plain value -> probability of its tokens, six digits behind the point.

    text: a strict JSON answer. tokens: what it was written in, as bytes. logprobs: natural logarithm of each token's probability.
    Empty for a text that is no JSON or that these tokens do not spell.
    """
    data = text.encode()
    if b"".join(tokens) != data:
        return {}
    ends, end = [], 0
    for token in tokens:
        end += len(token)
        ends.append(end)
    told: dict[str, float] = {}
    first = 0
    try:
        for pointer, start, stop in value_spans(data):
            while first < len(ends) and ends[first] <= start:
                first += 1
            last, total = first, 0.0
            while last < len(ends) and (ends[last - 1] if last else 0) < stop:
                total += logprobs[last]
                last += 1
            told[pointer] = round(math.exp(total), 6)
    except ValueError:
        return {}
    return told


def value_spans(data: bytes) -> Iterator[tuple[str, int, int]]:
    """(JSON pointer, first byte, byte behind the last) of each plain value, what closes it included: the quote of a string, the comma
    or bracket behind anything else. Raises ValueError at what is no JSON.
    """
    keys: list[str | int] = []  # where the next value stands: a key of an object, an index of an array
    opened: list[bytes] = []
    key_follows = False
    for match in _PART.finditer(data):
        part = match.group()
        if part in (b"{", b"["):
            opened.append(part)
            keys.append("" if part == b"{" else 0)
            key_follows = part == b"{"
        elif part in (b"}", b"]"):
            if not opened or _CLOSES[opened.pop()] != part:
                raise ValueError(f"{part!r} closes nothing")
            keys.pop()
            key_follows = False
        elif part == b",":
            if not opened:
                raise ValueError("a comma outside any object")
            key_follows = opened[-1] == b"{"
            if isinstance(keys[-1], int):
                keys[-1] += 1
        elif key_follows:
            keys[-1] = str(json.loads(part))
            key_follows = False
        elif part != b":":
            pointer = "".join(f"/{str(key).replace('~', '~0').replace('/', '~1')}" for key in keys)
            closing = 0 if part.startswith(b'"') else 1
            yield pointer, match.start(), min(match.end() + closing, len(data))
