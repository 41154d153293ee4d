"""score.py under the real azureml-inference-server-http: the contract of `extraction serve`, as far as that server lets it be kept.

The server pins another OpenTelemetry and another pydantic than constraints.txt, so it lives in an environment of its own, named by
EXTRACTION_AZMLINFSRV: its `azmlinfsrv`, with this package's dependencies importable there too. Without it these tests are skipped.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from extraction_assets.home import PROJECT
from extraction_assets.serving.bundle import GOLDEN, Bundle
from extraction_assets.serving.client import EndpointClient
from extraction_assets.serving.contract import ERRORS
from extraction_assets_tests.model.pages import page_png
from extraction_assets_tests.serving.conftest import SERVING
from extraction_assets_tests.serving.running import LIMIT_S, Serving, wait_for

SERVER = os.environ.get("EXTRACTION_AZMLINFSRV", "")
SCRIPT = PROJECT / "extraction_assets" / "serving" / "score.py"
THREADS = 8
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path(SERVER).is_file(), reason="EXTRACTION_AZMLINFSRV names no azmlinfsrv (azureml-inference-server-http)"),
]


def start(model_dir: Path, log: Path) -> tuple[subprocess.Popen[bytes], str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "GUNICORN_CMD_ARGS": f"--threads {THREADS}", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}
    command = [SERVER, "--entry_script", str(SCRIPT), "--model_dir", str(model_dir), "--port", str(port)]
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment, cwd=model_dir, stdout=out, stderr=out)
    return process, f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def url(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("azmlinfsrv") / "log"
    process, url = start(bundle.folder, log)

    def alive() -> bool:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            return httpx.get(f"{url}/", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    wait_for(alive)
    yield url
    process.terminate()
    process.wait(LIMIT_S)


def test_golden_pages_are_answered_as_the_bundle_says_and_as_our_server_does(url: str, bundle: Bundle) -> None:
    ours = Serving(bundle.folder)
    ours.wait_ready()
    with EndpointClient(url) as there, EndpointClient(ours.url) as here:
        for page in bundle.manifest.golden:
            png = (bundle.folder / GOLDEN / f"{page.page}.png").read_bytes()
            answers = [client.score(png, page.type) for client in (there, here)]
            for answer in answers:
                assert isinstance(answer, dict)
                del answer["timing"]
            assert answers[0] == answers[1]
            assert json.dumps(answers[0]["answer"], ensure_ascii=False, separators=(",", ":")) == page.text
    assert ours.end() == 0


def test_json_with_base64_is_the_same_page(url: str) -> None:
    png = page_png(64, 64, 5)
    asked = {"image": base64.b64encode(png).decode(), "type": "receipt"}
    raw = httpx.post(f"{url}/score", params={"type": "receipt"}, content=png, headers={"content-type": "image/png"}, timeout=LIMIT_S)
    assert httpx.post(f"{url}/score", json=asked, timeout=LIMIT_S).json()["answer"] == raw.json()["answer"]


IMAGE = {"content-type": "image/png"}
REFUSED = [
    ("bad_request", {"content": b"{", "headers": {"content-type": "application/json"}}),
    ("bad_request", {"json": {"image": "&&&", "type": "invoice"}}),
    ("bad_request", {"json": {"url": "http://169.254.169.254/", "type": "invoice"}}),
    ("bad_request", {"content": b"", "headers": IMAGE, "params": {"type": "invoice"}}),
    ("bad_request", {"content": page_png(64, 64, 1), "headers": IMAGE}),
    ("unknown_document_type", {"content": page_png(64, 64, 1), "headers": IMAGE, "params": {"type": "letter"}}),
    ("unsupported_media_type", {"data": {"a": "b"}}),
    ("unsupported_media_type", {"content": b"x", "headers": {"content-type": "text/plain"}}),
    ("image_unreadable", {"content": page_png(64, 64, 1)[:200], "headers": IMAGE, "params": {"type": "invoice"}}),
    ("image_unreadable", {"content": b"GIF89a", "headers": IMAGE, "params": {"type": "invoice"}}),
    ("body_too_large", {"content": bytes(int(SERVING.max_image_mb * 1e6) + 1), "headers": IMAGE, "params": {"type": "invoice"}}),
    ("body_too_large", {"content": iter([bytes(400_000)] * 3), "headers": IMAGE, "params": {"type": "invoice"}}),
]


@pytest.mark.parametrize(("code", "request_parts"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_each_refusal_has_its_own_status_and_code(url: str, code: str, request_parts: dict[str, object]) -> None:
    answer = httpx.post(f"{url}/score", timeout=LIMIT_S, **request_parts)  # type: ignore[arg-type]
    assert (answer.status_code, answer.json()["error"]["code"]) == (ERRORS[code].status, code)


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_another_method_never_reaches_the_model(url: str, method: str) -> None:
    answer = httpx.request(method, f"{url}/score", headers={"x-request-id": "mine"}, timeout=LIMIT_S)
    assert (answer.status_code, answer.json()["error"]["code"], answer.json()["error"]["request_id"]) == (405, "method_not_allowed", "mine")


def test_pages_that_wait_together_are_answered_and_the_server_is_alive_meanwhile(url: str) -> None:
    answers: list[httpx.Response] = []
    pages = [page_png(96, 96, seed) for seed in range(100, 100 + 3 * THREADS)]

    def ask(png: bytes) -> None:
        answers.append(httpx.post(f"{url}/score", params={"type": "invoice"}, content=png, headers=IMAGE, timeout=LIMIT_S))

    with ThreadPoolExecutor(THREADS - 2) as pool:
        asking = threading.Thread(target=lambda: list(pool.map(ask, pages)))
        asking.start()
        alive = 0
        while asking.is_alive():
            assert httpx.get(f"{url}/", timeout=LIMIT_S).status_code == 200
            alive += 1
            time.sleep(0.05)
        asking.join()
    assert [answer.status_code for answer in answers] == [200] * len(pages)
    assert alive > 1


def test_a_damaged_bundle_keeps_the_server_from_starting(bundle: Bundle, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(bundle.folder, tmp_path / "copy"))
    schema = next((copy / "schemas").iterdir())
    schema.write_bytes(schema.read_bytes() + b" ")
    process, _ = start(copy, tmp_path / "log")
    try:
        wait_for(lambda: schema.name in (tmp_path / "log").read_text() and "is not the file" in (tmp_path / "log").read_text())
        assert process.wait(LIMIT_S) != 0
    finally:
        process.kill()
