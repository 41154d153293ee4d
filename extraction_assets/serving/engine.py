"""Who answers pages: pages that wait together are decoded together, and the same page asked twice is answered once."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field

from extraction_assets.errors import InputError
from extraction_assets.inference.answers import Answerer
from extraction_assets.inference.page_answer import Answer, PagePrompt
from extraction_assets.page_budget import GRID_PX
from extraction_assets.serving.bundle import Bundle
from extraction_assets.serving.contract import ServingError
from extraction_assets.serving.page_image import GridPage
from extraction_assets.store import digest_bytes, digest_of

REMEMBERED = 2048
"""answers that are kept for the same page to come again"""
NICER_THAN_LISTENING = 5
"""steps of niceness (0 to 19) that the decoding thread is below the others of its process"""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answered:
    answer: Answer
    wait_s: float
    """between asking and the page's prefill"""


@dataclass
class Asked:
    """A page on its way."""

    prompt: PagePrompt
    key: str
    future: Future[Answered]
    at: float = field(default_factory=time.perf_counter)
    began: float = 0.0


class PageEngine(ABC):
    """Answers pages for one bundle. `ask` may be called from any thread."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._lock = threading.Lock()
        self._open: dict[str, Future[Answered]] = {}
        """by key: what waits or is being answered"""
        self._remembered: OrderedDict[str, Answered] = OrderedDict()

    def ask(self, page: GridPage, type_name: str) -> Future[Answered]:
        """The future fails with a ServingError. Raises ServingError (overloaded) where too many wait already."""
        key = digest_of([type_name, digest_bytes(page.png)])
        with self._lock:
            if key in self._remembered:
                self._remembered.move_to_end(key)
                done: Future[Answered] = Future()
                done.set_result(self._remembered[key])
                return done
            if key in self._open:
                return self._open[key]
            limit = self.bundle.manifest.serving.waiting
            if self._waits() >= limit:
                raise ServingError("overloaded", f"{limit} requests wait already; ask again in a while")
            schema = self.bundle.schemas[type_name]
            prompt = PagePrompt(key, schema.instruction, page.png, page.width, page.height, schema=schema)
            asked = Asked(prompt, key, Future())
            self._open[key] = asked.future
            self._put(asked)
            return asked.future

    @abstractmethod
    def close(self) -> None:
        """Answers what has begun, and no more."""

    @abstractmethod
    def _waits(self) -> int:
        """Pages that nobody has begun yet. Called under the lock."""

    @abstractmethod
    def _put(self, asked: Asked) -> None:
        """Have it answered; _settle follows from another thread. Called under the lock."""

    def _settle(self, asked: Asked, answer: Answer | InputError | ServingError) -> None:
        with self._lock:
            del self._open[asked.key]
            if isinstance(answer, Answer):
                answered = Answered(answer, asked.began - asked.at)
                self._remembered[asked.key] = answered
                while len(self._remembered) > REMEMBERED:
                    self._remembered.popitem(last=False)
        if isinstance(answer, Answer):
            asked.future.set_result(answered)
        elif isinstance(answer, InputError):  # the page is on the grid and within the budget: it is the base that cannot take it
            asked.future.set_exception(ServingError("image_too_large", "the page has more tokens than the model takes"))
        else:
            asked.future.set_exception(answer)


class Engine(PageEngine):
    """The model in this process: pages that wait together are decoded together."""

    def __init__(self, bundle: Bundle, answerer: Answerer) -> None:
        super().__init__(bundle)
        self._answerer = answerer
        self._waiting: queue.Queue[Asked | None] = queue.Queue()
        self._longest = self._longest_prompt()
        self._thread = threading.Thread(target=self._run, name="answers", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._waiting.put(None)
        self._thread.join()

    def _waits(self) -> int:
        return self._waiting.qsize()

    def _put(self, asked: Asked) -> None:
        self._waiting.put(asked)

    # --- the answering thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        # Linux keeps niceness by thread, and the threads that torch starts from this one have its own: the event loop, and with it
        # liveness, gets a core before the pages that are decoded
        with suppress(OSError):  # a sandbox may forbid it: pages are answered all the same
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.nice(0) + NICER_THAN_LISTENING)
        closing = False
        while not closing:
            begun: dict[str, Asked] = {}

            def take(wait: bool, begun: dict[str, Asked] = begun) -> PagePrompt | None:
                nonlocal closing
                try:
                    asked = None if closing else self._waiting.get(block=wait)
                except queue.Empty:
                    return None
                if asked is None:
                    closing = True
                    return None
                asked.began = time.perf_counter()
                begun[asked.key] = asked
                return asked.prompt

            try:
                for prompt, answer in self._answerer.answer_stream(take, self.bundle.manifest.decoding, self._longest):
                    self._settle(begun.pop(prompt.id), answer)
            except Exception:  # a bug or no memory: what had begun fails, what waits goes on
                _log.exception("answering failed")
                for asked in begun.values():
                    self._settle(asked, ServingError("internal", "the page could not be answered"))
        while not self._waiting.empty():
            if (left := self._waiting.get()) is not None:
                self._settle(left, ServingError("not_ready", "the server is stopping"))

    def _longest_prompt(self) -> int:
        """Tokens of the longest prompt that the bundle's page budget and schemas allow."""
        most = self.bundle.manifest.render.max_visual_tokens
        texts = [self._answerer.encoder.text(GRID_PX, GRID_PX, schema.instruction).tokens for schema in self.bundle.schemas.values()]
        room = self._answerer.room(self.bundle.manifest.decoding)
        return min(max(texts) - 1 + most, room)
