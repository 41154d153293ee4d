"""Requests of strangers, byte for byte, and what each must be answered: sent through plain sockets, so that no client library mends them."""

from __future__ import annotations

import base64
import contextlib
import gzip
import http.client
import io
import json
import random
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
from PIL import Image

from extraction_assets.serving.contract import ERRORS
from extraction_assets_tests.model.pages import page_png

PATIENCE_S = 120.0
"""for one answer; a server that takes longer gives none"""
HTTP_400 = "http_400"
"""what is no HTTP has no request id: uvicorn's own 400, or the connection is closed"""
CLOSED = "closed"
OK = "ok"
_LEAKS = ("Traceback", 'File "', "site-packages", "Error(", "Errno")
Sent = Iterator[bytes | float]
"""bytes to send, and seconds to pause"""


@dataclass(frozen=True)
class Hostile:
    group: str
    name: str
    sent: Callable[[], Sent]
    expected: frozenset[str]
    """codes of which one must come: a name of ERRORS, OK, HTTP_400 or CLOSED"""
    slow: bool = False
    """takes seconds by its nature"""
    leaves: bool = False
    """hangs up without reading an answer"""
    head: bool = False
    """a HEAD request: its answer has no body"""

    def __str__(self) -> str:
        return f"{self.group}: {self.name}"


@dataclass(frozen=True)
class Outcome:
    code: str
    wrong: str = ""
    """what is wrong with the answer, whatever its code"""


@dataclass(frozen=True)
class Limits:
    """What the requests are made to break."""

    type: str
    image_bytes: int
    megapixels: float
    body_seconds: float

    @classmethod
    def of(cls, url: str) -> Limits:
        told = httpx.get(f"{url}/limits", timeout=PATIENCE_S).json()
        return cls(next(iter(told["types"])), int(told["max_image_mb"] * 1e6), told["max_megapixels"], told["body_seconds"])


# --- sending --------------------------------------------------------------------------------------------------------------


def send(url: str, hostile: Hostile) -> Outcome:
    """What the server answered, and whether the answer is an honest one by the contract."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    with socket.create_connection((parts.hostname, parts.port or 80), timeout=PATIENCE_S) as connection:
        sending = threading.Thread(target=_send, args=[connection, hostile.sent()], daemon=True)
        sending.start()
        if hostile.leaves:
            sending.join()
            return Outcome(CLOSED)
        try:
            answer = http.client.HTTPResponse(connection, method="HEAD" if hostile.head else "POST")
            answer.begin()
            body = answer.read()
        except TimeoutError:
            return Outcome("no_answer", f"nothing came within {PATIENCE_S:g} s")
        except (http.client.HTTPException, OSError):
            return Outcome(CLOSED)
        return _judge(answer.status, {name.lower(): value for name, value in answer.getheaders()}, body, hostile.head)


def _send(connection: socket.socket, sent: Sent) -> None:
    with contextlib.suppress(OSError):  # the server may hang up first
        for part in sent:
            if isinstance(part, float):
                time.sleep(part)
            else:
                connection.sendall(part)


def _judge(status: int, headers: Mapping[str, str], body: bytes, head: bool) -> Outcome:
    text = body.decode("utf-8", "replace")
    if leak := next((mark for mark in _LEAKS if mark in text), None):
        return Outcome(str(status), f"the answer holds {leak!r}")
    if status == 400 and "x-request-id" not in headers:
        return Outcome(HTTP_400)
    if head:
        return Outcome(OK if status == 200 else next((code for code, kind in ERRORS.items() if kind.status == status), str(status)))
    try:
        told = json.loads(body)
        if status == 200:
            return Outcome(OK)
        error = told["error"]
        code, retryable, request_id = error["code"], error["retryable"], error["request_id"]
        kind = ERRORS[code]
    except (ValueError, KeyError, TypeError):
        return Outcome(f"http_{status}", f"the body is not that of an error: {text[:120]!r}")
    for holds, what in (
        (status == kind.status, f"status {status} with code {code}"),
        (retryable == kind.retryable, "retryable"),
        (request_id == headers.get("x-request-id"), "request id"),
        (("retry-after" in headers) == kind.retryable, "retry-after"),
        (set(error) == {"code", "message", "retryable", "request_id"}, f"keys {sorted(error)}"),
        (len(error["message"]) < 500, "a message of over 500 characters"),
    ):
        if not holds:
            return Outcome(code, what)
    return Outcome(code)


# --- the requests -------------------------------------------------------------------------------------------------------------

PAGE = page_png(128, 96, 5)
PNG = {"content-type": "image/png"}
JSON = {"content-type": "application/json"}


def hostile_requests(limits: Limits) -> list[Hostile]:
    """All of them, for a server with these limits; the same each time."""
    made = [
        *_json_bodies(limits), *_types(limits), *_media(limits), *_pictures(limits), *_bombs(limits), *_sizes(limits), *_paths(limits),
        *_protocol(limits), *_ids(limits), *_slow(limits),
    ]  # fmt: skip
    assert len({str(one) for one in made}) == len(made)
    return made


def flood(limits: Limits, count: int) -> list[Hostile]:
    """Valid pages, each another, to be sent all at once."""
    codes = (OK, "overloaded", "timed_out")
    return [
        _post("flood", f"page {number}", f"/score?type={limits.type}", PNG, page_png(64, 64, 1000 + number), *codes)
        for number in range(count)
    ]


def _post(group: str, name: str, path: str, headers: Mapping[str, str], body: bytes, *codes: str) -> Hostile:
    return Hostile(group, name, lambda: iter([_head("POST", path, headers, len(body)), body]), frozenset(codes))


def _head(method: str, path: str, headers: Mapping[str, str], length: int | None = None) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: endpoint", *(f"{name}: {value}" for name, value in headers.items())]
    if length is not None:
        lines.append(f"content-length: {length}")
    return "\r\n".join([*lines, "", ""]).encode("utf-8")


def _json_bodies(limits: Limits) -> Iterator[Hostile]:
    image = base64.b64encode(PAGE).decode()
    values = ["null", "true", "5", "-1e999", "NaN", "[]", "{}", '["a"]', '{"a": 1}', '""', '"@@@@"', '"YQ"', '"YQ="', '"YQ=====" ', '"Y Q="', '"YWE=YWE="',
              '"\\n"', '"-_-_"', '"\\u0000"', '"\\ud800"', '"\u00e9"', '"\u2603\U0001f4c4"', '"data:image/png;base64,YWE="', '"http://127.0.0.1:1/a.png"',
              '"file:///etc/passwd"']  # fmt: skip
    bodies: list[tuple[str, bytes]] = [
        (f"image is {value}", f'{{"image": {value}, "type": "{limits.type}"}}'.encode("utf-8", "surrogatepass")) for value in values
    ]
    for value in ("7", "true", "[]", "{}", "1.5", f'["{limits.type}"]', "NaN", "Infinity"):
        bodies.append((f"type is {value}", f'{{"image": "{image}", "type": {value}}}'.encode()))
    for key in (
        "schema",
        "url",
        "image_url",
        "instruction",
        "prompt",
        "model",
        "adapter",
        "max_tokens",
        "callback",
        "__proto__",
        "",
        "Image",
        "\u0000",
    ):
        bodies.append((f"also a key {key!r}", json.dumps({"image": image, "type": limits.type, key: "x"}).encode()))
    whole = json.dumps({"image": image, "type": limits.type}).encode()
    bodies += [(f"cut at {share} %", whole[: len(whole) * share // 100]) for share in (1, 10, 50, 90, 99)]
    big = min(limits.image_bytes, 4_000_000)
    bodies += [
        ("empty", b""), ("a space", b" "), ("a brace", b"{"), ("two documents", whole + whole), ("a comma too many", whole[:-1] + b",}"),
        ("a list", b"[]"), ("the request in a list", b"[" + whole + b"]"), ("null", b"null"), ("a number", b"1"), ("text", b'"text"'),
        ("a literal cut off", b"tru"), ("single quotes", whole.replace(b'"', b"'")), ("a comment", b"/* */" + whole), 
        ("UTF-16", whole.decode().encode("utf-16-le")[:-1]), ("no UTF-8", b"\xff\xfe\xfd"), ("latin-1", b'{"image": "\xe9"}'), ("zeros", bytes(1000)),
        ("a zero byte behind it", whole + b"\0"), ("gzip", gzip.compress(whole)), ("YAML", b"image: x"), ("XML", b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><a>&x;</a>"),
        ("form in JSON's clothes", b"image=x&type=invoice"), ("a pickle", b"\x80\x04\x95\x0c\x00\x00\x00\x00\x00\x00\x00\x8c\x08builtins."),
        ("deep lists", b"[" * 100_000), ("deep objects", b'{"a":' * 50_000), ("deep, closed", b"[" * 1900 + b"]" * 1900), ("an int of 5,000 digits", b"1" * 5000),
        ("an image of deep lists", b'{"image": ' + b"[" * 3000 + b"]" * 3000 + b"}"), ("type nowhere and image nowhere", b'{"a": "b"}'),
        ("megabytes of list", b"[" + b"0," * (big // 2) + b"0]"), ("megabytes of objects", b"[" + b"{}," * (big // 3) + b"{}]"),
        ("megabytes of digits", b"0." + b"1" * big), ("megabytes of spaces", b" " * big), ("megabytes of quotes", b'"' * big),
        ("a key of megabytes", b'{"' + b"a" * big + b'": 1}'), ("a type of megabytes", f'{{"image": "{image}", "type": "'.encode() + b"a" * (big // 2) + b'"}'),
        ("an image of megabytes of escapes", b'{"image": "' + b"\\u0041" * (big // 7) + b"\\ud8", ), ("thousands of images", b"{" + b'"image": "YWE=",' * 200 + b'"image": 1}'),
    ]  # fmt: skip
    for name, body in bodies:
        yield _post("json", name, "/score", JSON, body, "bad_request")
    yield _post(
        "json",
        "base64 of nothing that is a picture",
        "/score",
        JSON,
        json.dumps({"image": "YWFhYWFhYWE=", "type": limits.type}).encode(),
        "image_unreadable",
    )
    yield _post(
        "json",
        "duplicate keys, the last one counts",
        "/score",
        JSON,
        f'{{"type": 1, "image": "{image}", "type": "{limits.type}"}}'.encode(),
        OK,
    )
    yield _post("json", "a byte order mark, which a parser may pass over", "/score", JSON, b"\xef\xbb\xbf" + whole, OK)
    yield _post("json", "keys with escapes", "/score", JSON, f'{{"im\\u0061ge": "{image}", "type": "{limits.type}"}}'.encode(), OK)
    yield _post("json", "type is null", "/score", JSON, f'{{"image": "{image}", "type": null}}'.encode(), OK, "bad_request")


def _types(limits: Limits) -> Iterator[Hostile]:
    names = ["x", limits.type.upper(), f" {limits.type}", f"{limits.type} ", f"{limits.type}\n", f"{limits.type}\x00", "../" + limits.type, "/etc/passwd", "..", "*", "%s%n", "${jndi:ldap://x}",
             "'; DROP TABLE pages; --", "<script>alert(1)</script>", "\u2603", "\u0438nvoice", "\u202eeciovni", "\U0001f4c4", "a" * 1000, "None", "null", "0", "[]", "{{7*7}}"]  # fmt: skip
    image = base64.b64encode(PAGE).decode()
    for name in names:
        yield _post(
            "type", f"in JSON: {name[:40]!r}", "/score", JSON, json.dumps({"image": image, "type": name}).encode(), "unknown_document_type"
        )
        yield _post("type", f"in the query: {name[:40]!r}", f"/score?type={quote(name, safe='')}", PNG, PAGE, "unknown_document_type")
    for name in ("x", "\u2603", "../a", "a" * 1000):
        yield _post("type", f"in a header: {name[:40]!r}", "/score", {**PNG, "x-document-type": name}, PAGE, "unknown_document_type")
    for raw in ("%ff%fe", "%00", "%", "%zz", "a&type=b"):
        yield _post("type", f"raw query {raw}", f"/score?type={raw}", PNG, PAGE, "unknown_document_type")


def _media(limits: Limits) -> Iterator[Hostile]:
    form = b"image=" + quote(base64.b64encode(PAGE)).encode() + b"&type=" + limits.type.encode()
    parts = (
        b'--x\r\ncontent-disposition: form-data; name="image"; filename="a.png"\r\ncontent-type: image/png\r\n\r\n'
        + PAGE
        + b"\r\n--x--\r\n"
    )
    for media, body in (
        ("application/x-www-form-urlencoded", form), ("multipart/form-data; boundary=x", parts), ("multipart/form-data", parts), ("text/plain", PAGE), ("image/gif", PAGE),
        ("image/tiff", PAGE), ("image/bmp", PAGE), ("image/svg+xml", b"<svg/>"), ("image/*", PAGE), ("*/*", PAGE), ("image/pngx", PAGE), ("application/pdf", b"%PDF-1.7"),
        ("application/octet-stream", PAGE), ("application/xml", b"<a/>"), ("application/x-ndjson", b"{}"), ("application/json-patch+json", b"[]"), ("text/json", b"{}"),
        (";", PAGE), ("/", PAGE), ("\u00e9", PAGE), ("a" * 3000, PAGE), ("application/x-python-pickle", b"\x80\x04."), ("image/avif", PAGE), ("image/heic", PAGE),
    ):  # fmt: skip
        yield _post("media type", media[:40], f"/score?type={limits.type}", {"content-type": media}, body, "unsupported_media_type")
    yield _post("media type", "none", f"/score?type={limits.type}", {}, PAGE, "unsupported_media_type")
    yield _post("media type", "an image said to be JSON", "/score", JSON, PAGE, "bad_request")
    yield _post("media type", "JSON said to be an image", f"/score?type={limits.type}", PNG, b'{"image": "YWE="}', "image_unreadable")
    yield _post("media type", "IMAGE/PNG; x=y", f"/score?type={limits.type}", {"content-type": "IMAGE/PNG; x=y"}, PAGE, OK)
    yield _post("media type", "an empty image", f"/score?type={limits.type}", PNG, b"", "bad_request")


def _pictures(limits: Limits) -> Iterator[Hostile]:
    made: dict[str, bytes] = {}
    with Image.open(io.BytesIO(page_png(150, 130, 8))) as page:
        for kind in ("PNG", "JPEG", "WEBP"):
            file = io.BytesIO()
            page.save(file, kind)
            made[f"{kind} off the grid"] = file.getvalue()
    made["PNG on the grid"] = PAGE
    pictures: list[tuple[str, bytes]] = []
    for kind, data in made.items():
        pictures += [(f"{kind}, cut at {share} %", data[: len(data) * share // 100]) for share in (3, 10, 25, 40, 55, 70, 85)]
    rng = random.Random(0)
    for number in range(12):  # every byte of a PNG's chunks is under a CRC
        at = rng.randrange(16, len(PAGE) - 12)
        pictures.append((f"PNG with byte {at} altered ({number})", PAGE[:at] + bytes([PAGE[at] ^ 0x55]) + PAGE[at + 1 :]))
    signatures = {
        "GIF": b"GIF89a", "BMP": b"BM", "TIFF": b"II*\0", "PDF": b"%PDF-1.7\n", "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='http://127.0.0.1:1/'/></svg>",
        "ICO": b"\0\0\1\0", "PSD": b"8BPS", "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n", "HEIC": b"\0\0\0\x18ftypheic", "zip": b"PK\3\4", "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n",
        "RIFF that is sound": b"RIFF\x24\0\0\0WAVEfmt ", "PNG's signature": b"\x89PNG\r\n\x1a\n", "JPEG's signature": b"\xff\xd8\xff", "zeros": b"", "a script": b"#!/bin/sh\nreboot\n",
        "a pickle": b"\x80\x04\x95", "ELF": b"\x7fELF",
    }  # fmt: skip
    pictures += [(f"{name} and zeros", start + bytes(200)) for name, start in signatures.items()]
    pictures += [
        ("one byte", b"\x89"),
        ("noise", rng.randbytes(5000)),
        ("PNG with its end first", PAGE[:8] + _chunk(b"IEND", b"") + PAGE[8:]),
    ]
    pictures += [
        ("PNG without pixels", PAGE[:33] + _chunk(b"IEND", b"")),
        ("PNG of another's pixels", PAGE[:33] + _chunk(b"IDAT", zlib.compress(b"x")) + _chunk(b"IEND", b"")),
    ]
    for name, data in pictures:
        yield _post("picture", name, f"/score?type={limits.type}", PNG, data, "image_unreadable")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def _png(width: int, height: int, *more: bytes, rows: int = 20_000_000) -> bytes:
    """A black one-bit PNG of a few kB, `more` being chunks before its pixels."""
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([1, 0, 0, 0, 0])
    pixels = zlib.compress(bytes(min(height * (1 + (width + 7) // 8), rows)), 9)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + b"".join(more) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _bombs(limits: Limits) -> Iterator[Hostile]:
    path = f"/score?type={limits.type}"
    edge = int((limits.megapixels * 1e6) ** 0.5)
    for width, height in ((edge + 32, edge + 32), (20_000, 20_000), (65_535, 65_535), (2**31 - 1, 1), (1, 2**31 - 1), (2**31 - 1, 2**31 - 1), (32, 32 * 201), (100_000, 32), (2**20, 2**10)):  # fmt: skip
        yield _post("bomb", f"PNG of {width} x {height}", path, PNG, _png(width, height, rows=200_000), "image_too_large")
    with Image.open(io.BytesIO(PAGE)) as page:
        file = io.BytesIO()
        page.save(file, "JPEG")
    jpeg = bytearray(file.getvalue())
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    yield _post("bomb", "JPEG of 65535 x 65535", path, {"content-type": "image/jpeg"}, bytes(jpeg), "image_too_large")
    for width, height in ((0, 0), (0, 32), (2**32 - 1, 2**32 - 1)):
        yield _post("bomb", f"PNG of {width} x {height}", path, PNG, _png(width, height, rows=1000), "image_unreadable", "image_too_large")
    packed = zlib.compress(bytes(80_000_000), 9)
    for kind, data in ((b"zTXt", b"k\0\0" + packed), (b"iTXt", b"k\0\1\0\0\0" + packed), (b"iCCP", b"k\0\0" + packed)):
        # what a reader may not need it may skip; no more than that
        yield _post("bomb", f"80 MB in {kind.decode()}", path, PNG, PAGE[:33] + _chunk(kind, data) + PAGE[33:], "image_unreadable", OK)
    pixels = PAGE[:33] + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")
    yield _post("bomb", "80 MB of pixels in a small PNG", path, PNG, pixels, "image_unreadable", OK)
    many = min(limits.image_bytes, 2_000_000) // 20
    yield _post("bomb", f"{many} empty chunks", path, PNG, PAGE[:33] + _chunk(b"teXt", b"") * many + PAGE[33:], OK, "image_unreadable")
    image = base64.b64encode(_png(20_000, 20_000, rows=200_000)).decode()
    yield _post("bomb", "in JSON", "/score", JSON, json.dumps({"image": image, "type": limits.type}).encode(), "image_too_large")


def _sizes(limits: Limits) -> Iterator[Hostile]:
    path = f"/score?type={limits.type}"

    def endless(head: bytes, total: int, chunked: bool) -> Callable[[], Sent]:
        block = bytes(1_000_000)

        def sent() -> Sent:
            yield head
            for _ in range(total // len(block)):
                yield b"f4240\r\n" + block + b"\r\n" if chunked else block

        return sent

    large = 200_000_000
    for name, headers in (("an image", PNG), ("JSON", JSON)):
        yield Hostile(
            "size", f"200 MB of {name}", endless(_head("POST", path, headers, large), large, False), frozenset(["body_too_large"])
        )
        yield Hostile("size", f"200 MB of {name} in chunks", endless(_head("POST", path, {**headers, "transfer-encoding": "chunked"}), large, True), frozenset(["body_too_large"]))  # fmt: skip
        for stated in (2**31, 2**63, 10**19):
            yield Hostile("size", f"{name} said to have {stated} bytes", lambda h=headers, n=stated: iter([_head("POST", path, h, n), b"x"]), frozenset(["body_too_large"]))  # fmt: skip
    yield _post("size", "one byte over", path, PNG, bytes(limits.image_bytes + 1), "body_too_large")
    yield _post("size", "at the limit", path, PNG, bytes(limits.image_bytes), "image_unreadable")
    over = base64.b64encode(bytes(limits.image_bytes + 2)).decode()
    yield _post(
        "size", "one byte over, in JSON", "/score", JSON, json.dumps({"image": over, "type": limits.type}).encode(), "body_too_large"
    )


def _paths(limits: Limits) -> Iterator[Hostile]:
    methods = ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "score", "X" * 200)
    for method in methods:
        yield Hostile(
            "path", f"{method[:20]} /score", lambda m=method: iter([_head(m, "/score", {}, 0)]), frozenset(["method_not_allowed"])
        )
    yield Hostile("path", "GET /score with a page", lambda: iter([_head("GET", f"/score?type={limits.type}", PNG, len(PAGE)), PAGE]), frozenset(["method_not_allowed"]))  # fmt: skip
    yield Hostile("path", "HEAD /score", lambda: iter([_head("HEAD", "/score", {})]), frozenset(["method_not_allowed"]), head=True)
    yield Hostile("path", "HEAD /", lambda: iter([_head("HEAD", "/", {})]), frozenset([OK]), head=True)
    for path in ("/", "/live", "/ready", "/limits", "/openapi.json"):
        yield _post("path", f"POST {path}", path, PNG, PAGE, "method_not_allowed")
    for path in ("/score/", "//score", "/SCORE", "/score%00", "/score;a", "/score/../score", "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/.env", "/docs", "/metrics", "/page", "/document",
                 "/" + "a" * 20_000, "/%ff", "/%E2%98%83", "/score%0d%0ax-a:b", "/api/v1/score", "/swagger.json"):  # fmt: skip
        yield _post("path", f"POST {path[:40]}", path, PNG, PAGE, "not_found")
    yield Hostile(
        "path", "an absolute address", lambda: iter([_head("GET", "http://127.0.0.1:1/", {})]), frozenset(["not_found", HTTP_400])
    )


def _protocol(limits: Limits) -> Iterator[Hostile]:
    score = f"POST /score?type={limits.type} HTTP/1.1\r\nhost: a\r\ncontent-type: image/png\r\n".encode()
    broken: list[tuple[str, bytes]] = [
        ("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300)), ("HTTP/0.9", b"GET /\r\n\r\n"),
        ("an empty line of zeros", bytes(100) + b"\r\n\r\n"), ("no host", b"GET / HTTP/1.1\r\n\r\n"),
        ("a header without a colon", b"GET / HTTP/1.1\r\nhost: a\r\nnonsense\r\n\r\n"), ("a header with a zero", b"GET / HTTP/1.1\r\nhost: a\r\nx: \0\r\n\r\n"),
        ("a space before the colon", b"GET / HTTP/1.1\r\nhost : a\r\n\r\n"), ("spaces in the path", b"GET /a b c HTTP/1.1\r\nhost: a\r\n\r\n"), ("unicode in the path", "GET /\u2603 HTTP/1.1\r\nhost: a\r\n\r\n".encode()),
        ("a negative length", score + b"content-length: -1\r\n\r\n"), ("a length in words", score + b"content-length: ten\r\n\r\n"), ("two lengths", score + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello!"),
        ("a length of 40 digits", score + b"content-length: " + b"9" * 40 + b"\r\n\r\nx"),
        ("an unknown transfer encoding", score + b"transfer-encoding: gzip\r\n\r\n"), ("chunks that are none", score + b"transfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n"),
        ("a chunk of 2^80 bytes", score + b"transfer-encoding: chunked\r\n\r\n" + b"f" * 30 + b"\r\n"), ("a head of 200 kB", b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"a" * 200_000 + b"\r\n\r\n"),
        ("10,000 headers", b"GET / HTTP/1.1\r\nhost: a\r\n" + b"x: y\r\n" * 30_000 + b"\r\n"),
    ]  # fmt: skip
    for name, data in broken:
        yield Hostile("protocol", name, lambda d=data: iter([d]), frozenset([HTTP_400, CLOSED, "bad_request", "body_too_large"]))
    # h11 reads the number of any version and answers as HTTP/1.1
    yield Hostile("protocol", "HTTP/2's preface", lambda: iter([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]), frozenset(["not_found", HTTP_400]))
    yield Hostile("protocol", "HTTP/3.7", lambda: iter([b"GET / HTTP/3.7\r\nhost: a\r\n\r\n"]), frozenset([OK, HTTP_400]))
    both = score + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"
    yield Hostile("protocol", "a length and chunks", lambda: iter([both]), frozenset([HTTP_400, CLOSED, "bad_request"]))
    socket_upgrade = {
        "upgrade": "websocket",
        "connection": "upgrade",
        "sec-websocket-version": "13",
        "sec-websocket-key": "YWFhYWFhYWFhYWFhYWFhYQ==",
    }
    yield Hostile("protocol", "a web socket", lambda: iter([_head("GET", "/score", socket_upgrade)]), frozenset(["method_not_allowed"]))
    expecting = _head("POST", f"/score?type={limits.type}", {**PNG, "connection": "close"}, len(PAGE))
    yield Hostile("protocol", "a page in pieces of 7 bytes", lambda: iter([expecting, *(PAGE[at : at + 7] for at in range(0, len(PAGE), 7))]), frozenset([OK]))  # fmt: skip
    for number, keep in enumerate((0, 1, len(PAGE) // 2, len(PAGE))):
        yield Hostile(
            "protocol",
            f"gone after {keep} bytes of a page ({number})",
            lambda k=keep: iter([expecting, PAGE[:k]]),
            frozenset([CLOSED]),
            leaves=True,
        )
    yield Hostile("protocol", "gone in the middle of the head", lambda: iter([expecting[:40]]), frozenset([CLOSED]), leaves=True)


def _ids(limits: Limits) -> Iterator[Hostile]:
    path = f"/score?type={limits.type}"
    for given in ("\u2603", "\u00e9", "a b", "a" * 5000, "", "<script>", "a,b", "\U0001f4c4" * 50, "%0d%0aset-cookie: a=b", "{}"):
        yield _post("id", f"{given[:30]!r}", path, {**PNG, "x-request-id": given}, b"no picture", "image_unreadable")


def _slow(limits: Limits) -> Iterator[Hostile]:
    path = f"/score?type={limits.type}"
    head = _head("POST", path, PNG, len(PAGE))
    wait = limits.body_seconds + 30

    def drip(data: bytes, pause: float) -> Sent:
        for at in range(len(data)):
            yield data[at : at + 1]
            yield pause

    def silent(start: bytes) -> Callable[[], Sent]:
        return lambda: iter([start, wait])

    late = frozenset(["body_timeout"])
    yield Hostile("slow", "no body comes", silent(head), late, slow=True)
    yield Hostile("slow", "half a body comes", silent(head + PAGE[: len(PAGE) // 2]), late, slow=True)
    yield Hostile("slow", "half of a JSON body comes", silent(_head("POST", "/score", JSON, 100) + b'{"image": "'), late, slow=True)
    yield Hostile(
        "slow",
        "chunks without an end",
        silent(_head("POST", path, {**PNG, "transfer-encoding": "chunked"}) + b"5\r\nhello\r\n"),
        late,
        slow=True,
    )
    yield Hostile("slow", "a byte of body now and then", lambda: _chain(head, drip(PAGE[:600], limits.body_seconds / 20)), late, slow=True)
    yield Hostile("slow", "no head comes", silent(b"POST /sco"), frozenset([CLOSED]), slow=True)
    yield Hostile("slow", "nothing comes", silent(b""), frozenset([CLOSED]), slow=True)
    yield Hostile(
        "slow", "a byte of head now and then", lambda: drip(b"GET / HTTP/1.1\r\nx: " + b"a" * 600, 0.2), frozenset([CLOSED]), slow=True
    )


def _chain(first: bytes, then: Sent) -> Sent:
    yield first
    yield from then


# --- all together -------------------------------------------------------------------------------------------------------------


def complaints(asked: Sequence[Hostile], outcomes: Sequence[Outcome]) -> list[str]:
    """One line for every request that was not answered as it must be."""
    lines: list[Any] = []
    for hostile, outcome in zip(asked, outcomes, strict=True):
        if outcome.code not in hostile.expected:
            lines.append(f"{hostile}: {outcome.code} {outcome.wrong}, expected {' or '.join(sorted(hostile.expected))}")
        elif outcome.wrong:
            lines.append(f"{hostile}: {outcome.code}, but {outcome.wrong}")
    return lines
