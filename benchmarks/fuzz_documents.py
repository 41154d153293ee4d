"""Mutated real PDFs through the product's rendering: does every file end as rendered, flagged or refused, and does nothing else suffer?

    python benchmarks/fuzz_documents.py [FOLDER] [--files N] [--seed N] [--quick] [--json] [--keep DIR]

FOLDER holds PDFs at any depth; default: $EXTRACTION_REALDATA, hard PDFs included. Each file is one of them, damaged in one to three ways
drawn from the seed (cut, bits turned, bytes overwritten, blocks moved, numbers and names changed, streams swapped, two files spliced).
They go through `render_files` in batches; in every batch stand some undamaged PDFs, whose page images must be byte for byte what they are
alone. Exits 1, naming the file, where
    a file has no outcome, or is refused with pages, or taken without any, or refused without a reason
    a page image is of one colour and no flag says so
    an undamaged PDF of the batch came out otherwise
    a worker's resident memory passed 2 GiB, or a page took longer than its limit and a moment
--keep: where such files are written for a look.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from PIL import Image
from printing import Row, print_rows

from extraction_assets.documents.rendering import RenderOutcome, render_files
from extraction_assets.documents.worker_process import WorkerProcess
from extraction_assets.settings import RenderSettings

BATCH = 100
WITNESSES = 3
"""undamaged PDFs in each batch"""
MOST_BYTES = 1 << 20
"""larger PDFs are left out: the time would go into copying them"""
SETTINGS = RenderSettings(dpi=50, max_pages=12, page_seconds=10)
MOST_MB = 2048
GRACE_S = 5.0
"""seconds beyond its limit in which a late worker must be gone"""


@dataclass
class Seen:
    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    pages: int = 0
    peak_mb: float = 0.0
    longest_s: float = 0.0
    """longest silence of a worker that had a task: a page, or opening the document"""
    faults: list[str] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(os.environ.get("EXTRACTION_REALDATA", ".")))
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="200 files")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", type=Path, metavar="DIR")
    arguments = parser.parse_args()
    sources = [path for path in sorted(arguments.folder.rglob("*.pdf")) if 0 < path.stat().st_size <= MOST_BYTES]
    if not sources:
        parser.error(f"{arguments.folder}: no PDF in it or below; name a folder of PDFs, or set EXTRACTION_REALDATA")
    files = 200 if arguments.quick else arguments.files
    began = time.perf_counter()
    seen = fuzz(sources, files, arguments.seed, arguments.keep)
    seconds = time.perf_counter() - began
    rows = [
        Row("files", files, f"damaged files of {len(sources)} PDFs, seed {arguments.seed}", "higher"),
        *(Row(name, seen.outcomes[name], "files", "higher") for name in ("rendered", "flagged", "refused")),
        Row("refused_reasons", len(seen.reasons), f"reasons: {dict(seen.reasons.most_common())}", "lower"),
        Row("pages", seen.pages, f"page images at {SETTINGS.dpi:g} dpi", "higher"),
        Row("faults", len(seen.faults), "files or batches that broke a rule above", "lower"),
        Row("worker_peak", round(seen.peak_mb), "MB resident, the largest worker", "lower"),
        Row("longest_task", round(seen.longest_s, 1), f"s; the limit of a page is {SETTINGS.page_seconds:g} s", "lower"),
        Row("files_per_s", round(files / seconds, 1), "files with an outcome, mutation included", "higher"),
    ]
    print_rows(rows, ("pymupdf", "pypdfium2", "pillow"), arguments.json)
    for fault in seen.faults:
        print(fault, file=sys.stderr)
    sys.exit(bool(seen.faults))


def fuzz(sources: list[Path], files: int, seed: int, keep: Path | None) -> Seen:
    seen = Seen()
    witnesses = _witnesses(sources)
    with watched(seen):
        for start in range(0, files, BATCH):
            count = min(BATCH, files - start)
            _batch(sources, witnesses, seed, start, count, keep, seen)
            if sys.stderr.isatty():
                print(f"\r{start + count}/{files} files, {len(seen.faults)} faults ", end="", file=sys.stderr)
    return seen


def _witnesses(sources: list[Path]) -> dict[Path, list[bytes]]:
    """Undamaged PDFs that render without a flag, and their page images when each is alone."""
    found: dict[Path, list[bytes]] = {}
    for path in random.Random(0).sample(sources, len(sources)):
        with tempfile.TemporaryDirectory() as scratch:
            (outcome,) = render_files([path], Path(scratch), SETTINGS)
            if outcome.outcome == "rendered":
                found[path] = _images(outcome)
        if len(found) == 4 * WITNESSES:
            break
    return found


def _images(outcome: RenderOutcome) -> list[bytes]:
    return [Path(page.path).read_bytes() for page in outcome.pages]


def _batch(
    sources: list[Path], witnesses: dict[Path, list[bytes]], seed: int, start: int, count: int, keep: Path | None, seen: Seen
) -> None:
    draw = random.Random(f"{seed}/{start}")
    with tempfile.TemporaryDirectory() as scratch:
        names: dict[Path, Path] = {}
        for number in range(start, start + count):
            rng = random.Random(f"{seed}/{number}")
            file = Path(scratch) / f"fuzz-{number:06}.pdf"
            file.write_bytes(damaged(rng.choice(sources).read_bytes(), sources, rng))
            names[file] = file
        for number, path in enumerate(draw.sample(sorted(witnesses), min(WITNESSES, len(witnesses)))):
            file = Path(scratch) / f"witness-{number}.pdf"
            file.write_bytes(path.read_bytes())
            names[file] = path
        order = list(names)
        draw.shuffle(order)
        for file, outcome in zip(order, render_files(order, Path(scratch) / "out", SETTINGS), strict=True):
            if (original := names[file]) != file:
                if outcome.outcome != "rendered" or _images(outcome) != witnesses[original]:
                    seen.faults.append(f"batch from {start}: {original} is undamaged and came out otherwise ({outcome.outcome})")
                continue
            seen.outcomes[outcome.outcome or "none"] += 1
            seen.pages += len(outcome.pages)
            if outcome.outcome == "refused":
                seen.reasons[outcome.reason or "none"] += 1
            for fault in faults(outcome):
                seen.faults.append(f"{file.name} (seed {seed}): {fault}")
                if keep:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / file.name).write_bytes(file.read_bytes())


def faults(outcome: RenderOutcome) -> Iterator[str]:
    if outcome.outcome not in ("rendered", "flagged", "refused"):
        yield f"outcome {outcome.outcome!r}"
    if (outcome.outcome == "refused") != (not outcome.pages):
        yield f"{outcome.outcome} with {len(outcome.pages)} pages"
    if outcome.outcome == "refused" and not outcome.reason:
        yield "refused without a reason"
    if outcome.outcome == "rendered":
        for page in outcome.pages:
            if len(Image.open(page.path).convert("RGB").getcolors(2) or ()) == 1:
                yield f"page {page.page} is of one colour and no flag says so"


# --- damage ------------------------------------------------------------------------------------------------------------------


def damaged(data: bytes, sources: list[Path], rng: random.Random) -> bytes:
    for _ in range(rng.randint(1, 3)):
        data = rng.choice(WAYS)(data, sources, rng) or data
    return data


def _cut(data: bytes, _: list[Path], rng: random.Random) -> bytes:
    return data[: rng.randrange(1, len(data) + 1)]


def _headless(data: bytes, _: list[Path], rng: random.Random) -> bytes:
    return data[rng.randrange(min(len(data), 2000)) :]


def _bits(data: bytes, _: list[Path], rng: random.Random) -> bytes:
    turned = bytearray(data)
    for _ in range(rng.choice((1, 8, 64, 512))):
        turned[rng.randrange(len(turned))] ^= 1 << rng.randrange(8)
    return bytes(turned)


def _overwritten(data: bytes, _: list[Path], rng: random.Random) -> bytes:
    start, length = rng.randrange(len(data)), rng.choice((4, 64, 1024))
    filling = rng.choice((b"\0" * length, b"\xff" * length, rng.randbytes(length), b"<<" * length, b"[" * length))
    return data[:start] + filling[:length] + data[start + length :]


def _moved(data: bytes, _: list[Path], rng: random.Random) -> bytes:
    start, target, length = rng.randrange(len(data)), rng.randrange(len(data)), rng.randrange(1, 4096)
    return data[:target] + data[start : start + length] + data[target:]


def _numbers(data: bytes, _: list[Path], rng: random.Random) -> bytes:
    """Lengths, offsets, object numbers, sizes, counts: what a parser trusts."""
    values = (b"0", b"-1", b"1", b"65536", b"2147483647", b"4294967296", b"99999999999999999999", b"1e309", b"0.0000001")
    found = list(re.finditer(rb"(?<![\w.])-?\d+(?:\.\d+)?(?![\w.])", data))
    for match in sorted(rng.sample(found, min(len(found), rng.choice((1, 4, 32)))), key=lambda match: -match.start()):
        data = data[: match.start()] + rng.choice(values) + data[match.end() :]
    return data


def _names(data: bytes, _: list[Path], rng: random.Random) -> bytes:
    found = list(re.finditer(rb"/[A-Za-z][A-Za-z0-9]{1,24}", data))
    if not found:
        return data
    for match in sorted(rng.sample(found, min(len(found), rng.choice((1, 4)))), key=lambda match: -match.start()):
        data = data[: match.start()] + rng.choice(found).group() + data[match.end() :]
    return data


def _references(data: bytes, _: list[Path], rng: random.Random) -> bytes:
    """One reference becomes another: cycles, pages that are fonts, forms inside themselves."""
    found = list(re.finditer(rb"\d+ 0 R", data))
    if len(found) < 2:
        return data
    for match in sorted(rng.sample(found, min(len(found), rng.choice((1, 3, 9)))), key=lambda match: -match.start()):
        data = data[: match.start()] + rng.choice(found).group() + data[match.end() :]
    return data


def _streams(data: bytes, _: list[Path], rng: random.Random) -> bytes:
    found = list(re.finditer(rb"stream\r?\n(.*?)endstream", data, re.DOTALL))
    if len(found) < 2:
        return data
    one, other = rng.sample(found, 2)
    return data[: one.start(1)] + other.group(1) + data[one.end(1) :]


def _spliced(data: bytes, sources: list[Path], rng: random.Random) -> bytes:
    other = rng.choice(sources).read_bytes()
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other)) :]


Way = Callable[[bytes, list[Path], random.Random], bytes]
WAYS: tuple[Way, ...] = (_cut, _headless, _bits, _overwritten, _moved, _numbers, _names, _references, _streams, _spliced)


# --- the workers, watched --------------------------------------------------------------------------------------------------------


@contextmanager
def watched(seen: Seen) -> Iterator[None]:
    """Looks at the workers' memory ten times a second, and measures how long each says nothing while it has a task."""
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.1):
            for pid in list(alive):
                seen.peak_mb = max(seen.peak_mb, _peak_mb(pid))

    alive: set[int] = set()
    restart, kill = WorkerProcess.restart_clock, WorkerProcess.kill

    def note(worker: WorkerProcess) -> None:
        if worker.task is not None and not worker.starting:
            seen.longest_s = max(seen.longest_s, time.monotonic() - (worker.deadline - worker.limits.page_seconds))

    def restarted(worker: WorkerProcess) -> None:
        if worker.process.pid in alive:
            note(worker)
        alive.add(worker.process.pid)
        restart(worker)

    def killed(worker: WorkerProcess, is_dead: bool = False) -> None:
        kill(worker, is_dead)
        if worker.process.pid in alive:
            alive.discard(worker.process.pid)
            note(worker)
            if worker._usage is not None:
                seen.peak_mb = max(seen.peak_mb, worker._usage.ru_maxrss / 1024)

    thread = threading.Thread(target=look, daemon=True)
    with mock.patch.object(WorkerProcess, "restart_clock", restarted), mock.patch.object(WorkerProcess, "kill", killed):
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
    if seen.peak_mb > MOST_MB:
        seen.faults.append(f"a worker's memory reached {seen.peak_mb:.0f} MB")
    if seen.longest_s > SETTINGS.page_seconds + GRACE_S:
        seen.faults.append(f"a worker was left on one page for {seen.longest_s:.1f} s")


def _peak_mb(pid: int) -> float:
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0.0
    return int(found.group(1)) / 1024 if found else 0.0


if __name__ == "__main__":
    main()
