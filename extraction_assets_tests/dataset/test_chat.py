"""Promises about chat records: validated when written, validated when read, loadable elsewhere."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from extraction_assets.dataset.chat import load_split, strict_json, write_split
from extraction_assets.errors import InputError
from extraction_assets.store import Store
from extraction_assets_tests.dataset.rows import INSTRUCTION, row, sha

ROWS = [row("b", target={"number": "Ä-1", "total": None}), row("a"), row("a", stratum="noisy", twin=row("a").id)]


@pytest.fixture
def written(store: Store, chat_schema: Path) -> Path:
    return Path(str(store.path(write_split(ROWS, "val", store, chat_schema), ".jsonl")))


def test_a_record_says_what_to_read_what_to_answer_and_where_it_comes_from(written: Path, chat_schema: Path) -> None:
    records = {record.id: record for record in load_split(written, chat_schema)}
    assert set(records) == {it.id for it in ROWS}
    it, record = ROWS[2], records[ROWS[2].id]
    assert (record.instruction, record.target) == (INSTRUCTION, it.target)
    meta = record.meta
    assert (meta.document, meta.page, meta.vendor, meta.stratum, meta.twin) == (it.document, 1, "invoice/acme", "noisy", ROWS[1].id)
    assert (meta.split, meta.schema_digest, meta.page_digest) == ("val", it.schema_digest, it.image)
    assert "Ä-1" in written.read_text(encoding="utf-8"), "no escapes"


def test_image_paths_lead_from_the_split_to_the_stored_page(store: Store, chat_schema: Path) -> None:
    image = store.put_bytes(b"a page", ".png")
    digest = write_split([row("a").model_copy(update={"image": image})], "train", store, chat_schema)
    path = Path(str(store.path(digest, ".jsonl")))
    (record,) = load_split(path, json.loads(chat_schema.read_text()))
    assert (path.parent / record.image).resolve().read_bytes() == b"a page"


def test_the_order_of_rows_means_nothing(store: Store, chat_schema: Path) -> None:
    assert len({write_split(rows, "train", store, chat_schema) for rows in (ROWS, ROWS[::-1])}) == 1


def test_an_empty_split_is_an_empty_file(store: Store, chat_schema: Path) -> None:
    path = Path(str(store.path(write_split([], "test", store, chat_schema), ".jsonl")))
    assert list(load_split(path, chat_schema)) == []


def text(answer: str) -> Callable[[dict[str, Any]], None]:
    return lambda line: line["messages"][1]["content"].__setitem__(0, {"type": "text", "text": answer})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda line: line.pop("id"), r":2 /: \"id\" is a required property"),
        (lambda line: line["meta"].update(page=0), r":2 /meta/page: "),
        (lambda line: line["meta"].update(more=1), r":2 /meta: "),
        (lambda line: line["messages"][0]["content"].append({"type": "image", "image": "x"}), r":2 /messages/0/content: "),
        (
            lambda line: line["messages"][0]["content"][0].update(image="../ab/other.png"),
            r":2 /messages/0/content/0/image: names another picture",
        ),
        (text('{"a":1,"a":2}'), r":2 /messages/1/content/0/text: the answer is not strict JSON: key 'a' stands twice"),
        (text('{"a":NaN}'), r":2 /messages/1/content/0/text: the answer is not strict JSON: NaN"),
        (text('{"a":1e999}'), r":2 /messages/1/content/0/text: .*out of range"),
        (text('{"a": 1}'), r":2 /messages/1/content/0/text: the answer is not compact JSON"),
        (text('{"a":1'), r":2 /messages/1/content/0/text: "),
        (text("[1]"), r":2 /messages/1/content/0/text: "),
    ],
)
def test_one_bad_line_is_an_error_that_names_it(
    written: Path, chat_schema: Path, spoil: Callable[[dict[str, Any]], None], message: str
) -> None:
    lines = written.read_text(encoding="utf-8").splitlines()
    line = json.loads(lines[1])
    spoil(line)
    bad = written.parent / "bad.jsonl"
    bad.write_text("\n".join([lines[0], json.dumps(line), lines[2]]), encoding="utf-8")
    with pytest.raises(InputError, match=r"bad\.jsonl" + message):
        list(load_split(bad, chat_schema))


@pytest.mark.parametrize(
    ("line", "message"),
    [(b"", "not strict JSON"), (b"\xff", "not strict JSON"), (b'{"id":1,"id":2}', "stands twice"), (b"[" * 100_000, "not strict JSON")],
)
def test_a_line_that_is_no_json_is_an_error_that_names_it(written: Path, chat_schema: Path, line: bytes, message: str) -> None:
    bad = written.parent / "bad.jsonl"
    bad.write_bytes(line + b"\n" + written.read_bytes())
    with pytest.raises(InputError, match=rf"bad\.jsonl:1: .*{message}"):
        list(load_split(bad, chat_schema))


def test_a_record_that_stands_twice_is_an_error(written: Path, chat_schema: Path) -> None:
    bad = written.parent / "bad.jsonl"
    bad.write_bytes(written.read_bytes() * 2)
    with pytest.raises(InputError, match=r"bad\.jsonl:4 /id: .* stands on line 1 already"):
        list(load_split(bad, chat_schema))


def test_a_bad_example_is_not_written(store: Store, chat_schema: Path) -> None:
    bad = row("a").model_copy(update={"target": '{"a":NaN}'})
    with pytest.raises(InputError, match=rf"train example {bad.id} .*/messages/1/content/0/text: the answer is not strict JSON"):
        write_split([bad], "train", store, chat_schema)


@pytest.mark.parametrize("text", ['{"a":1,"a":1}', "NaN", "-Infinity", "1e400", '"\\ud800"', "{'a':1}", '{"a":1,}'])
def test_strict_json_refuses_what_json_loads_forgives(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's own errors and ours are both ValueErrors
        strict_json(text)


@pytest.mark.slow
def test_it_loads_with_hugging_face_datasets(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    import datasets

    loaded = datasets.load_dataset("json", data_files={"val": str(written)}, cache_dir=str(tmp_path / "cache"))["val"]
    assert loaded.num_rows == 3
    assert {it["id"] for it in loaded} == {it.id for it in ROWS}
    first = next(it for it in loaded if it["id"] == ROWS[1].id)
    assert first["messages"][0]["content"][0]["image"].endswith(f"{sha('a/1/clean')}.png")
    assert first["messages"][1]["content"][0]["text"] == ROWS[1].target
    assert first["meta"]["document"] == sha("a")
