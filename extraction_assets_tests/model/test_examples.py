from __future__ import annotations

import json
from pathlib import Path

import pytest

from extraction_assets.errors import InputError
from extraction_assets.model.examples import read_examples
from extraction_assets_tests.model.pages import write_split


def test_every_line_becomes_one_example_in_order(tmp_path: Path) -> None:
    examples = read_examples(write_split(tmp_path, "train", 3))
    assert [e.id for e in examples] == ["train-0", "train-1", "train-2"]
    assert examples[0].image.read_bytes()
    assert json.loads(examples[0].target)["total"] is None
    assert (examples[1].width, examples[1].height) == (96, 64)


def test_line_separators_inside_json_do_not_cut_a_line(tmp_path: Path) -> None:
    jsonl = write_split(tmp_path, "train", 2)
    jsonl.write_text(jsonl.read_text(encoding="utf-8").replace("Müller", "M\u2028\x85ller"), encoding="utf-8")
    assert "\u2028" in read_examples(jsonl)[0].target


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not valid JSON"),
        ('{"id":"x"}', "not a chat record"),
        ("[]", "not a chat record"),
        ('{"id":"","messages":[],"meta":{}}', "not a chat record"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    jsonl = write_split(tmp_path, "train", 2)
    jsonl.write_text(jsonl.read_text() + line + "\n")
    with pytest.raises(InputError, match=rf"train.jsonl:3: {message}"):
        read_examples(jsonl)


def test_a_repeated_id_is_named(tmp_path: Path) -> None:
    jsonl = write_split(tmp_path, "train", 1)
    jsonl.write_text(jsonl.read_text() * 2)
    with pytest.raises(InputError, match="id train-0 stands there twice"):
        read_examples(jsonl)


def test_a_missing_split_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such split"):
        read_examples(tmp_path / "absent.jsonl")
