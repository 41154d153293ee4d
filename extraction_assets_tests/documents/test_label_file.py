"""Label files: strict JSON objects, every fault with its line."""

from __future__ import annotations

import pytest

from extraction_assets.documents.label_file import parse_label
from extraction_assets.errors import InputError


def test_a_label_is_an_object_in_utf8_with_or_without_its_mark() -> None:
    assert parse_label('{"name": "Köln", "rows": []}'.encode(), "x.json") == {"name": "Köln", "rows": []}
    assert parse_label(b'\xef\xbb\xbf{"a": 1}', "x.json") == {"a": 1}


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (b"[]", 1, "array"),
        (b"null", 1, "null"),
        (b"", 1, "not valid JSON"),
        (b'{"a": 1,\n"b": 2,\n"a": 3}', 3, "'a' stands twice"),
        (b'{"x": {"a": 1},\n"y": {"b": 2,\n\n"b": 3}}', 4, "'b' stands twice"),
        (b'{"a": 1,\n"total": NaN}', 2, "NaN"),
        (b'{"a": 1,\n\n"total": -Infinity}', 3, "Infinity"),
        (b'{"a": 1,\n"b": "\xff"}', 2, "UTF-8"),
        (b'{"a": 1,\n"b": }', 2, "not valid JSON"),
    ],
)
def test_faults_name_their_line(text: bytes, line: int, says: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_label(text, "x.json")
    assert caught.value.where == f"x.json:{line}"
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        b'{"a": "\\ud800"}',
        b'{"a": 1e999}',
        b'{"a": ' * 200 + b"1" + b"}" * 200,
        b'{"a": ' + b"[" * 100000 + b"]" * 100000 + b"}",
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
)
def test_what_no_store_could_keep_is_an_error(text: bytes) -> None:
    with pytest.raises(InputError):
        parse_label(text, "x.json")
