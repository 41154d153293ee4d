"""An invoice's facts as Factur-X XML (UN/CEFACT Cross Industry Invoice, profile BASIC): the same values that its pages print.

Element order follows the profile's XSD. Written with lxml rather than by the `factur-x` package, whose XMP and attachments carry
the clock; the tests hold the result against that package's XSD and read it back with it.
"""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal

from lxml import etree

from extraction_assets.demo.vendors.facts import Facts, Row
from extraction_assets.demo.vendors.formats import plain, plain_amount
from extraction_assets.demo.vendors.names import Party
from extraction_assets.demo.vendors.pdf import Attachment
from extraction_assets.demo.vendors.vendor import Vendor

FILE_NAME = "factur-x.xml"
_PROFILE = "urn:cen.eu:en16931:2017#compliant#urn:factur-x.eu:1p0:basic"
_NAMESPACES = {
    "rsm": "urn:un:unece:uncefact:data:standard:CrossIndustryInvoice:100",
    "ram": "urn:un:unece:uncefact:data:standard:ReusableAggregateBusinessInformationEntity:100",
    "udt": "urn:un:unece:uncefact:data:standard:UnqualifiedDataType:100",
}
_COUNTRIES = {"en": "GB", "de": "DE", "fr": "FR", "es": "ES", "it": "IT", "nl": "NL"}
_COUNTRY_OF_CURRENCY = {"USD": "US", "CHF": "CH"}
_PIECES, _HOURS = "C62", "HUR"
"""UN/ECE Recommendation 20: one piece, an hour"""
_XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:fx="urn:factur-x:pdfa:CrossIndustryDocument:invoice:1p0#">
<fx:DocumentType>INVOICE</fx:DocumentType><fx:DocumentFileName>factur-x.xml</fx:DocumentFileName>
<fx:Version>1.0</fx:Version><fx:ConformanceLevel>BASIC</fx:ConformanceLevel>
</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="r"?>"""


def factur_x_of(facts: Facts, vendor: Vendor) -> Attachment:
    """The XML and the XMP that announces it."""
    return Attachment(FILE_NAME, write_cii(facts, vendor), _XMP.encode())


def write_cii(facts: Facts, vendor: Vendor) -> bytes:
    """The invoice as Cross Industry Invoice XML."""
    root = etree.Element(_qualified("rsm:CrossIndustryInvoice"), nsmap=_NAMESPACES)
    _add(root, "rsm:ExchangedDocumentContext/ram:GuidelineSpecifiedDocumentContextParameter/ram:ID", _PROFILE)
    document = _add(root, "rsm:ExchangedDocument")
    _add(document, "ram:ID", facts.number)
    _add(document, "ram:TypeCode", "380")
    _add_date(document, "ram:IssueDateTime", facts.day)
    trade = _add(root, "rsm:SupplyChainTradeTransaction")
    for number, row in enumerate(facts.rows, 1):
        _add_row(trade, number, row, vendor.tax_rate, _HOURS if vendor.halves else _PIECES)
    agreement = _add(trade, "ram:ApplicableHeaderTradeAgreement")
    country = _COUNTRY_OF_CURRENCY.get(facts.currency, _COUNTRIES[vendor.language])
    _add_party(agreement, "ram:SellerTradeParty", facts.issuer, country, vendor.tax_line)
    _add_party(agreement, "ram:BuyerTradeParty", facts.buyer, country)
    _add(trade, "ram:ApplicableHeaderTradeDelivery")
    settlement = _add(trade, "ram:ApplicableHeaderTradeSettlement")
    _add(settlement, "ram:InvoiceCurrencyCode", facts.currency)
    tax = _add(settlement, "ram:ApplicableTradeTax")
    _add(tax, "ram:CalculatedAmount", plain_amount(facts.tax or Decimal(0)))
    _add(tax, "ram:TypeCode", "VAT")
    _add(tax, "ram:BasisAmount", plain_amount(facts.net))
    _add(tax, "ram:CategoryCode", "S")
    _add(tax, "ram:RateApplicablePercent", plain(vendor.tax_rate))
    if facts.due:
        _add_date(_add(settlement, "ram:SpecifiedTradePaymentTerms"), "ram:DueDateDateTime", facts.due)
    sums = _add(settlement, "ram:SpecifiedTradeSettlementHeaderMonetarySummation")
    _add(sums, "ram:LineTotalAmount", plain_amount(facts.net))
    _add(sums, "ram:TaxBasisTotalAmount", plain_amount(facts.net))
    _add(sums, "ram:TaxTotalAmount", plain_amount(facts.tax or Decimal(0)), currencyID=facts.currency)
    _add(sums, "ram:GrandTotalAmount", plain_amount(facts.gross))
    _add(sums, "ram:DuePayableAmount", plain_amount(facts.gross))
    return etree.tostring(root, xml_declaration=True, encoding="UTF-8", pretty_print=True)


def _add_row(trade: etree._Element, number: int, row: Row, rate: Decimal, unit: str) -> None:
    line = _add(trade, "ram:IncludedSupplyChainTradeLineItem")
    _add(line, "ram:AssociatedDocumentLineDocument/ram:LineID", str(number))
    _add(line, "ram:SpecifiedTradeProduct/ram:Name", row.good.name)
    _add(line, "ram:SpecifiedLineTradeAgreement/ram:NetPriceProductTradePrice/ram:ChargeAmount", plain_amount(row.price))
    _add(line, "ram:SpecifiedLineTradeDelivery/ram:BilledQuantity", plain(row.quantity), unitCode=unit)
    settlement = _add(line, "ram:SpecifiedLineTradeSettlement")
    tax = _add(settlement, "ram:ApplicableTradeTax")
    _add(tax, "ram:TypeCode", "VAT")
    _add(tax, "ram:CategoryCode", "S")
    _add(tax, "ram:RateApplicablePercent", plain(rate))
    _add(settlement, "ram:SpecifiedTradeSettlementLineMonetarySummation/ram:LineTotalAmount", plain_amount(row.amount))


def _add_party(agreement: etree._Element, tag: str, party: Party, country: str, tax_line: str | None = None) -> None:
    node = _add(agreement, tag)
    _add(node, "ram:Name", party.name)
    address = _add(node, "ram:PostalTradeAddress")
    _add(address, "ram:LineOne", party.street)
    _add(address, "ram:CityName", party.city)
    _add(address, "ram:CountryID", country)
    if tax_line:
        digits = "".join(re.findall(r"\d", tax_line))
        _add(node, "ram:SpecifiedTaxRegistration/ram:ID", country + digits, schemeID="VA")


def _add_date(parent: etree._Element, tag: str, day: date) -> None:
    _add(parent, f"{tag}/udt:DateTimeString", f"{day:%Y%m%d}", format="102")


def _add(parent: etree._Element, path: str, text: str | None = None, **attributes: str) -> etree._Element:
    """Append the elements of a path; the last one gets the text and the attributes."""
    for step in path.split("/"):
        parent = etree.SubElement(parent, _qualified(step))
    parent.text = text
    for name, value in attributes.items():
        parent.set(name, value)
    return parent


def _qualified(name: str) -> str:
    prefix, local = name.split(":")
    return f"{{{_NAMESPACES[prefix]}}}{local}"
