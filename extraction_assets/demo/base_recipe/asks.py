"""What is asked of a page: keys, their label words on the page, their values.

A key's name tells the kind of its value, and a page prints that value beside a label. Most labels repeat the key (a made-up word or a
plain one), some are other words for the same thing: so the base learns to look for what the instruction names, to copy what stands
beside it, and to write dates, numbers and currencies in their one JSON form. The words of common business papers ("invoice number",
"Rechnungsnummer", "facture", ...) are left out on purpose: they belong to the user's vendors.
"""

from __future__ import annotations

import functools
import random
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from extraction_assets.demo.base_recipe import words
from extraction_assets.demo.base_recipe.tokenizer_sample import listed
from extraction_assets.demo.base_recipe.words import Value, as_printed

Kind = Literal["id", "text", "date", "amount", "count", "percent", "currency"]

DRAW: dict[Kind, Callable[[random.Random], Value]] = {
    "id": lambda rng: as_printed(words.identifier(rng)),
    "text": lambda rng: as_printed(_some_text(rng)),
    "date": words.date,
    "amount": words.amount,
    "count": words.count,
    "percent": words.percent,
    "currency": words.currency,
}

# words for the same thing: keys that may be asked, and what the page may print beside the value
CONCEPTS: dict[Kind, tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]] = {
    "id": (
        (
            ("number", "document_number", "record_id", "paper_no"),
            ("Slip", "Paper ID", "Kenn-Nr", "Aktenzeichen", "Folio", "Dossier", "Bilag", "Sygnatura"),
        ),
        (("reference", "external_reference", "source_ref"), ("Betreffzeichen", "Your mark", "Cross ref", "Renvoi", "Viite", "Znak")),
        (("account", "account_number", "member_id"), ("Member", "Kontokürzel", "Socio", "Membre", "Medlem", "Jäsen")),
    ),
    "date": (
        (("date", "document_date", "written_on", "issue_date"), ("Written", "Day", "Tag", "Am", "Jour", "Giorno", "Dag", "Päivä", "Den")),
        (
            ("due_date", "valid_until", "deadline", "end_date"),
            ("Until", "Spätestens", "Avant le", "Entro", "Senast", "Frist", "No later than"),
        ),
        (("start_date", "delivered_on", "period_start"), ("Since", "Ab", "Dès", "Dal", "Fra", "Von", "Begin")),
    ),
    "amount": (
        (
            ("total", "total_amount", "grand_total", "sum_total"),
            ("In all", "Altogether", "Zusammen", "Ensemble", "Insgesamt", "Tutto", "Yhteensä", "Razem", "I alt"),
        ),
        (
            ("net_amount", "subtotal", "amount_before_tax"),
            ("Before duty", "Zwischenwert", "Hors droits", "Basis", "Grundbetrag", "Sin carga"),
        ),
        (("tax_amount", "duty_amount", "tax_total"), ("Duty", "Abgabe", "Levy", "Droits", "Carga", "Avgift")),
        (("discount_amount", "deposit_amount", "fee_amount"), ("Taken off", "Nachlass", "Kaution", "Caution", "Fee", "Depot")),
    ),
    "percent": ((("tax_rate", "discount_rate", "share_percent"), ("Satz", "Share", "Taux", "Anteil", "Quota", "Sats")),),
    "count": ((("item_count", "page_count", "piece_count", "box_quantity"), ("Pieces", "Blätter", "Boxes", "Pièces", "Kolli", "Stk")),),
    "currency": ((("currency", "currency_code"), ("Money", "Geld", "Unit of money", "Devise", "Moneda", "Valuta")),),
    "text": (
        (("contact_name", "handled_by", "clerk"), ("Speaks for us", "Bearbeitet", "Traité par", "Attn", "Referent", "Yhteys")),
        (("place", "location", "site_name", "city"), ("At", "Ort", "Lieu", "Luogo", "Sted", "Plats")),
        (("remark", "note", "subject"), ("Re", "Zu", "Objet", "Asunto", "Viesti", "Hinweis")),
        (("customer_name", "recipient", "buyer"), ("For", "Für", "Pour", "Per", "Till", "Zuhanden")),
    ),
}
_SUFFIX: dict[Kind, tuple[str, ...]] = {
    "id": ("_id", "_no", "_code", "_ref"),
    "text": ("_name", "_text"),
    "date": ("_date", "_on", "_day"),
    "amount": ("_amount", "_total", "_price", "_sum"),
    "count": ("_quantity", "_count", "_qty"),
    "percent": ("_rate", "_percent"),
    "currency": ("_currency",),
}
_PLAIN_KEYS = listed("branch driver route room table station serial batch model size colour origin weight volume phone status type kind")


@functools.cache
def dictionary() -> dict[Kind, list[tuple[tuple[str, ...], tuple[str, ...]]]]:
    """Made-up concepts, always the same: keys, and label words that have nothing in common with them. What a page calls a value is
    often known by heart only; a base that has learnt many such pairs learns a vendor's from a few pages."""
    rng = random.Random("dictionary")
    made: dict[Kind, list[tuple[tuple[str, ...], tuple[str, ...]]]] = {}
    for kind in DRAW:
        for _ in range(12 if kind in ("count", "percent", "currency") else 36):
            stem = words.pseudo_word(rng, 2)
            keys = tuple(dict.fromkeys(_ascii(stem) + rng.choice(["", *_SUFFIX[kind]]) for _ in range(2)))
            labels = tuple(
                " ".join(words.pseudo_word(rng, 2) for _ in range(rng.choice([1, 1, 2]))).capitalize()
                + rng.choice(["", "", "", " Nr.", " n°", " no."])
                for _ in range(4)
            )
            made.setdefault(kind, []).append((keys, labels))
    return made


@dataclass(frozen=True)
class Field:
    key: str
    """as the instruction and the answer spell it"""
    label: str
    """as the page prints it"""
    kind: Kind
    value: Value


def draw_kind(rng: random.Random) -> Kind:
    kinds: tuple[Kind, ...] = ("id", "text", "date", "amount", "count", "percent", "currency")
    return rng.choices(kinds, (28, 26, 16, 18, 6, 3, 3))[0]


def draw_field(rng: random.Random, taken: set[str], kind: Kind | None = None) -> Field:
    """A field whose key is not in `taken`; its key is added there, as are the words of its label."""
    while True:
        chosen = kind or draw_kind(rng)
        known = rng.random()
        key, label = _concept(rng, chosen, known < 0.2) if known < 0.45 else _same_words(rng, chosen)
        if key not in taken and label.lower() not in taken:
            taken.update((key, label.lower()))
            return Field(key, label, chosen, DRAW[chosen](rng))


def _concept(rng: random.Random, kind: Kind, plain: bool) -> tuple[str, str]:
    keys, labels = rng.choice(CONCEPTS[kind] if plain else dictionary()[kind])
    return rng.choice(keys), rng.choice(labels)


def _same_words(rng: random.Random, kind: Kind) -> tuple[str, str]:
    """A key of one or two words and a label that repeats them, at times shortened or joined by another word."""
    stem = [rng.choice(_PLAIN_KEYS) if rng.random() < 0.3 else words.pseudo_word(rng, rng.choice([1, 1, 2]))]
    if rng.random() < 0.15:
        stem.append(words.pseudo_word(rng, 1))
    suffix = rng.choice(_SUFFIX[kind]) if rng.random() < 0.3 else ""
    key = _ascii("_".join(stem)) + suffix
    shown = [*stem, *([suffix[1:]] if suffix and rng.random() < 0.4 else [])]
    style = rng.random()
    label = " ".join(shown)
    if style < 0.5:
        label = label[0].upper() + label[1:]
    elif style < 0.7:
        label = " ".join(part.capitalize() for part in shown)
    elif style < 0.82:
        label = label.upper() if "ß" not in label else label
    if rng.random() < 0.12:
        label += rng.choice([" No.", " Nr.", " #", " N°", " no"])
    return key, label


def field_by_ending(rng: random.Random, taken: set[str], kind: Kind) -> Field:
    """A field that the page gives no label: only the ending of its key tells what is meant."""
    while True:
        key = _ascii(words.pseudo_word(rng, 1)) + rng.choice(_SUFFIX[kind])
        if key not in taken:
            taken.add(key)
            return Field(key, "", kind, DRAW[kind](rng))


def _ascii(text: str) -> str:
    """Keys are plain ASCII identifiers, whatever the page prints."""
    table = {"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "å": "a", "æ": "ae", "ø": "o", "œ": "oe", "ł": "l"}
    plain = "".join(table.get(character, character) for character in text.lower())
    return "".join(c for c in unicodedata.normalize("NFKD", plain) if c.isascii() and (c.isalnum() or c == "_")) or "k"


def _some_text(rng: random.Random) -> str:
    return rng.choice([words.phrase, words.person, words.company, words.phrase, words.person, words.address, words.contact])(rng)
