"""What the dataset stage hands on: page targets, hard negatives, the index of all examples. Nothing here opens a file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from extraction_assets.documents.records import Record

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
CLEAN = "clean"


class PageTarget(Record):
    """What one page image must yield."""

    document: str
    page: int
    image: str
    """digest of the page image"""
    width: int
    height: int
    dpi: float
    target: str
    """spelled (TargetSchema.spell): compact JSON, keys in target order; the store sorts keys, a string keeps them"""
    value_boxes: dict[str, tuple[tuple[float, float, float, float], ...]] = Field(default_factory=dict)
    """JSON pointer of a value -> boxes (px) of the words that show it; only where the text layer has it"""
    text: str | None = None
    """digest of the PageText"""


class UnplacedValue(Record):
    """A label value that stands on no page's text layer."""

    document: str
    pointer: str
    """JSON pointer into the label"""
    value: str


class UndecidedPages(Record):
    """Pages for which nobody can say which label values they show. They yield no target: a guess would teach invention."""

    document: str
    pages: tuple[int, ...]
    """1 is the first"""
    reason: str
    """one sentence for people"""


class VendorTargets(Record):
    """Value of page_targets[type/vendor]: sorted by (document, page)."""

    type: str
    vendor: str
    schema_digest: str
    instruction: str
    targets: tuple[PageTarget, ...]
    unplaced: tuple[UnplacedValue, ...] = ()
    dropped_documents: tuple[str, ...] = ()
    """left out because a value was unplaced and the setting says drop"""
    ignored_keys: tuple[str, ...] = ()
    """label keys (pointers without row numbers) that the schema does not have"""
    undecided: tuple[UndecidedPages, ...] = ()
    """pages left without a target: scans of several pages with one label, labels that fit no word of their document"""


class HardNegative(Record):
    """A page made harder on purpose; its PNG lies in the store under (image, ".png")."""

    document: str
    page: int
    kind: str
    """the stratum: rotated, stamped, noisy, missing_field, blank, foreign"""
    image: str
    width: int
    height: int
    dpi: float
    target: str
    """spelled"""
    twin: str
    """digest of the clean page image it was made of"""
    what: str
    """what was done, for people: "turned by 90 degrees", "erased /grand_total" """


class VendorNegatives(Record):
    """Value of hard_negatives[type/vendor]: sorted by (document, page, kind)."""

    type: str
    vendor: str
    schema_digest: str
    instruction: str
    targets: str
    """digest of the VendorTargets that they were made from: the index joins the two by it"""
    negatives: tuple[HardNegative, ...]


class IndexRow(Record):
    """One example before it has a split: one row of example_index."""

    id: str
    """first 32 hex characters of the digest of (image, target, instruction)"""
    type: str
    vendor: str
    """type/vendor, the partition key"""
    document: str
    page: int
    stratum: str
    twin: str | None
    """id of the clean example it was made of"""
    image: str
    width: int
    height: int
    dpi: float
    schema_digest: str
    instruction: str
    target: str
    """spelled (TargetSchema.spell)"""
    text: str | None
    """digest of the page's PageText, for twins and drafts; None for negatives and scans"""
    copies: tuple[tuple[str, str, int], ...] = ()
    """(vendor, document, page) of other documents that hold this very example: the same picture and target under other bytes"""
