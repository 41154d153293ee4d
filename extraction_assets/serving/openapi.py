"""The contract as an OpenAPI 3.1 document, made from the same models that the server checks with."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from pydantic.json_schema import models_json_schema

from extraction_assets import __version__
from extraction_assets.serving.bundle import Bundle
from extraction_assets.serving.contract import DOCUMENT_TYPE, ERRORS, IMAGE_TYPES, REQUEST_ID, ErrorResponse, ScoreRequest, ScoreResponse

_REF = "#/components/schemas/{model}"


def openapi_document(bundle: Bundle) -> dict[str, Any]:
    """For the document types and limits of one bundle."""
    models = [(ScoreRequest, "validation"), (ScoreResponse, "serialization"), (ErrorResponse, "serialization")]
    _, schemas = models_json_schema(models, by_alias=True, ref_template=_REF)  # type: ignore[arg-type]
    types = sorted(bundle.manifest.schemas)
    request = schemas["$defs"]["ScoreRequest"]
    request["properties"]["type"] = {"type": "string", "enum": types, "description": request["properties"]["type"]["description"]}
    if len(types) > 1:
        request["required"] = ["image", "type"]
    request["properties"]["image"]["contentEncoding"] = "base64"
    image: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
    operation = {
        "operationId": "score",
        "summary": "A page image in, strict JSON out",
        "parameters": [
            {
                "name": "type",
                "in": "query",
                "schema": {"type": "string", "enum": types},
                "description": "document type of a raw image; JSON carries its own",
            },
            {"name": DOCUMENT_TYPE, "in": "header", "schema": {"type": "string"}, "description": "the same as a header"},
            {
                "name": REQUEST_ID,
                "in": "header",
                "schema": {"type": "string"},
                "description": "comes back with the answer; else one is made",
            },
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _ref("ScoreRequest")}, **dict.fromkeys(IMAGE_TYPES, image)},
        },
        "responses": {"200": _json("the page's values", _ref("ScoreResponse")), **_errors(set(ERRORS) - {"not_found"})},
    }
    not_ready = _errors({"not_ready"})
    anything = {"type": "object"}
    return {
        "openapi": "3.1.0",
        "info": {"title": "extraction_assets endpoint", "version": __version__, "description": f"bundle {bundle.digest}"},
        "paths": {
            "/score": {"post": operation},
            "/": {"get": {"operationId": "alive", "responses": {"200": _json("the process lives", anything)}}},
            "/live": {"get": {"operationId": "live", "responses": {"200": _json("the process lives", anything)}}},
            "/ready": {"get": {"operationId": "ready", "responses": {"200": _json("pages are answered", anything), **not_ready}}},
            "/limits": {"get": {"operationId": "limits", "responses": {"200": _json("what is taken", anything)}}},
        },
        "components": {"schemas": schemas["$defs"]},
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": _REF.format(model=name)}


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _errors(codes: set[str]) -> dict[str, Any]:
    by_status: dict[str, list[str]] = defaultdict(list)
    for code in sorted(codes):
        kind = ERRORS[code]
        by_status[str(int(kind.status))].append(f"{code}: {kind.when}" + (" (retryable)" if kind.retryable else ""))
    return {status: _json("; ".join(lines), _ref("ErrorResponse")) for status, lines in sorted(by_status.items())}
