"""Strangers' requests against `extraction serve` on this machine: does each get its code, does the process stay up and alive?

    python benchmarks/hostile_requests.py [--home HOME] [--examples N] [--quick] [--json]

HOME is a finished home with a champion, whose bundle is served; without one it is a bundle of a random tiny base, whose answers are noise (they
are not the subject). The requests are those of extraction_assets_tests/serving/hostile_requests.py, made to break the limits that the server
publishes: one after the other, then eight at once beside slow clients and a flood of pages, while GET / is asked all the time. Then schemathesis
makes up to N requests an operation from the OpenAPI document. Whatever was answered otherwise than it must be is named on stderr, and the
exit code is 1.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from printing import Row, print_rows  # noqa: E402

from extraction_assets.commands import latest  # noqa: E402
from extraction_assets.demo.tiny_base import write_random_base  # noqa: E402
from extraction_assets.home import Home  # noqa: E402
from extraction_assets.settings import ServingSettings  # noqa: E402
from extraction_assets_tests.serving.conftest import make_bundle  # noqa: E402
from extraction_assets_tests.serving.hostile_requests import (  # noqa: E402
    Hostile,
    Limits,
    Outcome,
    complaints,
    flood,
    hostile_requests,
    send,
)
from extraction_assets_tests.serving.liveness import Liveness  # noqa: E402
from extraction_assets_tests.serving.running import Serving  # noqa: E402

AT_ONCE = 8
FLOOD = 200
MOST_LIVENESS_MS = 200
_BUSY = frozenset(["overloaded", "timed_out"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--examples", type=int, default=200, metavar="N", help="of schemathesis, an operation")
    parser.add_argument("--quick", action="store_true", help="20 examples, no slow clients")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with bundle_folder(arguments.home) as folder:
        rows, wrong = measure(folder, 20 if arguments.quick else arguments.examples, not arguments.quick)
    print_rows(rows, ("starlette", "uvicorn", "h11", "schemathesis"), arguments.json)
    for line in wrong:
        print(line, file=sys.stderr)
    sys.exit(1 if wrong else 0)


@contextmanager
def bundle_folder(home: Path | None) -> Iterator[Path]:
    if home is not None:
        opened = Home.open(home)
        made = latest(opened, "serving_bundle")
        if made["bundle"] is None:
            sys.exit(f"{home} has no champion, so nothing to serve")
        yield opened.store.folder(made["bundle"])
        return
    with tempfile.TemporaryDirectory() as folder:
        write_random_base(Path(folder) / "base", seed=0)
        yield make_bundle(Path(folder) / "bundle", Path(folder) / "base", ServingSettings()).folder


def measure(folder: Path, examples: int, with_slow: bool) -> tuple[list[Row], list[str]]:
    """(figures, what was wrong, a line each)."""
    serving = Serving(folder)
    try:
        serving.wait_ready()
        url, worker = serving.url, serving.worker()
        before = worker.memory_info().rss
        limits = Limits.of(url)
        asked = [one for one in hostile_requests(limits) if not one.slow]
        slow = [one for one in hostile_requests(limits) if one.slow] if with_slow else []
        # at once with a flood any of them may be told to come again
        again = [*(replace(one, expected=one.expected | _BUSY) for one in asked), *flood(limits, FLOOD)]
        with Liveness(url) as liveness:
            outcomes = [send(url, one) for one in asked]
            with (
                ThreadPoolExecutor(max(1, len(slow))) as waiting,
                ThreadPoolExecutor(AT_ONCE) as pool,
                ThreadPoolExecutor(FLOOD) as flooding,
            ):
                late = [waiting.submit(send, url, one) for one in slow]
                crowd = [(flooding if one.group == "flood" else pool).submit(send, url, one) for one in again]
                outcomes += [future.result() for future in [*late, *crowd]]
            fuzzed, fuzz_wrong = schemathesis(url, examples)
        sent = [*asked, *slow, *again]
        wrong = [*complaints(sent, outcomes), *fuzz_wrong]
        log = "".join(serving.lines)
        restarts, tracebacks = log.count("another starts"), log.count("Traceback")
        same = serving.worker().pid == worker.pid
        grown = (worker.memory_info().rss - before) / 1e6 if same else float("nan")
    finally:
        serving.end()
    worst = max(liveness.milliseconds)
    for holds, line in (
        (not tracebacks, f"{tracebacks} tracebacks in the server's log"),
        (not restarts and same, f"{restarts} restarts of the worker"),
        (not liveness.failures, f"GET / failed: {sorted(set(liveness.failures))}"),
        (worst < MOST_LIVENESS_MS, f"GET / took {worst:.0f} ms"),
    ):
        if not holds:
            wrong.append(line)
    return _rows(asked, sent, outcomes, wrong, fuzzed, len(fuzz_wrong), tracebacks, restarts, liveness, grown), wrong


def _rows(
    asked: Sequence[Hostile], sent: Sequence[Hostile], outcomes: Sequence[Outcome], wrong: Sequence[str], fuzzed: int, fuzz_wrong: int,
    tracebacks: int, restarts: int, liveness: Liveness, grown: float,
) -> list[Row]:  # fmt: skip
    right = len(sent) - len(complaints(sent, outcomes))
    groups = sorted({one.group for one in sent})
    return [
        *(Row(f"sent_{group.replace(' ', '_')}", sum(one.group == group for one in sent), "requests", "higher") for group in groups),
        Row("different", len({str(one) for one in [*asked, *sent]}), "requests, each of its own kind", "higher"),
        Row("right", right, f"of {len(sent)} requests with the right code and an honest body", "higher"),
        Row("flood_answered", sum(o.code == "ok" for s, o in zip(sent, outcomes, strict=True) if s.group == "flood"), f"of {FLOOD} pages at once; the others were told to come again", "higher"),
        Row("schemathesis_cases", fuzzed, "requests made from the OpenAPI document", "higher"),
        Row("schemathesis_failures", fuzz_wrong, "kinds of answers that are not as the document says", "lower"),
        Row("tracebacks", tracebacks, "in the server's log", "lower"),
        Row("restarts", restarts, "of the worker", "lower"),
        Row("alive_asked", len(liveness.milliseconds), "times GET / was asked meanwhile", "higher"),
        Row("alive_p99_ms", round(float(np.percentile(liveness.milliseconds, 99)), 1), "ms for GET /, its connection included", "lower"),
        Row("alive_worst_ms", round(max(liveness.milliseconds), 1), "ms for GET /, its connection included", "lower"),
        Row("memory_growth_mb", round(grown, 1), "MB resident in the worker, before to after", "lower"),
    ]  # fmt: skip


def schemathesis(url: str, examples: int) -> tuple[int, list[str]]:
    """(cases, what failed). That a picture of valid base64 is no picture cannot be said in a schema, hence the check left out."""
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--max-examples", str(examples), "--seed", "1",
               "--no-color", "--continue-on-failure", "--exclude-checks", "positive_data_acceptance"]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    cases = re.search(r"([\d,]+) generated", ran.stdout)
    if cases is None:
        sys.exit(f"schemathesis did not run: {(ran.stderr or ran.stdout)[-500:]}")
    failed = [f"schemathesis: {line.strip()}" for line in ran.stdout.splitlines() if re.match(r"- ST\d+", line.strip())]
    if ran.returncode and not failed:
        failed = [f"schemathesis ended with {ran.returncode}: {ran.stdout[-500:]}"]
    return int(cases.group(1).replace(",", "")), failed


if __name__ == "__main__":
    main()
