"""The one contract of every server: what is asked, what is answered, which errors there are and whether asking again can help."""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

IMAGE_TYPES = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}
"""media types that a page may come as -> Pillow's format"""
REQUEST_ID = "x-request-id"
DOCUMENT_TYPE = "x-document-type"
GIVEN_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
"""a caller's request id that is taken over"""
RETRY_AFTER_S = 2


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ScoreRequest(_Model):
    """A page as JSON. The same page may come as the raw body, its document type in the query (?type=) or in x-document-type."""

    image: str = Field(description="the page image's bytes (PNG, JPEG or WebP) in base64; no URL is ever fetched")
    type: str | None = Field(default=None, description="document type; may be left out where the model knows only one")


class Confidence(_Model):
    mean: float = Field(description="mean probability of the tokens chosen, 0 to 1; not calibrated")
    fields: dict[str, float] = Field(description="JSON pointer of each value -> probability of its tokens; not calibrated")


class Decision(_Model):
    route: Literal["auto", "review"] = Field(description="auto: needs no person")
    reasons: list[str]


class ModelName(_Model):
    bundle: str = Field(description="digest of the bundle that answered")
    base: str
    adapter: str | None


class SchemaName(_Model):
    type: str
    digest: str


class Timing(_Model):
    image_ms: float = Field(description="reading the image, and drawing it onto the grid where it was not on it")
    wait_ms: float = Field(description="for a place beside other pages")
    model_ms: float = Field(description="answering; steps shared with other pages included")
    tokens: int
    passes: int = Field(description="forward passes of the model")


class ScoreResponse(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    answer: dict[str, Any] = Field(description="the page's values, as the document type's schema says")
    confidence: Confidence
    decision: Decision
    finish_reason: Literal["stop"] = Field(description="an answer that was cut short is an error (answer_truncated), never this")
    model: ModelName
    schema_: SchemaName = Field(alias="schema", serialization_alias="schema")
    timing: Timing


class ErrorBody(_Model):
    code: str
    message: str
    retryable: bool = Field(description="can the same request succeed later?")
    request_id: str


class ErrorResponse(_Model):
    error: ErrorBody


@dataclass(frozen=True)
class ErrorKind:
    status: HTTPStatus
    retryable: bool
    when: str


ERRORS: dict[str, ErrorKind] = {
    "bad_request": ErrorKind(HTTPStatus.BAD_REQUEST, False, "the body is no request: not JSON, another shape, not base64, empty"),
    "not_found": ErrorKind(HTTPStatus.NOT_FOUND, False, "no such path"),
    "method_not_allowed": ErrorKind(HTTPStatus.METHOD_NOT_ALLOWED, False, "the path takes another method"),
    "body_timeout": ErrorKind(HTTPStatus.REQUEST_TIMEOUT, True, "the body did not arrive in time"),
    "body_too_large": ErrorKind(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, False, "the body is over the limit"),
    "unsupported_media_type": ErrorKind(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, False, "neither JSON nor a PNG, JPEG or WebP"),
    "unknown_document_type": ErrorKind(HTTPStatus.UNPROCESSABLE_ENTITY, False, "the model has no schema of that name"),
    "image_unreadable": ErrorKind(HTTPStatus.UNPROCESSABLE_ENTITY, False, "the bytes are no whole PNG, JPEG or WebP"),
    "image_too_large": ErrorKind(HTTPStatus.UNPROCESSABLE_ENTITY, False, "more pixels, or a longer strip, than is read"),
    "answer_truncated": ErrorKind(
        HTTPStatus.UNPROCESSABLE_ENTITY, False, "the answer did not end within the output budget; none of it is given"
    ),
    "answer_invalid": ErrorKind(HTTPStatus.UNPROCESSABLE_ENTITY, False, "the model wrote something else than JSON for the schema"),
    "overloaded": ErrorKind(HTTPStatus.TOO_MANY_REQUESTS, True, "too many requests wait already"),
    "internal": ErrorKind(HTTPStatus.INTERNAL_SERVER_ERROR, True, "the server's own fault; its log has the request id"),
    "not_ready": ErrorKind(HTTPStatus.SERVICE_UNAVAILABLE, True, "the model is being loaded, or the server is stopping"),
    "timed_out": ErrorKind(HTTPStatus.SERVICE_UNAVAILABLE, True, "no answer within request_seconds"),
}


class ServingError(Exception):
    """A refusal with a stable code; the message tells people what to change and never holds anything of the page."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message, self.kind = code, message, ERRORS[code]

    def body(self, request_id: str) -> dict[str, Any]:
        error = ErrorBody(code=self.code, message=self.message, retryable=self.kind.retryable, request_id=request_id)
        return ErrorResponse(error=error).model_dump()
