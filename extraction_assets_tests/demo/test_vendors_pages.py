"""Promises of the generated pages: real PDFs on which every label value can be read, nothing cut, nothing over something else."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from itertools import combinations

import pymupdf
import pypdfium2
import pytest

from extraction_assets.demo.vendors import LANGUAGES, TYPES, make_document, make_vendor
from extraction_assets.demo.vendors.formats import MONTHS
from extraction_assets.demo.vendors.sheet import DoesNotFit, Sheet
from extraction_assets.demo.vendors.typefaces import ALPHABET, FAMILIES, face

SYMBOLS = {"€": "EUR", "$": "USD", "£": "GBP"}


@pytest.fixture(scope="module")
def generated():
    """Documents of 24 vendors in six languages on small pages, and of 6 on A4."""
    small = [make_document(77, n, i, TYPES[(n - 1) % 3], "small", LANGUAGES, 0.3) for n in range(1, 25) for i in range(1, 9)]
    large = [make_document(77, n, i, TYPES[(n - 1) % 3], "a4", LANGUAGES) for n in range(1, 7) for i in range(1, 9)]
    return [*small, *large]


def flat(text: str) -> str:
    return " ".join(text.split())


def leaves(value, pointer=""):
    if isinstance(value, dict):
        for key, child in value.items():
            yield from leaves(child, f"{pointer}/{key}")
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from leaves(child, f"{pointer}/{index}")
    else:
        yield pointer, value


# --- every value can be read --------------------------------------------------------------------------------------------


def test_every_label_value_is_in_the_text_of_its_page_as_printed(generated):
    for document in generated:
        with pymupdf.open("pdf", document.pdf) as pdf:
            texts = [flat(page.get_text()) for page in pdf]
        printed = {value.pointer for value in document.printed}
        for pointer, value in leaves(document.label):
            assert (pointer in printed) == (value is not None), (document.stem, pointer)
        for value in document.printed:
            assert flat(value.text) in texts[value.page - 1], (document.stem, value)


def test_every_value_stands_in_the_box_it_is_said_to_stand_in(generated):
    for document in generated[::5]:
        with pymupdf.open("pdf", document.pdf) as pdf:
            for value in document.printed:
                x0, y0, x1, y1 = value.box
                clip = pymupdf.Rect(x0 - 1, y0 - 1, x1 + 1, y1 + 1)
                assert flat(value.text) in flat(pdf[value.page - 1].get_text(clip=clip)), (document.stem, value)


def test_what_is_printed_means_what_the_label_says(generated):
    dates = ("billed_on", "pay_by", "bought_on", "ordered_on", "ship_by")
    amounts = ("net", "vat", "payable", "paid", "worth", "amt", "price", "cost", "qty", "count", "units")
    for document in generated:
        values = dict(leaves(document.label))
        for printed in document.printed:
            value, key = values[printed.pointer], printed.pointer.rsplit("/", 1)[-1]
            if key in dates:
                assert read_date(printed.text) == date.fromisoformat(value), (document.stem, printed)
            elif key in amounts:
                assert read_number(printed.text) == Decimal(value), (document.stem, printed)
            elif key == "cur":
                assert SYMBOLS.get(printed.text, printed.text) == value
            else:
                assert printed.text == value


def read_date(text: str) -> date:
    """Day first or ISO, months by name in any of the six languages."""
    months = {name[:length]: number for names in MONTHS.values() for number, name in enumerate(names, 1) for length in (3, len(name))}
    words = re.findall(r"[^\W\d]+", text)
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    named = [months[word] for word in words if word in months]
    if named:
        day, year = sorted(numbers)
        return date(year, named[0], day)
    if numbers[0] > 31:
        return date(*numbers)
    return date(numbers[2], numbers[1], numbers[0])


def read_number(text: str) -> Decimal:
    """The last of . and , is the decimal point when one or two digits follow it."""
    match = re.fullmatch(r"([\d.,' ]*?\d)(?:[.,](\d{1,2}))?", text)
    assert match, text
    return Decimal(re.sub(r"\D", "", match[1]) + "." + (match[2] or "0"))


def test_the_name_of_a_missing_date_is_not_printed_either(generated):
    for document in generated:
        if document.type == "receipt" or document.facts.due:
            continue
        key = "due" if document.type == "invoice" else "deliver_by"
        vendor, _ = make_vendor(
            77, int(document.vendor[-2:]), document.type, "a4" if document.page_sizes[0][0] > 500 else "small", LANGUAGES
        )
        with pymupdf.open("pdf", document.pdf) as pdf:
            assert vendor.words[key] not in flat(pdf[0].get_text())


# --- nothing is cut or covered ------------------------------------------------------------------------------------------


def test_no_texts_overlap_and_none_leaves_the_page(generated):
    for document in generated:
        with pymupdf.open("pdf", document.pdf) as pdf:
            for page in pdf:
                boxes = ink_boxes(page)
                assert len(boxes) >= 10
                for box, text in boxes:
                    assert box in pymupdf.Rect(3, 3, page.rect.width - 3, page.rect.height - 1), (document.stem, text)
                for (a, first), (b, second) in combinations(boxes, 2):
                    shared = a & b
                    assert shared.is_empty or min(shared.width, shared.height) < 0.1, (document.stem, first, second)


def test_the_overlap_test_sees_an_overlap():
    with pymupdf.open() as pdf:
        page = pdf.new_page(width=256, height=320)
        page.insert_text((20, 50), "Rechnung", fontsize=9)
        page.insert_text((30, 57), "Nummer", fontsize=9)
        (a, _), (b, _) = ink_boxes(page)
        assert (a & b).height > 0.1


def ink_boxes(page):
    """(box, text) of each run of text: from the top of its letters to the bottom of its tails, not as high as its line.

    Runs that touch on one line come back as one; white space is no ink.
    """
    boxes = []
    for block in page.get_text("rawdict")["blocks"]:
        for line in block["lines"]:
            for span in line["spans"]:
                chars = [char for char in span["chars"] if char["c"].strip()]
                if chars:
                    baseline = chars[0]["origin"][1]
                    box = pymupdf.Rect(
                        chars[0]["bbox"][0], baseline - 0.8 * span["size"], chars[-1]["bbox"][2], baseline + 0.22 * span["size"]
                    )
                    boxes.append((box, "".join(char["c"] for char in chars)))
    return boxes


def test_text_wider_than_its_column_is_refused_not_cut():
    sheet = Sheet(100, 100, 1)
    with pytest.raises(DoesNotFit):
        sheet.text(10, 50, "Rechnungsnummer", face("helv"), 9, within=40)
    with pytest.raises(DoesNotFit):
        sheet.text(60, 50, "Rechnungsnummer", face("helv"), 9)
    assert sheet.content == b""


# --- paper and type -----------------------------------------------------------------------------------------------------


def test_small_pages_lie_on_the_grid_and_a4_is_a4(generated):
    for document in generated:
        for width, height in document.page_sizes:
            if width > 500:
                assert (width, height) == (595, 842)
            else:
                assert width in (256, 288, 320)
                assert 320 <= height <= 448
                assert height % 32 == 0


def test_type_on_small_pages_is_9_to_13_pt(generated):
    sizes = set()
    for document in generated:
        if document.page_sizes[0][0] > 500:
            continue
        with pymupdf.open("pdf", document.pdf) as pdf:
            sizes |= {
                round(span["size"], 1)
                for page in pdf
                for block in page.get_text("dict")["blocks"]
                for line in block["lines"]
                for span in line["spans"]
            }
    assert min(sizes) >= 9
    assert max(sizes) <= 13
    assert len(sizes) >= 5


def test_documents_go_over_pages_with_rows_continued_and_totals_on_the_last(generated):
    several = [document for document in generated if len(document.page_sizes) > 1]
    assert 0.03 < len(several) / len(generated) < 0.2
    total = {"invoice": "/payable", "purchase_order": "/worth"}
    for document in several:
        last = len(document.page_sizes)
        assert {value.page for value in document.printed if value.pointer == total[document.type]} == {last}
        pages_of_rows = [
            {value.page for value in document.printed if value.pointer.startswith(f"/rows/{index}/")}
            for index in range(len(document.label["rows"]))
        ]
        assert all(len(pages) == 1 for pages in pages_of_rows)  # no row is torn apart
        order = [pages.pop() for pages in pages_of_rows]
        assert order == sorted(order)
        assert set(order) == set(range(1, last + 1))
        with pymupdf.open("pdf", document.pdf) as pdf:
            for number, page in enumerate(pdf, 1):
                assert re.search(rf"{number}\D+{last}", flat(page.get_text())), document.stem


@pytest.mark.parametrize("family", FAMILIES)
def test_every_face_spells_the_whole_alphabet_and_its_text_comes_back(family):
    from extraction_assets.demo.vendors.pdf import write_pdf

    for key in FAMILIES[family]:
        sheet = Sheet(600, 400, 1)
        for line, start in enumerate(range(0, len(ALPHABET), 20)):
            sheet.text(20, 30 + line * 20, ALPHABET[start : start + 20], face(key), 12)
        pdf = write_pdf([sheet], "alphabet", "nobody", date(2024, 1, 2))
        with pymupdf.open("pdf", pdf) as document:
            assert "".join(document[0].get_text().split()) == "".join(ALPHABET.split())
        engine = pypdfium2.PdfDocument(pdf)
        drawn = "".join(engine[0].get_textpage().get_text_range().split())
        assert drawn.replace("\x02", "-") == "".join(ALPHABET.split())  # pdfium marks a hyphen at a line's end


def test_files_are_sound_in_both_engines(generated):
    embedded, named = 0, 0
    for document in generated[::3]:
        pymupdf.TOOLS.reset_mupdf_warnings()
        with pymupdf.open("pdf", document.pdf) as pdf:
            assert not pdf.is_repaired
            assert pdf.page_count == len(document.page_sizes)
            for page in pdf:
                pixels = page.get_pixmap(dpi=72)
                assert (pixels.width, pixels.height) == document.page_sizes[page.number]
                fonts = page.get_fonts()
                embedded += any(font[1] != "n/a" for font in fonts)
                named += any(font[1] == "n/a" for font in fonts)
        assert pymupdf.TOOLS.mupdf_warnings() == ""
        engine = pypdfium2.PdfDocument(document.pdf)
        assert len(engine) == len(document.page_sizes)
        assert flat(document.facts.issuer.name) in flat(engine[0].get_textpage().get_text_range())
    assert embedded > 5
    assert named > 5
