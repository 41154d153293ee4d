"""The contract over HTTP, in this process: right answers, the right code for whatever else comes."""

from __future__ import annotations

import base64
import io
import json
import os
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from PIL import Image
from starlette.testclient import TestClient

from extraction_assets.evaluation.calibration import Calibrator, Routing, units_of
from extraction_assets.inference.answers import Answerer
from extraction_assets.inference.page_answer import PagePrompt
from extraction_assets.serving import server as server_module
from extraction_assets.serving.bundle import Bundle
from extraction_assets.serving.contract import ERRORS
from extraction_assets.serving.engine import Engine
from extraction_assets.serving.scoring import decide
from extraction_assets.serving.server import Endpoint
from extraction_assets_tests.model.pages import page_png
from extraction_assets_tests.serving.conftest import make_bundle

PAGE = page_png(128, 96, 5)
PNG = {"content-type": "image/png", "x-document-type": "invoice"}


@pytest.fixture(scope="module")
def endpoint(bundle: Bundle) -> Iterator[Endpoint]:
    endpoint = Endpoint(bundle)
    endpoint.engine = Engine(bundle, bundle.load())
    yield endpoint
    endpoint.engine.close()


@pytest.fixture(scope="module")
def client(endpoint: Endpoint) -> Iterator[TestClient]:
    with TestClient(endpoint.application(), raise_server_exceptions=False) as client:
        yield client


def as_json(page: bytes = PAGE, **more: Any) -> dict[str, Any]:
    return {"image": base64.b64encode(page).decode(), "type": "invoice", **more}


def expect(client: TestClient, code: str, method: str = "POST", url: str = "/score", **request: Any) -> dict[str, Any]:
    answer = client.request(method, url, **request)
    error = answer.json()["error"]
    assert error["code"] == code, error
    assert answer.status_code == ERRORS[code].status
    assert error["retryable"] == ERRORS[code].retryable
    assert error["request_id"] == answer.headers["x-request-id"]
    assert ("retry-after" in answer.headers) == error["retryable"]
    return error


# --- answers --------------------------------------------------------------------------------------------------------------


def test_the_answer_is_that_of_predict_to_the_byte(client: TestClient, bundle: Bundle) -> None:
    schema = bundle.schemas["invoice"]
    prompt = PagePrompt("p", schema.instruction, PAGE, 128, 96, schema=schema)
    (wanted,) = bundle.load().answer([prompt], bundle.manifest.decoding)
    for request in ({"content": PAGE, "headers": PNG}, {"json": as_json()}):
        answer = client.post("/score", **request)
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert json.dumps(told["answer"], ensure_ascii=False, separators=(",", ":")) == wanted.text
        assert told["confidence"] == {"mean": round(wanted.confidence, 6), "fields": dict(wanted.values)}
        assert told["decision"] == {"route": "review", "reasons": ["confidence_not_calibrated"]}
        assert told["finish_reason"] == "stop"
        assert told["model"] == {"bundle": bundle.digest, "base": bundle.manifest.base, "adapter": None}
        assert told["schema"] == {"type": "invoice", "digest": schema.digest}
        assert told["timing"]["tokens"] == wanted.tokens


def test_a_page_goes_without_a_person_only_above_the_threshold(bundle: Bundle) -> None:
    schema = bundle.schemas["invoice"]
    answer = {"number": "7", "date": None, "total": "1.00"}
    values = {"/number": 0.9, "/date": 0.99, "/total": 0.4}
    calibrator = Calibrator(coefficients=(0.0, 1.0, 0.0, 0.0, 0.0, 0.0))  # says what the probabilities say
    page = calibrator.page(units_of(answer, values, schema))
    assert page == pytest.approx(0.9 * 0.99 * 0.4)

    def routing(threshold: float | None) -> Routing:
        return Routing(on=threshold is not None, reason="", target_error=0.01, threshold=threshold, calibrator=calibrator)

    assert decide(answer, values, schema, routing(page - 1e-9)).route == "auto"
    above = decide(answer, values, schema, routing(0.95))
    assert (above.route, above.reasons) == ("review", ["unsure: total", "unsure: number"])
    assert decide(answer, values, schema, routing(page + 1e-6)).reasons == ["unsure: many fields a little"]
    for off in (None, routing(None)):
        assert decide(answer, values, schema, off).reasons == ["confidence_not_calibrated"]


def test_the_type_may_stand_in_the_query(client: TestClient) -> None:
    answer = client.post("/score?type=receipt", content=PAGE, headers={"content-type": "image/png; charset=binary"})
    assert answer.json()["schema"]["type"] == "receipt"


def test_a_picture_off_the_grid_goes_the_way_of_a_scan(client: TestClient, bundle: Bundle) -> None:
    from extraction_assets.documents.rendering import render_bytes

    with Image.open(io.BytesIO(page_png(256, 320, 3))) as page:
        file = io.BytesIO()
        page.convert("L").resize((300, 401)).save(file, "JPEG")
    (drawn,) = render_bytes(file.getvalue(), bundle.manifest.render).pages
    webp = io.BytesIO()
    with Image.open(file) as page:
        page.save(webp, "WEBP", lossless=True)
    on_grid = client.post("/score", content=drawn.png, headers=PNG).json()
    assert (
        client.post("/score", content=webp.getvalue(), headers={**PNG, "content-type": "image/webp"}).json()["answer"] == on_grid["answer"]
    )
    scan = client.post("/score", content=file.getvalue(), headers={**PNG, "content-type": "image/jpeg"}).json()
    assert scan["answer"] == on_grid["answer"]


def test_many_at_once_are_answered_like_one_by_one(client: TestClient) -> None:
    pages = [page_png(64 + 32 * (n % 3), 64, 100 + n) for n in range(8)]
    together: dict[int, Any] = {}

    def ask(number: int) -> None:
        together[number] = client.post("/score", content=pages[number], headers=PNG).json()["answer"]

    threads = [threading.Thread(target=ask, args=[number]) for number in range(len(pages))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = make_alone(client, pages)
    assert [together[number] for number in range(len(pages))] == alone


def make_alone(client: TestClient, pages: list[bytes]) -> list[Any]:
    engine = client.app._inner.routes[0].endpoint.__self__.engine  # type: ignore[attr-defined]
    engine._remembered.clear()  # else it would only repeat itself
    return [client.post("/score", content=page, headers=PNG).json()["answer"] for page in pages]


def test_the_same_page_is_answered_once(client: TestClient, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    assert endpoint.engine is not None
    first = client.post("/score", content=PAGE, headers=PNG).json()
    monkeypatch.setattr(Engine, "_settle", lambda *_: pytest.fail("answered again"))
    assert client.post("/score", content=PAGE, headers=PNG).json()["answer"] == first["answer"]


def test_answers_and_errors_are_as_the_openapi_document_says(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    definitions = {"components": document["components"]}
    ok = jsonschema_rs.validator_for({**definitions, "$ref": "#/components/schemas/ScoreResponse"})
    error = jsonschema_rs.validator_for({**definitions, "$ref": "#/components/schemas/ErrorResponse"})
    request = jsonschema_rs.validator_for({**definitions, "$ref": "#/components/schemas/ScoreRequest"})
    assert ok.is_valid(client.post("/score", json=as_json()).json())
    assert error.is_valid(client.post("/score", json={}).json())
    assert request.is_valid(as_json())
    assert not request.is_valid({"image": "aa", "type": "bank statement"})
    assert set(document["paths"]["/score"]["post"]["responses"]) == {
        "200",
        *(str(int(k.status)) for c, k in ERRORS.items() if c != "not_found"),
    }


def test_limits_are_published(client: TestClient, bundle: Bundle) -> None:
    limits = client.get("/limits").json()
    assert limits["types"] == bundle.manifest.schemas
    assert limits["render"]["max_visual_tokens"] == 40
    assert limits["max_image_mb"] == 0.5


# --- refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b"{}",
        b'{"image": 5, "type": "invoice"}',
        b'{"image": null, "type": "invoice"}',
        b'{"image": "", "type": "invoice"}',
        b'{"image": "@@@@", "type": "invoice"}',
        b'{"image": "\xc3\xa9", "type": "invoice"}',
        b'{"image": "YQ", "type": "invoice"}',
        b'{"image": "YWE=", "type": 7}',
        b'{"image": "YWE="}',
        b'{"image": "YWE=", "type": "invoice", "schema": {"type": "object"}}',
        b'{"image": ["YWE="], "type": "invoice"}',
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"1" * 5000,
    ],
)
def test_json_that_is_no_request_is_a_bad_request(client: TestClient, body: bytes) -> None:
    if b'"image": "YWE="}' in body:
        body = json.dumps({"image": base64.b64encode(PAGE).decode()}).encode()  # a page, but of which type?
    expect(client, "bad_request", content=body, headers={"content-type": "application/json"})


def test_a_url_is_never_fetched(client: TestClient) -> None:
    expect(client, "bad_request", json={"image": "http://127.0.0.1:1/page.png", "type": "invoice"})


@pytest.mark.parametrize(
    "media", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "image/gif", "image/tiff"]
)
def test_other_media_types_are_refused(client: TestClient, media: str) -> None:
    expect(client, "unsupported_media_type", content=PAGE, headers={"content-type": media})


@pytest.mark.parametrize("name", ["Invoice", "bank statement", "../invoice", "☃", ""])
def test_an_unknown_document_type_is_refused(client: TestClient, name: str) -> None:
    expect(client, "unknown_document_type", json=as_json(type=name))


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few kB that is `width` x `height` black pixels."""
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([1, 0, 0, 0, 0])
    rows = zlib.compress(bytes(min(height * (1 + width // 8), 20_000_000)), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(20_000, 20_000), (2**31 - 1, 2**31 - 1), (32, 32 * 201), (2500, 2500)])
def test_bombs_and_strips_are_refused_by_their_header(client: TestClient, size: tuple[int, int]) -> None:
    expect(client, "image_too_large", content=bomb(*size), headers=PNG)


def damaged() -> list[bytes]:
    grey = io.BytesIO()
    Image.new("RGB", (640, 480), "grey").save(grey, "JPEG")
    text_bomb = PAGE[:33] + chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(80_000_000), 9)) + PAGE[33:]
    off_grid = page_png(128, 96, 1)
    with Image.open(io.BytesIO(off_grid)) as page:
        cut = io.BytesIO()
        page.resize((150, 150)).save(cut, "PNG")
    return [
        PAGE[: len(PAGE) // 2],
        PAGE[:40],
        PAGE[:60] + bytes(40) + PAGE[100:],
        grey.getvalue()[:400],
        cut.getvalue()[: len(cut.getvalue()) // 2],
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"GIF89a" + bytes(100),
        b"%PDF-1.7\n",
        b"<svg/>",
        bytes(1000),
        text_bomb,
        bomb(0, 0),
    ]


@pytest.mark.parametrize("number", range(13))
def test_what_is_no_whole_picture_is_unreadable(client: TestClient, number: int) -> None:
    error = expect(client, "image_unreadable", content=damaged()[number], headers=PNG)
    assert "Traceback" not in error["message"]


@pytest.mark.parametrize("stated", [True, False])
def test_a_body_over_the_limit_is_refused_before_it_is_read(client: TestClient, stated: bool) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(200):
            yield bytes(10_000)

    body = bytes(600_000) if stated else endless()
    expect(client, "body_too_large", content=body, headers=PNG)
    expect(client, "body_too_large", content=b" " * 700_000, headers={"content-type": "application/json"})


@pytest.mark.parametrize(("method", "url", "code"), [
    ("GET", "/score", "method_not_allowed"),
    ("PUT", "/score", "method_not_allowed"),
    ("DELETE", "/score", "method_not_allowed"),
    ("POST", "/", "method_not_allowed"),
    ("POST", "/ready", "method_not_allowed"),
    ("GET", "/nothing", "not_found"),
    ("POST", "/score/", "not_found"),
    ("GET", "/../etc/passwd", "not_found"),
])  # fmt: skip
def test_other_methods_and_paths_are_refused(client: TestClient, method: str, url: str, code: str) -> None:
    client.follow_redirects = False
    expect(client, code, method, url)


@pytest.mark.parametrize(
    ("given", "kept"), [("abc-123", True), ("a" * 129, False), ("a b", False), ("\u00e9".encode().decode("latin-1"), False)]
)
def test_a_plain_request_id_comes_back(client: TestClient, given: str, kept: bool) -> None:
    answer = client.get("/", headers={b"x-request-id": given.encode("latin-1")})
    assert (answer.headers["x-request-id"] == given) == kept


def test_before_the_model_is_loaded_it_is_alive_and_not_ready(bundle: Bundle) -> None:
    with TestClient(Endpoint(bundle).application()) as client:
        assert client.get("/").status_code == client.get("/live").status_code == 200
        expect(client, "not_ready", content=PAGE, headers=PNG)
        expect(client, "not_ready", "GET", "/ready")


def test_a_truncated_answer_is_an_error_and_none_of_it_is_given(base_folder: Path, tmp_path: Path) -> None:
    from extraction_assets.settings import DecodingSettings

    bundle = make_bundle(tmp_path / "short", base_folder, decoding=DecodingSettings(max_output_tokens=6, batch_size=2))
    endpoint = Endpoint(bundle)
    endpoint.engine = Engine(bundle, bundle.load())
    with TestClient(endpoint.application()) as client:
        error = expect(client, "answer_truncated", content=PAGE, headers=PNG)
    assert "number" not in error["message"]
    endpoint.engine.close()


class _Stuck(Answerer):
    """Begins a page and does not end it until told to."""

    def __init__(self, like: Answerer) -> None:
        self.__dict__ = like.__dict__ | {"go_on": threading.Event()}

    def answer_stream(self, take: Any, settings: Any, longest: int) -> Iterator[Any]:
        while (prompt := take(True)) is not None:
            assert self.go_on.wait(30)  # type: ignore[attr-defined]
            yield from super().answer_stream(_once(prompt), settings, longest)


def _once(prompt: PagePrompt) -> Any:
    left = [prompt]
    return lambda wait: left.pop() if left else None


def test_a_flood_is_told_to_come_again_and_a_slow_answer_times_out(base_folder: Path, tmp_path: Path) -> None:
    from extraction_assets.settings import ServingSettings

    bundle = make_bundle(tmp_path / "slow", base_folder, ServingSettings(waiting=2, request_seconds=0.5))
    endpoint = Endpoint(bundle)
    answerer = _Stuck(bundle.load())
    endpoint.engine = Engine(bundle, answerer)
    with TestClient(endpoint.application()) as client:
        expect(client, "timed_out", content=page_png(64, 64, 0), headers=PNG)  # begun, and stuck
        for seed in (1, 2):
            expect(client, "timed_out", content=page_png(64, 64, seed), headers=PNG)  # waits
        expect(client, "overloaded", content=page_png(64, 64, 3), headers=PNG)
        assert client.get("/").status_code == 200
        answerer.go_on.set()  # type: ignore[attr-defined]
        for _ in range(60):  # the late answer is there for a retry; when it comes is the machine's affair
            retried = client.post("/score", content=page_png(64, 64, 1), headers=PNG)
            if retried.status_code == 200:
                break
            assert retried.json()["error"]["code"] == "timed_out"
        assert retried.status_code == 200
    endpoint.engine.close()


def test_the_model_gives_way_to_whoever_listens(endpoint: Endpoint, client: TestClient) -> None:
    assert client.post("/score", content=PAGE, headers=PNG).status_code == 200
    assert isinstance(endpoint.engine, Engine)
    assert os.getpriority(os.PRIO_PROCESS, endpoint.engine._thread.native_id or 0) > os.nice(0)


def test_a_fault_while_answering_fails_what_had_begun_and_no_more(bundle: Bundle) -> None:
    answerer = bundle.load()
    real = answerer._step
    faults = [RuntimeError("out of memory")]

    def step(*arguments: Any) -> None:
        if faults:
            raise faults.pop()
        real(*arguments)

    answerer._step = step  # type: ignore[method-assign]
    endpoint = Endpoint(bundle)
    endpoint.engine = Engine(bundle, answerer)
    with TestClient(endpoint.application()) as client:
        error = expect(client, "internal", content=PAGE, headers=PNG)
        assert "memory" not in error["message"]
        assert client.post("/score", content=PAGE, headers=PNG).status_code == 200
    endpoint.engine.close()


def test_a_slow_body_is_given_up(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    monkeypatch.setattr(server_module, "BODY_SECONDS", 0.05)

    async def call() -> int:
        sent: list[Any] = []

        async def receive() -> Any:
            await asyncio.sleep(60)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": "/score", "raw_path": b"/score", "query_string": b"", "root_path": "",
            "headers": [(b"content-type", b"image/png")], "scheme": "http", "server": ("x", 1), "client": ("x", 2), "http_version": "1.1",
        }  # fmt: skip
        await client.app(scope, receive, send)  # type: ignore[arg-type]
        return int(sent[0]["status"])

    assert asyncio.run(call()) == 408
