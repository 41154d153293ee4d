"""Clients of the endpoint, for Locust: each asks for the next page as soon as it has an answer, until TOTAL pages were asked for.

What serving.py sets: PAGES (a folder of page images, in the order of their names), TYPES (a JSON list, the document type of each), FIRST and TOTAL
(numbers of the requests), ANSWERS (where a line of JSON a request goes). Request n carries page n modulo their number, with a text chunk that
holds n: the same pixels, but other bytes, so that no answer comes from the server's memory.
"""

from __future__ import annotations

import itertools
import json
import os
import time
import zlib
from pathlib import Path
from typing import Any

from locust import HttpUser, constant, task
from locust.exception import StopUser

_IMAGES = [path.read_bytes() for path in sorted(Path(os.environ["PAGES"]).iterdir())]
_TYPES = json.loads(os.environ["TYPES"])
_FIRST, _TOTAL = int(os.environ["FIRST"]), int(os.environ["TOTAL"])
_numbers = itertools.count()
_answers = open(os.environ["ANSWERS"], "w", encoding="utf-8")  # noqa: SIM115  # as long as the process lives
_HEADER_END = 33
"""of a PNG: its signature and IHDR"""
_done = 0


def numbered(png: bytes, number: int) -> bytes:
    """The same picture in other bytes."""
    data = b"tEXt" + b"request\0" + str(number).encode()
    chunk = (len(data) - 4).to_bytes(4, "big") + data + zlib.crc32(data).to_bytes(4, "big")
    return png[:_HEADER_END] + chunk + png[_HEADER_END:]


class Client(HttpUser):
    wait_time = constant(0)

    @task
    def ask(self) -> None:
        global _done
        number = next(_numbers)
        if number >= _TOTAL:
            raise StopUser
        page = number % len(_IMAGES)
        headers = {"content-type": "image/png", "x-document-type": _TYPES[page]}
        body = numbered(_IMAGES[page], _FIRST + number)
        began = time.time()
        with self.client.post("/score", data=body, headers=headers, name="/score", catch_response=True) as answer:
            ended = time.time()
            told: dict[str, Any]
            try:
                told = answer.json()
                code = told["error"]["code"] if "error" in told else "ok"
            except (ValueError, KeyError, TypeError):
                told, code = {}, f"http_{answer.status_code}"
            if code in ("ok", "answer_truncated"):  # the second is the model's, not the server's
                answer.success()
            else:
                answer.failure(code)
        line = {"page": page, "code": code, "began": began, "ended": ended, "answer": told.get("answer")}
        _answers.write(json.dumps(line) + "\n")
        _done += 1
        if _done == _TOTAL:
            _answers.close()
            self.environment.runner.quit()
