"""What a model is asked about a page, and what it said. Importing it loads no model library: a client, a supervisor and a plan do without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from extraction_assets.documents.records import PageText
from extraction_assets.model.examples import Example
from extraction_assets.schema import TargetSchema

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class PagePrompt:
    """One page and what is asked of it."""

    id: str
    instruction: str
    page: bytes | Path
    """the PNG's bytes, or where they lie"""
    width: int
    """px, a multiple of 32"""
    height: int
    page_digest: str | None = None
    """SHA-256 that the bytes must have"""
    schema: TargetSchema | None = None
    """what the answer is held to where the settings ask for it (constrained); None: free text"""
    text: PageText | None = None
    """the page's words, where it has a text layer: never shown to the model, only to draft from"""

    @classmethod
    def of(cls, example: Example, schema: TargetSchema | None = None, text: PageText | None = None) -> PagePrompt:
        return cls(example.id, example.instruction, example.image, example.width, example.height, example.page_digest, schema, text)


@dataclass(frozen=True)
class Answer:
    id: str
    text: str
    """rows as objects, however the model wrote them (wire.py); a text that is no whole answer stands as it was written"""
    finish_reason: FinishReason
    tokens: int
    """output tokens as the model wrote them, the closing one included"""
    confidence: float
    """mean probability, before any mask, of the tokens that were chosen; uncalibrated: good for ranking at best, not for a threshold"""
    values: Mapping[str, float] = field(default_factory=dict, compare=False)
    """JSON pointer of each value -> probability of its tokens (value_confidence.py); empty for an answer that was cut short"""
    passes: int = field(default=0, compare=False)
    """forward passes that the answer took part in, its prefill included"""
    seconds: float = field(default=0.0, compare=False)
    """from its prefill to its last token, the steps shared with others included; never part of what is hashed"""
