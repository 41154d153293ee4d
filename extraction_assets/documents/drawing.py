"""Documents to pages through the sandbox: plans the tasks, answers deaths, and hands on pages as they come.

A document of many pages is cut into runs of pages that any worker may take. Whatever the number of workers, every page is
drawn by the same engine calls from the same bytes: the order of arrival differs, the pages do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import jsonschema_rs
import orjson

from extraction_assets.documents.records import PageText
from extraction_assets.documents.sandbox import Frame, Sandbox, Task
from extraction_assets.settings import RenderSettings

RUN_OF_PAGES = 8
ENGINES = ("mupdf", "pdfium")
MAX_KILLS = 3

_TEXT = jsonschema_rs.validator_for(PageText.model_json_schema())
"""asked for every page: making a record of it took three times as long as this, for words that are only stored"""
_UNSTABLE = frozenset({"timeout", "out_of_memory", "crashed", "killed", "unreadable"})
"""reasons that another day, on a machine with less to do, might not come up again"""


@dataclass(frozen=True)
class Source:
    """A document to draw."""

    key: str
    """its digest, or anything else that names its bytes"""
    load: Callable[[], bytes]


@dataclass(frozen=True)
class DrawnPage:
    """One page as a worker has sent it; `image` are the PNG's bytes. Fields as in records.PageImage; page 1 is the first."""

    page: int
    image: bytes
    text: bytes | None
    """a records.PageText in canonical JSON, as it is stored; None: no text layer"""
    width: int
    height: int
    content_width: int
    content_height: int
    dpi: float
    limited: bool
    rotation: int
    engine: str
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Failure:
    """A document (page None) or one page of it that could not be drawn."""

    page: int | None
    reason: str
    detail: str

    @property
    def is_stable(self) -> bool:
        """False where the reason hangs on how busy the machine was."""
        return self.reason not in _UNSTABLE


@dataclass
class Finished:
    """A document has no further pages. `failures` are in page order; needs_password: it opened with one of the settings'."""

    pages: int
    failures: list[Failure] = field(default_factory=list)
    needs_password: bool = False


@dataclass(frozen=True)
class _Run:
    """Pages start..stop of source number `index`, counted from 0; engines not to be trusted with a page have been taken out."""

    index: int
    start: int
    stop: int
    engines: tuple[str, ...] = ENGINES
    page_engines: tuple[tuple[int, tuple[str, ...]], ...] = ()
    kills: int = 0
    """times a worker was killed from outside while it was at it"""


class _State:
    def __init__(self) -> None:
        self.open_runs = 1
        self.finished = Finished(0)
        self.is_open = False


def draw_documents(
    sandbox: Sandbox, sources: Iterable[Source], settings: RenderSettings
) -> Iterator[tuple[int, Source, DrawnPage | Finished]]:
    """Pages of every source as they come, each source ended by one Finished. The number is the source's place in the input."""
    request = render_request(settings)
    states: dict[int, _State] = {}

    def task(run: _Run, source: Source) -> Task:
        values = {
            **request,
            "start": run.start,
            "stop": run.stop,
            "engines": list(run.engines),
            "page_engines": {str(page): list(engines) for page, engines in run.page_engines},
        }
        return Task(source.key, source.load, values, (run, source))

    def tasks() -> Iterator[Task]:
        for index, source in enumerate(sources):
            states[index] = _State()
            yield task(_Run(index, 0, RUN_OF_PAGES), source)

    reached: dict[int, int] = {}
    """run's identity (its index and start) -> first page not answered yet"""

    def resume(run: _Run, source: Source, page: int, state: _State) -> None:
        state.open_runs += 1
        sandbox.submit(task(replace(run, start=page), source))

    for frame in sandbox.frames(tasks()):
        run, source = frame.task.tag
        state = states[run.index]
        place = id(frame.task)
        at = reached.get(place, run.start)
        if frame.kind == "opened":
            _opened(frame, run, source, state, resume)
        elif frame.kind == "page":
            reached[place] = at + 1
            try:
                page = _page_of(frame)
            except (ValueError, KeyError, TypeError):  # a worker that a file has taken over; ValidationError is a ValueError
                state.finished.failures.append(Failure(at + 1, "crashed", "made the worker answer nonsense"))
                continue
            state.finished.pages += 1
            yield run.index, source, page
        elif frame.kind == "page_failed":
            reached[place] = at + 1
            state.finished.failures.append(Failure(frame.values["page"] + 1, frame.values["reason"], frame.values["detail"]))
        elif frame.kind == "refused":
            state.finished.failures.append(Failure(None, frame.values["reason"], frame.values["detail"]))
        elif frame.kind == "died":
            _died(frame, run, source, state, at, resume)
        if frame.kind in ("done", "died"):
            reached.pop(place, None)
            state.open_runs -= 1
            if state.open_runs == 0:
                del states[run.index]
                yield run.index, source, _in_order(state.finished)


def render_request(settings: RenderSettings) -> dict[str, Any]:
    """What a worker needs to know of the settings."""
    return {
        "op": "render",
        "dpi": settings.dpi,
        "max_visual_tokens": settings.max_visual_tokens,
        "max_pages": settings.max_pages,
        "passwords": list(settings.passwords),
        "engines": list(ENGINES),
    }


_Resume = Callable[[_Run, Source, int, _State], None]


def _opened(frame: Frame, run: _Run, source: Source, state: _State, resume: _Resume) -> None:
    """The first answer tells how many pages there are: the rest is queued as runs of their own."""
    if state.is_open:
        return
    state.is_open = True
    state.finished.needs_password = bool(frame.values["needs_password"])
    for start in reversed(range(run.stop, int(frame.values["pages"]), RUN_OF_PAGES)):
        resume(replace(run, stop=start + RUN_OF_PAGES, page_engines=()), source, start, state)


def _died(frame: Frame, run: _Run, source: Source, state: _State, page: int, resume: _Resume) -> None:
    """A worker died of a page. What took too long has had its time; what crashed one engine may be drawn by the other."""
    reason, detail, engine = frame.values["reason"], frame.values["detail"], frame.values["engine"]
    if reason == "killed" and run.kills < MAX_KILLS:  # not the page's doing
        resume(replace(run, kills=run.kills + 1), source, page, state)
        return
    opening = not state.is_open
    engines = run.engines if opening else dict(run.page_engines).get(page, run.engines)
    left = _engines_left(engines, reason, engine)
    if opening and left:
        resume(replace(run, engines=left), source, run.start, state)
    elif opening:
        state.finished.failures.append(Failure(None, reason, detail))
    elif left:
        others = tuple((number, names) for number, names in run.page_engines if number != page)
        resume(replace(run, page_engines=(*others, (page, left))), source, page, state)
    else:
        state.finished.failures.append(Failure(page + 1, reason, detail))
        if page + 1 < run.stop:
            resume(run, source, page + 1, state)


def _engines_left(engines: tuple[str, ...], reason: str, engine: str | None) -> tuple[str, ...]:
    """Engines that may still try. Always fewer than before, so that trying ends.

    A second opinion that takes too long leaves the first engine's picture to be had; a first one that does ends the page.
    """
    if reason in ("too_large", "killed") or (reason == "timeout" and engine != "pdfium"):
        return ()
    left = tuple(name for name in engines if name != (engine or "mupdf"))
    return left if len(left) < len(engines) else ()


def _page_of(frame: Frame) -> DrawnPage:
    """Raises ValueError on an answer that is no page."""
    values = frame.values
    image, text = frame.blobs
    if values["has_text"] and not _TEXT.is_valid(orjson.loads(text)):
        raise ValueError("no page text")
    return DrawnPage(
        page=int(values["page"]) + 1,
        image=image,
        text=text if values["has_text"] else None,
        width=int(values["width"]),
        height=int(values["height"]),
        content_width=int(values["content_width"]),
        content_height=int(values["content_height"]),
        dpi=float(values["dpi"]),
        limited=bool(values["limited"]),
        rotation=int(values["rotation"]),
        engine=str(values["engine"]),
        flags=tuple(str(flag) for flag in values["flags"]),
    )


def _in_order(finished: Finished) -> Finished:
    """Failures in page order; a document refused as a whole says so once."""
    whole = [failure for failure in finished.failures if failure.page is None]
    by_page = sorted((failure for failure in finished.failures if failure.page is not None), key=lambda failure: failure.page or 0)
    return replace(finished, failures=[*whole[:1], *by_page])
