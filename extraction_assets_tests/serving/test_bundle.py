"""A bundle is whole, holds nothing that runs, and is refused where one byte of any file is another."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from extraction_assets.errors import InputError
from extraction_assets.model.base import Base
from extraction_assets.serving.bundle import Bundle, open_bundle, write_bundle
from extraction_assets.serving.golden import check_golden
from extraction_assets.settings import DecodingSettings, RenderSettings, ServingSettings
from extraction_assets_tests.serving.conftest import make_bundle


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle.folder, tmp_path / "copy"))


def test_it_opens_as_it_was_written(bundle: Bundle) -> None:
    opened = open_bundle(bundle.folder)
    assert opened.digest == bundle.digest
    assert opened.manifest == bundle.manifest
    assert list(opened.schemas) == ["invoice", "receipt"]
    assert all(page.text.startswith('{"number":') for page in opened.manifest.golden)
    check = check_golden(opened, opened.load())
    assert (check.pages, check.equal, check.agreement) == (2, 2, 1.0)


def test_the_same_parts_make_the_same_bundle(bundle: Bundle, base_folder: Path, tmp_path: Path) -> None:
    assert make_bundle(tmp_path / "again", base_folder).digest == bundle.digest


def test_one_other_byte_in_any_file_is_refused_with_its_name(bundle: Bundle, copy: Path) -> None:
    files = [file for file in sorted(copy.rglob("*")) if file.is_file()]
    assert {file.suffix for file in files} >= {".safetensors", ".json", ".png", ".sha256"}
    for file in files:
        data = file.read_bytes()
        for at in (0, len(data) // 2, len(data) - 1):
            file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            with pytest.raises(InputError) as told:
                open_bundle(copy)
            named = "manifest." if file.name.startswith("manifest.") and file.parent == copy else str(file)
            assert named in str(told.value), file
        file.write_bytes(data)
    assert open_bundle(copy).digest == bundle.digest


def test_a_missing_or_an_extra_file_is_refused_with_its_name(copy: Path) -> None:
    (copy / "base" / "model.pkl").write_bytes(b"\x80\x04")
    with pytest.raises(InputError, match=r"model\.pkl: does not belong"):
        open_bundle(copy)
    (copy / "base" / "model.pkl").unlink()
    (copy / "schemas" / "invoice.schema.json").unlink()
    with pytest.raises(InputError, match=r"invoice\.schema\.json: is missing"):
        open_bundle(copy)


def test_a_link_in_place_of_a_file_is_refused(copy: Path, tmp_path: Path) -> None:
    weights = copy / "base" / "model.safetensors"
    shutil.move(weights, tmp_path / "elsewhere")
    weights.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="is not the file"):
        open_bundle(copy)


@pytest.mark.parametrize("what", ["nothing", "a folder without a manifest"])
def test_what_is_no_bundle_is_one_clear_line(what: str, tmp_path: Path) -> None:
    folder = tmp_path / "it"
    if what != "nothing":
        folder.mkdir()
    with pytest.raises(InputError, match="this is no bundle"):
        open_bundle(folder)


def test_code_and_pickles_of_a_base_stay_behind(bundle: Bundle, base_folder: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(base_folder, tmp_path / "base"))
    for name in ("modeling_evil.py", "pytorch_model.bin", "training_args.pt"):
        (base / name).write_bytes(b"x")
    made = make_bundle(tmp_path / "bundle", base)
    assert {Path(name).suffix for name in made.manifest.files} <= {".safetensors", ".json", ".jinja", ".png", ".md", ".txt"}


def test_a_base_without_safetensors_is_refused(base_folder: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(base_folder, tmp_path / "base"))
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    with pytest.raises(InputError, match="holds no safetensors"):
        make_bundle(tmp_path / "bundle", base)


def test_a_damaged_adapter_makes_no_bundle(base: Base, base_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "bundle").mkdir()
    with pytest.raises(InputError, match="manifest"):
        write_bundle(
            tmp_path / "bundle",
            base_folder,
            tmp_path / "adapter",
            "a" * 64,
            {},
            [],
            RenderSettings(),
            DecodingSettings(),
            ServingSettings(),
        )


def test_other_answers_than_the_golden_ones_are_refused(bundle: Bundle, base_folder: Path, tmp_path: Path) -> None:
    """The same files, but weights that answer differently: what a wrong library version would do."""
    from extraction_assets.demo.tiny_base import write_random_base
    from extraction_assets.inference.answers import Answerer
    from extraction_assets.model.base import load_base

    write_random_base(tmp_path / "other", seed=99)
    with pytest.raises(InputError, match="golden values"):
        check_golden(bundle, Answerer.of(load_base(tmp_path / "other")))
