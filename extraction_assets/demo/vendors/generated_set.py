"""Vendor folders of generated documents: PDFs with a text layer and their label JSON, bit for bit the same from the same seed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

from extraction_assets.demo.vendors.chance import chance_for
from extraction_assets.demo.vendors.compose import A4, MOST_ROWS, SMALL_WIDTHS, Template, make_templates
from extraction_assets.demo.vendors.facts import Facts, draw_facts, label_of
from extraction_assets.demo.vendors.factur_x import factur_x_of
from extraction_assets.demo.vendors.pdf import write_pdf
from extraction_assets.demo.vendors.sheet import DoesNotFit, PrintedValue, Sheet
from extraction_assets.demo.vendors.vendor import TYPES, DocumentType, PageSize, Vendor, draw_vendor
from extraction_assets.demo.vendors.words import LANGUAGES
from extraction_assets.errors import InputError

_ATTEMPTS = 60
_SEVERAL_PAGES = 0.12
"""Share of invoices and orders that go over more than one page"""


@dataclass(frozen=True)
class GeneratedDocument:
    """One document before or after it was written."""

    type: DocumentType
    vendor: str
    """folder name: vendor-01"""
    stem: str
    facts: Facts
    label: dict[str, Any]
    """canonical values; null where the document does not print the field"""
    pdf: bytes
    page_sizes: tuple[tuple[float, float], ...]
    """(width, height) of each page, pt"""
    printed: tuple[PrintedValue, ...]
    """where each label value stands, as printed"""
    hybrid: bool
    """carries Factur-X XML"""

    @property
    def folder(self) -> Path:
        return Path(self.type) / self.vendor


@dataclass(frozen=True)
class GeneratedSet:
    """What `generate` wrote."""

    folder: Path
    seed: int
    vendors: tuple[tuple[DocumentType, str], ...]
    """(type, folder name)"""
    files: tuple[Path, ...]
    """the PDFs, relative to `folder`; each has its label beside it as <stem>.json"""
    pages: int
    hybrid: int
    """documents with embedded XML"""


def generate(
    folder: Path,
    seed: int,
    vendors: int,
    documents_per_vendor: int,
    hybrid_xml: float = 0.0,
    types: Sequence[DocumentType] = TYPES,
    progress: Callable[[int, int], None] | None = None,
    page: PageSize = "small",
    languages: Sequence[str] | None = None,
) -> GeneratedSet:
    """Write folder/<type>/<vendor>/<stem>.pdf and .json for `vendors` vendors in all, the types taking turns.

    hybrid_xml: share (0 to 1) of the invoices that also carry their data as Factur-X XML.
    page: "small" (256 to 320 x 320 to 448 pt) or "a4".
    languages: which the vendors speak, in turns; by default three of LANGUAGES, drawn from the seed.
    Vendor k and its document n depend on the seed, k and n alone: asking for more of either changes none.
    Raises InputError on impossible arguments and where the folder cannot be written.
    """
    spoken = draw_languages(seed) if languages is None else tuple(languages)
    _check(vendors, documents_per_vendor, hybrid_xml, types, page, spoken)
    files: list[Path] = []
    pages = hybrid = 0
    made: list[tuple[DocumentType, str]] = []
    try:
        for number in range(1, vendors + 1):
            kind = types[(number - 1) % len(types)]
            for index in range(1, documents_per_vendor + 1):
                document = make_document(seed, number, index, kind, page, spoken, hybrid_xml)
                target = folder / document.folder
                target.mkdir(parents=True, exist_ok=True)
                path = target / f"{document.stem}.pdf"
                path.write_bytes(document.pdf)
                path.with_suffix(".json").write_text(json.dumps(document.label, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
                files.append(path.relative_to(folder))
                pages += len(document.page_sizes)
                hybrid += document.hybrid
                if progress:
                    progress(len(files), vendors * documents_per_vendor)
            made.append((kind, f"vendor-{number:02d}"))
    except OSError as error:
        raise InputError(str(folder), f"cannot be written: {error.strerror or error}", do="Free space or rights, then run again") from error
    return GeneratedSet(folder, seed, tuple(made), tuple(files), pages, hybrid)


def make_document(
    seed: int,
    vendor_number: int,
    number: int,
    kind: DocumentType,
    page: PageSize = "small",
    languages: tuple[str, ...] | None = None,
    hybrid_xml: float = 0.0,
) -> GeneratedDocument:
    """Document `number` (from 1) of vendor `vendor_number` (from 1), in memory."""
    vendor, templates = make_vendor(seed, vendor_number, kind, page, languages or draw_languages(seed))
    facts, sheets, chance = _draw_document(seed, vendor, templates, number)
    hybrid = kind == "invoice" and chance.random() < hybrid_xml
    attachment = factur_x_of(facts, vendor) if hybrid else None
    pdf = write_pdf(sheets, f"{facts.number or facts.day}", vendor.party.name, facts.day, attachment)
    return GeneratedDocument(
        type=kind,
        vendor=vendor.folder,
        stem=f"{kind}-{vendor_number:02d}-{number:04d}",
        facts=facts,
        label=label_of(facts),
        pdf=pdf,
        page_sizes=tuple((sheet.width, sheet.height) for sheet in sheets),
        printed=tuple(value for sheet in sheets for value in sheet.printed),
        hybrid=hybrid,
    )


def _draw_document(
    seed: int, vendor: Vendor, templates: tuple[Template, Template], number: int
) -> tuple[Facts, list[Sheet], random.Random]:
    """Facts and pages of one document, and its chance for what is still to be drawn.

    Templates are measured with the longest values, digit for digit; should one still be too long, the document is drawn again.
    """
    for attempt in range(_ATTEMPTS):
        chance = chance_for(seed, "document", vendor.number, vendor.type, templates[0].page, number, attempt)
        layout = chance.randint(0, 1)
        facts = draw_facts(chance, vendor, number, layout, _draw_row_count(chance, templates[layout]))
        try:
            return facts, templates[layout].draw(facts), chance
        except DoesNotFit:
            continue
    raise AssertionError(f"document {number} of vendor {vendor.number} of seed {seed}: nothing fits after {_ATTEMPTS} draws")


def draw_languages(seed: int) -> tuple[str, ...]:
    """The three languages of a seed's vendors."""
    return tuple(chance_for(seed, "languages").sample(LANGUAGES, 3))


@lru_cache(maxsize=512)
def make_vendor(
    seed: int, number: int, kind: DocumentType, page: PageSize, languages: tuple[str, ...]
) -> tuple[Vendor, tuple[Template, Template]]:
    """Vendor `number` of a seed with its two templates: the first draw in which every value fits its place."""
    language = languages[(number - 1) // len(TYPES) % len(languages)]
    for attempt in range(_ATTEMPTS):
        chance = chance_for(seed, "vendor", number, kind, page, language, attempt)
        vendor = draw_vendor(chance, seed, number, kind, language, page, attempt)
        width = chance.choice(SMALL_WIDTHS[min(attempt // 4, 2) :]) if page == "small" else A4[0]
        margin = chance.choice((10.0, 12.0, 14.0)) if page == "small" else chance.choice((44.0, 52.0, 60.0))
        try:
            return vendor, make_templates(vendor, page, width, margin)
        except DoesNotFit:
            continue
    raise AssertionError(f"vendor {number} of seed {seed}: nothing fits after {_ATTEMPTS} draws")


def _draw_row_count(chance: random.Random, template: Template) -> int:
    """Mostly a page's worth or less, few rather than many; now and then more than one page holds."""
    most = template.most_rows
    if template.frame.vendor.type != "receipt" and chance.random() < _SEVERAL_PAGES:
        return chance.randint(most + 1, min(2 * most - 1, MOST_ROWS))
    least = 1 if template.page == "small" else 3
    return min(chance.randint(least, most), chance.randint(least, most))


def _check(vendors: int, documents: int, hybrid_xml: float, types: Sequence[str], page: str, languages: Sequence[str]) -> None:
    if vendors < 1 or documents < 1:
        raise InputError("generated vendors", f"{vendors} vendors with {documents} documents each", "at least 1 of both")
    if not 0 <= hybrid_xml <= 1:
        raise InputError("generated vendors", f"hybrid_xml is {hybrid_xml:g}", "a share from 0 to 1")
    for name, values, known in (
        ("types", types, TYPES),
        ("page", (page,), get_args(PageSize)),
        ("languages", languages, LANGUAGES),
    ):
        unknown = [value for value in values if value not in known]
        if unknown or not values:
            raise InputError("generated vendors", f"{name}: {', '.join(unknown) or 'none'}", f"some of {', '.join(known)}")
