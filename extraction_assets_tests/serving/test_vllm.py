"""The endpoint in front of vLLM: the same contract and answers as the model in process, against a double that keeps vLLM's rules."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import llguidance
import pytest
from starlette.testclient import TestClient

from extraction_assets.errors import InputError
from extraction_assets.inference.grammar_rules import rules
from extraction_assets.serving.bundle import GOLDEN, Bundle
from extraction_assets.serving.engine import Engine
from extraction_assets.serving.golden import check_golden
from extraction_assets.serving.server import Endpoint
from extraction_assets.serving.vllm import VllmAnswerer, VllmEngine, uncalibrated
from extraction_assets_tests.model.pages import page_png
from extraction_assets_tests.serving.running import Serving, wait_for
from extraction_assets_tests.serving.vllm_double import VllmDouble

PNG = {"content-type": "image/png"}


@pytest.fixture(scope="module")
def double(bundle: Bundle) -> Iterator[VllmDouble]:
    with VllmDouble(bundle) as double:
        yield double


@pytest.fixture
def client(bundle: Bundle, double: VllmDouble) -> Iterator[TestClient]:
    double.status, double.spoil, double.ready = 200, lambda told: None, True
    endpoint = Endpoint(uncalibrated(bundle))
    endpoint.engine = VllmEngine(uncalibrated(bundle), VllmAnswerer(double.url))
    with TestClient(endpoint.application()) as client:
        yield client
    endpoint.engine.close()


def test_its_answers_are_those_of_the_model_in_process_to_the_byte(bundle: Bundle, client: TestClient) -> None:
    endpoint = Endpoint(bundle)
    endpoint.engine = Engine(bundle, bundle.load())
    with TestClient(endpoint.application()) as here:
        for seed in range(4):
            for name in bundle.schemas:
                png = page_png(96, 64 + 32 * (seed % 2), seed)
                answers = [one.post("/score", params={"type": name}, content=png, headers=PNG).json() for one in (client, here)]
                assert json.dumps(answers[0]["answer"]) == json.dumps(answers[1]["answer"])
                assert answers[0]["model"] == answers[1]["model"]
                assert answers[0]["confidence"]["fields"].keys() == answers[1]["confidence"]["fields"].keys()
                assert answers[0]["decision"] == {"route": "review", "reasons": ["confidence_not_calibrated"]}
    endpoint.engine.close()


def test_the_golden_pages_prove_it(bundle: Bundle, double: VllmDouble) -> None:
    double.status = 200
    answerer = VllmAnswerer(double.url)
    answerer.wait_ready()
    check = check_golden(bundle, answerer)
    assert (check.equal, check.agreement) == (check.pages, 1.0)


def test_the_grammar_that_is_sent_takes_what_is_compact_and_nothing_else(bundle: Bundle, client: TestClient, double: VllmDouble) -> None:
    assert client.post("/score", params={"type": "receipt"}, content=page_png(64, 64, 9), headers=PNG).status_code == 200
    sent = double.asked[-1]["structured_outputs"]
    assert sent == {"grammar": rules(bundle.schemas["receipt"])}
    start = llguidance.LLMatcher(double._vocabulary.llguidance, llguidance.grammar_from("grammar", sent["grammar"]))

    def takes(text: str) -> bool:
        matcher = start.deep_copy()
        tokens = double._vocabulary.tokenizer.encode(text, add_special_tokens=False)
        return matcher.validate_tokens(tokens) == len(tokens) and matcher.consume_tokens(tokens) and matcher.is_accepting()

    good = '{"number":"R-1","date":"2024-02-29","total":"1.50"}'
    assert takes(good)
    for bad in (good.replace(":", ": "), good.replace("29", "30"), good.replace(',"total":"1.50"', ""), f"```json\n{good}"):
        assert not takes(bad), bad


def test_the_same_page_at_once_is_asked_once(client: TestClient, double: VllmDouble) -> None:
    before = len(double.asked)
    png = page_png(64, 96, 77)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: client.post("/score", params={"type": "invoice"}, content=png, headers=PNG).json(), range(6)))
    assert len(double.asked) - before == 1
    assert all(answer["answer"] == answers[0]["answer"] for answer in answers)


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [(400, "internal", True), (500, "internal", True), (429, "overloaded", True), (503, "overloaded", True)],
)
def test_what_vllm_refuses_is_an_error_of_the_contract_and_quotes_nothing(
    client: TestClient, double: VllmDouble, status: int, code: str, retryable: bool, caplog: pytest.LogCaptureFixture
) -> None:
    double.status = status
    with caplog.at_level(logging.INFO):
        answer = client.post("/score", params={"type": "invoice"}, content=page_png(64, 64, 500 + status), headers=PNG)
    assert (answer.json()["error"]["code"], answer.json()["error"]["retryable"]) == (code, retryable)
    assert "quotes the page" not in answer.text + caplog.text


def test_half_an_answer_is_no_answer(client: TestClient, double: VllmDouble) -> None:
    double.spoil = lambda told: told["choices"][0].update(finish_reason="length")
    answer = client.post("/score", params={"type": "invoice"}, content=page_png(64, 64, 601), headers=PNG)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "answer_truncated")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"finish_reason": "abort"}, "internal"),
        ({"message": {"role": "assistant", "content": "I cannot read this."}}, "answer_invalid"),
        ({"message": None}, "internal"),
    ],
)
def test_another_answer_than_asked_for_is_refused(client: TestClient, double: VllmDouble, change: dict[str, object], code: str) -> None:
    double.spoil = lambda told: told["choices"][0].update(change)
    answer = client.post("/score", params={"type": "invoice"}, content=page_png(64, 64, 610 + len(code)), headers=PNG)
    assert answer.json()["error"]["code"] == code


def test_a_model_that_is_gone_is_not_ready_and_may_be_asked_again(bundle: Bundle) -> None:
    endpoint = Endpoint(bundle)
    endpoint.engine = VllmEngine(bundle, VllmAnswerer("http://127.0.0.1:9"))
    with TestClient(endpoint.application()) as client:
        answer = client.post("/score", params={"type": "invoice"}, content=page_png(64, 64, 1), headers=PNG)
    assert (answer.status_code, answer.json()["error"]["code"], answer.json()["error"]["retryable"]) == (503, "not_ready", True)
    endpoint.engine.close()


def test_it_waits_for_vllm_and_refuses_another_model(bundle: Bundle) -> None:
    with VllmDouble(bundle, name="another") as double:
        double.ready = False
        pauses: list[float] = []

        def sleep(seconds: float) -> None:
            pauses.append(seconds)
            double.ready = len(pauses) == 3

        with pytest.raises(InputError, match="serves another"):
            VllmAnswerer(double.url).wait_ready(60, sleep)
        assert len(pauses) == 3
        double.ready = False
        with pytest.raises(InputError, match="not ready within 0 s"):
            VllmAnswerer(double.url).wait_ready(0, lambda _: None)


def test_an_adapter_that_is_not_merged_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    import dataclasses
    import shutil

    apart = dataclasses.replace(bundle, folder=Path(shutil.copytree(bundle.folder, tmp_path / "copy")))
    (apart.folder / "adapter").mkdir()
    with pytest.raises(InputError, match=r"merged"):
        uncalibrated(apart)


@pytest.mark.slow
def test_extraction_serve_in_front_of_vllm_becomes_ready_and_answers(bundle: Bundle, double: VllmDouble) -> None:
    from extraction_assets.serving.client import EndpointClient

    double.status, double.spoil, double.ready = 200, lambda told: None, True
    serving = Serving(bundle.folder, "--vllm", double.url)
    try:
        serving.wait_ready()
        page = bundle.manifest.golden[0]
        with EndpointClient(serving.url) as client:
            answer = client.score((bundle.folder / GOLDEN / f"{page.page}.png").read_bytes(), page.type)
        assert isinstance(answer, dict)
        assert json.dumps(answer["answer"], ensure_ascii=False, separators=(",", ":")) == page.text
        wait_for(lambda: any("golden pages answered to the byte" in line for line in serving.lines))
    finally:
        assert serving.end() == 0
