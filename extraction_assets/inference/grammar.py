"""The grammar of a document type's answers: compiled once for a schema and a tokenizer, then copied for every sequence.

grammar = Grammars(Vocabulary.of(base)).of(schema)      # InputError where no grammar can keep the schema
grammar.check_target(target, "example 3f2a...")         # InputError: character, what stands there, what may stand there
matcher = grammar.matcher()                             # one a sequence (matcher.py)
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from llguidance import LLMatcher

from extraction_assets.errors import InputError
from extraction_assets.inference.grammar_rules import rules
from extraction_assets.inference.matcher import Mask, Matcher, allowed, mask_buffer
from extraction_assets.inference.vocabulary import Vocabulary
from extraction_assets.schema import TargetSchema

_STRING = re.compile(r'("(?:[^"\\]|\\.)*")(:?)')
_FOUND = 20
"""characters of a target that an error quotes"""
_NAMED = 12
"""choices that an error names one by one"""


@dataclass(frozen=True)
class Rejection:
    """Where a target leaves its grammar."""

    position: int
    """character offset in the text as the tokenizer composes it (NFC); the text's length if it ends too early"""
    found: str
    """what stands there, at most 20 characters; "" at the target's end"""
    allowed: str
    """what may stand there, in words"""
    key: str | None
    """the last key before it, as the target spells it; None before the first"""


class Grammar:
    """What a model may answer for one schema, in one vocabulary."""

    def __init__(self, schema: TargetSchema, vocabulary: Vocabulary) -> None:
        """Raises InputError (file and JSON pointer) where no grammar can keep the schema."""
        self.schema_digest, self.vocabulary = schema.digest, vocabulary
        self.rules = rules(schema)
        self._start = LLMatcher(vocabulary.llguidance, LLMatcher.grammar_from_lark(self.rules))
        if self._start.is_error():
            reason = self._start.get_error().strip().splitlines()[0][:300]
            raise InputError(schema.source, f"llguidance cannot compile its grammar: {reason}", do="Simplify its patterns and bounds")

    def matcher(self) -> Matcher:
        """A matcher at the start of an answer. Sequences share what the lexer has learnt."""
        return Matcher(self._start.deep_copy(), self.vocabulary)

    def mask_buffer(self, rows: int) -> Mask:
        return mask_buffer(self.vocabulary, rows)

    def rejection(self, target: str) -> Rejection | None:
        """Walk a training target through the grammar; None if a model could write it.

        Walked are the bytes that the target's tokens spell, so that the place is exact whatever tokens they make.
        """
        text = self.vocabulary.learnt_text(target)
        data = text.encode()
        matcher = self.matcher()
        taken = matcher.consume([self.vocabulary.byte_tokens[byte] for byte in data])
        if taken == len(data) and matcher.is_complete:
            return None
        position = len(data[:taken].decode(errors="ignore"))
        matcher.rollback(taken - len(text[:position].encode()))  # to the start of a character that is allowed in part
        return Rejection(position, text[position : position + _FOUND], self._allowed(matcher), _last_key(text[:position]))

    def check_target(self, target: str, where: str) -> None:
        """Raises InputError naming `where` (the example) and the character if a model could not write this target."""
        if (rejected := self.rejection(target)) is not None:
            found = f"found {rejected.found!r}" if rejected.found else "the target ends"
            place = f"{where} character {rejected.position}"
            raise InputError(
                f"{place}, behind {rejected.key}" if rejected.key else place,
                f"no model could write this target under its schema's grammar: {found}",
                rejected.allowed,
                'Correct the label, or the schema (maxLength, maxItems, or "x-form": "printed" for values as the page prints them)',
            )

    def _allowed(self, matcher: Matcher) -> str:
        if matcher.is_complete:
            return "the end of the answer"
        mask = self.mask_buffer(1)
        matcher.fill_mask(mask)
        choices = [[int(token)] for token in allowed(mask[0], self.vocabulary.size).nonzero()[0]]
        if len(forced := matcher.forced()) > 1:
            choices = [forced]
        texts = [self.vocabulary.bytes_of(tokens).decode(errors="ignore") for tokens in choices]
        texts = [text for text in texts if text]  # without the tokens that are a part of a character
        return _named(texts if len(texts) <= _NAMED else sorted({text[0] for text in texts}))


@dataclass(frozen=True)
class Grammars:
    """The grammars of one vocabulary, each compiled at its first use. Not for several threads at once."""

    vocabulary: Vocabulary
    _compiled: dict[str, Grammar] = field(default_factory=dict)
    """by the schema's digest"""

    def of(self, schema: TargetSchema) -> Grammar:
        """Raises InputError as Grammar does."""
        if schema.digest not in self._compiled:
            self._compiled[schema.digest] = Grammar(schema, self.vocabulary)
        return self._compiled[schema.digest]


def _last_key(text: str) -> str | None:
    keys = [string[1] for string in _STRING.finditer(text) if string[2]]
    return keys[-1] if keys else None


def _named(choices: list[str]) -> str:
    if not choices or len(choices) > 4 * _NAMED:
        return "a character of a string, or its end" if '"' in choices else "a character of a string"
    return f"one of {' '.join(choices)}" if len(choices) > 1 else choices[0]
