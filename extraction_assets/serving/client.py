"""Pages to an endpoint, in parallel, asked again where the contract says that this can help."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from extraction_assets.documents.media import SNIFF_BYTES, sniff
from extraction_assets.errors import InputError
from extraction_assets.serving.contract import DOCUMENT_TYPE
from extraction_assets.settings import RenderSettings

_RETRYABLE = {408, 429, 502, 503, 504}
"""of a proxy or of Azure's front end, whose errors have no code of ours"""
_AZURE_STATUS = "ms-azureml-model-error-statuscode"
"""on a 424: what the container itself answered"""
DEPLOYMENT = "azureml-model-deployment"
"""header that names a deployment behind an Azure ML endpoint"""
_LONGEST_PAUSE_S = 20.0


@dataclass(frozen=True)
class Refused:
    """A page that the endpoint did not answer."""

    code: str
    message: str


class EndpointClient:
    """Talks to one endpoint. Use it as a context manager."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        parallel: int = 4,
        seconds: float = 200.0,
        patience_s: float = 120.0,
        transport: httpx.BaseTransport | None = None,
        deployment: str | None = None,
    ) -> None:
        """url: the endpoint's root or its /score; key: goes into the Authorization header; seconds: for one request;
        patience_s: how long a page is asked again; transport: another way there than TCP; deployment: which one behind an Azure ML
        endpoint answers, whatever the traffic says. Raises InputError on an address that is none.
        """
        try:
            parsed = httpx.URL(url)
            host = urlsplit(url).hostname  # httpx would quote the bracket of http://[ and look the result up
        except (httpx.InvalidURL, ValueError) as error:
            raise InputError("--endpoint", f"{url[:200]!r} is no address: {error}", "http://HOST:PORT") from None
        if parsed.scheme not in ("http", "https") or not host or any(letter.isspace() for letter in host):
            raise InputError("--endpoint", f"{url[:200]!r} is no address", "http://HOST:PORT")
        self._root = url.rstrip("/").removesuffix("/score")
        self._parallel, self._patience_s = parallel, patience_s
        headers = {"authorization": f"Bearer {key}"} if key else {}
        if deployment:
            headers[DEPLOYMENT] = deployment
        limits = httpx.Limits(max_connections=parallel)
        self._http = httpx.Client(headers=headers, timeout=httpx.Timeout(seconds, connect=10.0), limits=limits, transport=transport)

    def __enter__(self) -> EndpointClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def render_settings(self, otherwise: RenderSettings) -> RenderSettings:
        """The endpoint's page budget, so that pages arrive on its grid; `otherwise` where it does not tell (Azure passes /score only)."""
        try:
            answer = self._http.get(f"{self._root}/limits", timeout=10.0)
            told = answer.json()["render"] if answer.status_code == 200 else None
            return otherwise if told is None else RenderSettings.from_json({**otherwise.model_dump(mode="json"), **told})
        except httpx.ConnectError:
            raise InputError(self._root, "nobody answers there", do="Start it with `extraction serve`, or correct --endpoint") from None
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return otherwise

    def score_each(self, pages: Sequence[bytes], type_name: str | None) -> Iterator[tuple[int, dict[str, Any] | Refused]]:
        """(index in pages, response or refusal) as they come. pages: PNG, JPEG or WebP bytes."""
        with ThreadPoolExecutor(self._parallel) as pool:
            futures = {pool.submit(self.score, page, type_name): index for index, page in enumerate(pages)}
            for future in as_completed(futures):
                yield futures[future], future.result()

    def score(self, page: bytes, type_name: str | None, sleep: Callable[[float], None] = time.sleep) -> dict[str, Any] | Refused:
        """One page, asked until it is answered, refused for good, or patience is at its end."""
        media = sniff(page[:SNIFF_BYTES]) or "image/png"
        headers = {"content-type": media, **({DOCUMENT_TYPE: type_name} if type_name else {})}
        deadline = time.monotonic() + self._patience_s
        pause = 0.5
        while True:
            try:
                answer = self._http.post(f"{self._root}/score", content=page, headers=headers)
                if answer.status_code == 200:
                    return dict(answer.json())
                refused, again = _refusal(answer)
                stated = answer.headers.get("retry-after", "")
            except httpx.TransportError as error:  # refused, reset, timed out: the page's answer does not depend on how often it is asked
                refused, again, stated = Refused("unreachable", f"{type(error).__name__}: {error}"), True, ""
            except ValueError:
                return Refused("bad_answer", "the endpoint answered 200 with something else than JSON")
            wait = max(pause * random.uniform(0.5, 1.0), float(stated) if stated.isdecimal() else 0.0)
            if not again or time.monotonic() + wait > deadline:
                return refused
            sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE_S)


def _refusal(answer: httpx.Response) -> tuple[Refused, bool]:
    """(why, can asking again help?)"""
    try:
        error = json.loads(answer.content)["error"]
        return Refused(str(error["code"]), str(error["message"])), bool(error["retryable"])
    except (ValueError, KeyError, TypeError):
        inner = answer.headers.get(_AZURE_STATUS, "")
        status = int(inner) if answer.status_code == 424 and inner.isdecimal() else answer.status_code
        return Refused(f"http_{status}", answer.text[:200] or answer.reason_phrase), status in _RETRYABLE
