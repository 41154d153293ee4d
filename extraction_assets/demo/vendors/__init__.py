"""Generated vendor PDFs with labels: real small invoices, receipts and purchase orders from a seed."""

from extraction_assets.demo.vendors.generated_set import (
    GeneratedDocument,
    GeneratedSet,
    draw_languages,
    generate,
    make_document,
    make_vendor,
)
from extraction_assets.demo.vendors.vendor import TYPES
from extraction_assets.demo.vendors.words import DEMO_WORDS, LANGUAGES, fold_label

__all__ = [
    "DEMO_WORDS",
    "LANGUAGES",
    "TYPES",
    "GeneratedDocument",
    "GeneratedSet",
    "draw_languages",
    "fold_label",
    "generate",
    "make_document",
    "make_vendor",
]
