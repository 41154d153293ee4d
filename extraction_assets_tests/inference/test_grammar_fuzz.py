"""Whatever a model prefers, what it writes under the masks is strict JSON that follows the schema, and it ends."""

from __future__ import annotations

import random
from functools import lru_cache
from typing import Any

import pytest

from extraction_assets.evaluation.strict_json import parse_answer
from extraction_assets.inference.grammar import Grammar, Grammars
from extraction_assets.inference.grammar_rules import MAX_ITEMS, MAX_LENGTH
from extraction_assets.inference.matcher import allowed
from extraction_assets.inference.vocabulary import Vocabulary
from extraction_assets.schema import TargetSchema
from extraction_assets_tests.inference.grammar_schemas import all_schemas

ANSWERS = 100
"""a schema; answers are drawn by one seed each"""


@pytest.fixture(scope="module")
def grammars(vocabulary: Vocabulary) -> Grammars:
    return Grammars(vocabulary)


@pytest.mark.parametrize("schema", all_schemas(), ids=lambda schema: f"{schema.name}-{schema.digest[:4]}")
def test_random_answers_are_strict_valid_and_end(schema: TargetSchema, grammars: Grammars) -> None:
    grammar = grammars.of(schema)
    most = longest(schema.document)
    for seed in range(ANSWERS):
        text = random_answer(grammar, random.Random(seed), most)
        parsed = parse_answer(text)
        assert parsed.strict, (parsed.problem, text)
        assert parsed.value is not None
        assert schema.violations(parsed.value) == [], text
        assert len(text.encode()) <= most
        if not any(isinstance(value, float) for value in leaves(parsed.value)):  # 18 digits and a point are no double's shortest spelling
            assert schema.spell(parsed.value) == text  # so it has every key, in order, and no spelling of its own


def random_answer(grammar: Grammar, chosen: random.Random, most: int) -> str:
    """A model that knows nothing: any allowed token, with an inclination of its own to close what is open."""
    vocabulary, matcher, masks = grammar.vocabulary, grammar.matcher(), grammar.mask_buffer(1)
    tokens: list[int] = []
    closing = chosen.choice([0.0, 0.1, 0.5])
    while not matcher.is_ended:
        assert len(tokens) <= most + 1  # every token but the last spells a byte at least
        following = matcher.forced() if chosen.random() < 0.5 else []
        if not following:
            matcher.fill_mask(masks)
            choices = allowed(masks[0], vocabulary.size).nonzero()[0].tolist()
            assert choices  # no dead end
            closers = [token for token in choices if token in _closers(vocabulary)] if chosen.random() < closing else []
            following = [chosen.choice(closers or choices)]
        assert matcher.consume(following) == len(following)
        tokens += following
    assert tokens[-1] == vocabulary.end_token
    return str(vocabulary.tokenizer.decode(tokens[:-1], skip_special_tokens=False, clean_up_tokenization_spaces=False))


@lru_cache(maxsize=1)
def _closers(vocabulary: Vocabulary) -> frozenset[int]:
    """Tokens that close a string, an array or an object."""
    spelled = ((token, vocabulary.bytes_of([token])) for token in range(len(vocabulary.tokenizer)))
    return frozenset(token for token, text in spelled if text.startswith((b'"', b"]", b"}")))


def longest(schema: dict[str, Any]) -> int:
    """Bytes that no answer can exceed, from the schema alone."""
    if "enum" in schema or "const" in schema:
        return max(len(str(value).encode()) * 2 + 2 for value in schema.get("enum", [schema.get("const")]))
    sizes = [24 * 2]  # null, true, false, numbers
    if "properties" in schema:
        sizes.append(2 + sum(8 + 6 * len(key) + longest(child) for key, child in schema["properties"].items()))
    if "items" in schema:
        sizes.append(2 + schema.get("maxItems", MAX_ITEMS) * (1 + longest(schema["items"])))
    if "string" in schema.get("type", ()):
        sizes.append(2 + 6 * schema.get("maxLength", MAX_LENGTH))
    return max(sizes)


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for child in value.values() for leaf in leaves(child)]
    if isinstance(value, list):
        return [leaf for child in value for leaf in leaves(child)]
    return [value]
