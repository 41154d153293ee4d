"""Pages a second from real PDFs to PNG page images: ours beside the peers that one would otherwise loop over the files.

    python benchmarks/rendering.py [FOLDER] [--quick] [--json] [--documents N]

FOLDER holds PDFs at any depth; default: $EXTRACTION_REALDATA/open. Ours is the product's whole way: warm sandboxed workers, page box and
pixel cap looked at before a pixel is drawn, drawn onto the 32-px grid, damage and blank pages noticed, words of the text layer with their
boxes, PNG by zlib-ng. Peers draw and write a lossless PNG and nothing else: PyMuPDF + Pillow, pypdfium2 + Pillow (default settings, one
process), pdftoppm -png (a process a file, as it is used). The best of them is the peer. Each held to one and the same core, ours with its
parent and its worker; they take turns every ten files, file by file from memory; pdftoppm from the file. Of the rounds, each ten files'
median counts.

scaling_2_cores: pages/s of two workers and their parent on two cores over one worker and its parent on one, the median of seven pairs of
runs over four times as many files at once (of few, the last one, which a worker draws while the other has none, is much).
outside_raster_share: share of our time on one core in which nothing is rasterised (PyMuPDF's own rasterising of the same pages at the same dpi
is taken off).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pymupdf
import pypdfium2
from PIL import Image
from printing import Row, print_rows

from extraction_assets.documents.drawing import DrawnPage, Source, draw_documents
from extraction_assets.documents.sandbox import warm_sandbox
from extraction_assets.settings import RenderSettings

Way = Callable[[list["Pdf"]], None]

DEFAULT_DPI = 150
GROUP = 10
MOST_PAGES = 6
"""a longer document would be most of the sample"""


@dataclass(frozen=True)
class Pdf:
    path: Path
    data: bytes
    pages: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(os.environ.get("EXTRACTION_REALDATA", ".")) / "open")
    parser.add_argument("--documents", type=int, default=60, help="a seeded sample of so many")
    parser.add_argument("--quick", action="store_true", help="12 documents, 150 dpi, one round")
    parser.add_argument("--dpi", type=int, nargs="+", default=(72, 100, 150, 200))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    documents = 12 if arguments.quick else arguments.documents
    pdfs, many = sample(arguments.folder, documents), sample(arguments.folder, 4 * documents)
    if not pdfs:
        parser.error(f"{arguments.folder}: no PDF in it or below; name a folder of PDFs, or set EXTRACTION_REALDATA")
    rows = []
    for dpi in (DEFAULT_DPI,) if arguments.quick else arguments.dpi:
        rows += measure(pdfs, dpi, 1 if arguments.quick else 3)
        if dpi == DEFAULT_DPI and len(os.sched_getaffinity(0)) > 1:
            rows.append(scaling(many, 1 if arguments.quick else 7))
    print_rows(rows, ("pymupdf", "pypdfium2", "pillow", "zlib-ng"), arguments.json)


def sample(folder: Path, count: int) -> list[Pdf]:
    paths = sorted(folder.rglob("*.pdf"))
    random.Random(0).shuffle(paths)
    found: list[Pdf] = []
    for path in paths:
        data = path.read_bytes()
        with pymupdf.open(stream=data, filetype="pdf") as document:
            if 1 <= document.page_count <= MOST_PAGES and not document.needs_pass:
                found.append(Pdf(path, data, document.page_count))
        if len(found) == count:
            break
    return found


def measure(pdfs: list[Pdf], dpi: int, rounds: int) -> list[Row]:
    pages = sum(pdf.pages for pdf in pdfs)
    ways: dict[str, Way] = {
        "ours": lambda group: ours(group, dpi, 1),
        "PyMuPDF + Pillow": lambda group: each(group, dpi, pymupdf_page),
        "pypdfium2 + Pillow": lambda group: pypdfium_pages(group, dpi),
    }
    if shutil.which("pdftoppm"):
        ways["pdftoppm -png"] = lambda group: poppler_pages(group, dpi)
    if dpi == DEFAULT_DPI:
        ways["raster"] = lambda group: each(group, dpi, raster)
    groups = [pdfs[start : start + GROUP] for start in range(0, len(pdfs), GROUP)]
    seconds = {name: sum(statistics.median(times) for times in by_group) for name, by_group in in_turns(ways, groups, rounds).items()}
    speed = {name: pages / taken for name, taken in seconds.items()}
    peers = {name: value for name, value in speed.items() if name not in ("ours", "raster")}
    unit = f"pages a second on one core, of {pages} pages in {len(pdfs)} PDFs"
    rows = [
        Row(
            f"pages_per_s_{dpi}dpi" if name == best(peers) else f"pages_per_s_{dpi}dpi beside {name}",
            round(speed["ours"], 2),
            unit,
            "higher",
            round(value, 2),
            name,
        )
        for name, value in sorted(peers.items(), key=lambda item: -item[1])
    ]
    if dpi == DEFAULT_DPI:
        rows.append(Row("outside_raster_share", round(1 - speed["ours"] / speed["raster"], 3), "of our time at 150 dpi", "lower"))
    return rows


def scaling(pdfs: list[Pdf], pairs: int) -> Row:
    both: dict[str, Way] = {"one": lambda group: ours(group, DEFAULT_DPI, 1), "two": lambda group: ours(group, DEFAULT_DPI, 2)}
    ((one,), (two,)) = in_turns(both, [pdfs], pairs).values()
    times = statistics.median(alone / shared for alone, shared in zip(one, two, strict=True))
    return Row("scaling_2_cores", round(times, 3), f"times the pages/s on one core, of {len(pdfs)} PDFs", "higher")


def in_turns(ways: dict[str, Way], groups: list[list[Pdf]], rounds: int) -> dict[str, list[list[float]]]:
    """Seconds by way, group and round. The ways take turns group by group: a machine that slows down slows them all."""
    workers = {"ours": 1, "one": 1, "two": 2}
    seconds: dict[str, list[list[float]]] = {name: [[] for _ in groups] for name in ways}
    for _ in range(rounds):
        for number, group in enumerate(groups):
            for name, way in ways.items():
                with on_cores(workers.get(name, 1)):
                    if name in workers:  # they start once in a run of the product: their imports are not a page's time
                        ours(group[:2], DEFAULT_DPI, workers[name])
                    began = time.perf_counter()
                    way(group)
                    seconds[name][number].append(time.perf_counter() - began)
    return seconds


@contextlib.contextmanager
def on_cores(count: int) -> Iterator[None]:
    """This process, and those that it starts meanwhile, on `count` of its cores."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(cores)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def best(peers: dict[str, float]) -> str:
    return max(peers, key=lambda name: peers[name])


def ours(pdfs: list[Pdf], dpi: int, workers: int) -> None:
    settings = RenderSettings(dpi=dpi, max_visual_tokens=16384)
    drawn = 0
    with warm_sandbox(settings, workers) as sandbox:
        sources = (Source(str(number), lambda pdf=pdf: pdf.data) for number, pdf in enumerate(pdfs))
        for _, source, item in draw_documents(sandbox, sources, settings):
            if isinstance(item, DrawnPage):
                drawn += 1
            elif item.failures:
                raise SystemExit(f"{pdfs[int(source.key)].path}: {item.failures[0].detail}")
    if drawn != sum(pdf.pages for pdf in pdfs):
        raise SystemExit(f"{drawn} pages drawn of {sum(pdf.pages for pdf in pdfs)}")


def each(pdfs: list[Pdf], dpi: int, page: Callable[[pymupdf.Page, int], None]) -> None:
    for pdf in pdfs:
        with pymupdf.open(stream=pdf.data, filetype="pdf") as document:
            for number in range(document.page_count):
                page(document[number], dpi)


def raster(page: pymupdf.Page, dpi: int) -> None:
    page.get_pixmap(dpi=dpi)


def pymupdf_page(page: pymupdf.Page, dpi: int) -> None:
    drawn = page.get_pixmap(dpi=dpi)
    write(Image.frombytes("RGB", (drawn.width, drawn.height), drawn.samples))


def pypdfium_pages(pdfs: list[Pdf], dpi: int) -> None:
    for pdf in pdfs:
        document = pypdfium2.PdfDocument(pdf.data)
        for page in document:
            write(page.render(scale=dpi / 72).to_pil().convert("RGB"))
        document.close()


def write(image: Image.Image) -> None:
    with tempfile.TemporaryFile() as file:
        image.save(file, "PNG")


def poppler_pages(pdfs: list[Pdf], dpi: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for pdf in pdfs:
            subprocess.run(
                ["pdftoppm", "-png", "-r", str(dpi), str(pdf.path), str(Path(folder) / "page")], check=True, stderr=subprocess.DEVNULL
            )


if __name__ == "__main__":
    main()
