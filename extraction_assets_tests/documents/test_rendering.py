"""Page images: on the grid, upright, with their words in place, equal whatever the workers, drawn once."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pymupdf
import pytest
from PIL import Image

from extraction_assets.documents import rendering
from extraction_assets.documents.records import PageText, VendorPages
from extraction_assets.documents.rendering import RenderedPage, render_bytes, render_files, render_vendor
from extraction_assets.errors import InputError
from extraction_assets.settings import RenderSettings
from extraction_assets.store import Store
from extraction_assets_tests.documents.samples import encoded, exponential_pdf, pdf, pixels, png_of_size, raw_pdf, scan, vendor_documents


def one(data: bytes, settings: RenderSettings) -> RenderedPage:
    document = render_bytes(data, settings)
    assert document.refused == ()
    (page,) = document.pages
    return page


def refusal(data: bytes, settings: RenderSettings) -> str:
    document = render_bytes(data, settings)
    assert document.pages == ()
    (refused,) = document.refused
    assert refused.detail
    return refused.reason


def ink(page: RenderedPage, box: tuple[float, float, float, float]) -> float:
    """Share of dark pixels in a box of the page image."""
    x0, y0, x1, y1 = (round(value) for value in box)
    return float((pixels(page.png)[y0:y1, x0:x1] < 128).mean())


# --- the grid ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(595, 842), (842, 595), (612, 1008), (200, 100), (10, 10), (100, 3000)])
def test_a_page_fills_its_grid_and_the_rest_is_white(width: float, height: float, settings: RenderSettings) -> None:
    document = pymupdf.open()
    document.new_page(width=width, height=height).draw_rect((0, 0, width, height), color=None, fill=(0, 0, 1))
    page = one(document.tobytes(), settings)
    record, picture = page.record, pixels(page.png)
    assert record.width % 32 == record.height % 32 == 0
    assert picture.shape == (record.height, record.width, 3)
    assert record.content_height / record.content_width == pytest.approx(
        height / width, abs=1.5 / record.content_width * max(1, height / width)
    )
    inside = picture[: record.content_height - 1, : record.content_width - 1]
    assert (inside == (0, 0, 255)).all()
    assert (picture[record.content_height :] == 255).all()
    assert (picture[:, record.content_width :] == 255).all()


def test_a_giant_page_takes_no_more_than_the_budget(settings: RenderSettings) -> None:
    page = one(pdf("huge", width=14400, height=14400), settings)
    assert page.record.limited
    assert page.record.width * page.record.height // 1024 <= settings.max_visual_tokens
    assert page.record.dpi < 10


def test_dpi_is_kept_where_the_budget_allows(settings: RenderSettings) -> None:
    record = one(pdf("small", width=288, height=144), settings).record
    assert (record.dpi, record.limited, record.content_width, record.content_height) == (120, False, 480, 240)


# --- words ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_words_stand_where_the_ink_is_however_the_page_is_turned(rotation: int, settings: RenderSettings) -> None:
    page = one(pdf("Invoice 4711", rotation=rotation), settings)
    assert page.record.rotation == rotation
    assert page.text is not None
    assert [word.text for word in page.text.words] == ["Invoice", "4711"]
    for word in page.text.words:
        x0, y0, x1, y1 = word.box
        assert 0 <= x0 < x1 <= page.record.content_width
        assert 0 <= y0 < y1 <= page.record.content_height
        assert ink(page, word.box) > 0.05
    total = (pixels(page.png) < 128).sum()
    covered = sum(
        (pixels(page.png)[round(b) : round(d) + 1, round(a) : round(c) + 1] < 128).sum() for a, b, c, d in (w.box for w in page.text.words)
    )
    assert covered == total


def test_words_of_a_cropped_page_are_those_that_show(settings: RenderSettings) -> None:
    document = pymupdf.open(stream=pdf("above"), filetype="pdf")
    document[0].insert_text((72, 700), "below")
    document[0].set_cropbox(pymupdf.Rect(50, 50, 400, 300))
    page = one(document.tobytes(), settings)
    assert page.text is not None
    assert [word.text for word in page.text.words] == ["above"]
    assert ink(page, page.text.words[0].box) > 0.05


def test_lines_are_numbered_in_reading_order(settings: RenderSettings) -> None:
    page = one(pdf("one two\nthree"), settings)
    assert page.text is not None
    assert [(word.text, word.line) for word in page.text.words] == [("one", 0), ("two", 0), ("three", 1)]


def test_a_form_field_is_drawn_and_read(settings: RenderSettings) -> None:
    document = pymupdf.open(stream=pdf("Total:"), filetype="pdf")
    widget = pymupdf.Widget()
    widget.field_type, widget.field_name, widget.field_value = pymupdf.PDF_WIDGET_TYPE_TEXT, "total", "1190"
    widget.rect = pymupdf.Rect(200, 200, 300, 230)
    document[0].add_widget(widget)
    page = one(document.tobytes(), settings)
    assert page.text is not None
    box = next(word.box for word in page.text.words if word.text == "1190")
    assert ink(page, box) > 0.02


def test_a_page_of_pictures_has_no_text_layer_and_an_empty_page_has_an_empty_one(settings: RenderSettings) -> None:
    document = pymupdf.open()
    document.new_page().insert_image(pymupdf.Rect(50, 50, 300, 300), stream=scan())
    document.new_page()
    scanned, empty = render_bytes(document.tobytes(), settings).pages
    assert scanned.text is None
    assert scanned.record.text is None
    assert empty.text == PageText(words=())
    assert "blank" in empty.record.flags


# --- what comes in ----------------------------------------------------------------------------------------------------------


def test_refusals_have_stable_reasons(settings: RenderSettings) -> None:
    page = "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] >>"
    assert refusal(b"", settings) == "empty_file"
    assert refusal(b"<!DOCTYPE html><html><p>%PDF-1.4</p></html>", settings) == "not_a_document"
    assert refusal(b"Dear sirs, %PDF", settings) in ("not_a_document", "no_pages", "damaged")
    assert refusal(pdf("x", password="unknown"), settings) == "encrypted"
    assert refusal(raw_pdf(pages="<< /Type /Pages /Kids [] /Count 0 >>"), settings) == "no_pages"
    assert refusal(pdf("x")[:40], settings) in ("damaged", "no_pages")
    assert refusal(pdf(*"x" * 201), settings) == "too_many_pages"
    assert refusal(raw_pdf(page.replace("612 792", "10 30000")), settings) == "page_size"
    assert refusal(scan()[:60], settings) == "damaged"
    assert refusal(png_of_size(30000, 30000), settings) == "too_large"
    assert refusal(encoded(Image.new("L", (10000, 10))), settings) == "page_size"


def test_a_password_of_the_settings_opens_a_pdf(settings: RenderSettings) -> None:
    page = one(pdf("hidden", password="secret"), settings)
    assert page.text is not None
    assert page.text.words[0].text == "hidden"


def test_a_truncated_pdf_is_repaired_and_says_so(settings: RenderSettings) -> None:
    whole = pdf("still here")
    page = one(whole[: whole.rindex(b"xref")], settings)
    assert "repaired" in page.record.flags
    assert page.text is not None
    assert page.text.words[0].text == "still"


def test_one_flat_colour_is_flagged(settings: RenderSettings) -> None:
    document = pymupdf.open()
    document.new_page().draw_rect((0, 0, 595, 842), color=(1, 0, 0), fill=(1, 0, 0))
    assert "flat" in one(document.tobytes(), settings).record.flags


def test_the_second_engine_reads_what_the_first_finds_no_pages_in(settings: RenderSettings) -> None:
    content = "BT /F 20 Tf 72 700 Td (second) Tj ET"
    broken = raw_pdf(
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources << /Font << /F 5 0 R >> >> >>",
        f"<< /Length {len(content) + 200000 * 2} >>\nstream\n{'q ' * 200000}{content}\nendstream",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    )
    page = one(broken, settings)
    assert page.record.engine.startswith("pypdfium2")
    assert "second_opinion" in page.record.flags
    assert page.text is not None
    (word,) = page.text.words
    assert word.text == "second"
    assert ink(page, word.box) > 0.05


# --- scans ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "mode", "save"),
    [
        ("PNG", "RGB", {}), ("PNG", "L", {}), ("PNG", "1", {}), ("PNG", "P", {}), ("PNG", "RGBA", {}), 
        ("PNG", "LA", {}), ("PNG", "I;16", {}),
        ("JPEG", "RGB", {}), ("JPEG", "L", {}), ("JPEG", "CMYK", {"quality": 95}),
    ],
)  # fmt: skip
def test_scans_of_every_mode_show_the_same_picture(kind: str, mode: str, save: dict[str, object], settings: RenderSettings) -> None:
    if mode == "I;16":
        values = np.asarray(Image.open(io.BytesIO(scan("PNG", mode="L")))).astype(np.uint16) * 257
        data = encoded(Image.fromarray(values))
    else:
        data = scan(kind, mode=mode, **save)
    page = one(data, settings)
    expected = pixels(one(scan("PNG"), settings).png).astype(int)
    assert np.abs(pixels(page.png).astype(int) - expected).mean() < 3
    assert page.record.engine.startswith("pillow")
    assert page.text is None


def test_transparency_is_white_paper(settings: RenderSettings) -> None:
    image = Image.new("RGBA", (320, 320), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 160, 320))
    picture = pixels(one(encoded(image), settings).png)
    height, width = picture.shape[:2]
    assert (picture[5 : height // 2, width - width // 4 : width - width // 8] == 255).all()
    assert (picture[5 : height // 2, 5 : width // 4] == 0).all()


@pytest.mark.parametrize(("orientation", "rotation"), [(1, 0), (3, 180), (6, 90), (8, 270)])
def test_exif_orientation_is_undone(orientation: int, rotation: int, settings: RenderSettings) -> None:
    upright = Image.open(io.BytesIO(scan("PNG")))
    stored = upright.rotate(rotation, expand=True)  # counter-clockwise: what showing it turned clockwise undoes
    exif = Image.Exif()
    exif[0x0112] = orientation
    page = one(encoded(stored, "JPEG", exif=exif.tobytes(), quality=95), settings)
    assert page.record.rotation == rotation
    expected = one(encoded(upright, "JPEG", quality=95), settings)
    assert (page.record.width, page.record.height) == (expected.record.width, expected.record.height)
    assert np.abs(pixels(page.png).astype(int) - pixels(expected.png).astype(int)).mean() < 3


def test_the_dpi_a_scan_states_counts(settings: RenderSettings) -> None:
    record = one(scan("PNG", (900, 600), dpi=(300, 300)), settings).record
    assert record.dpi == pytest.approx(120, abs=0.1)
    assert (record.content_width, record.content_height) == (360, 240)


def test_a_dpi_that_makes_no_sheet_does_not(settings: RenderSettings) -> None:
    plain, stated = (one(scan("PNG", (2480, 3508), **save), settings).record for save in ({}, {"dpi": (72, 72)}))
    assert plain.dpi == stated.dpi > 110


def test_a_truncated_scan_shows_what_is_there(settings: RenderSettings) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (400, 400, 3), np.uint8)
    for kind in ("JPEG", "PNG"):
        whole = encoded(Image.fromarray(noise), kind)
        assert "incomplete" in one(whole[: len(whole) // 2], settings).record.flags


# --- a vendor ---------------------------------------------------------------------------------------------------------------


def test_pages_are_the_same_whatever_the_number_of_workers(tmp_path: Path, settings: RenderSettings) -> None:
    files = [pdf(*(f"document {number} page {page}" for page in range(1 + 7 * number))) for number in range(4)] + [
        scan(),
        b"%PDF-1.4 nothing",
    ]
    values: list[VendorPages] = []
    for workers in (1, 3):
        store = Store(tmp_path / str(workers))
        values.append(render_vendor(vendor_documents(store, *files), store, settings, workers))
    assert values[0] == values[1]
    assert len(values[0].pages) == 1 + 8 + 15 + 22 + 1
    assert [(page.document, page.page) for page in values[0].pages] == sorted((page.document, page.page) for page in values[0].pages)
    assert len(values[0].refused) == 1


def test_everything_a_page_names_lies_in_the_store(store: Store, settings: RenderSettings) -> None:
    (page,) = render_vendor(vendor_documents(store, pdf("Total 12,00")), store, settings).pages
    assert Image.open(io.BytesIO(store.read_bytes(page.image, ".png"))).size == (page.width, page.height)
    assert page.text is not None
    assert [word.text for word in PageText.model_validate(store.read_json(page.text)).words] == ["Total", "12,00"]


def test_a_new_document_renders_only_itself(store: Store, settings: RenderSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    draw = rendering.draw_documents

    def spy(sandbox, sources, settings):  # type: ignore[no-untyped-def]
        listed = list(sources)
        drawn.extend(source.key for source in listed)
        return draw(sandbox, listed, settings)

    monkeypatch.setattr(rendering, "draw_documents", spy)
    old, new = pdf("old"), pdf("new")
    before = render_vendor(vendor_documents(store, old), store, settings)
    drawn.clear()
    documents = vendor_documents(store, old, new)
    after = render_vendor(documents, store, settings)
    assert drawn == [document.document for document in documents.documents if document.document != before.pages[0].document]
    assert before.pages[0] in after.pages
    drawn.clear()
    assert render_vendor(documents, store, settings) == after
    assert drawn == []
    assert render_vendor(documents, store, settings.model_copy(update={"page_seconds": 9.0})) == after
    assert drawn == []
    render_vendor(documents, store, settings.model_copy(update={"dpi": 72.0}))
    assert len(drawn) == 2


def test_a_damaged_memory_is_drawn_again(store: Store, settings: RenderSettings) -> None:
    documents = vendor_documents(store, pdf("again"))
    first = render_vendor(documents, store, settings)
    entries = list(Path(store.root.path, "rendered").rglob("*.json"))
    assert len(entries) == 1
    for damage in (b"", entries[0].read_bytes()[:-10], entries[0].read_bytes().replace(b'"page":1', b'"page":2')):
        entries[0].write_bytes(damage)
        assert render_vendor(documents, store, settings) == first
    store.path(first.pages[0].image, ".png").unlink()
    assert render_vendor(documents, store, settings) == first
    assert store.has(first.pages[0].image, ".png")


def test_a_password_added_later_opens_what_was_refused(store: Store, settings: RenderSettings) -> None:
    documents = vendor_documents(store, pdf("locked", password="later"))
    assert render_vendor(documents, store, settings).refused[0].reason == "encrypted"
    assert len(render_vendor(documents, store, settings.model_copy(update={"passwords": ("later",)})).pages) == 1
    assert render_vendor(documents, store, settings).refused[0].reason == "encrypted"


def test_a_page_that_cannot_be_drawn_is_named_and_its_document_flagged(store: Store, settings: RenderSettings) -> None:
    good = "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] >>"
    bad = good.replace("612 792", "10 30000")
    data = raw_pdf(good, bad, good, pages="<< /Type /Pages /Kids [3 0 R 4 0 R 5 0 R] /Count 3 >>")
    value = render_vendor(vendor_documents(store, data), store, settings)
    assert [page.page for page in value.pages] == [1, 3]
    assert all("incomplete" in page.flags for page in value.pages)
    assert [(refused.reason, refused.detail[:7]) for refused in value.refused] == [("page_size", "page 2:")]


def test_progress_counts_documents(store: Store, settings: RenderSettings) -> None:
    seen: list[tuple[int, int]] = []
    render_vendor(vendor_documents(store, pdf("a"), pdf("b")), store, settings, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 2), (1, 2), (2, 2)]


# --- files ------------------------------------------------------------------------------------------------------------------


def test_files_end_as_rendered_flagged_or_refused(tmp_path: Path) -> None:
    settings = RenderSettings(page_seconds=2)
    contents = {
        "good.pdf": pdf("good", "two"),
        "blank.pdf": pdf(""),
        "bomb.pdf": exponential_pdf(),
        "page.pdf": b"<html>",
        "scan.bin": scan(),
    }
    files = []
    for name, data in contents.items():
        files.append(tmp_path / name)
        files[-1].write_bytes(data)
    out = tmp_path / "out"
    outcomes = [outcome.as_json() for outcome in render_files(files, out, settings, 2)]
    assert [(Path(item["file"]).name, item["outcome"], item["reason"]) for item in outcomes] == [
        ("good.pdf", "rendered", None),
        ("blank.pdf", "flagged", "blank"),
        ("bomb.pdf", "refused", "timeout"),
        ("page.pdf", "refused", "not_a_document"),
        ("scan.bin", "rendered", None),
    ]
    first = outcomes[0]["pages"]
    assert [page["page"] for page in first] == [1, 2]
    assert Image.open(first[0]["path"]).size == (first[0]["width"], first[0]["height"])
    assert all((item["outcome"] == "refused") == (not item["pages"]) for item in outcomes)


def test_files_of_one_stem_do_not_overwrite_each_other(tmp_path: Path, settings: RenderSettings) -> None:
    paths = [tmp_path / "a" / "x.pdf", tmp_path / "b" / "X.pdf"]
    for number, path in enumerate(paths):
        path.parent.mkdir()
        path.write_bytes(pdf(f"number {number}"))
    outcomes = render_files(paths, tmp_path / "out", settings)
    pages = {page.path for outcome in outcomes for page in outcome.pages}
    assert len({path.lower() for path in pages}) == 2
    assert len({Path(path).read_bytes() for path in pages}) == 2


def test_a_missing_file_and_a_bad_folder_are_input_errors(tmp_path: Path, settings: RenderSettings) -> None:
    with pytest.raises(InputError, match="no such file"):
        render_files([tmp_path / "nothing.pdf"], tmp_path / "out", settings)
    (tmp_path / "out").write_bytes(b"a file")
    (tmp_path / "x.pdf").write_bytes(pdf("x"))
    with pytest.raises(InputError, match="cannot be made"):
        render_files([tmp_path / "x.pdf"], tmp_path / "out", settings)
