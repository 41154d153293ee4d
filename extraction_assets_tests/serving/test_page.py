"""The page for people, in a real browser: a PDF goes in, its picture, values and confidences are shown."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.testclient import TestClient

from extraction_assets.documents.rendering import render_bytes
from extraction_assets.serving.bundle import Bundle
from extraction_assets.serving.engine import Engine
from extraction_assets.serving.people import value_boxes
from extraction_assets.serving.server import Endpoint
from extraction_assets_tests.evaluation import chromium
from extraction_assets_tests.homes import draw_pdf
from extraction_assets_tests.serving.conftest import RENDER


@pytest.fixture(scope="module")
def endpoint(bundle: Bundle) -> Iterator[Endpoint]:
    endpoint = Endpoint(bundle, with_page=True)
    endpoint.engine = Engine(bundle, bundle.load())
    yield endpoint
    endpoint.engine.close()


@pytest.fixture
def pdf(tmp_path: Path) -> bytes:
    draw_pdf(tmp_path / "one.pdf", ["Number A-17", "Date 3 March 2024", "Total 1,250.00 EUR"])
    return (tmp_path / "one.pdf").read_bytes()


def test_boxes_stand_where_the_values_are_printed(bundle: Bundle, pdf: bytes) -> None:
    (page,) = render_bytes(pdf, RENDER).pages
    boxes = value_boxes({"number": "A-17", "date": "2024-03-03", "total": "1250.00"}, bundle.schemas["invoice"], page)
    assert list(boxes) == ["/number", "/date", "/total"]
    tops = [box[0][1] for box in boxes.values()]
    assert tops == sorted(tops)
    assert len({round(top) for top in tops}) == 3
    assert value_boxes({"number": "B-99", "date": None, "total": None}, bundle.schemas["invoice"], page) == {}


def test_without_being_asked_for_there_is_no_page(bundle: Bundle, pdf: bytes) -> None:
    with TestClient(Endpoint(bundle).application()) as client:
        assert client.get("/page").status_code == client.post("/document?type=invoice", content=pdf).status_code == 404


def test_a_document_is_answered_page_by_page(endpoint: Endpoint, pdf: bytes) -> None:
    with TestClient(endpoint.application()) as client:
        told = client.post("/document?type=invoice", content=pdf).json()
        (page,) = told["pages"]
        png = base64.b64decode(page["image"])
        score = client.post("/score?type=invoice", content=png, headers={"content-type": "image/png"}).json()
        assert page["response"]["answer"] == score["answer"]
        assert told["refused"] == []
        for junk in (b"", b"%PDF-1.7 nothing", b"hello"):
            error = client.post("/document?type=invoice", content=junk).json()["error"]
            assert error["code"] == "image_unreadable"
        assert client.post("/document?type=nothing", content=pdf).json()["error"]["code"] == "unknown_document_type"


@pytest.mark.slow
@pytest.mark.skipif(chromium.PROGRAM is None, reason="no chromium on this machine")
def test_a_dropped_pdf_is_shown_with_what_was_read(endpoint: Endpoint, pdf: bytes, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(endpoint.application(), log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        root = f"http://127.0.0.1:{listening.getsockname()[1]}"
        httpx.get(root, timeout=60).raise_for_status()
        with chromium.Browser(tmp_path / "profile") as page:
            page.open(f"{root}/page")
            data = base64.b64encode(pdf).decode()
            page.run(
                f"""(async () => {{
                    while (!document.getElementById('type').options.length) await new Promise((go) => setTimeout(go, 20));
                    const bytes = Uint8Array.from(atob('{data}'), (c) => c.charCodeAt(0));
                    const given = new DataTransfer();
                    given.items.add(new File([bytes], 'one.pdf', {{ type: 'application/pdf' }}));
                    document.getElementById('drop').dispatchEvent(new DragEvent('drop', {{ dataTransfer: given, cancelable: true }}));
                    while (!document.querySelector('section')) await new Promise((go) => setTimeout(go, 50));
                    await document.querySelector('img').decode();
                }})()"""
            )
            assert page.run("document.querySelector('img').naturalWidth") == 224
            assert page.run("[...document.querySelectorAll('section table th')].slice(0, 3).map((th) => th.textContent)") == [
                "number",
                "date",
                "total",
            ]
            assert "1 page in" in page.run("document.getElementById('told').textContent")
            assert page.run("document.querySelector('.route').textContent") == "review"
            page.run("document.getElementById('type').value = 'receipt'; read(new File(['x'], 'x.pdf'))")
            page.run("new Promise((go) => setTimeout(go, 1500))")
            assert "image_unreadable" in page.run("document.getElementById('told').textContent")
            assert all(url.startswith((root, "data:")) for url in page.requests)
            assert [line for line in page.errors if "422" not in line] == []
        server.should_exit = True
        thread.join(60)
