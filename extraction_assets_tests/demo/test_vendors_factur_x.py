"""Promises of hybrid invoices: valid Factur-X whose XML says what the pages say."""

from __future__ import annotations

from decimal import Decimal

import facturx
import pymupdf
import pytest
from lxml import etree

from extraction_assets.demo.vendors import LANGUAGES, generate, make_document

RAM = "{urn:un:unece:uncefact:data:standard:ReusableAggregateBusinessInformationEntity:100}"


@pytest.fixture(scope="module")
def hybrids():
    return [make_document(6, number, index, "invoice", "small", LANGUAGES, 1.0) for number in range(1, 17, 3) for index in range(1, 5)]


def test_the_library_finds_valid_xml_of_profile_basic(hybrids):
    for document in hybrids:
        assert document.hybrid
        name, xml = facturx.get_xml_from_pdf(document.pdf, check_xsd=True)
        assert name == "factur-x.xml"
        assert facturx.get_level(etree.fromstring(xml)) == "basic"


def test_xml_and_label_say_the_same(hybrids):
    for document in hybrids:
        with pymupdf.open("pdf", document.pdf) as pdf:
            root = etree.fromstring(pdf.embfile_get("factur-x.xml"))
        label = document.label

        def text(tag: str, root: etree._Element = root) -> str | None:
            found = root.find(f".//{RAM}{tag}")
            return None if found is None else "".join(found.itertext()).strip()

        assert text("SellerTradeParty").startswith(label["biller"])
        assert root[1][0].text == label["bill_no"]
        assert text("IssueDateTime") is None or text("IssueDateTime") == label["billed_on"].replace("-", "")
        assert text("DueDateDateTime") == (label["pay_by"] and label["pay_by"].replace("-", ""))
        assert text("InvoiceCurrencyCode") == label["cur"]
        assert text("TaxBasisTotalAmount") == label["net"]
        assert text("TaxTotalAmount") == label["vat"]
        assert text("GrandTotalAmount") == label["payable"]
        rows = root.findall(f".//{RAM}IncludedSupplyChainTradeLineItem")
        assert [
            {"what": text("Name", row), "qty": text("BilledQuantity", row), "amt": text("LineTotalAmount", row)} for row in rows
        ] == label["rows"]
        for row in rows:
            assert Decimal(text("ChargeAmount", row)) * Decimal(text("BilledQuantity", row)) == Decimal(text("LineTotalAmount", row))


def test_the_pages_are_the_same_with_and_without_xml(hybrids):
    for document in hybrids[::6]:
        plain = make_document(6, int(document.vendor[-2:]), int(document.stem[-4:]), "invoice", "small", LANGUAGES, 0.0)
        assert not plain.hybrid
        assert plain.label == document.label
        with pymupdf.open("pdf", document.pdf) as a, pymupdf.open("pdf", plain.pdf) as b:
            assert [page.read_contents() for page in a] == [page.read_contents() for page in b]
            assert b.embfile_count() == 0


def test_a_share_of_the_invoices_and_of_nothing_else_is_hybrid(tmp_path):
    made = generate(tmp_path, seed=2, vendors=6, documents_per_vendor=20, hybrid_xml=0.5)
    found = {}
    for file in made.files:
        with pymupdf.open(tmp_path / file) as pdf:
            found[file] = pdf.embfile_count()
    assert sum(found.values()) == made.hybrid
    assert 8 <= made.hybrid <= 32
    assert all(file.parts[0] == "invoice" for file, count in found.items() if count)
