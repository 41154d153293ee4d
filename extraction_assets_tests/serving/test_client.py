"""What the client asks again, what it takes for an answer, and that no page is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from extraction_assets.errors import InputError
from extraction_assets.serving.client import EndpointClient, Refused
from extraction_assets.serving.contract import ERRORS, ServingError
from extraction_assets.settings import RenderSettings

ANSWER = {"answer": {"number": "7"}}


def client(
    *answers: Callable[[httpx.Request], httpx.Response] | httpx.Response, **options: Any
) -> tuple[EndpointClient, list[httpx.Request]]:
    """One that gets these answers in turn, the last one for ever."""
    asked: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        answer = answers[min(len(asked), len(answers)) - 1]
        return answer(request) if callable(answer) else httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    return EndpointClient("http://endpoint", transport=httpx.MockTransport(handle), **options), asked


def refusal(code: str) -> httpx.Response:
    error = ServingError(code, "why")
    return httpx.Response(int(error.kind.status), json=error.body("id"))


@pytest.mark.parametrize("code", ERRORS)
def test_what_can_succeed_later_is_asked_again_and_nothing_else(code: str) -> None:
    endpoint, asked = client(refusal(code), refusal(code), httpx.Response(200, json=ANSWER))
    answer = endpoint.score(b"\x89PNG", "invoice", sleep=lambda _: None)
    if ERRORS[code].retryable:
        assert (answer, len(asked)) == (ANSWER, 3)
    else:
        assert (answer, len(asked)) == (Refused(code, "why"), 1)


def refused_connection(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused")


def reset(request: httpx.Request) -> httpx.Response:
    raise httpx.RemoteProtocolError("reset in the middle")


@pytest.mark.parametrize(
    ("trouble", "again"),
    [
        (refused_connection, True),
        (reset, True),
        (httpx.Response(502, text="<html>bad gateway"), True),
        (httpx.Response(429), True),
        (httpx.Response(408), True),
        (httpx.Response(401, text="key"), False),
        (httpx.Response(424, headers={"ms-azureml-model-error-statuscode": "503"}), True),
        (httpx.Response(424, headers={"ms-azureml-model-error-statuscode": "422"}), False),
        (httpx.Response(424), False),
    ],
)
def test_troubles_of_the_way_there(trouble: Any, again: bool) -> None:
    endpoint, asked = client(trouble, httpx.Response(200, json=ANSWER))
    answer = endpoint.score(b"\x89PNG", None, sleep=lambda _: None)
    assert (answer == ANSWER, len(asked)) == ((True, 2) if again else (False, 1))


def test_it_waits_as_long_as_the_server_says_and_gives_up_in_time() -> None:
    waits: list[float] = []
    endpoint, _ = client(httpx.Response(429, headers={"retry-after": "7"}), httpx.Response(200, json=ANSWER))
    endpoint.score(b"", None, sleep=waits.append)
    assert waits[0] == 7
    endpoint, asked = client(httpx.Response(429, headers={"retry-after": "7"}), patience_s=1)
    assert endpoint.score(b"", None, sleep=waits.append) == Refused("http_429", "Too Many Requests")
    assert len(asked) == 1


def test_pages_come_back_under_their_own_number() -> None:
    endpoint, asked = client(lambda request: httpx.Response(200, json={"answer": {"page": request.content.decode()}}))
    pages = [str(number).encode() for number in range(20)]
    answers = dict(endpoint.score_each(pages, "invoice"))
    assert [answers[number]["answer"]["page"] for number in range(20)] == [str(number) for number in range(20)]
    assert {request.headers["x-document-type"] for request in asked} == {"invoice"}


def test_the_endpoints_page_budget_is_taken_where_it_tells() -> None:
    told, own = {"dpi": 144.0, "max_visual_tokens": 640, "max_pages": 9}, RenderSettings(passwords=("secret",))
    endpoint, _ = client(httpx.Response(200, json={"render": told}))
    assert endpoint.render_settings(own) == RenderSettings(passwords=("secret",), **told)
    for silent in (httpx.Response(404), httpx.Response(200, text="hello"), httpx.Response(200, json={"render": 5}), reset):
        assert client(silent)[0].render_settings(own) == own
    with pytest.raises(InputError, match="nobody answers"):
        client(refused_connection)[0].render_settings(own)


def test_a_key_goes_into_the_header() -> None:
    endpoint, asked = client(httpx.Response(200, json=ANSWER), key="k")
    endpoint.score(b"", None)
    assert asked[0].headers["authorization"] == "Bearer k"


@pytest.mark.parametrize("url", ["endpoint", "ftp://endpoint", "http://", "http://[", "http://[]", "http://a b", ""])
def test_an_address_that_is_none_is_one_clear_line(url: str) -> None:
    with pytest.raises(InputError, match="no address"):
        EndpointClient(url)
