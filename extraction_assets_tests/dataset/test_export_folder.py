"""What is never exported, because a trainer would misread it, and what an export's folder promises."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from extraction_assets.dataset.export import FORMATS, FormatName, folder
from extraction_assets.dataset.records import SPLITS
from extraction_assets.errors import InputError
from extraction_assets.settings import TrainingSettings
from extraction_assets.store import digest_bytes
from extraction_assets_tests.dataset.exports import READERS, Dataset, page

# --- text that a trainer would misread ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("mark", ["<|im_end|>", "<|image_pad|>", "<|vision_start|>", "<|endoftext|>"])
def test_a_control_token_in_vendor_text_is_refused_by_file_and_line(dataset: Dataset, name: FormatName, mark: str) -> None:
    dataset.rows["test"].append(page(dataset.store, "z", number=f"A{mark}", total=None))
    with pytest.raises(InputError, match=r"\.jsonl:\d /messages/1/content/0/text: the target holds " + re.escape(mark)):
        dataset.export(name)
    assert not (dataset.home / "exports").exists()


@pytest.mark.parametrize("mark", ["<image>", "<video>", "<audio>", "<bbox>"])
def test_a_placeholder_in_vendor_text_is_refused_where_it_means_something(dataset: Dataset, mark: str) -> None:
    dataset.rows["train"].append(page(dataset.store, "z", number=f"A{mark}", total=None))
    meaning: dict[str, set[FormatName]] = {"<audio>": {"llamafactory", "swift"}, "<bbox>": {"swift"}}
    for name in FORMATS:
        if name in meaning.get(mark, {"qwen", "llamafactory", "swift"}):
            with pytest.raises(InputError, match=rf"\.jsonl:\d /messages/1/content/0/text: the target holds {mark}"):
                dataset.export(name)
        else:
            assert any(mark in it.answer for it in READERS[name](dataset.export(name).folder, "train"))


@pytest.mark.parametrize(
    ("name", "instruction"),
    [
        ("llamafactory", "What is <image>?"),
        ("swift", "What is <image>?"),
        ("qwen", "What is <image>?"),
        ("llamafactory", "Row {{idx}}"),
        ("qwen", "Extract as JSON: assistant_name"),
        ("qwen", " Extract as JSON: number"),
        ("trl", "Say <|im_end|>"),
    ],
)
def test_an_instruction_that_a_trainer_would_misread_is_refused_by_file_and_line(
    dataset: Dataset, name: FormatName, instruction: str
) -> None:
    dataset.rows["train"] = [it.model_copy(update={"instruction": instruction}) for it in dataset.rows["train"]]
    with pytest.raises(InputError, match=r"\.jsonl:1 /messages/0/content/1/text: the instruction .* Change x-instruction"):
        dataset.export(name)


def test_a_page_that_a_trainer_would_enlarge_is_refused(dataset: Dataset) -> None:
    """LLaMA-Factory has no argument for the lower limit of the checkpoint's own image processor."""
    dataset.rows["test"] = [page(dataset.store, "small", 224, 160)]
    with pytest.raises(InputError, match=r"\.jsonl:1 /meta: the page is 224 x 160 px = 35,840 px; expected 65,536 px or more"):
        dataset.export("llamafactory")
    assert dataset.export("trl").splits["test"].examples == 1


def test_a_split_without_training_examples_is_refused(dataset: Dataset) -> None:
    dataset.rows["train"] = []
    with pytest.raises(InputError, match="no example to train on"):
        dataset.export("trl")


# --- the folder --------------------------------------------------------------------------------------------------------------


def test_a_finished_export_is_reused_and_other_settings_have_another(dataset: Dataset) -> None:
    export = dataset.export("trl")
    before = (export.folder / "export.json").stat().st_mtime_ns
    assert dataset.export("trl") == export
    assert (export.folder / "export.json").stat().st_mtime_ns == before
    assert dataset.export("trl", training=TrainingSettings()).folder != export.folder
    dataset.rows["train"].append(page(dataset.store, "new"))
    assert dataset.export("trl").folder != export.folder


def test_a_killed_export_leaves_nothing_that_looks_finished(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    out = dataset.home / "out"
    if (child := os.fork()) == 0:  # dies where a kill would find everything written and nothing named
        folder.os.replace = lambda *_: os._exit(9)  # type: ignore[assignment]
        dataset.export("swift", out)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert not out.exists()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(folder, "_write_file", stop)
        left = set(dataset.home.iterdir())
        with pytest.raises(KeyboardInterrupt):
            dataset.export("swift", out)
        assert set(dataset.home.iterdir()) == left
    assert dataset.export("swift", out).folder == out


def test_an_empty_folder_is_filled(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert (dataset.export("swift", tmp_path / "empty").folder / "train.jsonl").is_file()


def test_a_foreign_folder_is_left_alone(dataset: Dataset, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"foreign: holds other files; expected a new or empty folder.* Choose another --out"):
        dataset.export("trl", foreign)
    assert [path.name for path in foreign.iterdir()] == ["thesis.txt"]
    with pytest.raises(InputError, match=r"thesis.txt: is a file; expected"):
        dataset.export("trl", foreign / "thesis.txt")
    dataset.export("qwen", tmp_path / "mine")
    with pytest.raises(InputError, match="holds an export for qwen, of other splits or settings"):
        dataset.export("trl", tmp_path / "mine")


@pytest.mark.parametrize("spoil", ["train.jsonl", "train.yaml", "images"])
def test_a_changed_export_is_not_passed_off_as_finished(dataset: Dataset, spoil: str) -> None:
    export = dataset.export("swift")
    if spoil == "images":
        next((export.folder / "images").iterdir()).unlink()
    else:
        (export.folder / spoil).write_text("changed")
    with pytest.raises(InputError, match=f"{spoil}: was changed or removed since it was exported"):
        dataset.export("swift")


def test_a_page_that_is_missing_or_damaged_is_named(dataset: Dataset) -> None:
    path = dataset.store.local_path(dataset.rows["train"][1].image, ".png")
    good = path.read_bytes()
    path.unlink()
    with pytest.raises(InputError, match=r"\.jsonl:\d: page image .* is missing from the store"):
        dataset.export("trl")
    path.write_bytes(good[:-9])
    with pytest.raises(InputError, match=r"\.png: does not hold what its name says"):
        dataset.export("trl")
    assert not list((dataset.home / "exports").iterdir())


def test_pages_are_copied_where_they_cannot_be_linked(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(folder.os, "link", no_links)
    export = dataset.export("swift")
    assert {digest_bytes(path.read_bytes()) for path in (export.folder / "images").iterdir()} == {
        it.image for split in SPLITS for it in dataset.rows[split]
    }
