"""The endpoint under load: `extraction serve` on this machine, its answers beside `predict`'s, its times at 1, 4 and 16 clients.

    python benchmarks/serving.py [--home HOME] [--pages N] [--soak N] [--quick] [--json]

HOME is a finished home with a champion (default: demo_home, what `make demo` leaves). Every request is a page of its own (test pages, the
last pixel different each time), so that nothing is answered from memory; clients ask the next page as soon as they have an answer. The peer
of pages_per_s is the same model in this process, all pages given at once, batch_size of the home's settings. --soak: so many more requests,
and what they left in the server's memory.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from PIL import Image
from printing import Row, print_rows

from extraction_assets.assets.report_source import split_records
from extraction_assets.commands import latest
from extraction_assets.home import Home
from extraction_assets.inference.predict import RenderedPage, predict_pages
from extraction_assets.serving.bundle import open_bundle
from extraction_assets.serving.client import EndpointClient, Refused

CLIENTS = (1, 4, 16)
PROJECT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Page:
    type: str
    png: bytes
    width: int
    height: int

    def variant(self, number: int) -> Page:
        """The same page with its last pixel changed: to the server another one."""
        with Image.open(io.BytesIO(self.png)) as image:
            pixels = np.array(image.convert("RGB"))
        pixels[-1, -1] = (number % 256, number // 256 % 256, 254)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG", compress_level=1)
        return replace(self, png=file.getvalue())


@dataclass(frozen=True)
class Load:
    """What `clients` clients got."""

    answers: list[dict[str, Any] | Refused]
    latencies_ms: list[float]
    seconds: float

    def percentile(self, share: float) -> float:
        return round(float(np.percentile(self.latencies_ms, share)), 1)

    @property
    def errors(self) -> int:
        return sum(isinstance(answer, Refused) and answer.code != "answer_truncated" for answer in self.answers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=PROJECT / "demo_home")
    parser.add_argument("--pages", type=int, default=200)
    parser.add_argument("--soak", type=int, default=0, metavar="N")
    parser.add_argument("--quick", action="store_true", help="24 pages")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = measure(Home.open(arguments.home), 24 if arguments.quick else arguments.pages, arguments.soak)
    print_rows(rows, ("torch", "transformers", "starlette", "uvicorn"), arguments.json)


def measure(home: Home, count: int, soak: int) -> list[Row]:
    made = latest(home, "serving_bundle")
    if made["bundle"] is None:
        sys.exit(f"{home.root} has no champion, so nothing to serve")
    folder = home.store.folder(made["bundle"])
    records = split_records(home.store, made["split"])
    plain = [Page(r.meta.type, home.store.read_bytes(r.meta.page_digest, ".png"), r.meta.width, r.meta.height) for r in records]
    fresh = (page.variant(number) for number, page in enumerate(itertools.cycle(plain)))
    rows: list[Row] = []
    alike = list(itertools.islice(fresh, count))
    here, seconds_here = answer_here(folder, alike)
    with serving(folder) as (url, worker):
        for clients in CLIENTS:
            pages = alike if clients == CLIENTS[-1] else list(itertools.islice(fresh, max(8, count // 4)))
            load = put_load(url, pages, clients)
            peer = (
                (round(len(alike) / seconds_here, 2), "the model in process, all pages at once") if clients == CLIENTS[-1] else (None, None)
            )
            suffix = "" if clients == CLIENTS[-1] else f"_{clients}_clients"
            rows.append(Row(f"pages_per_s{suffix}", round(len(pages) / load.seconds, 2), f"{clients} clients", "higher", *peer))
            rows += [
                Row(f"p{share}_ms{suffix}", load.percentile(share), f"ms a page, {clients} clients", "lower") for share in (50, 95, 99)
            ]
            rows.append(Row(f"errors{suffix}", load.errors, f"of {len(pages)} requests", "lower"))
            if clients == CLIENTS[-1]:
                same = sum(text_of(answer) == text for answer, text in zip(load.answers, here, strict=True))
                rows.append(Row("answers_as_predict", same, f"of {count} pages, to the byte", "higher"))
        rows.append(
            Row("alive_worst_ms", worst_liveness(url, list(itertools.islice(fresh, 16))), "ms, GET / while 16 pages are answered", "lower")
        )
        if soak:
            before = worker.memory_info().rss
            load = put_load(url, itertools.islice(fresh, soak), CLIENTS[-1])
            rows.append(Row("soak_errors", load.errors, f"of {soak} requests", "lower"))
            rows.append(
                Row("soak_growth_mb", round((worker.memory_info().rss - before) / 1e6, 1), f"MB resident after {soak} requests", "lower")
            )
    return rows


def text_of(answer: dict[str, Any] | Refused) -> str | None:

    return None if isinstance(answer, Refused) else json.dumps(answer["answer"], ensure_ascii=False, separators=(",", ":"))


def answer_here(folder: Path, pages: Sequence[Page]) -> tuple[list[str | None], float]:
    """(texts, None where cut short; seconds), the model loaded and warm."""
    bundle = open_bundle(folder)
    answerer = bundle.load()
    texts: dict[int, str | None] = {}
    seconds = 0.0
    for name, schema in bundle.schemas.items():
        numbers = [number for number, page in enumerate(pages) if page.type == name]
        rendered = [RenderedPage(str(number), 1, pages[number].png, pages[number].width, pages[number].height) for number in numbers]
        predict_pages(rendered[:1], schema, answerer, bundle.manifest.decoding)
        began = time.perf_counter()
        answers = predict_pages(rendered, schema, answerer, bundle.manifest.decoding)
        seconds += time.perf_counter() - began
        for number, page in zip(numbers, answers, strict=True):
            texts[number] = page.answer.text if page.answer.finish_reason == "stop" else None
    return [texts[number] for number in range(len(pages))], seconds


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    command = [sys.executable, "-m", "extraction_assets.cli", "serve", "--bundle", str(folder), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    assert process.stderr is not None
    try:
        lines = iter(process.stderr.readline, "")
        url = next(found.group() for line in lines if (found := re.search(r"http://[\d.]+:\d+", line)))
        threading.Thread(target=lambda: [None for _ in lines], daemon=True).start()
        while httpx.get(f"{url}/ready").status_code != 200:
            time.sleep(0.2)
        yield url, psutil.Process(process.pid).children()[0]
    finally:
        process.terminate()
        process.wait()


def put_load(url: str, pages: Sequence[Page] | Iterator[Page], clients: int) -> Load:
    latencies: list[float] = []

    def ask(page: Page) -> dict[str, Any] | Refused:
        began = time.perf_counter()
        answer = endpoint.score(page.png, page.type)
        latencies.append(1000 * (time.perf_counter() - began))
        return answer

    with EndpointClient(url, parallel=clients) as endpoint, ThreadPoolExecutor(clients) as pool:
        began = time.perf_counter()
        answers = list(pool.map(ask, pages))
        return Load(answers, latencies, time.perf_counter() - began)


def worst_liveness(url: str, pages: Sequence[Page]) -> float:
    worst = 0.0
    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(put_load, url, pages, len(pages))
        while not busy.done():
            began = time.perf_counter()
            httpx.get(url).raise_for_status()
            worst = max(worst, 1000 * (time.perf_counter() - began))
            time.sleep(0.02)
    return round(worst, 1)


if __name__ == "__main__":
    main()
