"""What no grammar can keep is refused when it is built, with the JSON pointer; numbers and dates are spelled exactly as they may be."""

from __future__ import annotations

import datetime
import json
import random
import re
from typing import Any

import pytest

from extraction_assets.errors import InputError
from extraction_assets.inference import spelling
from extraction_assets.inference.grammar_rules import lint
from extraction_assets_tests.inference.grammar_schemas import AMOUNT, DATE, TEXT, all_schemas, obj, of, rows

NUMBER = {"type": ["number", "null"]}


@pytest.mark.parametrize(
    ("leaf", "pointer", "words"),
    [
        (rows(TEXT, prefixItems=[TEXT]), "/prefixItems", "Use items"),
        (rows(TEXT, contains={"const": "x"}), "/contains", "Remove it"),
        (obj({"a": TEXT}, minProperties=1), "/minProperties", "every key"),
        (rows(TEXT, minItems=4), "/maxItems", "expected at least minItems, 4"),
        (obj({"a": TEXT}, required=["a", "b"]), "/required", "'b' is not among the properties"),
        ({**TEXT, "minLength": 25}, "/maxLength", "expected at least minLength, 25"),
        ({**TEXT, "pattern": "(?=a)b"}, "/pattern", "look-around"),
        ({**TEXT, "pattern": "^abc$", "maxLength": 2}, "/pattern", "Simplify it"),
        ({**DATE, "maxLength": 8}, "/maxLength", 'Or set "x-form": "printed"'),
        ({**DATE, "x-form": "iso"}, "/x-form", "expected one of canonical, printed"),
        ({**TEXT, "x-form": "printed"}, "/x-form", "Remove it"),
        ({**NUMBER, "x-type": "amount", "x-form": "printed"}, "/x-form", "Remove it"),
        ({**NUMBER, "minimum": 0.5}, "/minimum", "expected a whole number"),
        ({**NUMBER, "multipleOf": 0.25}, "/multipleOf", "expected 1, 0.1, 0.01"),
        ({**NUMBER, "minimum": 3, "exclusiveMaximum": 3}, "/maximum", "no number is allowed"),
        ({"enum": [{"a": 1}, None]}, "/enum", "expected plain values"),
        ({"type": "string", "enum": [1, None]}, "/enum", "values of the field's type"),
        ({"type": "number", "const": "EUR"}, "/const", "values of the field's type"),
    ],
)
def test_what_no_grammar_can_keep_is_an_error_with_its_pointer(leaf: dict[str, Any], pointer: str, words: str) -> None:
    for document, place in ((obj({"f": leaf}), "/properties/f"), (obj({"r": rows(obj({"f": leaf}))}), "/properties/r/items/properties/f")):
        with pytest.raises(InputError) as caught:
            lint(of(document))
        assert caught.value.where == f"x.schema.json {place}{pointer}"
        assert words in str(caught.value)


@pytest.mark.parametrize("schema", all_schemas(), ids=lambda schema: f"{schema.name}-{schema.digest[:4]}")
def test_what_a_grammar_can_keep_passes(schema: Any) -> None:
    lint(schema)


def test_dates_are_the_days_that_exist() -> None:
    date = re.compile(spelling.CALENDAR_DATE)
    years = [1000, 1600, 1700, 1900, 2000, 2023, 2024, 2100, 2400, 9999]
    texts = [f"{year:04}-{month:02}-{day:02}" for year in years for month in range(14) for day in range(33)]
    texts += [f"{year}-02-29" for year in range(1000, 10000)]
    assert [text for text in texts if bool(date.fullmatch(text)) != _exists(text)] == []


def test_numbers_are_those_between_the_bounds_as_json_dumps_spells_them() -> None:
    """Against the definition, on random bounds and on numbers that stand on and beside them."""
    for seed in range(1500):
        chosen = random.Random(seed)
        low, high = chosen.choice([None, chosen.randint(-300, 300)]), chosen.choice([None, chosen.randint(-300, 300)])
        low_open, high_open, whole_only = chosen.random() < 0.5, chosen.random() < 0.5, chosen.random() < 0.3
        pattern = spelling.number(low, low_open, high, high_open, decimals=2, whole_only=whole_only)
        near = [bound + step for bound in (low, high, 0) if bound is not None for step in (-1, -0.01, 0, 0.0, 0.5, 1)]
        for value in [*near, chosen.randint(-9999, 9999), chosen.randint(-32000, 32000) / 100]:
            value = round(value, 2) + 0  # 0 instead of -0.0
            expected = (
                (low is None or value > low or (value == low and not low_open))
                and (high is None or value < high or (value == high and not high_open))
                and (not whole_only or value == int(value))
            )
            assert bool(pattern and re.fullmatch(pattern, json.dumps(value))) == expected, (
                low,
                low_open,
                high,
                high_open,
                whole_only,
                value,
            )


@pytest.mark.parametrize("wrong", ["01", "-", "1.", ".5", "+1", "1e5", "1.50", "-0", "1" * 19, "1,5", ""])
def test_other_spellings_of_numbers_are_none(wrong: str) -> None:
    pattern = spelling.number(None, False, None, False)
    assert pattern
    assert not re.fullmatch(pattern, wrong)


def test_every_character_has_one_spelling() -> None:
    character = re.compile(spelling.CHARACTER)
    for code in [*range(0x300), 0x2028, 0xFEFF, 0x1F600]:
        spelled = json.dumps(chr(code), ensure_ascii=False)[1:-1]
        assert character.fullmatch(spelled), spelled
        for other in {f"\\u{code:04x}", f"\\u{code:04X}", f"\\{chr(code)}", chr(code)} - {spelled}:
            if other not in ("\\b", "\\f", "\\n", "\\r", "\\t"):  # those spell other characters
                assert not character.fullmatch(other), other


def _exists(text: str) -> bool:
    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        return False
    return True


def test_amounts_in_text_are_plain_decimals_of_their_length() -> None:
    pattern = re.compile(spelling.plain_decimal(AMOUNT["maxLength"]))
    assert all(pattern.fullmatch(text) for text in ("0", "-12.50", "1234567.89", "0.05", "19.00", "-0.00"))
    assert not any(pattern.fullmatch(text) for text in ("", "007", "1.", ".5", "1,250.00", "1 250", "5-", "+5", "$5", "5 EUR", "١٢"))
