"""Which pages a document has become, so that it is drawn once for the same settings and engines.

An entry is named by what made it: the document, the settings that decide the pixels, and the engine versions. One that points
to a page that is gone is ignored, and the document is drawn again.
"""

from __future__ import annotations

from pydantic import ValidationError

from extraction_assets.documents import engine_versions
from extraction_assets.documents.memory import recall, remember
from extraction_assets.documents.records import PageImage, Record, Refusal
from extraction_assets.settings import RenderSettings
from extraction_assets.store import Store, digest_of

_KIND = "rendered"


class Entry(Record):
    """What one document has become."""

    pages: tuple[PageImage, ...]
    refused: tuple[Refusal, ...] = ()
    depends_on_limits: bool = False
    """passwords or limits decided it: good only for the very same ones"""
    stable: bool = True
    """False: a timeout or a crash, which is tried again rather than remembered"""
    limits: str = ""
    """digest of the limits it was made under"""


def load(store: Store, document: str, settings: RenderSettings) -> Entry | None:
    """The pages of a document as drawn before; None: it has to be drawn."""
    try:
        entry = Entry.model_validate(recall(store, _KIND, _key(document, settings)))
    except ValidationError:
        return None
    if entry.depends_on_limits and entry.limits != _limits(settings):
        return None
    if not all(store.has(page.image, ".png") and (page.text is None or store.has(page.text, ".json")) for page in entry.pages):
        return None
    return entry


def save(store: Store, document: str, settings: RenderSettings, entry: Entry) -> None:
    if entry.stable:
        value = entry.model_copy(update={"limits": _limits(settings)}).model_dump(mode="json")
        remember(store, _KIND, _key(document, settings), value)


def _key(document: str, settings: RenderSettings) -> str:
    """max_pages refuses whole documents, so it is in the key; the other limits count only where they have struck."""
    return digest_of([document, settings.dpi, settings.max_visual_tokens, settings.max_pages, engine_versions()])


def _limits(settings: RenderSettings) -> str:
    return digest_of([settings.page_seconds, settings.memory_mb, list(settings.passwords)])
