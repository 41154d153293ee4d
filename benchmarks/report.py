"""The eval report in a browser: how long until it stands there, with 500 and with 2,000 pages.

    python benchmarks/report.py [--pages N ...] [--quick] [--json] [--keep DIR]

Pages of generated vendors, drawn, with boxes of their values; a base that answers nothing, a champion and a challenger that misread one value in
ten. Two of three pages are wrong somewhere and stand in the error browser. For each size: seconds to score and to build, bytes of the HTML, and in a
headless Chromium the seconds from the address to its load event, pictures of the first wrong page included, and from the key to the next wrong
page's picture; medians of five new browsers and of eight steps in each. Exits 1 where the console has an error, anything is asked of a network, or loading takes 2 s or more.
Needs Chromium (Debian: apt install chromium).
"""

from __future__ import annotations

import argparse
import io
import json
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymupdf
from PIL import Image
from printing import Row, print_rows

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))  # the browser stands in the tests, which are not installed

from extraction_assets.demo.vendors.generated_set import TYPES, make_document  # noqa: E402
from extraction_assets.demonstration import DEMO_FOLDER  # noqa: E402
from extraction_assets.evaluation.report import build_report  # noqa: E402
from extraction_assets.evaluation.run import Answer, ReportExample, TypeExamples, score_examples  # noqa: E402
from extraction_assets.schema import TargetSchema  # noqa: E402
from extraction_assets.settings import EvaluationSettings  # noqa: E402
from extraction_assets_tests.evaluation import chromium  # noqa: E402

SEED = 17
VENDORS = 20
DPI = 144
MISREAD = 0.1
"""share of the values; two of three pages then have one"""
TABS = 5
STEPS = 8
LIMIT_S = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, nargs="+", default=(500, 2000))
    parser.add_argument("--quick", action="store_true", help="60 pages")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where the reports are to stay")
    arguments = parser.parse_args()
    if chromium.PROGRAM is None:
        parser.error("no chromium in PATH (Debian: apt install chromium)")
    rows: list[Row] = []
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        for pages in (60,) if arguments.quick else arguments.pages:
            folder = (arguments.keep or Path(scratch)) / f"{pages}"
            measured, wrong = measure(folder, Path(scratch), pages)
            rows += measured
            faults += wrong
    print_rows(rows, ("pillow",), arguments.json)
    for fault in faults:
        print(fault, file=sys.stderr)
    sys.exit(bool(faults))


def measure(folder: Path, scratch: Path, pages: int) -> tuple[list[Row], list[str]]:
    by_type: dict[str, list[ReportExample]] = defaultdict(list)
    for kind, example in examples(scratch / f"pages-{pages}", pages):
        by_type[kind].append(example)
    settings = EvaluationSettings()
    began = time.perf_counter()
    run = score_examples(
        [TypeExamples(kind, schema_of(kind), of_type) for kind, of_type in by_type.items()], ("base", "champion", "challenger")
    )
    scored = time.perf_counter()
    page = build_report(run, settings, f"{pages} pages").write(folder)
    built = time.perf_counter()
    loads, steps, faults = [], [], []
    for tab in range(TABS):
        with chromium.Browser(scratch / f"profile-{pages}-{tab}") as browser:
            start = time.perf_counter()
            browser.open(page.as_uri())
            loads.append(time.perf_counter() - start)
            for _ in range(STEPS):
                start = time.perf_counter()
                browser.run(_NEXT_PICTURE)
                steps.append(time.perf_counter() - start)
            asked = [url for url in browser.requests if not url.startswith(("file:", "data:", "blob:", "about:"))]
            faults += [f"{pages} pages: asked the network for {url}" for url in asked] + [
                f"{pages} pages: {error}" for error in browser.errors
            ]
    if statistics.median(loads) >= LIMIT_S:
        faults.append(f"{pages} pages: {statistics.median(loads):.2f} s to load, {LIMIT_S} allowed")
    wrong = sum(not score.document_exact for of_type in run.details.values() for score in of_type["challenger"])
    name = f"{pages:,} pages"
    return [
        Row(f"{name}: wrong", wrong, "pages in the error browser", "lower"),
        Row(f"{name}: score", round(scored - began, 2), "s", "lower"),
        Row(f"{name}: build and write", round(built - scored, 2), "s", "lower"),
        Row(f"{name}: html", round(page.stat().st_size / 1e6, 2), "MB", "lower"),
        Row(f"{name}: loaded", round(statistics.median(loads), 3), f"s, median of {TABS} new browsers; below {LIMIT_S}", "lower"),
        Row(f"{name}: next wrong page", round(statistics.median(steps), 3), "s from the key to its picture", "lower"),
    ], faults


_NEXT_PICTURE = """
new Promise((done, failed) => {
  const before = document.images[0].src, until = Date.now() + 20000;
  dispatchEvent.call(document, new KeyboardEvent('keydown', {key: 'j', bubbles: true}));
  const look = () => {
    const shown = document.images[0];
    if (shown.src !== before && shown.complete && shown.naturalWidth > 200) done(true);
    else if (Date.now() > until) failed(new Error('no other picture'));
    else setTimeout(look, 2);
  };
  look();
})
"""


def schema_of(kind: str) -> TargetSchema:
    return TargetSchema.load(DEMO_FOLDER / "schemas" / f"{kind}.schema.json")


def examples(folder: Path, pages: int) -> Iterator[tuple[str, ReportExample]]:
    """First pages of generated documents with what the label says of the document."""
    folder.mkdir(parents=True)
    rng = random.Random(SEED)
    for number in range(pages):
        vendor = number % VENDORS + 1
        kind = TYPES[(vendor - 1) % len(TYPES)]
        made = make_document(SEED, vendor, number // VENDORS + 1, kind)
        with pymupdf.open(stream=made.pdf) as document:
            pixels = document[0].get_pixmap(dpi=DPI, alpha=False)
        image = folder / f"{number}.png"
        out = io.BytesIO()
        Image.frombytes("RGB", (pixels.width, pixels.height), pixels.samples).save(out, "PNG", compress_level=1)
        image.write_bytes(out.getvalue())
        scale = DPI / 72
        boxes: dict[str, list[tuple[float, float, float, float]]] = defaultdict(list)
        for value in made.printed:
            if value.page == 1:
                boxes[value.pointer].append(tuple(side * scale for side in value.box))  # type: ignore[arg-type]
        answers = {
            "base": Answer("{}", tokens=2),
            **{
                name: Answer(json.dumps(misread(made.label, rng)), tokens=180, confidence=rng.random())
                for name in ("champion", "challenger")
            },
        }
        yield (
            kind,
            ReportExample(
                id=f"{kind}-{number}",
                vendor=f"{kind}/{made.vendor}",
                stratum="clean",
                document=f"{kind}-{number}",
                gold=made.label,
                answers=answers,
                page=1,
                seen=vendor % 5 > 0,
                image=image,
                width=pixels.width,
                height=pixels.height,
                value_boxes=dict(boxes),
            ),
        )


def misread(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict):
        return {key: misread(part, rng) for key, part in value.items()}
    if isinstance(value, list):
        return [misread(part, rng) for part in value]
    if isinstance(value, str) and value and rng.random() < MISREAD:
        place = rng.randrange(len(value))
        return value[:place] + rng.choice("0123456789") + value[place + 1 :]
    return value


if __name__ == "__main__":
    main()
