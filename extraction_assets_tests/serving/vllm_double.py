"""vLLM's OpenAI-compatible server as far as the endpoint uses it: it takes what vLLM 0.33 takes and refuses what that refuses.

Request fields, their types and bounds are those of vLLM's ChatCompletionRequest and StructuredOutputsParams. A grammar is compiled as the guidance
backend compiles it (llguidance.grammar_from, LLMatcher), in the served model's own vocabulary. The answers are the real model's, by our own
decoding loop under that grammar; log probabilities come as vLLM tells them, one entry a token with its text's bytes, the end token's included.
"""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Annotated, Any, Literal

import llguidance
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from extraction_assets.inference.grammar_rules import rules
from extraction_assets.inference.page_answer import Answer, PagePrompt
from extraction_assets.inference.vocabulary import Vocabulary
from extraction_assets.model.base import load_base
from extraction_assets.serving.bundle import BASE, Bundle


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Url(_Part):
    url: str


class _Image(_Part):
    type: Literal["image_url"]
    image_url: _Url


class _Text(_Part):
    type: Literal["text"]
    text: str


class _Message(_Part):
    role: Literal["user"]
    content: list[Annotated[_Image | _Text, Field(discriminator="type")]]


class _StructuredOutputs(_Part):
    json_: str | dict[str, Any] | None = Field(None, alias="json")
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    whitespace_pattern: str | None = None
    structural_tag: str | None = None


class _Request(_Part):
    """vLLM only warns of unknown fields; here they are an error, since a field that is ignored is a promise that is not kept."""

    messages: list[_Message]
    model: str
    max_completion_tokens: int = Field(ge=1)
    temperature: float = Field(ge=0)
    seed: int
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=-1)
    spaces_between_special_tokens: bool = True
    structured_outputs: _StructuredOutputs | None = None


class BadRequest(Exception):
    """What vLLM answers with 400."""


class VllmDouble:
    """Serves a bundle's base on a free port of this machine, as a context manager."""

    def __init__(self, bundle: Bundle, name: str = "bundle") -> None:
        self._bundle, self._name = bundle, name
        self._vocabulary = Vocabulary.of(load_base(bundle.folder / BASE).format)
        self._answerer = bundle.load()
        self._lock = threading.Lock()
        self.ready = True
        self.asked: list[dict[str, Any]] = []
        self.status = 200
        """other: what every completion is answered with"""
        self.spoil: Callable[[dict[str, Any]], None] = lambda told: None
        """changes an answer before it is sent"""

    def __enter__(self) -> VllmDouble:
        double = self

        class Handler(_Handler):
            pass

        Handler.double = double
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def models(self) -> dict[str, Any]:
        return {"object": "list", "data": [{"id": self._name, "object": "model"}]}

    def complete(self, body: bytes) -> dict[str, Any]:
        """Raises BadRequest."""
        try:
            asked = _Request.model_validate_json(body)
        except ValidationError as error:
            raise BadRequest(str(error)) from None
        self.asked.append(json.loads(body))
        if asked.model != self._name:
            raise BadRequest(f"The model `{asked.model}` does not exist.")
        image, text = self._parts(asked)
        prompt = self._prompt(asked, image, text)
        settings = self._bundle.manifest.decoding.model_copy(
            update={"max_output_tokens": asked.max_completion_tokens, "constrained": prompt.schema is not None}
        )
        with self._lock:
            answer = self._answerer.answer([prompt], settings)[0]
        return self._told(asked, answer)

    def _parts(self, asked: _Request) -> tuple[bytes, str]:
        images = [part for message in asked.messages for part in message.content if isinstance(part, _Image)]
        texts = [part for message in asked.messages for part in message.content if isinstance(part, _Text)]
        if len(images) != 1 or len(texts) != 1:
            raise BadRequest("At most 1 image(s) may be provided in one prompt.")
        kind, _, data = images[0].image_url.url.partition(";base64,")
        if kind != "data:image/png":
            raise BadRequest("Cannot load from a URL.")
        png = base64.b64decode(data, validate=True)
        with Image.open(io.BytesIO(png)) as picture:
            picture.verify()
        return png, texts[0].text

    def _prompt(self, asked: _Request, png: bytes, text: str) -> PagePrompt:
        """The grammar is compiled as vLLM does it, and must be that of a schema of the bundle: only those can our loop decode under."""
        with Image.open(io.BytesIO(png)) as picture:
            width, height = picture.size
        schema = None
        if asked.structured_outputs is not None:
            given = asked.structured_outputs.model_dump(exclude_none=True)
            if len(given) != 1:
                raise BadRequest("You can only use one kind of structured outputs constraint.")
            grammar = llguidance.grammar_from("grammar", asked.structured_outputs.grammar or "")
            if error := llguidance.LLMatcher.validate_grammar(grammar, self._vocabulary.llguidance):
                raise BadRequest(f"Grammar error: {error}")
            schema = next(one for one in self._bundle.schemas.values() if rules(one) == asked.structured_outputs.grammar)
        return PagePrompt("page", text, png, width, height, schema=schema)

    def _told(self, asked: _Request, answer: Answer) -> dict[str, Any]:
        tokenizer = self._vocabulary.tokenizer
        tokens = tokenizer.encode(answer.text, add_special_tokens=False)
        spelled = [tokenizer.decode([token]) for token in tokens]
        ended = ["<|im_end|>"] if answer.finish_reason == "stop" else []
        steps = [{"token": one, "logprob": -0.5, "bytes": list(one.encode()), "top_logprobs": []} for one in [*spelled, *ended]]
        told = {
            "id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": self._name,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": answer.text},
                    "logprobs": {"content": steps} if asked.logprobs else None,
                    "finish_reason": answer.finish_reason,
                    "stop_reason": None,
                }
            ],
            "usage": {"prompt_tokens": 1, "completion_tokens": answer.tokens, "total_tokens": 1 + answer.tokens},
        }  # fmt: skip
        self.spoil(told)
        return told


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    double: VllmDouble

    def do_GET(self) -> None:
        if self.path == "/health":
            self._send(200 if self.double.ready else 503, None)
        elif self.path == "/v1/models":
            self._send(200, self.double.models())
        else:
            self._send(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.path != "/v1/chat/completions":
            self._send(404, {"detail": "Not Found"})
        elif self.double.status != 200:
            self._send(self.double.status, {"error": {"message": "quotes the page", "type": "SomeError", "code": self.double.status}})
        else:
            try:
                self._send(200, self.double.complete(body))
            except BadRequest as error:
                self._send(400, {"error": {"message": str(error), "type": "BadRequestError", "code": 400}})

    def _send(self, status: int, value: Any) -> None:
        data = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass
