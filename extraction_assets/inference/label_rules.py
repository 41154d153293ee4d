"""What one would do without training: a page's own text, and rules of the kind "the date stands beside the word Date".

A baseline for the eval report, not a product: it says how much of the job needs a model at all. For each header field its label is looked
for (the words of its key, and what such fields are called in six languages), and the nearest value of its type to the right of or below it is
taken. Without a label: the page's first date, its largest amount for a total, its first line for who sent it. Tables are not read. Pages
without a text layer (scans, hard negatives) are read by Tesseract where it is installed (inference.ocr), else they get no answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from extraction_assets.dataset.printed_values import currency_of, fold, printed_dates, printed_numbers
from extraction_assets.documents.records import PageText, Word
from extraction_assets.schema import Leaf, TargetSchema

_CALLED: Mapping[str, tuple[str, ...]] = {
    "due": ("due date", "payment due", "pay by", "due", "deliver by", "ship by", "fallig am", "fallig", "zahlbar bis", "zahlungsziel", "lieferdatum",
            "echeance", "date limite", "vencimiento", "scadenza", "vervaldatum", "liefern bis"),
    "date": ("invoice date", "order date", "date of issue", "date", "rechnungsdatum", "bestelldatum", "belegdatum", "datum", "date de facture",
             "fecha", "data fattura", "data", "factuurdatum", "issued"),
    "net": ("net total", "subtotal", "sub total", "sub-total", "net", "zwischensumme", "nettobetrag", "netto", "total ht", "sous-total", "base imponible",
            "imponibile", "subtotaal"),
    "tax": ("vat", "tax", "gst", "mwst", "ust", "umsatzsteuer", "tva", "iva", "btw", "moms"),
    "total": ("grand total", "total due", "amount due", "balance due", "gross total", "total ttc", "gesamtbetrag", "rechnungsbetrag", "endbetrag", "gesamt",
              "zu zahlen", "summe", "montant total", "importe total", "total a pagar", "totale", "te betalen", "totaal", "total"),
    "number": ("invoice number", "invoice no", "invoice nr", "invoice #", "order number", "order no", "po number", "receipt no", "contract no", "number",
               "no", "nr", "rechnungsnummer", "rechnung nr", "rechnungs-nr", "bestellnummer", "bestell-nr", "beleg-nr", "bon", "facture no", "numero",
               "factura no", "fattura n", "factuurnummer"),
    "buyer": ("bill to", "sold to", "buyer", "customer", "kunde", "rechnung an", "client", "facture a", "cliente", "klant", "contact", "attn", "ansprechpartner"),
}  # fmt: skip
_HINTS: Mapping[str, tuple[str, ...]] = {
    "total": ("together", "with tax", "was paid", "left to pay"),
    "due": ("due", "until", "pay by", "ship", "deliver", "flight_to"),
    "net": ("net", "without tax", "before tax", "subtotal"),
    "tax": ("tax", "vat"),
    "buyer": ("buyer", "customer", "is to pay", "person", "contact"),
}
"""in a field's key, else in its description -> what it is"""
_SIGNS = {"€": "EUR", "£": "GBP", "$": "USD", "¥": "JPY"}
_ROW_PX = 0.6
"""words stand beside each other if they overlap by this share of a word's height"""
_BELOW_LINES = 2.5
"""and below, within so many heights"""
_ID = re.compile(r"(?=[^ ]*\d)[\w./#-]{3,}")


@dataclass(frozen=True)
class _Label:
    words: Sequence[Word]
    rank: int
    """0: the most telling name of those that were looked for"""

    @property
    def box(self) -> tuple[float, float, float, float]:
        boxes = [word.box for word in self.words]
        return min(b[0] for b in boxes), min(b[1] for b in boxes), max(b[2] for b in boxes), max(b[3] for b in boxes)


def read_by_rules(text: PageText, schema: TargetSchema) -> dict[str, Any]:
    """An answer of the schema: header fields by rule, null where no rule finds a value, no rows."""
    answer: dict[str, Any] = {}
    for leaf in schema.fields:
        node = answer
        for key in leaf.path[:-1]:
            node = node.setdefault(key, {})
        node[leaf.path[-1]] = _read(text.words, leaf, _node(schema, leaf))
    return schema.complete(answer)


def _node(schema: TargetSchema, leaf: Leaf) -> Mapping[str, Any]:
    node = schema.document
    for key in leaf.path:
        node = node["properties"][key]
    return node


def _read(words: Sequence[Word], leaf: Leaf, node: Mapping[str, Any]) -> str | None:
    told = (leaf.path[-1].casefold(), str(node.get("description", "")).casefold())
    concept = next((name for text in told for name, hints in _HINTS.items() if any(hint in text for hint in hints)), None)
    own = " ".join(re.split(r"[_\W]+|(?<=[a-z])(?=[A-Z])", leaf.path[-1])).casefold()
    if leaf.type == "date":
        found = _beside(words, (own, *_CALLED["due" if concept == "due" else "date"]), _date)
        return found if found or concept == "due" else next((day for _, day in _dates(words)), None)
    if leaf.type in ("amount", "number"):
        names = _CALLED.get(concept or "total", _CALLED["total"])
        found = _beside(words, (own, *names), _amount)
        if found is None and concept in (None, "total") and leaf.type == "amount":
            amounts = [value for word in words if (value := _amount([word])) is not None]
            found = max(amounts, key=Decimal, default=None)
        return found
    if leaf.type == "code":
        signs = next((_SIGNS[char] for word in words for char in word.text if char in _SIGNS), None)
        return next((code for word in words if (code := currency_of(word.text.strip(".:,()"))) is not None), signs)
    if leaf.type == "id":
        return _beside(words, (own, *_CALLED["number"]), _identifier)
    if concept == "buyer":
        return _beside(words, (own, *_CALLED["buyer"]), _words)
    return _beside(words, (own,), _words) or (" ".join(word.text for word in words if word.line == words[0].line) if words else None)


def _beside(words: Sequence[Word], names: Sequence[str], read: Any) -> str | None:
    """The first value that `read` finds to the right of a label, else below one; the most telling names first."""
    for label in sorted(_labels(words, names), key=lambda label: label.rank):
        left, top, right, bottom = label.box
        height = max(1.0, bottom - top)
        others = [word for word in words if all(word is not own for own in label.words)]
        beside = [
            w
            for w in others
            if w.box[0] >= right - 1 and min(bottom, w.box[3]) - max(top, w.box[1]) > _ROW_PX * min(height, w.box[3] - w.box[1])
        ]
        below = [
            w
            for w in others
            if 0 <= w.box[1] - top - height * 0.5 < _BELOW_LINES * height and w.box[0] < right + height and w.box[2] > left - height
        ]
        for near in (sorted(beside, key=lambda w: w.box[0]), sorted(below, key=lambda w: (w.line, w.box[0]))):
            value = read(near)
            if value is not None:
                return str(value)
    return None


def _labels(words: Sequence[Word], names: Sequence[str]) -> Iterator[_Label]:
    folded = [fold(word.text).strip(":.,#*()") for word in words]
    for rank, name in enumerate(names):
        parts = [part.strip(":.,#") for part in fold(name).split()]
        for start in range(len(words) - len(parts) + 1):
            if folded[start : start + len(parts)] == parts:
                yield _Label(words[start : start + len(parts)], rank)


def _dates(words: Sequence[Word]) -> Iterator[tuple[int, str]]:
    text = fold(" ".join(word.text for word in words))
    for start, _, days in printed_dates(text):
        yield start, days[0].isoformat()


def _date(words: Sequence[Word]) -> str | None:
    return next((day for start, day in _dates(words[:6]) if start < 12), None)


def _amount(words: Sequence[Word]) -> str | None:
    for word in words:
        for readings, strong, _ in printed_numbers(word.text):
            if strong and abs(readings[0]) < Decimal(10**12):
                return f"{readings[0]:.2f}"
    return None


def _identifier(words: Sequence[Word]) -> str | None:
    return next((word.text.strip(":,") for word in words[:3] if _ID.fullmatch(word.text.strip(":,#"))), None)


def _words(words: Sequence[Word]) -> str | None:
    """The words of the first line, as far as they stand close together."""
    line: list[Word] = []
    for word in words:
        if line and (word.line != line[0].line or word.box[0] - line[-1].box[2] > 1.5 * (word.box[3] - word.box[1])):
            break
        line.append(word)
    return " ".join(word.text for word in line) or None
