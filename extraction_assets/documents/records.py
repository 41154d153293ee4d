"""What the documents stage hands on: frozen values with a JSON spelling. Nothing here opens a file."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

MediaType = Literal["application/pdf", "image/jpeg", "image/png", "image/webp"]
EXTENSIONS: dict[str, str] = {"application/pdf": ".pdf", "image/jpeg": ".jpg", "image/png": ".png", "image/webp": ".webp"}


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Document(Record):
    """One PDF or image file from one vendor; its bytes lie in the store under (document, EXTENSIONS[media])."""

    document: str
    """SHA-256 of the bytes"""
    file: str
    """path below landing/, for people: invoice/acme/0815.pdf"""
    media: MediaType
    bytes: int


class Refusal(Record):
    """A file that could not be taken, and why."""

    file: str
    reason: str
    """stable code: encrypted, empty_file, not_a_document, no_pages, too_many_pages, timeout, out_of_memory, damaged, duplicate, ..."""
    detail: str
    """one sentence for people"""


class VendorDocuments(Record):
    """Value of raw_documents[type/vendor]: sorted by document digest, one entry per digest."""

    type: str
    vendor: str
    documents: tuple[Document, ...]
    refused: tuple[Refusal, ...] = ()


ReviewOrigin = Literal["file", "label-studio", "endpoint", "ingest"]


class EarlierLabel(Record):
    """A label that another one has replaced."""

    label: str
    """digest of its parsed value"""
    origin: ReviewOrigin
    """file: a person put it there, and no review speaks of it"""
    value: dict[str, Any]


class Review(Record):
    """One judgement of a document's label: it was corrected, confirmed, or given for the first time."""

    label: str = ""
    """digest of the label's parsed value as the review left it; set where it lands"""
    given: str = ""
    """digest of the label that came with the review: another one where it says the same as the one that lay there"""
    origin: ReviewOrigin
    """label-studio: an imported annotation; endpoint: a reviewed answer; ingest: a later label file"""
    by: str | None = None
    """who"""
    at: AwareDatetime | None = None
    """when they did, by the tool's clock"""
    source: str
    """name of the file it came in, and the place in it"""
    source_digest: str
    """SHA-256 of that file"""
    details: dict[str, Any] = Field(default_factory=dict)
    """what the tool says of it: task and annotation; request id, model, schema, decision, fields that were corrected"""
    replaced: EarlierLabel | None = None
    """the label that lay there and said something else"""

    def is_the_same_as(self, other: Review) -> bool:
        """The very same judgement, whatever lay there before and whichever file it came in (a log of reviews grows)."""
        mine, its = (review.model_dump(include={"given", "origin", "by", "at", "details"}) for review in (self, other))
        return mine == its

    def is_older_than(self, at: datetime | None) -> bool:
        return self.at is not None and at is not None and self.at < at


class Label(Record):
    """The target JSON given for a document."""

    document: str
    label: dict[str, Any]
    origin: Literal["file", "e-invoice"]
    """a .json of the same stem, or the XML embedded in the PDF"""
    file: str
    """path below landing/ of the label file, or of the PDF that carries the XML"""
    review: Review | None = None
    """who judged it last; None: nobody has, or somebody has edited the file since"""

    @model_serializer(mode="wrap")
    def _without_an_absent_review(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A label that nobody reviewed is spelled, and so digested, as it was before there were reviews."""
        values = serialize(self)
        return {key: value for key, value in values.items() if key != "review" or value is not None}


class VendorLabels(Record):
    """Value of document_labels[type/vendor]: sorted by document digest. Documents without a label are not in it."""

    type: str
    vendor: str
    labels: tuple[Label, ...]


class Word(Record):
    """One word of the text layer."""

    text: str
    box: tuple[float, float, float, float]
    """x0, y0, x1, y1 in px of the page image, origin top left"""
    line: int
    """number of the text line it stands in, in reading order"""


class PageText(Record):
    """The words of one page in reading order. Stored by digest; an empty page has no words."""

    words: tuple[Word, ...]


class PageImage(Record):
    """One rendered page; the PNG lies in the store under (image, ".png")."""

    document: str
    page: int
    """1 is the first"""
    image: str
    """SHA-256 of the PNG's bytes"""
    width: int
    """px, a multiple of 32"""
    height: int
    content_width: int
    """px of the page itself; the rest is white padding on the right and at the bottom"""
    content_height: int
    dpi: float
    """effective dpi"""
    limited: bool
    """True where max_visual_tokens forced a lower dpi than the one asked for"""
    rotation: int
    """degrees of the page's /Rotate (or the scan's EXIF orientation) that rendering has undone: 0, 90, 180, 270"""
    engine: str
    """name and version, e.g. "pymupdf 2.0.0 (mupdf 1.28.5)"; "pillow 13.0.0" for scans"""
    flags: tuple[str, ...] = ()
    """what to know of it: repaired, warnings, blank, flat, ..."""
    text: str | None = None
    """digest of the PageText (store.read_json); None: no text layer (a scan)"""


class VendorPages(Record):
    """Value of page_images[type/vendor]: sorted by (document, page)."""

    type: str
    vendor: str
    pages: tuple[PageImage, ...]
    refused: tuple[Refusal, ...] = ()
    """documents that could not be rendered; `file` holds the document digest"""
