"""Generated training pages: deterministic, asking only for what stands on them, with glyphs where the pixels have them."""

from __future__ import annotations

import json
import random
import re

import numpy as np
import pytest

from extraction_assets.demo.base_recipe import words
from extraction_assets.demo.base_recipe.asks import CONCEPTS, dictionary, draw_field
from extraction_assets.demo.base_recipe.canvas import Canvas, scanned
from extraction_assets.demo.base_recipe.glyph_batches import glyph_batches
from extraction_assets.demo.base_recipe.glyph_cells import IGNORE, SLOTS, cell_classes
from extraction_assets.demo.base_recipe.pages import Example, crop_example, page_example
from extraction_assets.demo.base_recipe.papers import paper_example
from extraction_assets.demo.base_recipe.words import CHARACTERS


def pages(seed: int, count: int = 12) -> list[Example]:
    rng = random.Random(seed)
    draw = ((crop_example, 224, 128), (page_example, 256, 320), (paper_example, 416, 512))
    return [example(rng, width, height) for example, width, height in (draw[i % 3] for i in range(count))]


def shown(example: Example) -> str:
    """All glyphs of the page without spaces, in the order in which they were drawn: a turned page mixes its lines' heights."""
    return "".join(CHARACTERS[int(code) - 1] for code in example.glyphs[:, 2])


def test_the_same_seed_draws_the_same_pages() -> None:
    for one, other in zip(pages(3), pages(3), strict=True):
        assert (one.instruction, one.answer) == (other.instruction, other.answer)
        assert np.array_equal(one.pixels, other.pixels)


def test_the_instruction_names_the_keys_of_the_answer_in_their_order() -> None:
    for example in pages(4, 40):
        answer = json.loads(example.answer)
        parts = re.findall(r"(\w+)(?:\[([^\]]*)\])?", example.instruction.removeprefix("Extract as JSON: "))
        assert [name for name, _ in parts] == list(answer)
        for name, columns in parts:
            for row in answer[name] if columns else []:
                assert ", ".join(row) == columns


def test_answers_are_compact_json_of_strings_and_nulls() -> None:
    for example in pages(5, 40):
        answer = json.loads(example.answer)
        assert json.dumps(answer, separators=(",", ":"), ensure_ascii=False) == example.answer
        leaves = [leaf for value in answer.values() for leaf in (value if isinstance(value, list) else [value])]
        cells = [cell for leaf in leaves for cell in (leaf.values() if isinstance(leaf, dict) else [leaf])]
        assert all(cell is None or isinstance(cell, str) for cell in cells)


def test_words_that_are_asked_for_stand_on_the_page() -> None:
    checked = 0
    for example in pages(6, 150):
        text = shown(example)
        for value in json.loads(example.answer).values():
            if isinstance(value, str) and re.fullmatch(r"[A-Za-z]{4,}", value):  # one word: no line to put together
                checked += 1
                assert value in text
    assert checked > 5


def test_values_are_read_from_the_glyphs_that_print_them() -> None:
    checked = 0
    for example in pages(8, 60):
        dates = {place for match in re.finditer(r"\d{4}-\d\d-\d\d", example.answer) for place in range(*match.span())}
        for place, (character, points) in enumerate(zip(example.answer, example.sources, strict=True)):
            if place in dates:
                continue  # 03 may be read from 3
            if points is None or len(points) > 1 or not (character.isdigit() or character.islower()) or character not in CHARACTERS:
                continue  # a point may be read from a comma, EUR from a sign
            nearest = example.glyphs[np.linalg.norm(example.glyphs[:, :2] - points[0], axis=1).argmin()]
            assert np.linalg.norm(nearest[:2] - points[0]) < 2
            assert CHARACTERS[int(nearest[2]) - 1] == character
            checked += 1
    assert checked > 1000


def papers(seed: int, count: int) -> list[Example]:
    rng = random.Random(seed)
    return [paper_example(rng, 512, 640) for _ in range(count)]


def test_a_label_with_nothing_beside_it_and_an_empty_cell_are_null() -> None:
    blank_labels = blank_cells = 0
    for example in papers(1, 120):
        text = shown(example).lower()
        for key, value in json.loads(example.answer).items():
            stem = key.split("_")[0]
            blank_labels += value is None and len(stem) > 5 and stem in text
            if isinstance(value, list):
                blank_cells += sum(cell is None for row in value for cell in row.values())
    assert blank_labels > 5
    assert blank_cells > 5


def test_a_currency_that_no_label_names_is_read_off_an_amount() -> None:
    signs = {code: sign for code, sign in words.CURRENCIES.items() if sign != code}
    read = 0
    for example in papers(2, 200):
        answer = json.loads(example.answer)
        for key in ("money_unit", "paid_in"):  # no label repeats these
            if answer.get(key) in signs:
                text = shown(example)
                assert signs[answer[key]] in text or answer[key] in text
                read += 1
    assert read > 5


def test_a_spelling_marks_all_amounts_alike() -> None:
    spelling = words.spelling(random.Random(4), 1)
    printed = {re.sub(r"[\d.,' ]", "", spelling.amount(cents).printed) for cents in (5, 12_345, 99_999_999)}
    assert printed == {spelling.mark}


def test_a_made_up_key_never_takes_a_senders_name() -> None:
    page_example(random.Random(10_016_630), 480, 512)  # drew the key `sender` for a labelled value


@pytest.mark.parametrize(
    ("printed", "canonical", "read_from"),
    [
        ("3. März 2024", "2024-03-03", ["2024"] * 5 + ["März"] * 3 + ["3"] * 2),
        ("05 de mayo de 2019", "2019-05-05", ["2019"] * 5 + ["mayo"] * 3 + ["05"] * 2),
        ("07/11/24", "2024-11-07", ["24"] * 5 + ["11"] * 3 + ["07"] * 2),
        ("2024/11/07", "2024-11-07", ["2024"] * 5 + ["11"] * 3 + ["07"] * 2),
        ("€ 1.234,50", "1234.50", list("1234,50")),
        ("19,5 %", "19.5", list("19,5")),
        ("€", "EUR", ["€"] * 3),
        ("A-7", "A-7", list("A-7")),
    ],
)
def test_each_character_of_a_value_has_its_source_in_print(printed: str, canonical: str, read_from: list[str]) -> None:
    assert ["".join(printed[i] for i in source) for source in words.Value(printed, canonical).sources()] == read_from


@pytest.mark.parametrize("seed", range(30))
def test_amounts_print_what_they_are(seed: int) -> None:
    value = words.amount(random.Random(seed))
    assert re.fullmatch(r"\d+\.\d\d", value.canonical)
    assert re.sub(r"\D", "", value.printed) == value.canonical.replace(".", "")


@pytest.mark.parametrize("seed", range(30))
def test_dates_print_what_they_are(seed: int) -> None:
    value = words.date(random.Random(seed))
    year, _, day = value.canonical.split("-")
    numbers = re.findall(r"\d+", value.printed)
    assert any(number.endswith(year[2:]) for number in numbers)
    assert any(int(number) == int(day) for number in numbers)


def test_glyphs_are_located_where_the_ink_is() -> None:
    canvas = Canvas(96, 32)
    canvas.text(20, 20, "H", "helv", 14)
    picture = canvas.render()
    x, y, code = picture.glyphs[0]
    rows, columns = np.nonzero(picture.pixels[..., 0] < 128)
    assert CHARACTERS[int(code) - 1] == "H"
    assert columns.min() < x < columns.max()
    assert rows.min() < y < rows.max()


def test_turning_a_page_turns_its_glyphs() -> None:
    canvas = Canvas(256, 256)
    canvas.text(20, 40, "M", "hebo", 20)
    picture = canvas.render()
    moved = 0
    for seed in range(30):
        turned = scanned(picture, random.Random(seed))
        if not np.array_equal(turned.glyphs, picture.glyphs):
            moved += 1
            x, y = turned.glyphs[0, :2].round().astype(int)
            near, far = turned.pixels[y - 5 : y + 6, x - 6 : x + 7], turned.pixels[100:200, 100:200]
            assert near.mean() < far.mean() - 40
    assert moved


def test_a_cell_holds_the_class_of_its_glyph_in_the_models_patch_order() -> None:
    glyphs = np.array([[34.0, 4.0, 7]], dtype=np.float32)  # third patch column, first row: first patch of the second 2 x 2 block
    cells = cell_classes(glyphs, 64, 32)
    assert cells.shape == (8, SLOTS)
    assert np.argwhere(cells > 0).tolist() == [[4, 0]]
    assert cells[4, 0] == 7


def test_glyphs_that_share_a_cell_or_touch_a_border_are_not_scored() -> None:
    shared = cell_classes(np.array([[33.5, 4, 7], [34.5, 4, 8]], dtype=np.float32), 64, 32)
    assert (shared > 0).sum() == 0
    assert (shared == IGNORE).sum() == 1
    border = cell_classes(np.array([[36.2, 4, 7]], dtype=np.float32), 64, 32)
    assert border[4].tolist()[:2] == [IGNORE, 7]


def test_batches_of_one_group_differ_and_come_again_by_number() -> None:
    first, second = glyph_batches(1, 0, 2, patches=96)
    again = glyph_batches(1, 0, 2, patches=96)[1]
    assert not np.array_equal(first.pixels, second.pixels)
    assert np.array_equal(second.pixels, again.pixels)
    assert np.array_equal(second.classes, again.classes)


def test_no_label_is_one_of_the_demos() -> None:
    vendors = pytest.importorskip("extraction_assets.demo.vendors", reason="the demo's vendors are not here")
    labels = {
        vendors.fold_label(label)
        for known in (CONCEPTS, dictionary())
        for concepts in known.values()
        for _, labels in concepts
        for label in labels
    }
    assert not labels & vendors.DEMO_WORDS
    rng = random.Random(0)
    drawn = {vendors.fold_label(draw_field(rng, set()).label) for _ in range(3000)}
    assert not drawn & vendors.DEMO_WORDS
