"""Page targets: what each page image must yield, from labels that speak of whole documents.

The text layer decides. A header value is a value of every page on which it stands; a row belongs to the one page that prints it;
everything else on a page is null. A value that stands nowhere is null (or its document is dropped, by setting) and reported:
a model that is trained to answer what the page does not show learns to invent.

Pages without a text layer (scans): one page with one label shows all of it. Several pages with one label are undecided and yield
no target, unless the label is given per page: {"pages": [{...}, {...}]}.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from extraction_assets.dataset.label_check import check_label, check_nulls_allowed
from extraction_assets.dataset.matching import Hit, PageMatcher
from extraction_assets.dataset.printed_values import is_currency
from extraction_assets.dataset.records import PageTarget, UndecidedPages, UnplacedValue, VendorTargets
from extraction_assets.dataset.row_placing import place_rows
from extraction_assets.documents.records import Label, PageImage, PageText, VendorLabels, VendorPages, Word
from extraction_assets.errors import InputError
from extraction_assets.schema import Leaf, RowArray, TargetSchema
from extraction_assets.settings import TargetSettings
from extraction_assets.store import Store

Boxes = dict[str, tuple[tuple[float, float, float, float], ...]]

EMPTY_FLAGS = frozenset({"blank", "flat"})
"""page image flags that prove that nothing is printed there"""
FEW_WORDS = 20
"""a text layer of fewer words that holds none of the label is a scanner's note on a picture, not the page's text"""


@dataclass
class _Page:
    """One page of a document on its way to a target."""

    image: PageImage
    matcher: PageMatcher | None
    """None: no text layer"""
    target: dict[str, Any] = field(default_factory=dict)
    boxes: Boxes = field(default_factory=dict)


@dataclass
class _Placement:
    """What became of one label, or of one page's part of it."""

    targets: list[_Page] = field(default_factory=list)
    unplaced: list[tuple[str, Any]] = field(default_factory=list)
    undecided: list[tuple[list[int], str]] = field(default_factory=list)


def build_page_targets(
    labels: VendorLabels, pages: VendorPages, schema: TargetSchema, settings: TargetSettings, store: Store
) -> VendorTargets:
    """Targets of every page of every labelled document, sorted by (document, page).

    Pages of documents without a label, and labels of documents without pages (refused ones), yield nothing. Raises InputError
    naming label file and JSON pointer where a label violates the schema.
    """
    check_nulls_allowed(schema)
    by_document: dict[str, list[PageImage]] = {}
    for page in sorted(pages.pages, key=lambda page: (page.document, page.page)):
        by_document.setdefault(page.document, []).append(page)
    targets: list[PageTarget] = []
    unplaced: list[UnplacedValue] = []
    undecided: list[UndecidedPages] = []
    dropped: list[str] = []
    ignored: set[str] = set()
    for label in sorted(labels.labels, key=lambda label: label.document):
        for_document = [_Page(image, _matcher(image, store)) for image in by_document.get(label.document, [])]
        for prefix, part, part_pages in _parts(label, for_document, schema):
            value, unknown = check_label(part, schema, settings, f"{label.file} {prefix}".rstrip())
            ignored |= unknown
            if not part_pages:
                continue
            placed = _place(value, part_pages, schema)
            unplaced += [UnplacedValue(document=label.document, pointer=prefix + at, value=_text(found)) for at, found in placed.unplaced]
            undecided += [UndecidedPages(document=label.document, pages=tuple(numbers), reason=why) for numbers, why in placed.undecided]
            if placed.unplaced and settings.unplaced_values == "drop" and label.document not in dropped:
                dropped.append(label.document)
            targets += [_page_target(page, schema) for page in placed.targets]
    return VendorTargets(
        type=pages.type,
        vendor=pages.vendor,
        schema_digest=schema.digest,
        instruction=schema.instruction,
        targets=tuple(target for target in targets if target.document not in set(dropped)),
        unplaced=tuple(unplaced),
        dropped_documents=tuple(sorted(dropped)),
        ignored_keys=tuple(sorted(ignored)),
        undecided=tuple(undecided),
    )


def _matcher(image: PageImage, store: Store) -> PageMatcher | None:
    words: tuple[Word, ...] = PageText.model_validate(store.read_json(image.text)).words if image.text else ()
    if not words and not EMPTY_FLAGS & set(image.flags):
        return None  # a picture without words: nobody can say from here what it shows
    if words and sum(char.isalnum() and char < "\ue000" for word in words for char in word.text) < 0.3 * sum(len(w.text) for w in words):
        return None  # glyphs without a meaning (broken encodings)
    return PageMatcher(words)


def _parts(label: Label, pages: list[_Page], schema: TargetSchema) -> Iterator[tuple[str, dict[str, Any], list[_Page]]]:
    """(pointer of the part in the label, its value, the pages it speaks of): the whole label, or one part a page."""
    per_page = label.label.get("pages")
    if not isinstance(per_page, list) or "pages" in schema.document["properties"]:
        yield "", label.label, pages
        return
    if pages and len(per_page) != pages[-1].image.page:
        raise InputError(
            f"{label.file} /pages",
            f"holds {len(per_page)} pages",
            f"{pages[-1].image.page}, as many as the document has",
            "Add or remove {}",
        )
    for index, part in enumerate(per_page):
        if not isinstance(part, dict):
            raise InputError(f"{label.file} /pages/{index}", f"found {json.dumps(part)}", "an object with the page's fields ({} for none)")
        yield f"/pages/{index}", part, [page for page in pages if page.image.page == index + 1]


def _place(label: dict[str, Any], pages: list[_Page], schema: TargetSchema) -> _Placement:
    readable = [page for page in pages if page.matcher is not None]
    scans = [page for page in pages if page.matcher is None]
    result = _Placement()
    if not readable:
        return _place_on_scan(label, pages, schema)
    values = _place_by_text(label, readable, schema, result)
    if not values["found"] and values["asked"]:
        words = sum(len(page.matcher.words) for page in readable if page.matcher)
        if words < FEW_WORDS * len(readable) and not any(EMPTY_FLAGS & set(page.image.flags) for page in readable):
            return _place_on_scan(label, pages, schema)
        reason = f"none of the label's {values['asked']} values stands in the text of the document: is it this document's label?"
        return _Placement([], result.unplaced, [([page.image.page for page in pages], reason)])
    if scans:
        reason = "no text layer on these pages of a document that has one elsewhere: what they show is not known"
        result.undecided.append(([page.image.page for page in scans], reason))
    result.targets = readable
    return result


def _place_on_scan(label: dict[str, Any], pages: list[_Page], schema: TargetSchema) -> _Placement:
    if len(pages) > 1:
        reason = f'{len(pages)} scanned pages and one label: give the label per page, {{"pages": [{{...}}, ...]}}'
        return _Placement(undecided=[([page.image.page for page in pages], reason)])
    pages[0].target, pages[0].boxes = copy.deepcopy(label), {}
    return _Placement(targets=pages)


def _place_by_text(label: dict[str, Any], pages: list[_Page], schema: TargetSchema, result: _Placement) -> dict[str, int]:
    """Fill the pages' targets and boxes; returns how many values were asked for and found (rows count as one)."""
    matchers = [page.matcher for page in pages if page.matcher is not None]
    used: list[set[int]] = [set() for _ in pages]
    count = {"asked": 0, "found": 0}
    for page in pages:
        page.target, page.boxes = schema.empty(), {}
    for array in schema.row_arrays:
        _place_array(_get(label, array.path), array, pages, matchers, used, result, count)
    judged: list[tuple[Leaf, Any]] = []
    for leaf in schema.fields:
        value = _get(label, leaf.path)
        pointer = "/" + "/".join(leaf.path)
        if leaf.type == "code" and _is_judgement(schema, leaf, value):
            judged.append((leaf, value))
        elif isinstance(value, list):
            _place_list(value, leaf, pointer, pages, matchers, result, count)
        elif value is not None:
            _place_value(value, leaf, pointer, pages, matchers, used, result, count)
    # a kind or a yes/no is answered by the pages that show something of the document, not by its terms and back sides
    showing = [page for page in pages if page.boxes] or pages[:1]
    for page in showing:
        for leaf, value in judged:
            _set(page.target, leaf.path, value)
    return count


def _place_value(
    value: Any,
    leaf: Leaf,
    pointer: str,
    pages: list[_Page],
    matchers: list[PageMatcher],
    used: list[set[int]],
    result: _Placement,
    count: dict[str, int],
) -> None:
    count["asked"] += 1
    hits = [matcher.find(value, leaf.type) for matcher in matchers]
    # the amount of a row is not the total, even if it is equal, where the total stands by itself somewhere
    alone = [tuple(hit for hit in found if used[i].isdisjoint(hit.words)) for i, found in enumerate(hits)]
    # (a currency is said by every amount, a row's too)
    if any(alone) and leaf.type != "code":
        hits = alone
    if not any(hits):
        result.unplaced.append((pointer, value))
        return
    count["found"] += 1
    for page, matcher, found in zip(pages, matchers, hits, strict=True):
        if found:
            _set(page.target, leaf.path, value)
            page.boxes[pointer] = matcher.boxes(found)


def _place_list(
    values: list[Any],
    leaf: Leaf,
    pointer: str,
    pages: list[_Page],
    matchers: list[PageMatcher],
    result: _Placement,
    count: dict[str, int],
) -> None:
    """A list of plain values is one field; each of its values is looked for by itself."""
    for index, value in enumerate(values):
        if value is None:
            continue
        count["asked"] += 1
        hits: list[Sequence[Hit]] = [matcher.find(value, leaf.type) for matcher in matchers]
        if not any(hits):
            result.unplaced.append((f"{pointer}/{index}", value))
            continue
        count["found"] += 1
        for page, matcher, found in zip(pages, matchers, hits, strict=True):
            if found:
                here = _get(page.target, leaf.path)
                here.append(value)
                page.boxes[f"{pointer}/{len(here) - 1}"] = matcher.boxes(found)


def _place_array(
    rows: Any,
    array: RowArray,
    pages: list[_Page],
    matchers: list[PageMatcher],
    used: list[set[int]],
    result: _Placement,
    count: dict[str, int],
) -> None:
    rows = rows or []
    pointer = "/" + "/".join(array.path)
    placed = {row.row: row for row in place_rows(rows, array.columns, matchers)}
    for index, row in enumerate(rows):
        count["asked"] += 1
        if index not in placed:
            result.unplaced.append((f"{pointer}/{index}", row))
            continue
        count["found"] += 1
        here = placed[index]
        page, matcher = pages[here.page], matchers[here.page]
        kept = copy.deepcopy(row)
        out = _get(page.target, array.path)
        for leaf in array.columns:
            value, column = _get(row, leaf.path), "/".join(leaf.path)
            if leaf.path in here.cells:
                page.boxes[f"{pointer}/{len(out)}/{column}"] = matcher.boxes([here.cells[leaf.path]])
                used[here.page].update(here.cells[leaf.path].words)
            elif value is not None and not isinstance(value, list) and leaf.type != "code":
                # codes (C62 for a piece) are rarely printed: they stay with their row
                _set(kept, leaf.path, None)
                result.unplaced.append((f"{pointer}/{index}/{column}", value))
        out.append(kept)


def _is_judgement(schema: TargetSchema, leaf: Leaf, value: Any) -> bool:
    """A yes/no or one of a fixed list of kinds is judged from the page, not read off it; a currency is read."""
    node: Any = schema.document
    for key in leaf.path:
        node = node["properties"][key]
    return isinstance(value, bool) or ("enum" in node and isinstance(value, str) and not is_currency(value))


def _page_target(page: _Page, schema: TargetSchema) -> PageTarget:
    image = page.image
    return PageTarget(
        document=image.document,
        page=image.page,
        image=image.image,
        width=image.width,
        height=image.height,
        dpi=image.dpi,
        target=schema.spell(page.target),
        value_boxes=dict(sorted(page.boxes.items())),
        text=image.text,
    )


def _get(value: Any, path: Sequence[str]) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _set(target: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for key in path[:-1]:
        if not isinstance(target.get(key), dict):
            target[key] = {}  # an object that may be null, and now holds something
        target = target[key]
    target[path[-1]] = value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
