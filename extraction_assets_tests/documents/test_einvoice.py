"""E-invoices: the label is what the embedded XML says, whichever of the standards wrote it, and nothing else is opened."""

from __future__ import annotations

import io
from typing import Any

import facturx
import pymupdf
import pytest

from extraction_assets.documents.einvoice import iso_date, label_of_pdf, label_of_xml
from extraction_assets.schema import TargetSchema
from extraction_assets_tests.documents.samples import pdf

FACTURX = """<?xml version="1.0" encoding="UTF-8"?>
<rsm:CrossIndustryInvoice xmlns:rsm="urn:un:unece:uncefact:data:standard:CrossIndustryInvoice:100"
  xmlns:ram="urn:un:unece:uncefact:data:standard:ReusableAggregateBusinessInformationEntity:100"
  xmlns:udt="urn:un:unece:uncefact:data:standard:UnqualifiedDataType:100">
 <rsm:ExchangedDocumentContext><ram:GuidelineSpecifiedDocumentContextParameter><ram:ID>urn:cen.eu:en16931:2017</ram:ID></ram:GuidelineSpecifiedDocumentContextParameter></rsm:ExchangedDocumentContext>
 <rsm:ExchangedDocument><ram:ID>{number}</ram:ID><ram:TypeCode>380</ram:TypeCode>
  <ram:IssueDateTime><udt:DateTimeString format="102">20240229</udt:DateTimeString></ram:IssueDateTime></rsm:ExchangedDocument>
 <rsm:SupplyChainTradeTransaction>
  <ram:IncludedSupplyChainTradeLineItem>
   <ram:AssociatedDocumentLineDocument><ram:LineID>1</ram:LineID></ram:AssociatedDocumentLineDocument>
   <ram:SpecifiedTradeProduct><ram:Name>Paper &amp;
      pens</ram:Name></ram:SpecifiedTradeProduct>
   <ram:SpecifiedLineTradeAgreement><ram:NetPriceProductTradePrice><ram:ChargeAmount>2.50</ram:ChargeAmount></ram:NetPriceProductTradePrice></ram:SpecifiedLineTradeAgreement>
   <ram:SpecifiedLineTradeDelivery><ram:BilledQuantity unitCode="H87">40</ram:BilledQuantity></ram:SpecifiedLineTradeDelivery>
   <ram:SpecifiedLineTradeSettlement>
    <ram:ApplicableTradeTax><ram:TypeCode>VAT</ram:TypeCode><ram:CategoryCode>S</ram:CategoryCode><ram:RateApplicablePercent>20</ram:RateApplicablePercent></ram:ApplicableTradeTax>
    <ram:SpecifiedTradeSettlementLineMonetarySummation><ram:LineTotalAmount>100.00</ram:LineTotalAmount></ram:SpecifiedTradeSettlementLineMonetarySummation>
   </ram:SpecifiedLineTradeSettlement>
  </ram:IncludedSupplyChainTradeLineItem>
  <ram:ApplicableHeaderTradeAgreement>
   <ram:SellerTradeParty><ram:Name>Émile SARL</ram:Name><ram:PostalTradeAddress><ram:CountryID>FR</ram:CountryID></ram:PostalTradeAddress>
    <ram:SpecifiedTaxRegistration><ram:ID schemeID="VA">FR11123456782</ram:ID></ram:SpecifiedTaxRegistration></ram:SellerTradeParty>
   <ram:BuyerTradeParty><ram:Name>Buyer Ltd</ram:Name><ram:PostalTradeAddress><ram:CountryID>FR</ram:CountryID></ram:PostalTradeAddress></ram:BuyerTradeParty>
   <ram:BuyerOrderReferencedDocument><ram:IssuerAssignedID>PO-7</ram:IssuerAssignedID></ram:BuyerOrderReferencedDocument>
  </ram:ApplicableHeaderTradeAgreement>
  <ram:ApplicableHeaderTradeDelivery/>
  <ram:ApplicableHeaderTradeSettlement>
   <ram:InvoiceCurrencyCode>EUR</ram:InvoiceCurrencyCode>
   <ram:ApplicableTradeTax><ram:CalculatedAmount>20.00</ram:CalculatedAmount><ram:TypeCode>VAT</ram:TypeCode><ram:BasisAmount>100.00</ram:BasisAmount><ram:CategoryCode>S</ram:CategoryCode><ram:RateApplicablePercent>20</ram:RateApplicablePercent></ram:ApplicableTradeTax>
   <ram:SpecifiedTradePaymentTerms><ram:DueDateDateTime><udt:DateTimeString format="102">20240330</udt:DateTimeString></ram:DueDateDateTime></ram:SpecifiedTradePaymentTerms>
   <ram:SpecifiedTradeSettlementHeaderMonetarySummation>
    <ram:LineTotalAmount>100.00</ram:LineTotalAmount><ram:TaxBasisTotalAmount>100.00</ram:TaxBasisTotalAmount>
    <ram:TaxTotalAmount currencyID="EUR">20.00</ram:TaxTotalAmount>
    <ram:GrandTotalAmount>120.00</ram:GrandTotalAmount><ram:DuePayableAmount>120.00</ram:DuePayableAmount>
   </ram:SpecifiedTradeSettlementHeaderMonetarySummation>
  </ram:ApplicableHeaderTradeSettlement>
 </rsm:SupplyChainTradeTransaction>
</rsm:CrossIndustryInvoice>"""

EXPECTED = {
    "invoice_number": "F-1",
    "invoice_date": "2024-02-29",
    "seller_name": "Émile SARL",
    "buyer_name": "Buyer Ltd",
    "order_reference": "PO-7",
    "currency": "EUR",
    "due_date": "2024-03-30",
    "net_total": "100.00",
    "tax_total": "20.00",
    "grand_total": "120.00",
    "amount_due": "120.00",
    "line_items": [
        {"description": "Paper & pens", "quantity": "40", "unit": "H87", "unit_price": "2.50", "amount": "100.00", "tax_rate": "20"}
    ],
}

ZUGFERD_1 = """<rsm:CrossIndustryDocument xmlns:rsm="urn:ferd:CrossIndustryDocument:invoice:1p0" xmlns:ram="urn:ram:12" xmlns:udt="urn:udt:15">
 <rsm:HeaderExchangedDocument><ram:ID>Z-1</ram:ID><ram:IssueDateTime><udt:DateTimeString format="102">20140522</udt:DateTimeString></ram:IssueDateTime></rsm:HeaderExchangedDocument>
 <rsm:SpecifiedSupplyChainTradeTransaction>
  <ram:ApplicableSupplyChainTradeAgreement><ram:SellerTradeParty><ram:Name>Seller</ram:Name></ram:SellerTradeParty><ram:BuyerTradeParty><ram:Name>Buyer</ram:Name></ram:BuyerTradeParty></ram:ApplicableSupplyChainTradeAgreement>
  <ram:ApplicableSupplyChainTradeSettlement><ram:InvoiceCurrencyCode>EUR</ram:InvoiceCurrencyCode>
   <ram:SpecifiedTradeSettlementMonetarySummation>{totals}<ram:GrandTotalAmount currencyID="EUR">119</ram:GrandTotalAmount></ram:SpecifiedTradeSettlementMonetarySummation>
  </ram:ApplicableSupplyChainTradeSettlement>
  <ram:IncludedSupplyChainTradeLineItem><ram:SpecifiedSupplyChainTradeDelivery><ram:BilledQuantity unitCode="C62">1</ram:BilledQuantity></ram:SpecifiedSupplyChainTradeDelivery>
   <ram:SpecifiedSupplyChainTradeSettlement><ram:ApplicableTradeTax><ram:ApplicablePercent>19</ram:ApplicablePercent></ram:ApplicableTradeTax></ram:SpecifiedSupplyChainTradeSettlement>
   <ram:SpecifiedTradeProduct><ram:Name>Saddle</ram:Name></ram:SpecifiedTradeProduct></ram:IncludedSupplyChainTradeLineItem>
  <ram:IncludedSupplyChainTradeLineItem><ram:AssociatedDocumentLineDocument><ram:IncludedNote><ram:Content>a note</ram:Content></ram:IncludedNote></ram:AssociatedDocumentLineDocument></ram:IncludedSupplyChainTradeLineItem>
 </rsm:SpecifiedSupplyChainTradeTransaction></rsm:CrossIndustryDocument>"""

ORDER_X = """<rsm:SCRDMCCBDACIOMessageStructure xmlns:rsm="urn:un:unece:uncefact:data:SCRDMCCBDACIOMessageStructure:100" xmlns:ram="urn:ram:128" xmlns:udt="urn:udt:128">
 <rsm:ExchangedDocument><ram:ID>O-1</ram:ID><ram:IssueDateTime><udt:DateTimeString format="203">202003311232</udt:DateTimeString></ram:IssueDateTime></rsm:ExchangedDocument>
 <rsm:SupplyChainTradeTransaction>
  <ram:IncludedSupplyChainTradeLineItem><ram:SpecifiedTradeProduct><ram:Name>Bolt</ram:Name></ram:SpecifiedTradeProduct>
   <ram:SpecifiedLineTradeDelivery><ram:RequestedQuantity unitCode="C62">6</ram:RequestedQuantity></ram:SpecifiedLineTradeDelivery></ram:IncludedSupplyChainTradeLineItem>
  <ram:ApplicableHeaderTradeSettlement><ram:OrderCurrencyCode>EUR</ram:OrderCurrencyCode></ram:ApplicableHeaderTradeSettlement>
 </rsm:SupplyChainTradeTransaction></rsm:SCRDMCCBDACIOMessageStructure>"""

UBL = """<Invoice xmlns="urn:oasis:names:specification:ubl:schema:xsd:Invoice-2" xmlns:cac="urn:cac" xmlns:cbc="urn:cbc">
 <cbc:ID>U-1</cbc:ID><cbc:IssueDate>2024-01-02</cbc:IssueDate><cbc:DueDate>2024-02-01</cbc:DueDate><cbc:DocumentCurrencyCode>EUR</cbc:DocumentCurrencyCode>
 <cac:OrderReference><cbc:ID>PO-9</cbc:ID></cac:OrderReference>
 <cac:AccountingSupplierParty><cac:Party><cac:PartyLegalEntity><cbc:RegistrationName>Seller AS</cbc:RegistrationName></cac:PartyLegalEntity></cac:Party></cac:AccountingSupplierParty>
 <cac:AccountingCustomerParty><cac:Party><cac:PartyName><cbc:Name>Buyer AS</cbc:Name></cac:PartyName></cac:Party></cac:AccountingCustomerParty>
 <cac:TaxTotal><cbc:TaxAmount currencyID="SEK">270.00</cbc:TaxAmount></cac:TaxTotal><cac:TaxTotal><cbc:TaxAmount currencyID="EUR">25.00</cbc:TaxAmount></cac:TaxTotal>
 <cac:LegalMonetaryTotal><cbc:TaxExclusiveAmount currencyID="EUR">100.00</cbc:TaxExclusiveAmount><cbc:TaxInclusiveAmount currencyID="EUR">125.00</cbc:TaxInclusiveAmount><cbc:PayableAmount currencyID="EUR">125.00</cbc:PayableAmount></cac:LegalMonetaryTotal>
 <cac:InvoiceLine><cbc:InvoicedQuantity unitCode="EA">2</cbc:InvoicedQuantity><cbc:LineExtensionAmount currencyID="EUR">100.00</cbc:LineExtensionAmount>
  <cac:Item><cbc:Name>Chair</cbc:Name><cac:ClassifiedTaxCategory><cbc:Percent>25</cbc:Percent></cac:ClassifiedTaxCategory></cac:Item><cac:Price><cbc:PriceAmount currencyID="EUR">50.00</cbc:PriceAmount></cac:Price></cac:InvoiceLine>
</Invoice>"""


def hybrid(number: str = "F-1") -> bytes:
    """A Factur-X PDF made by the reference library, its XML checked against the standard's XSD."""
    return facturx.generate_from_binary(pdf(f"Invoice {number}"), FACTURX.format(number=number).encode(), check_schematron=False)


def attached(*files: tuple[str, bytes]) -> bytes:
    document = pymupdf.open(stream=pdf("x"), filetype="pdf")
    for name, content in files:
        document.embfile_add(name, content, filename=name)
    return document.tobytes()


def label(text: str) -> dict[str, Any]:
    found = label_of_xml(text.encode())
    assert found is not None
    return found


def test_a_facturx_pdf_of_the_reference_library_yields_its_label(schemas: dict[str, TargetSchema]) -> None:
    assert label_of_pdf(hybrid()) == EXPECTED
    assert schemas["invoice"].violations(EXPECTED) == []


def test_zugferd_1_is_understood() -> None:
    found = label(ZUGFERD_1.format(totals='<ram:LineTotalAmount currencyID="EUR">100</ram:LineTotalAmount>'))
    assert (found["invoice_number"], found["invoice_date"], found["seller_name"], found["grand_total"]) == (
        "Z-1",
        "2014-05-22",
        "Seller",
        "119",
    )
    assert found["line_items"] == [
        {"description": "Saddle", "quantity": "1", "unit": "C62", "unit_price": None, "amount": None, "tax_rate": "19"}
    ]


def test_the_lines_total_is_the_net_total_only_where_nothing_comes_between() -> None:
    lines = "<ram:LineTotalAmount>100</ram:LineTotalAmount>"
    assert label(ZUGFERD_1.format(totals=lines))["net_total"] == "100"
    assert label(ZUGFERD_1.format(totals=lines + "<ram:AllowanceTotalAmount>0.00</ram:AllowanceTotalAmount>"))["net_total"] == "100"
    assert label(ZUGFERD_1.format(totals=lines + "<ram:AllowanceTotalAmount>5.00</ram:AllowanceTotalAmount>"))["net_total"] is None
    assert label(ZUGFERD_1.format(totals=lines + "<ram:TaxBasisTotalAmount>95</ram:TaxBasisTotalAmount>"))["net_total"] == "95"


def test_an_order_has_the_same_keys() -> None:
    found = label(ORDER_X)
    assert list(found) == list(EXPECTED)
    assert (found["invoice_number"], found["invoice_date"], found["currency"]) == ("O-1", "2020-03-31", "EUR")
    assert found["line_items"][0]["quantity"] == "6"


def test_ubl_is_understood_and_the_tax_in_the_documents_currency_is_taken() -> None:
    assert label(UBL) == {
        **EXPECTED,
        "invoice_number": "U-1", "invoice_date": "2024-01-02", "due_date": "2024-02-01", "seller_name": "Seller AS", "buyer_name": "Buyer AS",
        "order_reference": "PO-9", "net_total": "100.00", "tax_total": "25.00", "grand_total": "125.00", "amount_due": "125.00",
        "line_items": [{"description": "Chair", "quantity": "2", "unit": "EA", "unit_price": "50.00", "amount": "100.00", "tax_rate": "25"}],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "code", "expected"),
    [
        ("20240229", "102", "2024-02-29"),
        ("202003311232", "203", "2020-03-31"),
        ("202003311232", "102", "2020-03-31"),
        ("20200331123259", "204", "2020-03-31"),
        ("200331", "101", "2020-03-31"),
        ("2024-02-29", None, "2024-02-29"),
        ("2024-02-29T10:00:00+01:00", None, "2024-02-29"),
        ("202402", "610", "2024-02"),
        ("20240230", "102", "20240230"),
        ("soon", "102", "soon"),
        (" ", "102", None),
        (None, None, None),
    ],
)
def test_dates_become_iso(text: str | None, code: str | None, expected: str | None) -> None:
    assert iso_date(text.strip() if text else text, code) == expected


def test_the_standards_file_name_comes_first_and_other_attachments_are_left_alone() -> None:
    data = attached(
        ("a.xml", FACTURX.format(number="other").encode()),
        ("factur-x.xml", FACTURX.format(number="right").encode()),
        ("picture.png", b"\x89PNG"),
    )
    found = label_of_pdf(data)
    assert found is not None
    assert found["invoice_number"] == "right"


def test_xml_of_another_kind_and_no_xml_have_no_label() -> None:
    assert (
        label_of_pdf(attached(("notes.xml", b"<notes/>"), ("broken.xml", b"<a>"), ("x.txt", FACTURX.format(number="1").encode()))) is None
    )
    assert label_of_pdf(pdf("nothing")) is None
    assert label_of_pdf(b"<html>no pdf</html>") is None


@pytest.mark.parametrize(
    "doctype",
    [
        '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY e "&a;&a;&a;&a;&a;&a;">]>',
        '<!DOCTYPE x SYSTEM "http://127.0.0.1/x.dtd">',
    ],
)
def test_entities_are_never_read(doctype: str) -> None:
    body = FACTURX.split("?>", 1)[1].format(number="&e;" if "ENTITY" in doctype else "1")
    assert label_of_xml((doctype + body).encode()) is None


def test_an_attachment_over_the_cap_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from extraction_assets.documents import einvoice

    monkeypatch.setattr(einvoice, "MAX_XML_BYTES", 1000)
    assert label_of_pdf(hybrid()) is None


def test_the_label_of_a_locked_pdf_needs_its_password() -> None:
    document = pymupdf.open(stream=attached(("factur-x.xml", FACTURX.format(number="1").encode())), filetype="pdf")
    data = io.BytesIO()
    document.save(data, encryption=pymupdf.PDF_ENCRYPT_AES_256, user_pw="u", owner_pw="o")
    assert label_of_pdf(data.getvalue()) is None
    assert label_of_pdf(data.getvalue(), ("x", "u")) is not None
