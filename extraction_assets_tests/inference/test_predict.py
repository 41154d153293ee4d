from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from extraction_assets.errors import InputError
from extraction_assets.inference import predict
from extraction_assets.inference.answers import Answerer
from extraction_assets.inference.predict import PARTIAL, RenderedPage, predict_pages, predict_split
from extraction_assets.model.base import Base
from extraction_assets.model.examples import read_examples
from extraction_assets.schema import TargetSchema
from extraction_assets.settings import DecodingSettings
from extraction_assets_tests.model.pages import page_png, write_split

SETTINGS = DecodingSettings(max_output_tokens=12, batch_size=2)
_FIELD = {"type": ["string", "null"], "maxLength": 6, "x-type": "text"}
SCHEMA = TargetSchema(
    {
        "type": "object",
        "additionalProperties": False,
        "required": ["number", "buyer", "total"],
        "properties": {"number": _FIELD, "buyer": _FIELD, "total": _FIELD},
    },
    "x",
    "x.schema.json",
)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_split(tmp_path_factory.mktemp("split"), "val", 6)


def _predict(split: Path, base: Base, base_folder: Path, out: Path, **more: Any) -> list[dict[str, Any]]:
    predict_split(split, base_folder, None, SETTINGS, out, loaded=base, **more)
    return [json.loads(line) for line in out.read_text(encoding="utf-8").split("\n")[:-1]]


def test_every_example_has_one_line_in_order_with_nothing_of_time_in_it(split: Path, base: Base, base_folder: Path, tmp_path: Path) -> None:
    lines = _predict(split, base, base_folder, tmp_path / "out.jsonl")
    assert [line["id"] for line in lines] == [f"val-{i}" for i in range(6)]
    assert all(set(line) == {"id", "text", "finish_reason", "tokens"} for line in lines)
    _predict(split, base, base_folder, tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "out.jsonl").read_bytes()


@pytest.mark.parametrize("cut", [0, 1, -3])
def test_killed_and_called_again_it_goes_on_and_ends_the_same(
    split: Path, base: Base, base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    whole = _predict(split, base, base_folder, tmp_path / "whole.jsonl")
    work, out = tmp_path / "work", tmp_path / "out.jsonl"

    class Killed(BaseException):
        pass

    def kill(done: int, total: int) -> None:
        if done == 3:
            raise Killed

    with pytest.raises(Killed):
        _predict(split, base, base_folder, out, work=work, progress=kill)
    assert not out.exists()
    partial = work / PARTIAL
    if cut < 0:  # the kill hit the middle of a line
        partial.write_bytes(partial.read_bytes()[:cut])
    elif cut:  # or left rubbish behind
        partial.write_bytes(partial.read_bytes() + b'{"id": 3}\n\xff\xfe')
    asked: list[int] = []
    real = Answerer.answer_each
    monkeypatch.setattr(Answerer, "answer_each", lambda self, pages, settings: (asked.append(len(pages)), real(self, pages, settings))[1])
    assert _predict(split, base, base_folder, out, work=work) == whole
    assert asked == [4 if cut < 0 else 3]
    assert not partial.exists()


def test_answers_to_another_question_are_not_reused(split: Path, base: Base, base_folder: Path, tmp_path: Path) -> None:
    work, out = tmp_path / "work", tmp_path / "out.jsonl"
    whole = _predict(split, base, base_folder, out)
    lines = [json.dumps({"question": "another"}), json.dumps({"id": "val-0", "text": "stale", "finish_reason": "stop", "tokens": 1})]
    work.mkdir()
    (work / PARTIAL).write_text("\n".join(lines) + "\n")
    assert _predict(split, base, base_folder, tmp_path / "b.jsonl", work=work) == whole


def test_an_empty_split_gives_an_empty_file_without_a_model(tmp_path: Path, base_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "load_base", lambda *_: pytest.fail("loaded a model for nothing"))
    (tmp_path / "val.jsonl").write_text("")
    assert predict_split(tmp_path / "val.jsonl", base_folder, None, SETTINGS, tmp_path / "out.jsonl").read_text() == ""


def test_rendered_pages_are_answered_as_the_same_pages_of_a_split(split: Path, base: Base, base_folder: Path, tmp_path: Path) -> None:
    lines = _predict(split, base, base_folder, tmp_path / "out.jsonl")
    png = (split.parent / "pages" / "val-1.png").read_bytes()
    pages = [RenderedPage("a.pdf", 1, png, 96, 64), RenderedPage("a.pdf", 2, page_png(64, 64, 5), 64, 64)]
    answers = predict_pages(pages, SCHEMA, Answerer.of(base), SETTINGS.model_copy(update={"constrained": False}))
    assert [(a.file, a.page) for a in answers] == [("a.pdf", 1), ("a.pdf", 2)]
    assert answers[0].answer.text == lines[1]["text"]
    assert answers[0].answer.seconds > 0


def test_answers_of_a_split_are_held_to_the_schema_that_each_example_names(
    split: Path, base: Base, base_folder: Path, tmp_path: Path
) -> None:
    digest = read_examples(split)[0].schema
    settings = DecodingSettings(max_output_tokens=64, batch_size=2)
    predict_split(split, base_folder, None, settings, tmp_path / "held.jsonl", loaded=base, schemas={digest: SCHEMA})
    held = [json.loads(line) for line in (tmp_path / "held.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(SCHEMA.is_valid(json.loads(line["text"])) for line in held if line["finish_reason"] == "stop")
    assert any(line["finish_reason"] == "stop" for line in held)
    free = settings.model_copy(update={"constrained": False})
    predict_split(split, base_folder, None, free, tmp_path / "free.jsonl", loaded=base, schemas={digest: SCHEMA})
    assert not any(line.startswith('{"number"') for line in (tmp_path / "free.jsonl").read_text(encoding="utf-8").splitlines())


def test_a_page_that_cannot_be_read_names_file_and_page(base: Base) -> None:
    with pytest.raises(InputError, match=r"page a\.pdf p2: page image cannot be read"):
        predict_pages([RenderedPage("a.pdf", 2, b"no png", 64, 64)], SCHEMA, Answerer.of(base), SETTINGS)
