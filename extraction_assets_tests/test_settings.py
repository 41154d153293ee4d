"""Settings: a typo, a wrong type or an impossible value is one line that names file, line and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from extraction_assets.errors import InputError
from extraction_assets.home import PROJECT
from extraction_assets.settings import Settings, recommendation_warnings
from extraction_assets.settings_file import load_settings


def load(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    return load_settings(path)


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(InputError) as caught:
        load(tmp_path, text)
    line = str(caught.value)
    assert "\n" not in line
    assert "settings.yaml" in line
    return line


def test_the_commented_default_file_says_exactly_the_defaults() -> None:
    assert load_settings(PROJECT / "data" / "settings.yaml") == Settings()


def test_the_default_file_names_every_key() -> None:
    import yaml

    values = yaml.safe_load((PROJECT / "data" / "settings.yaml").read_text())
    for name, field in Settings().model_dump().items():
        assert name in values
        if isinstance(field, dict):
            assert set(values[name]) == set(field), name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("training:\n  lerning_rate: 1e-4\n", ":2 training.lerning_rate: unknown key. Did you mean learning_rate?"),
        ("trainig: {}\n", "Did you mean training?"),
        ("render:\n  dpi: high\n", ":2 render.dpi: found 'high'"),
        ("render:\n  dpi: 0\n", "greater than or equal to 18"),
        ("render: [1]\n", "render"),
        ("splits: {train: 0.9, val: 0.2, test: 0.1}\n", "train + val + test must be 1"),
        ("training:\n  r: 8\n  r: 16\n", ":3 r: stands here for the second time"),
        ("render:\n dpi: 1\n  x: 2\n", "not valid YAML"),
        ("- a\n", "holds a list"),
        ("automation: {timezone: Mars/Olympus}\n", "unknown time zone 'Mars/Olympus'"),
        ("automation: {cron: often}\n", "not a cron line"),
        ("render: [1, 2]\n", ":1 render: found [1, 2]: Input should be a section"),
        ("splits:\n  held_out_vendors: invoice/acme\n", ":2 splits.held_out_vendors: found 'invoice/acme': Input should be a list"),
        ("render: {dpi: 2024-13-45}\n", ":1 render.dpi: found '2024-13-45'"),
        (f"workers: {'9' * 5000}\n", "holds a value that cannot be read"),
        ("workers: !!int x\n", "holds a value that cannot be read"),
        ("[" * 3000, "is nested too deeply"),
        ("render: &itself\n  dpi: *itself\n", "is nested too deeply"),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in refusal(tmp_path, text)


def test_numbers_are_read_as_people_write_them(tmp_path: Path) -> None:
    assert load(tmp_path, "training: {learning_rate: 1e-4}\n").training.learning_rate == 1e-4


def test_comments_key_order_and_written_out_defaults_change_no_digest(tmp_path: Path) -> None:
    one = load(tmp_path, "render: {dpi: 150, max_pages: 10}\n")
    two = load(tmp_path, "# words\nrender:\n  max_pages: 10\n  dpi: 150.0\n  memory_mb: 2048\n")
    assert one.render.digest == two.render.digest
    assert one.render.digest != Settings().render.digest


def test_values_outside_the_recipe_work_and_warn_with_the_range(tmp_path: Path) -> None:
    settings = load(tmp_path, "training: {r: 64, method: qlora, learning_rate: 2e-4}\n")
    assert recommendation_warnings(settings) == [
        "training.r: 64 is outside the recommended range 8 to 16",
        "training.learning_rate: 0.0002 is outside the recommended range 0.0001 to 0.00015",
    ]
    assert recommendation_warnings(Settings()) == []
