"""Labels from hybrid e-invoices: the XML embedded in a PDF, as the keys of schemas/invoice.schema.json.

Understood: UN/CEFACT Cross Industry Invoice (Factur-X, ZUGFeRD 1 and 2, XRechnung CII), Order-X, and UBL 2 invoices, credit
notes and orders. Elements are found by local name: namespaces and even the root's name differ between versions of the same
message, the names of the elements that matter do not. Amounts, quantities and unit codes (UN/ECE Rec. 20) stay as the XML spells
them; dates become YYYY-MM-DD. Runs in the worker only: the XML comes from strangers too (no entities, no network, size-capped).
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable
from typing import Any

import pymupdf
from lxml import etree

MAX_XML_BYTES = 20 << 20
MAX_DEPTH = 64
MAX_ATTACHMENTS = 64

_KNOWN_NAMES = (
    "factur-x.xml",
    "zugferd-invoice.xml",
    "xrechnung.xml",
    "order-x.xml",
    "cii.xml",
    "ubl.xml",
)
"""File names the standards give the embedded XML, compared in lower case; they are tried first"""

Label = dict[str, Any]


def label_of_pdf(data: bytes, passwords: tuple[str, ...] = ()) -> Label | None:
    """Label from the first embedded file that is an e-invoice or an order; None if there is none."""
    with pymupdf.open(stream=data, filetype="pdf") as document:
        if not document.is_pdf:
            return None
        if document.needs_pass and not any(document.authenticate(password) for password in passwords):
            return None
        for xml in _embedded_xml(document):
            label = label_of_xml(xml)
            if label is not None:
                return label
    return None


def _embedded_xml(document: pymupdf.Document) -> Iterable[bytes]:
    """Embedded files that can be XML, the standards' names first. Sizes are checked before anything is unpacked."""
    names = document.embfile_names()[:MAX_ATTACHMENTS]

    def rank(name: str) -> tuple[int, str]:
        file = str(document.embfile_info(name).get("filename") or name).lower()
        return (0 if file in _KNOWN_NAMES or name.lower() in _KNOWN_NAMES else 1, name)

    for name in sorted(names, key=rank):
        info = document.embfile_info(name)
        file = str(info.get("filename") or name).lower()
        if not (file.endswith(".xml") or name.lower().endswith(".xml")):
            continue
        if max(int(info.get("size") or 0), int(info.get("length") or 0)) <= MAX_XML_BYTES:
            content = document.embfile_get(name)
            if content and len(content) <= MAX_XML_BYTES:
                yield content


def label_of_xml(xml: bytes) -> Label | None:
    """Label of one e-invoice or order in XML; None for XML of another kind, or what is no XML."""
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(xml.strip(b"\0 \t\r\n"), parser)
    except (etree.XMLSyntaxError, ValueError):
        return None
    if root.getroottree().docinfo.doctype or root.getroottree().docinfo.internalDTD is not None:
        return None  # no e-invoice standard has a DTD: entities are an attack
    children = {_name(child) for child in root}
    if "SupplyChainTradeTransaction" in children or "SpecifiedSupplyChainTradeTransaction" in children:
        return _label_of_cii(root)
    if _name(root) in _UBL_LINES and etree.QName(root).namespace and "ubl:schema" in str(etree.QName(root).namespace):
        return _label_of_ubl(root)
    return None


# --- finding ------------------------------------------------------------------------------------------------------------


def _name(element: etree._Element) -> str:
    return etree.QName(element).localname if isinstance(element.tag, str) else ""


def _all(element: etree._Element | None, path: str) -> list[etree._Element]:
    """Elements at a path of local names; `A|B` in a step: either name."""
    found = [] if element is None else [element]
    for step in path.split("/"):
        names = set(step.split("|"))
        found = [child for parent in found for child in parent if _name(child) in names]
    return found


def _first(element: etree._Element | None, path: str) -> etree._Element | None:
    found = _all(element, path)
    return found[0] if found else None


def _text(element: etree._Element | None, *paths: str) -> str | None:
    """Text of the first path that has some, white space runs as one space."""
    for path in paths:
        for found in _all(element, path):
            text = " ".join("".join(found.itertext()).split())
            if text:
                return text
    return None


def _amount(element: etree._Element | None, path: str, currency: str | None) -> str | None:
    """Amount in the document's own currency where several are given (a tax total may stand there in two)."""
    found = [item for item in _all(element, path) if (item.text or "").strip()]
    own = [item for item in found if currency and item.get("currencyID") == currency]
    return (own or found)[0].text.strip() if found else None


# --- dates --------------------------------------------------------------------------------------------------------------

_FORMATS: dict[str, str] = {
    "2": "%d%m%y",
    "101": "%y%m%d",
    "102": "%Y%m%d",
    "203": "%Y%m%d%H%M",
    "204": "%Y%m%d%H%M%S",
    "205": "%Y%m%d%H%M%z",
}
"""UNTDID 2379 codes of points in time"""

_BY_LENGTH = {8: "102", 12: "203", 14: "204"}


def iso_date(text: str | None, code: str | None = None) -> str | None:
    """YYYY-MM-DD from a date in a UNTDID 2379 format or in ISO 8601; any other text as it stands.

    A text that does not fit the format it claims is read by its own shape: the claim is wrong more often than the date.
    """
    if not text:
        return None
    text = text.strip()
    if match := re.match(r"(\d{4}-\d{2}-\d{2})(?!\d)", text):
        return match[1]
    if match := re.fullmatch(r"(\d{4})-?(\d{2})", text) if code == "610" else None:
        return f"{match[1]}-{match[2]}"
    for form in dict.fromkeys((_FORMATS.get(code or ""), _FORMATS.get(_BY_LENGTH.get(len(text), "")))):
        if form:
            try:
                return datetime.datetime.strptime(text, form).date().isoformat()
            except ValueError:
                continue
    return text


def _date(element: etree._Element | None) -> str | None:
    """Date of an element that holds it as text (ZUGFeRD drafts) or in DateTimeString, DateTime or Date below."""
    if element is None:
        return None
    inner = next((item for item in element.iter() if isinstance(item.tag, str) and (item.text or "").strip()), None)
    return None if inner is None else iso_date(inner.text, inner.get("format") or element.get("format"))


# --- Cross Industry Invoice and Order-X ---------------------------------------------------------------------------------


def _label_of_cii(root: etree._Element) -> Label:
    header = _first(root, "ExchangedDocument|HeaderExchangedDocument")
    transaction = _first(root, "SupplyChainTradeTransaction|SpecifiedSupplyChainTradeTransaction")
    agreement = _first(transaction, "ApplicableHeaderTradeAgreement|ApplicableSupplyChainTradeAgreement")
    settlement = _first(transaction, "ApplicableHeaderTradeSettlement|ApplicableSupplyChainTradeSettlement")
    totals = _first(settlement, "SpecifiedTradeSettlementHeaderMonetarySummation|SpecifiedTradeSettlementMonetarySummation")
    currency = _text(settlement, "InvoiceCurrencyCode", "OrderCurrencyCode")

    def total(*names: str) -> str | None:
        return next((value for name in names if (value := _amount(totals, name, currency)) is not None), None)

    # the profiles without a tax basis: it is the lines' total, unless allowances or charges of the document change it (EN 16931 BR-CO-13)
    adjusted = any(_is_nonzero(total(name)) for name in ("AllowanceTotalAmount", "ChargeTotalAmount"))
    return {
        "invoice_number": _text(header, "ID"),
        "invoice_date": _date(_first(header, "IssueDateTime")),
        "seller_name": _text(agreement, "SellerTradeParty/Name", "SellerTradeParty/SpecifiedLegalOrganization/TradingBusinessName"),
        "buyer_name": _text(agreement, "BuyerTradeParty/Name", "BuyerTradeParty/SpecifiedLegalOrganization/TradingBusinessName"),
        "order_reference": _text(agreement, "BuyerOrderReferencedDocument/IssuerAssignedID|ID"),
        "currency": currency,
        "due_date": _date(_first(settlement, "SpecifiedTradePaymentTerms/DueDateDateTime")),
        "net_total": total("TaxBasisTotalAmount") or (None if adjusted else total("LineTotalAmount")),
        "tax_total": total("TaxTotalAmount"),
        "grand_total": total("GrandTotalAmount"),
        "amount_due": total("DuePayableAmount"),
        "line_items": _rows(_all(transaction, "IncludedSupplyChainTradeLineItem"), _row_of_cii),
    }


def _is_nonzero(amount: str | None) -> bool:
    return bool(amount and amount.strip("0.,+- "))


def _row_of_cii(line: etree._Element) -> Label:
    settlement = _first(line, "SpecifiedLineTradeSettlement|SpecifiedSupplyChainTradeSettlement")
    delivery = _first(line, "SpecifiedLineTradeDelivery|SpecifiedSupplyChainTradeDelivery")
    agreement = _first(line, "SpecifiedLineTradeAgreement|SpecifiedSupplyChainTradeAgreement")
    quantity = next((found for name in _CII_QUANTITIES if (found := _first(delivery, name)) is not None), None)
    sums = "SpecifiedTradeSettlementLineMonetarySummation|SpecifiedTradeSettlementMonetarySummation"
    return {
        "description": _text(line, "SpecifiedTradeProduct/Name", "SpecifiedTradeProduct/Description"),
        "quantity": None if quantity is None else (quantity.text or "").strip() or None,
        "unit": None if quantity is None else quantity.get("unitCode"),
        "unit_price": _text(agreement, "NetPriceProductTradePrice/ChargeAmount", "GrossPriceProductTradePrice/ChargeAmount"),
        "amount": _text(settlement, f"{sums}/LineTotalAmount"),
        "tax_rate": _text(settlement, "ApplicableTradeTax/RateApplicablePercent|ApplicablePercent"),
    }


_CII_QUANTITIES = ("BilledQuantity", "RequestedQuantity", "AgreedQuantity")

# --- UBL ----------------------------------------------------------------------------------------------------------------

_UBL_LINES = {"Invoice": "InvoiceLine", "CreditNote": "CreditNoteLine", "Order": "OrderLine/LineItem"}


def _label_of_ubl(root: etree._Element) -> Label:
    kind = _name(root)
    parties = ("SellerSupplierParty", "BuyerCustomerParty") if kind == "Order" else ("AccountingSupplierParty", "AccountingCustomerParty")
    totals = _first(root, "LegalMonetaryTotal|AnticipatedMonetaryTotal|RequestedMonetaryTotal")
    currency = _text(root, "DocumentCurrencyCode")
    return {
        "invoice_number": _text(root, "ID"),
        "invoice_date": iso_date(_text(root, "IssueDate")),
        "seller_name": _ubl_name(root, parties[0]),
        "buyer_name": _ubl_name(root, parties[1]),
        "order_reference": _text(root, "OrderReference/ID"),
        "currency": currency,
        "due_date": iso_date(_text(root, "DueDate", "PaymentMeans/PaymentDueDate")),
        "net_total": _amount(totals, "TaxExclusiveAmount", currency),
        "tax_total": _amount(root, "TaxTotal/TaxAmount", currency),
        "grand_total": _amount(totals, "TaxInclusiveAmount", currency),
        "amount_due": _amount(totals, "PayableAmount", currency),
        "line_items": _rows(_all(root, _UBL_LINES[kind]), _row_of_ubl),
    }


def _ubl_name(root: etree._Element, party: str) -> str | None:
    return _text(root, f"{party}/Party/PartyLegalEntity/RegistrationName", f"{party}/Party/PartyName/Name")


def _row_of_ubl(line: etree._Element) -> Label:
    quantity = _first(line, "InvoicedQuantity|CreditedQuantity|Quantity")
    return {
        "description": _text(line, "Item/Name", "Item/Description"),
        "quantity": None if quantity is None else (quantity.text or "").strip() or None,
        "unit": None if quantity is None else quantity.get("unitCode"),
        "unit_price": _text(line, "Price/PriceAmount"),
        "amount": _text(line, "LineExtensionAmount"),
        "tax_rate": _text(line, "Item/ClassifiedTaxCategory/Percent"),
    }


def _rows(lines: list[etree._Element], row: Callable[[etree._Element], Label]) -> list[Label]:
    """One object a line; lines that hold nothing but a note are left out."""
    return [label for label in map(row, lines) if any(value is not None for value in label.values())]
