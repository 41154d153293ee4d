"""The endpoint under load: `extraction serve` on this machine, its answers beside `predict`'s, its times at 1, 4 and 16 clients.

    python benchmarks/serving.py [--home HOME | --bundle DIR] [--pages N] [--soak N] [--quick] [--json]

HOME is a finished home with a champion (default: demo_home, what `make demo` leaves): its bundle is served, and asked for its test pages. A bundle
alone is asked for its own golden pages. The load is Locust's (`pip install -e .[benchmarks]`, pages_locustfile.py): clients that ask for the next page
as soon as they have an answer, no request ever sent twice. Every request has other bytes, so that nothing is answered from memory. The
peer of pages_per_s is the same model in this process, all pages given at once, batch_size of the bundle. The soak is 3,000 more requests from
16 clients; memory is that of the worker and its children, sampled each second: late is the median of the last tenth of the samples, early
that of the second fifth, when every buffer has its size.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

import httpx  # noqa: E402
import numpy as np  # noqa: E402
import psutil  # noqa: E402
from printing import Row, print_rows  # noqa: E402

from extraction_assets.assets.report_source import split_records  # noqa: E402
from extraction_assets.commands import latest  # noqa: E402
from extraction_assets.home import Home  # noqa: E402
from extraction_assets.inference.predict import RenderedPage, predict_pages  # noqa: E402
from extraction_assets.serving.bundle import GOLDEN, open_bundle  # noqa: E402
from extraction_assets_tests.serving.liveness import Liveness  # noqa: E402

CLIENTS = (1, 4, 16)


@dataclass(frozen=True)
class Page:
    type: str
    png: bytes
    width: int
    height: int


@dataclass(frozen=True)
class Asked:
    """One request, as the locustfile noted it."""

    page: int
    code: str
    """ok, or the error's"""
    began: float
    """s, of the clock"""
    ended: float
    answer: dict[str, Any] | None

    @property
    def text(self) -> str | None:
        return None if self.answer is None else json.dumps(self.answer, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True)
class Load:
    """What all clients got."""

    asked: list[Asked]

    @property
    def pages_per_s(self) -> float:
        return round(len(self.asked) / (max(one.ended for one in self.asked) - min(one.began for one in self.asked)), 2)

    def percentile(self, share: float) -> float:
        return round(float(np.percentile([1000 * (one.ended - one.began) for one in self.asked], share)), 1)

    @property
    def errors(self) -> int:
        return sum(one.code not in ("ok", "answer_truncated") for one in self.asked)

    def same(self, texts: Sequence[str | None]) -> int:
        """Requests answered like `texts`, those of the pages by predict: to the byte, or cut short where it was."""
        return sum(one.text == texts[one.page] and one.code == ("ok" if one.text else "answer_truncated") for one in self.asked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=PROJECT / "demo_home")
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--pages", type=int, default=200)
    parser.add_argument("--soak", type=int, default=3000, metavar="N")
    parser.add_argument("--quick", action="store_true", help="24 pages, a soak of 100")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    count, soak = (24, 100) if arguments.quick else (arguments.pages, arguments.soak)
    folder, pages = of_bundle(arguments.bundle) if arguments.bundle else of_home(Home.open(arguments.home))
    rows = measure(folder, pages[:count], count, soak)
    print_rows(rows, ("torch", "transformers", "starlette", "uvicorn", "locust"), arguments.json)


def of_home(home: Home) -> tuple[Path, list[Page]]:
    """(the latest bundle, the test pages of its split)."""
    made = latest(home, "serving_bundle")
    if made["bundle"] is None:
        sys.exit(f"{home.root} has no champion, so nothing to serve")
    records = split_records(home.store, made["split"])
    pages = [Page(r.meta.type, home.store.read_bytes(r.meta.page_digest, ".png"), r.meta.width, r.meta.height) for r in records]
    return home.store.folder(made["bundle"]), pages


def of_bundle(folder: Path) -> tuple[Path, list[Page]]:
    golden = open_bundle(folder).manifest.golden
    if not golden:
        sys.exit(f"{folder} has no golden pages to ask for")
    return folder, [Page(one.type, (folder / GOLDEN / f"{one.page}.png").read_bytes(), one.width, one.height) for one in golden]


def measure(folder: Path, pages: Sequence[Page], count: int, soak: int) -> list[Row]:
    """pages: different ones; `count` requests go through them, again and again where there are fewer."""
    texts, seconds_here = answer_here(folder, pages)
    rows: list[Row] = []
    numbers = itertools.count(step=1_000_000)
    with serving(folder) as (url, worker):
        for clients in CLIENTS:
            most = clients == CLIENTS[-1]
            total = count if most else max(8, count // 4)
            load = put_load(url, pages, clients, total, next(numbers))
            peer = (round(len(pages) / seconds_here, 2), "the model in process, all pages at once") if most else (None, None)
            suffix = "" if most else f"_{clients}_clients"
            rows.append(Row(f"pages_per_s{suffix}", load.pages_per_s, f"{clients} clients", "higher", *peer))
            rows += [
                Row(f"p{share}_ms{suffix}", load.percentile(share), f"ms a page, {clients} clients", "lower") for share in (50, 95, 99)
            ]
            rows.append(Row(f"errors{suffix}", load.errors, f"of {total} requests", "lower"))
            rows.append(Row(f"answers_as_predict{suffix}", load.same(texts), f"of {total} requests, to the byte", "higher"))
        with Liveness(url) as liveness, Memory(worker) as memory:
            load = put_load(url, pages, CLIENTS[-1], soak, next(numbers))
        early, late = memory.early_and_late_mb()
        rows += [
            Row("soak_errors", load.errors, f"of {soak} requests, {CLIENTS[-1]} clients", "lower"),
            Row("soak_answers_as_predict", load.same(texts), f"of {soak} requests, to the byte", "higher"),
            Row("soak_early_mb", early, "MB resident, worker and children", "lower"),
            Row("soak_late_mb", late, "MB resident, worker and children", "lower"),
            Row("alive_worst_ms", round(max(liveness.milliseconds), 1), "ms for GET / during the soak", "lower"),
            Row("alive_failures", len(liveness.failures), f"of {len(liveness.milliseconds)} times that GET / was asked", "lower"),
        ]
    return rows


class Memory:
    """Samples the resident memory of a process and its children each second. A context manager."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._megabytes: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def early_and_late_mb(self) -> tuple[float, float]:
        count = len(self._megabytes)
        early = self._megabytes[count // 5 : max(2 * count // 5, count // 5 + 1)]
        return round(float(np.median(early)), 1), round(float(np.median(self._megabytes[-max(1, count // 10) :])), 1)

    def _run(self) -> None:
        while True:
            resident = 0
            for process in (self._process, *self._process.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    resident += process.memory_info().rss
            self._megabytes.append(resident / 1e6)
            if self._stop.wait(1.0):
                return


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
        while httpx.get(f"{url}/ready", timeout=600).status_code != 200:
            time.sleep(0.2)
        yield url, psutil.Process(process.pid).children()[0]
    finally:
        process.terminate()
        process.wait()


def put_load(url: str, pages: Sequence[Page], clients: int, total: int, first: int) -> Load:
    """`total` requests from so many clients, numbered from `first`."""
    with tempfile.TemporaryDirectory() as folder:
        images, answers = Path(folder) / "pages", Path(folder) / "answers.jsonl"
        images.mkdir()
        for number, page in enumerate(pages):
            (images / f"{number:06}.png").write_bytes(page.png)
        command = [sys.executable, "-m", "locust", "--locustfile", str(Path(__file__).with_name("pages_locustfile.py")), "--headless", "--host", url,
                   "--users", str(clients), "--spawn-rate", str(clients), "--only-summary", "--exit-code-on-error", "0", "--stop-timeout", "60"]  # fmt: skip
        told = {"PAGES": str(images), "TYPES": json.dumps([page.type for page in pages]), "ANSWERS": str(answers)}
        environment = {**os.environ, **told, "FIRST": str(first), "TOTAL": str(total)}
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        lines = answers.read_text(encoding="utf-8").splitlines() if answers.exists() else []
    if len(lines) != total:
        sys.exit(f"locust made {len(lines)} of {total} requests: {ran.stderr[-800:]}")
    return Load([Asked(**json.loads(line)) for line in lines])


if __name__ == "__main__":
    main()
