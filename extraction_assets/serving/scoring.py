"""What a request asks for and what it gets, the same whichever server listens (server.py, score.py)."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import ValidationError

from extraction_assets.evaluation.calibration import Routing, units_of
from extraction_assets.evaluation.strict_json import parse_answer
from extraction_assets.schema import TargetSchema
from extraction_assets.serving.bundle import Bundle
from extraction_assets.serving.contract import (
    IMAGE_TYPES,
    Confidence,
    Decision,
    ModelName,
    SchemaName,
    ScoreRequest,
    ScoreResponse,
    ServingError,
    Timing,
)
from extraction_assets.serving.engine import Answered

_ENVELOPE_BYTES = 4096
"""what a JSON request may have besides its image"""
_IMAGE_BEGINS = re.compile(rb'"image"\s*:\s*"')


class Scoring:
    """The contract for one bundle."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.most_bytes = int(bundle.manifest.serving.max_image_mb * 1e6)
        """of an image"""
        self.most_json = 4 * (self.most_bytes // 3 + 1) + _ENVELOPE_BYTES
        """of a body"""

    def most_bytes_of(self, media: str) -> int:
        """of a body of this media type. Raises ServingError (unsupported_media_type)."""
        if media in IMAGE_TYPES:
            return self.most_bytes
        if media != "application/json":
            raise ServingError("unsupported_media_type", f"expected application/json or one of {', '.join(IMAGE_TYPES)}")
        return self.most_json

    def type_name(self, asked: str | None) -> str:
        """The document type that is meant. Raises ServingError: bad_request, unknown_document_type."""
        known = self.bundle.manifest.schemas
        if asked is None and len(known) == 1:
            return next(iter(known))
        if asked is None:
            raise ServingError("bad_request", f"type is needed: one of {', '.join(known)}")
        if asked not in known:
            raise ServingError("unknown_document_type", f"this model knows {', '.join(known)}")
        return asked

    def response(self, answered: Answered, type_name: str, image_ms: float) -> ScoreResponse:
        """Raises ServingError: answer_truncated, answer_invalid."""
        answer, manifest = answered.answer, self.bundle.manifest
        if answer.finish_reason != "stop":
            raise ServingError("answer_truncated", f"the answer did not end within {manifest.decoding.max_output_tokens} tokens")
        parsed = parse_answer(answer.text, answer.finish_reason)
        schema = self.bundle.schemas[type_name]
        if not parsed.strict or not isinstance(parsed.value, dict) or not schema.is_valid(parsed.value):
            raise ServingError("answer_invalid", "the model wrote something else than JSON for the schema")
        return ScoreResponse(
            answer=parsed.value,
            confidence=Confidence(mean=round(answer.confidence, 6), fields=dict(answer.values)),
            decision=decide(parsed.value, answer.values, schema, manifest.routing),
            finish_reason="stop",
            model=ModelName(bundle=self.bundle.digest, base=manifest.base, adapter=manifest.adapter),
            schema=SchemaName(type=type_name, digest=schema.digest),
            timing=Timing(
                image_ms=round(image_ms, 2),
                wait_ms=round(1000 * answered.wait_s, 2),
                model_ms=round(1000 * answer.seconds, 2),
                tokens=answer.tokens,
                passes=answer.passes,
            ),
        )


def media_type(header: str) -> str:
    """Of a content-type header, without its parameters."""
    return header.partition(";")[0].strip().lower()


def image_of(media: str, body: bytes, asked: str | None) -> tuple[bytes, str | None]:
    """(image bytes, document type as asked for). asked: beside a raw image; a JSON body names its own. Raises ServingError (bad_request)."""
    if media not in IMAGE_TYPES:
        return _from_json(body)
    if not body:
        raise ServingError("bad_request", "the body is empty; it should be the image's bytes")
    return body, asked


def decide(answer: dict[str, Any], values: Mapping[str, float], schema: TargetSchema, routing: Routing | None) -> Decision:
    """auto, or review and why: not calibrated, sums that fail, or the fields below the threshold (by name), the least sure first."""
    if routing is None or not routing.on or routing.threshold is None or routing.calibrator is None:
        return Decision(route="review", reasons=["confidence_not_calibrated"])
    units = units_of(answer, values, schema)
    if not units or routing.calibrator.page(units) >= routing.threshold:
        return Decision(route="auto", reasons=[])
    sure = routing.calibrator.of(units)
    unsure = [units[index].name for index in np.argsort(sure, kind="stable") if sure[index] < routing.threshold]
    reasons = ["sums_fail"] if units[0].sums is False else []
    return Decision(route="review", reasons=[*reasons, *(f"unsure: {name}" for name in unsure or ["many fields a little"])])


def _from_json(body: bytes) -> tuple[bytes, str | None]:
    """(image bytes, document type as asked for). Only the envelope is parsed: millions of keys, or a number of millions of digits,
    would hold the interpreter, and with it liveness, for seconds.
    """
    begins = _IMAGE_BEGINS.search(body)
    start = begins.end() if begins else 0
    end = body.find(b'"', start) if begins else 0
    envelope = body[:start] + body[end:] if end >= 0 else body
    if len(envelope) > _ENVELOPE_BYTES:
        raise ServingError("bad_request", f"the body has more than {_ENVELOPE_BYTES} bytes besides its image")
    try:
        value = json.loads(envelope)
        if begins and isinstance(value, dict) and value.get("image") == "":
            value["image"] = json.loads(body[start - 1 : end + 1])
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        raise ServingError("bad_request", "the body is not JSON") from None
    try:
        asked = ScoreRequest.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        at = "".join(f"/{str(part)[:40]}" for part in first["loc"])
        raise ServingError("bad_request", f"at {at or '/'}: {first['msg']}") from None
    try:
        data = base64.b64decode(asked.image, validate=True)
    except (binascii.Error, ValueError):
        raise ServingError("bad_request", "at /image: not base64") from None
    if not data:
        raise ServingError("bad_request", "at /image: empty")
    return data, asked.type
