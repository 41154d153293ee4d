"""Page images: documents drawn straight onto the 32-px grid, within the page budget, with their words.

The same function serves the graph (`render_vendor`), the command line (`render_files`) and the endpoint (`render_bytes`), so that
training, evaluation and serving see the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from extraction_assets.documents import page_cache
from extraction_assets.documents.drawing import DrawnPage, Failure, Finished, Source, draw_documents
from extraction_assets.documents.records import EXTENSIONS, Document, PageImage, PageText, Refusal, VendorDocuments, VendorPages
from extraction_assets.documents.sandbox import warm_sandbox
from extraction_assets.errors import InputError
from extraction_assets.settings import RenderSettings
from extraction_assets.store import Store, digest_bytes, write_atomically

Progress = Callable[[int, int], None]
Draw = Callable[[Store, Sequence[Document], RenderSettings, int], Iterator[tuple[str, page_cache.Entry]]]
"""(store, documents, settings, workers) -> the entry of each document when it is finished; its pages are in the store by then"""


# --- one vendor: the graph ------------------------------------------------------------------------------------------------


def draw_into(
    store: Store, documents: Sequence[Document], settings: RenderSettings, workers: int
) -> Iterator[tuple[str, page_cache.Entry]]:
    """Draw documents, store pages as they come; (document digest, what it has become) when each is finished, in any order.

    workers: processes of this machine (0: one a core).
    """

    def loader(document: Document) -> Callable[[], bytes]:
        return lambda: store.read_bytes(document.document, EXTENSIONS[document.media])

    pages: dict[int, list[PageImage]] = {}
    with warm_sandbox(settings, workers) as sandbox:
        sources = (Source(document.document, loader(document)) for document in documents)
        for index, source, item in draw_documents(sandbox, sources, settings):
            if isinstance(item, DrawnPage):
                pages.setdefault(index, []).append(_stored(store, source.key, item))
                continue
            drawn = sorted(pages.pop(index, []), key=lambda page: page.page)
            yield source.key, _entry(source.key, drawn, item)


def render_vendor(
    documents: VendorDocuments,
    store: Store,
    settings: RenderSettings,
    workers: int = 0,
    progress: Progress | None = None,
    draw: Draw = draw_into,
) -> VendorPages:
    """Every page of a vendor's documents, stored by digest. The value is the same whatever the number of workers, and wherever they are.

    workers: processes (0: one a core). progress: documents done, of how many. draw: by this machine, or by a fleet
    (fleet.draw_on_ray). Documents already drawn with the same settings and engine versions are not drawn again. A document of which only some pages can be drawn keeps those (flag `incomplete`),
    and each missing page stands in `refused`, its detail naming the page.
    """
    results: dict[str, page_cache.Entry] = {}
    for document in documents.documents:
        entry = page_cache.load(store, document.document, settings)
        if entry is not None:
            results[document.document] = entry
    total, done = len(documents.documents), len(results)
    if progress:
        progress(done, total)
    missing = [document for document in documents.documents if document.document not in results]
    if missing:
        for digest, entry in draw(store, missing, settings, workers):
            page_cache.save(store, digest, settings, entry)
            results[digest] = entry
            done += 1
            if progress:
                progress(done, total)
    ordered = [results[digest] for digest in sorted(results)]
    return VendorPages(
        type=documents.type,
        vendor=documents.vendor,
        pages=tuple(page for entry in ordered for page in entry.pages),
        refused=tuple(refusal for entry in ordered for refusal in entry.refused),
    )


def _stored(store: Store, document: str, page: DrawnPage) -> PageImage:
    image = store.put_bytes(page.image, ".png")
    text = None if page.text is None else store.put_bytes(page.text, ".json")
    return page_record(document, page, image, text)


def page_record(document: str, page: DrawnPage, image: str, text: str | None) -> PageImage:
    """The record of a drawn page; image and text are digests."""
    values = {name: value for name, value in vars(page).items() if name not in ("image", "text")}
    return PageImage(document=document, image=image, text=text, **values)


def _entry(document: str, pages: list[PageImage], finished: Finished) -> page_cache.Entry:
    if pages and finished.failures:
        pages = [page.model_copy(update={"flags": tuple(sorted({*page.flags, "incomplete"}))}) for page in pages]
    refused = tuple(Refusal(file=document, reason=failure.reason, detail=_sentence(failure)) for failure in finished.failures)
    return page_cache.Entry(
        pages=tuple(pages),
        refused=refused,
        depends_on_limits=finished.needs_password or bool(refused),
        stable=all(failure.is_stable for failure in finished.failures),
    )


def _sentence(failure: Failure) -> str:
    return failure.detail if failure.page is None else f"page {failure.page}: {failure.detail}"


# --- files: the command line ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PageFile:
    """One page image written for people."""

    page: int
    path: str
    width: int
    height: int
    dpi: float


@dataclass
class RenderOutcome:
    """What became of one file. `as_json` is one element of `extraction render --json`."""

    file: str
    outcome: Literal["rendered", "flagged", "refused"] = "rendered"
    reason: str | None = None
    """refused: a stable code; flagged: the flags' names and the codes of missing pages; rendered: None"""
    flags: list[str] = field(default_factory=list)
    pages: list[PageFile] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def render_files(
    files: Sequence[Path], out: Path, settings: RenderSettings, workers: int = 0, progress: Progress | None = None
) -> list[RenderOutcome]:
    """Page images of any files as out/STEM-PAGE.png, outcomes in the order of `files`. Refused if and only if it has no page.

    Raises InputError where `out` cannot be written or a file does not exist.
    """
    for file in files:
        if not file.exists():
            raise InputError(str(file), "no such file")
    _make_folder(out)
    outcomes = [RenderOutcome(str(file)) for file in files]
    stems = _distinct_stems(files)
    done = 0

    def loader(number: int) -> Callable[[], bytes]:
        def load() -> bytes:
            try:
                return files[number].read_bytes()
            except OSError as error:
                unreadable[number] = error.strerror or str(error)
                return b""

        return load

    unreadable: dict[int, str] = {}
    with warm_sandbox(settings, workers) as sandbox:
        sources = (Source(f"{number}", loader(number)) for number in range(len(files)))
        for number, _, item in draw_documents(sandbox, sources, settings):
            outcome = outcomes[number]
            if isinstance(item, DrawnPage):
                path = out / f"{stems[number]}-{item.page:04}.png"
                write_atomically(path, item.image)
                outcome.pages.append(PageFile(item.page, str(path), item.width, item.height, item.dpi))
                outcome.flags = sorted({*outcome.flags, *item.flags})
                continue
            if number in unreadable:
                item = Finished(0, [Failure(None, "unreadable", unreadable[number])])
            _conclude(outcome, item)
            done += 1
            if progress:
                progress(done, len(files))
    return outcomes


def _conclude(outcome: RenderOutcome, finished: Finished) -> None:
    outcome.pages.sort(key=lambda page: page.page)
    if not outcome.pages:
        first = finished.failures[0] if finished.failures else Failure(None, "no_pages", "has no page that can be found")
        outcome.outcome, outcome.reason = "refused", first.reason
    elif finished.failures or outcome.flags:
        missing = [f"page_{failure.page}_{failure.reason}" for failure in finished.failures if failure.page is not None]
        outcome.flags = sorted({*outcome.flags, *(["incomplete"] if missing else [])})
        outcome.outcome, outcome.reason = "flagged", ", ".join([*outcome.flags, *missing])


def _distinct_stems(files: Sequence[Path]) -> list[str]:
    """A file name for every input: its stem, with a part of its path's digest where two are alike."""
    stems = [file.stem for file in files]
    folded = [stem.casefold() for stem in stems]
    return [
        stem if folded.count(stem.casefold()) == 1 else f"{stem}-{digest_bytes(str(file).encode('utf-8', 'surrogateescape'))[:8]}"
        for stem, file in zip(stems, files, strict=True)
    ]


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(str(folder), f"cannot be made: {error.strerror or error}", "a folder that can be written") from None


# --- bytes: the endpoint --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RenderedPage:
    """One page in memory: its record, the PNG's bytes, and its words (None: no text layer)."""

    record: PageImage
    png: bytes
    text: PageText | None


@dataclass(frozen=True)
class RenderedDocument:
    """What became of one document's bytes."""

    pages: tuple[RenderedPage, ...]
    refused: tuple[Refusal, ...] = ()
    """empty, or why pages are missing; `file` holds the document digest"""


def render_bytes(data: bytes, settings: RenderSettings, workers: int = 1) -> RenderedDocument:
    """Pages of one document held in memory, in page order; nothing is stored."""
    digest = digest_bytes(data)
    pages: list[RenderedPage] = []
    with warm_sandbox(settings, workers) as sandbox:
        for _, _, item in draw_documents(sandbox, [Source(digest, lambda: data)], settings):
            if isinstance(item, DrawnPage):
                text = None if item.text is None else digest_bytes(item.text)
                record = page_record(digest, item, digest_bytes(item.image), text)
                words = None if item.text is None else PageText.model_validate_json(item.text)
                pages.append(RenderedPage(record, item.image, words))
            else:
                entry = _entry(digest, [page.record for page in sorted(pages, key=lambda page: page.record.page)], item)
    by_page = {page.record.page: page for page in pages}
    whole = tuple(RenderedPage(record, by_page[record.page].png, by_page[record.page].text) for record in entry.pages)
    return RenderedDocument(whole, entry.refused)
