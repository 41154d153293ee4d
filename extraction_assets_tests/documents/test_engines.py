"""The two engines answer alike: same grid, same words in the same places, however a page is turned or cropped."""

from __future__ import annotations

import pymupdf
import pytest

from extraction_assets.documents.engine import Drawn, Unreadable
from extraction_assets.documents.mupdf_engine import MuPdfDocument
from extraction_assets.documents.pdfium_engine import PdfiumDocument
from extraction_assets_tests.documents.samples import pdf, raw_pdf

ENGINES = (MuPdfDocument, PdfiumDocument)


def drawn(engine: type[MuPdfDocument] | type[PdfiumDocument], data: bytes) -> Drawn:
    document = engine(data, ("secret",))
    return document.draw(0, document.grid(0, 120, 1400))


def cropped(rotation: int) -> bytes:
    document = pymupdf.open(stream=pdf("Invoice 4711\nTotal 12,00"), filetype="pdf")
    document[0].set_cropbox(pymupdf.Rect(40, 30, 500, 300))
    document[0].set_rotation(rotation)
    return document.tobytes()


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("make", [lambda turn: pdf("Invoice 4711\nTotal 12,00", rotation=turn), cropped], ids=["whole", "cropped"])
def test_both_engines_place_the_same_words_on_their_ink(make, rotation: int) -> None:  # type: ignore[no-untyped-def]
    first, second = (drawn(engine, make(rotation)) for engine in ENGINES)
    assert first.pixels.shape == second.pixels.shape
    assert first.words is not None
    assert second.words is not None
    if rotation in (90, 270):  # lines of sideways text have no one order
        first.words.sort()
        second.words.sort()
    else:
        assert [word[5] for word in first.words] == [word[5] for word in second.words] == [0, 0, 1, 1]
        assert [word[0] for word in first.words] == ["Invoice", "4711", "Total", "12,00"]
    assert [word[0] for word in first.words] == [word[0] for word in second.words]
    assert len(first.words) == 4
    for result in (first, second):
        assert result.words is not None
        for _, x0, y0, x1, y1, _ in result.words:
            assert (result.pixels[round(y0) : round(y1), round(x0) : round(x1)] < 128).mean() > 0.05
    for ours, theirs in zip(first.words, second.words, strict=True):
        assert (ours[1] + ours[3]) / 2 == pytest.approx((theirs[1] + theirs[3]) / 2, abs=8)
        assert (ours[2] + ours[4]) / 2 == pytest.approx((theirs[2] + theirs[4]) / 2, abs=8)


@pytest.mark.parametrize("engine", ENGINES)
def test_both_engines_refuse_alike(engine: type[MuPdfDocument] | type[PdfiumDocument]) -> None:
    with pytest.raises(Unreadable) as caught:
        engine(pdf("x", password="other"), ("secret",))
    assert caught.value.reason == "encrypted"
    assert engine(pdf("x", password="secret"), ("no", "secret")).needs_password
    with pytest.raises(Unreadable):
        engine(raw_pdf(pages="<< /Type /Pages /Kids [] /Count 0 >>"), ())


@pytest.mark.parametrize("engine", ENGINES)
def test_an_empty_page_is_blank_in_both(engine: type[MuPdfDocument] | type[PdfiumDocument]) -> None:
    result = drawn(engine, pdf(""))
    assert result.flags == ["blank"]
    assert result.words == []


def test_warnings_of_one_document_are_not_the_next_ones() -> None:
    """MuPDF counts a repeated warning in silence and tells of it with the next one, whoever that concerns."""
    with pymupdf.open(stream=pdf("Invoice 4711"), filetype="pdf") as document:
        xref = document[0].get_contents()[0]
        document.update_stream(xref, b"Q Q Q Q " + document.xref_stream(xref))
        odd = document.tobytes()
    assert "warnings" in drawn(MuPdfDocument, odd).flags
    after = MuPdfDocument(pdf("Invoice 4711"), ())
    assert after.flags + after.draw(0, after.grid(0, 120, 1400)).flags == []
