"""The sandbox: whatever a file does to a worker, the parent lives and the batch is whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from extraction_assets.documents.drawing import DrawnPage, Finished, Source, draw_documents
from extraction_assets.documents.sandbox import Sandbox
from extraction_assets.documents.worker_process import Limits
from extraction_assets.settings import RenderSettings
from extraction_assets_tests.documents.samples import exponential_pdf, pdf

GOOD = [pdf(f"document {number}", "second page") for number in range(4)]


def draw(sandbox: Sandbox, *files: bytes, settings: RenderSettings | None = None) -> dict[int, tuple[list[DrawnPage], Finished]]:
    pages: dict[int, list[DrawnPage]] = {}
    done: dict[int, tuple[list[DrawnPage], Finished]] = {}
    sources = [Source(str(number), lambda data=data: data) for number, data in enumerate(files)]
    for index, _, item in draw_documents(sandbox, sources, settings or RenderSettings()):
        if isinstance(item, Finished):
            done[index] = sorted(pages.pop(index, []), key=lambda page: page.page), item
        else:
            pages.setdefault(index, []).append(item)
    return done


def test_a_page_that_never_ends_is_ended_and_nothing_else_is_lost() -> None:
    settings = RenderSettings(page_seconds=2)
    with Sandbox(Limits.of(settings), 2) as sandbox:
        done = draw(sandbox, GOOD[0], exponential_pdf(), GOOD[1], GOOD[2], settings=settings)
    assert [failure.reason for failure in done[1][1].failures] == ["timeout"]
    assert done[1][0] == []
    assert [len(done[index][0]) for index in (0, 2, 3)] == [2, 2, 2]


def test_a_worker_killed_in_mid_batch_costs_no_page() -> None:
    with Sandbox(Limits(20, 2048), 2) as sandbox:
        expected = draw(sandbox, *GOOD)
        sources = [Source(str(number), lambda data=data: data) for number, data in enumerate(GOOD)]
        pages: dict[tuple[int, int], DrawnPage] = {}
        failures = []
        killed = 0
        for index, _, item in draw_documents(sandbox, sources, RenderSettings()):
            if isinstance(item, Finished):
                failures += item.failures
                continue
            pages[index, item.page] = item
            if killed < 3:
                os.kill(sandbox.pids[killed % len(sandbox.pids)], signal.SIGKILL)
                killed += 1
    assert failures == []
    assert {place: page.image for place, page in pages.items()} == {
        (index, page.page): page.image for index, (drawn, _) in expected.items() for page in drawn
    }


def test_a_worker_killed_while_idle_is_replaced() -> None:
    with Sandbox(Limits(20, 2048), 1) as sandbox:
        draw(sandbox, GOOD[0])
        (first,) = sandbox.pids
        os.kill(first, signal.SIGKILL)
        time.sleep(0.05)
        assert len(draw(sandbox, GOOD[1])[0][0]) == 2
        assert sandbox.pids != [first]


def test_workers_stay_warm_between_batches() -> None:
    with Sandbox(Limits(20, 2048), 1) as sandbox:
        draw(sandbox, GOOD[0])
        before = sandbox.pids
        draw(sandbox, GOOD[1])
        assert sandbox.pids == before


def test_a_reader_that_stops_half_way_leaves_a_usable_sandbox() -> None:
    with Sandbox(Limits(20, 2048), 2) as sandbox:
        frames = draw_documents(sandbox, [Source("a", lambda: GOOD[0]), Source("b", lambda: GOOD[1])], RenderSettings())
        next(frames)
        frames.close()
        assert len(draw(sandbox, GOOD[2])[0][0]) == 2


def test_no_worker_outlives_its_sandbox() -> None:
    with Sandbox(Limits(20, 2048), 2) as sandbox:
        draw(sandbox, *GOOD)
        pids = sandbox.pids
        assert pids
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_worker_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import time\n"
        "from extraction_assets.documents.sandbox import Sandbox\n"
        "from extraction_assets.documents.worker_process import Limits\n"
        "from extraction_assets_tests.documents.test_sandbox import draw, GOOD\n"
        "sandbox = Sandbox(Limits(20, 2048), 1)\n"
        "draw(sandbox, GOOD[0])\n"
        "print(sandbox.pids[0], flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert parent.stdout is not None
    worker = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    worker.wait(timeout=10)


def test_a_worker_may_take_no_more_memory_than_it_is_given() -> None:
    huge = b"%PDF-1.4\n" + b"\0" * (80 << 20)
    with Sandbox(Limits(20, 256), 1) as sandbox:
        done = draw(sandbox, huge, GOOD[0], settings=RenderSettings(memory_mb=256))
    assert done[0][1].failures[0].reason == "too_large"
    assert len(done[1][0]) == 2


def test_a_worker_has_neither_the_parents_secrets_nor_a_way_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hush")
    with Sandbox(Limits(20, 2048), 1) as sandbox:
        draw(sandbox, GOOD[0])
        process = psutil.Process(sandbox.pids[0])
        assert "SECRET_TOKEN" not in process.environ()
        assert process.rlimit(psutil.RLIMIT_FSIZE) == (0, 0)
        assert process.rlimit(psutil.RLIMIT_AS)[1] <= 2048 << 20
        assert process.memory_info().rss < 2048 << 20


def test_a_worker_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if "site-packages" in entry])
    monkeypatch.setattr("extraction_assets.documents.worker_process.WORKER_MODULE", "extraction_assets.documents.nothing")
    with Sandbox(Limits(20, 2048), 1) as sandbox, pytest.raises(RuntimeError, match="does not start"):
        draw(sandbox, GOOD[0])


@pytest.mark.parametrize(
    "spelled",
    [b"", b"{", b"[]", b'{"words":[{"box":[1,2,3],"line":0,"text":"short"}]}', b'{"words":[{"box":[1,2,3,NaN],"line":0,"text":"nan"}]}'],
    ids=str,
)
def test_a_worker_that_a_file_has_taken_over_gets_no_words_into_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelled: bytes
) -> None:
    (tmp_path / "taken_over.py").write_text(
        f"import sys\nfrom extraction_assets.documents import worker\nworker._spell = lambda words: {spelled!r}\nworker.main(sys.argv)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("extraction_assets.documents.worker_process.WORKER_MODULE", "taken_over")
    with Sandbox(Limits(20, 2048), 1) as sandbox:
        (done,) = draw(sandbox, GOOD[0]).values()
    assert done[0] == []
    assert [(failure.page, failure.reason) for failure in done[1].failures] == [(1, "crashed"), (2, "crashed")]
