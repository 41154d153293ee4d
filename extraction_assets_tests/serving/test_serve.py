"""`extraction serve` as a process: it becomes ready, survives the death of its worker, stops when told, and refuses what it must not serve."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from extraction_assets.serving.bundle import Bundle
from extraction_assets.serving.client import EndpointClient
from extraction_assets_tests.model.pages import page_png
from extraction_assets_tests.serving.running import LIMIT_S, Serving, wait_for


@pytest.fixture
def serving(bundle: Bundle) -> Iterator[Serving]:
    serving = Serving(bundle.folder)
    yield serving
    serving.end()


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_the_clients_retries_lose_nothing(serving: Serving) -> None:
    serving.wait_ready()
    pages = [page_png(64, 64, seed) for seed in range(24)]
    answers: dict[int, object] = {}

    def ask() -> None:
        with EndpointClient(serving.url, parallel=8) as client:
            answers.update(client.score_each(pages, "invoice"))

    asking = threading.Thread(target=ask)
    asking.start()
    wait_for(lambda: True)
    time.sleep(0.3)
    first = serving.worker()
    first.kill()
    asking.join(LIMIT_S)
    serving.wait_ready()
    assert serving.worker().pid != first.pid
    assert sorted(answers) == list(range(24))
    assert all(isinstance(answer, dict) and answer["finish_reason"] == "stop" for answer in answers.values())
    assert any("another starts" in line for line in serving.lines)
    assert serving.end() == 0


@pytest.mark.slow
def test_a_worker_does_not_outlive_its_parent(serving: Serving) -> None:
    serving.wait_ready()
    worker = serving.worker()
    serving.process.kill()
    wait_for(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)


@pytest.mark.slow
def test_a_bundle_that_answers_otherwise_never_becomes_ready(bundle: Bundle, tmp_path: Path) -> None:
    from extraction_assets.serving.bundle import _seal, open_bundle

    copy = Path(shutil.copytree(bundle.folder, tmp_path / "copy"))
    manifest = open_bundle(copy).manifest
    golden = tuple(page.model_copy(update={"text": '{"number":"never","date":null,"total":"1"}'}) for page in manifest.golden)
    _seal(copy, manifest.model_copy(update={"golden": golden}))
    serving = Serving(copy)
    assert serving.process.wait(LIMIT_S) == 2
    wait_for(lambda: any("golden values" in line for line in serving.lines) and any("cannot be served" in line for line in serving.lines))


def test_what_cannot_be_served_is_one_line_before_anything_listens(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from extraction_assets.cli import main

    assert main(["serve", "--bundle", str(tmp_path)]) == 2
    assert "this is no bundle" in capsys.readouterr().err
    assert main(["serve", "--bundle", str(bundle.folder), "--port", "99999"]) == 2
    assert "cannot be listened on" in capsys.readouterr().err
    assert main(["--home", str(tmp_path), "serve"]) == 2
    assert "this is no home" in capsys.readouterr().err
