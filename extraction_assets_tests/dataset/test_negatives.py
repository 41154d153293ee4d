"""Promises about hard negatives."""

import io
import json
from random import Random
from typing import Any

import numpy as np
import pytest
from PIL import Image

from extraction_assets.dataset.negatives import KINDS, build_negatives, is_chosen
from extraction_assets.dataset.page_targets import build_page_targets
from extraction_assets.dataset.records import HardNegative, VendorTargets
from extraction_assets.dataset.scan_effects import skew
from extraction_assets.documents.records import PageText, VendorPages
from extraction_assets.errors import InputError
from extraction_assets.settings import NegativeSettings, TargetSettings
from extraction_assets.store import Store, digest_bytes
from extraction_assets_tests.dataset.paper import document_id, invoice_schema, page_of, table, vendor_labels, vendor_pages

LINES = [
    (50, 60, "Acme Ltd"),
    (50, 100, "Invoice INV-77"),
    (50, 120, "5 March 2024"),
    *table([["Paint", "2", "pcs", "10.00", "20.00"]]),
    (400, 300, "Total EUR 23.80"),
]
LABEL = {
    "number": "INV-77",
    "date": "2024-03-05",
    "seller": "Acme Ltd",
    "currency": "EUR",
    "total": "23.80",
    "rows": [{"description": "Paint", "quantity": "2", "unit": None, "price": "10.00", "amount": "20.00"}],
}
ALL = NegativeSettings(rotated=1, stamped=1, noisy=1, missing_field=1, blank=1, foreign=1)
NONE = dict.fromkeys(KINDS, 0.0)


def clean(
    store: Store, names: tuple[str, ...] = ("one",), label: dict[str, Any] = LABEL, lines: Any = LINES
) -> tuple[VendorTargets, VendorPages]:
    pages = vendor_pages([page_of(store, document_id(name), 1, [*lines, (50, 780, f"copy {name}")], size=(500, 790)) for name in names])
    labels = vendor_labels({document_id(name): label for name in names})
    return build_page_targets(labels, pages, invoice_schema(), TargetSettings(), store), pages


def pixels(store: Store, image: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(store.read_bytes(image, ".png"))).convert("RGB"))


def by_kind(store: Store, settings: NegativeSettings = ALL) -> dict[str, HardNegative]:
    targets, pages = clean(store)
    return {negative.kind: negative for negative in build_negatives(targets, pages, store, settings, workers=1).negatives}


def test_each_kind_is_made_and_linked_to_its_clean_page(store: Store) -> None:
    targets, pages = clean(store)
    made = build_negatives(targets, pages, store, ALL)
    assert [negative.kind for negative in made.negatives] == sorted(KINDS)
    assert {negative.twin for negative in made.negatives} == {targets.targets[0].image}
    assert len({negative.image for negative in made.negatives} | {targets.targets[0].image}) == 7


def test_only_what_was_taken_from_the_page_is_missing_in_the_target(store: Store) -> None:
    made = by_kind(store)
    assert {json.loads(made[kind].target) == LABEL for kind in ("rotated", "stamped", "noisy")} == {True}
    for kind in ("blank", "foreign"):
        assert made[kind].target == invoice_schema().spell({})
    erased = made["missing_field"].what.removeprefix("erased /")
    assert json.loads(made["missing_field"].target) == {**LABEL, erased: None}


def test_the_erased_words_are_gone_and_all_others_untouched(store: Store) -> None:
    targets, pages = clean(store)
    for seed in range(6):
        settings = NegativeSettings(**{**NONE, "missing_field": 1.0}, seed=seed)
        (negative,) = build_negatives(targets, pages, store, settings, workers=1).negatives
        before, after = pixels(store, negative.twin), pixels(store, negative.image)
        boxes = targets.targets[0].value_boxes["/" + negative.what.removeprefix("erased /")]
        for word in PageText.model_validate(store.read_json(pages.pages[0].text or "")).words:
            x0, y0, x1, y1 = (round(v) for v in word.box)
            if word.box in boxes:
                assert before[y0:y1, x0:x1].min() < 128
                assert after[y0:y1, x0:x1].min() == 255
            else:
                assert np.array_equal(before[y0 + 2 : y1 - 2, x0:x1], after[y0 + 2 : y1 - 2, x0:x1]), word.text


def test_fields_printed_by_the_same_words_vanish_together_and_row_cells_stay(store: Store) -> None:
    label = {**LABEL, "seller": "INV-77", "total": "20.00"}
    settings = [NegativeSettings(**{**NONE, "missing_field": 1.0}, seed=seed) for seed in range(12)]
    targets, pages = clean(store, label=label, lines=LINES[:-1])
    erased = {n.what for s in settings for n in build_negatives(targets, pages, store, s, workers=1).negatives}
    assert "erased /number, /seller" in erased
    assert not any("total" in what for what in erased), "its only print is the row's amount"


def test_more_than_one_field_may_vanish_from_a_page_up_to_so_many_as_asked_for(store: Store) -> None:
    targets, pages = clean(store)
    counts = set()
    for seed in range(12):
        settings = NegativeSettings(**{**NONE, "missing_field": 1.0}, missing_at_once=3, seed=seed)
        (negative,) = build_negatives(targets, pages, store, settings, workers=1).negatives
        erased = [pointer.removeprefix("/") for pointer in negative.what.removeprefix("erased ").split(", ")]
        assert json.loads(negative.target) == {**LABEL, **dict.fromkeys(erased)}
        for word in PageText.model_validate(store.read_json(pages.pages[0].text or "")).words:
            if any(word.box in targets.targets[0].value_boxes["/" + name] for name in erased):
                x0, y0, x1, y1 = (round(v) for v in word.box)
                assert pixels(store, negative.image)[y0:y1, x0:x1].min() == 255
        counts.add(len(erased))
    assert counts == {1, 2, 3}


def test_negatives_stay_on_the_grid_within_the_clean_pages_tokens_and_white_in_the_padding(store: Store) -> None:
    targets, pages = clean(store)
    page = pages.pages[0]
    assert page.content_width < page.width
    turned = set()
    for seed in range(8):
        settings = NegativeSettings(**{**NONE, "rotated": 1.0, "noisy": 1.0, "blank": 1.0}, quarter_turns=0.6, seed=seed)
        for negative in build_negatives(targets, pages, store, settings, workers=1).negatives:
            image = pixels(store, negative.image)
            assert image.shape == (negative.height, negative.width, 3)
            assert negative.width % 32 == negative.height % 32 == 0
            assert negative.width * negative.height <= page.width * page.height
            swapped = (negative.width, negative.height) != (page.width, page.height)
            turned.add(swapped)
            content = (page.content_height, page.content_width) if swapped else (page.content_width, page.content_height)
            assert image[:, content[0] :].min() == 255
            assert image[content[1] :].min() == 255
    assert turned == {True, False}


def test_a_quarter_turn_can_be_turned_back_to_the_very_page(store: Store) -> None:
    targets, pages = clean(store)
    page = pages.pages[0]
    settings = NegativeSettings(**{**NONE, "rotated": 1.0}, quarter_turns=1.0)
    (negative,) = build_negatives(targets, pages, store, settings, workers=1).negatives
    quarter = int(negative.what.split()[2]) // 90
    size = (page.content_height, page.content_width) if quarter == 2 else (page.content_width, page.content_height)
    back = np.rot90(pixels(store, negative.image)[: size[0], : size[1]], -quarter)
    assert np.array_equal(back, pixels(store, page.image)[: page.content_height, : page.content_width])


@pytest.mark.parametrize("angle", [-5.0, 0.7, 5.0])
def test_a_skewed_page_keeps_all_its_ink(angle: float) -> None:
    page = np.full((900, 640, 3), 255, dtype=np.uint8)
    marks = {(2, 2): (255, 0, 0), (2, 626): (0, 160, 0), (886, 2): (0, 0, 255), (886, 626): (200, 0, 200)}
    for (y, x), colour in marks.items():
        page[y : y + 12, x : x + 12] = colour
    turned, scale = skew(page, angle, Random(0))
    for colour in marks.values():
        area = (np.abs(turned.astype(int) - colour).max(axis=2) < 60).sum()
        assert area > 0.75 * 144 * scale**2
    assert turned.shape == page.shape
    assert 0.85 < scale < 1


def test_a_skewed_page_says_its_lower_dpi(store: Store) -> None:
    targets, pages = clean(store, lines=[*LINES, (2, 12, "corner"), (455, 785, "corner")])
    settings = NegativeSettings(**{**NONE, "rotated": 1.0}, quarter_turns=0, max_angle=5)
    (negative,) = build_negatives(targets, pages, store, settings, workers=1).negatives
    assert 0.85 * pages.pages[0].dpi < negative.dpi < pages.pages[0].dpi
    assert 1 <= abs(float(negative.what.split()[2])) <= 5


def test_print_under_a_stamp_stays_dark(store: Store) -> None:
    targets, pages = clean(
        store, lines=[(20, 30 + 12 * i, "all the words of this page stand very close to each other here") for i in range(62)] + LINES
    )
    for seed in range(4):
        (negative,) = build_negatives(targets, pages, store, NegativeSettings(**{**NONE, "stamped": 1.0}, seed=seed), workers=1).negatives
        before, after = pixels(store, negative.twin), pixels(store, negative.image)
        changed = (before != after).any(axis=2)
        assert 0.002 < changed.mean() < 0.4
        assert (after <= before).all(), "ink only darkens"
        paper = changed & (before.min(axis=2) > 250)
        assert np.median(after[paper].max(axis=1)) > 120, "and never as dark as print"


def test_equal_inputs_make_equal_bytes_whatever_the_number_of_workers(store: Store, tmp_path: Any) -> None:
    names = ("one", "two", "three")
    first = build_negatives(*clean(store, names), store, ALL, workers=1)
    other = Store(tmp_path / "elsewhere")
    assert build_negatives(*clean(other, names), other, ALL, workers=3) == first


def test_the_share_decides_how_many_and_no_page_depends_on_another(store: Store) -> None:
    images = [digest_bytes(str(i).encode()) for i in range(2000)]
    settings = NegativeSettings(rotated=0.25, noisy=0.5)
    chosen = {kind: [is_chosen(settings, image, kind) for image in images] for kind in ("rotated", "noisy")}
    assert 0.22 < np.mean(chosen["rotated"]) < 0.28
    assert 0.47 < np.mean(chosen["noisy"]) < 0.53
    assert 0.10 < np.mean(np.array(chosen["rotated"]) & np.array(chosen["noisy"])) < 0.15
    alone = build_negatives(*clean(store, ("two",)), store, NegativeSettings(), workers=1)
    together = build_negatives(*clean(store, ("one", "two", "three")), store, NegativeSettings(), workers=1)
    assert set(alone.negatives) == {n for n in together.negatives if n.document == document_id("two")}
    assert build_negatives(*clean(store), store, NegativeSettings(**NONE), workers=1).negatives == ()


def test_what_was_made_is_not_made_again_and_damage_is_repaired(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    targets, pages = clean(store)
    first = build_negatives(targets, pages, store, ALL, workers=1)

    def refuse(*_: Any) -> None:
        raise AssertionError("made again")

    with monkeypatch.context() as patched:
        patched.setattr("extraction_assets.dataset.negatives._make", refuse)
        assert build_negatives(targets, pages, store, ALL, workers=1) == first
    for entry in (store.root / "made").glob("**/*.json"):
        entry.write_bytes(b'{"image": "half')
    for negative in first.negatives:
        store.path(negative.image, ".png").unlink()
    assert build_negatives(targets, pages, store, ALL, workers=1) == first
    assert all(store.has(negative.image, ".png") for negative in first.negatives)


def test_a_scan_has_every_kind_but_the_erased_field(store: Store) -> None:
    pages = vendor_pages([page_of(store, document_id("scan"), 1, LINES, scan=True)])
    targets = build_page_targets(vendor_labels({document_id("scan"): LABEL}), pages, invoice_schema(), TargetSettings(), store)
    made = build_negatives(targets, pages, store, ALL, workers=1)
    assert {negative.kind for negative in made.negatives} == set(KINDS) - {"missing_field"}


def test_blank_pages_of_two_documents_are_two_pictures(store: Store) -> None:
    settings = NegativeSettings(**{**NONE, "blank": 1.0})
    a, b = build_negatives(*clean(store, ("one", "two")), store, settings, workers=1).negatives
    assert a.image != b.image
    assert pixels(store, a.image).mean() > 235


def test_targets_that_do_not_fit_the_pages_are_an_error(store: Store) -> None:
    targets, _ = clean(store)
    _, other = clean(store, ("two",))
    with pytest.raises(InputError, match=r"page_targets\[invoice/acme\].*not among the page images"):
        build_negatives(targets, other, store, ALL)


def test_progress_counts_to_the_end(store: Store) -> None:
    seen: list[tuple[int, int]] = []
    build_negatives(*clean(store), store, ALL, workers=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(n, 6) for n in range(1, 7)]
