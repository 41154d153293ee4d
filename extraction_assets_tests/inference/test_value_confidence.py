"""The probability of each value: the product over its tokens, its closing one included."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from extraction_assets.inference.answers import Answerer
from extraction_assets.inference.value_confidence import value_confidence, value_spans
from extraction_assets.model.base import Base
from extraction_assets.model.encoding import PageEncoder, collate
from extraction_assets_tests.inference.grammar_schemas import DOCUMENTS, of
from extraction_assets_tests.inference.test_constrained_answers import SETTINGS, pages_for

ANSWER = '{"a":"Mü,\\"r","b/c":[{"d":1.5,"e":null},{"d":2,"e":"}"}],"f":["x","y"],"g":{"~":true},"h":[],"i":{}}'


def test_spans_are_the_values_and_what_closes_them() -> None:
    data = ANSWER.encode()
    assert {pointer: data[start:end].decode() for pointer, start, end in value_spans(data)} == {
        "/a": '"Mü,\\"r"',
        "/b~1c/0/d": "1.5,",
        "/b~1c/0/e": "null}",
        "/b~1c/1/d": "2,",
        "/b~1c/1/e": '"}"',
        "/f/0": '"x"',
        "/f/1": '"y"',
        "/g/~0": "true}",
    }


_PLAIN = st.none() | st.booleans() | st.integers() | st.text()
_JSON = st.dictionaries(st.text(), st.recursive(_PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12))


@given(_JSON, st.booleans())
def test_every_plain_value_of_any_json_has_its_span(value: Any, escaped: bool) -> None:
    def leaves(at: Any, pointer: str = "") -> dict[str, Any]:
        if isinstance(at, dict):
            pairs = [(key.replace("~", "~0").replace("/", "~1"), item) for key, item in at.items()]
        elif isinstance(at, list):
            pairs = [(str(index), item) for index, item in enumerate(at)]
        else:
            return {pointer: at}
        return {found: leaf for key, item in pairs for found, leaf in leaves(item, f"{pointer}/{key}").items()}

    data = json.dumps(value, ensure_ascii=escaped, separators=(",", ":")).encode()
    spans = {pointer: data[start:end] for pointer, start, end in value_spans(data)}
    read = {pointer: json.loads(part if part.startswith(b'"') else part[:-1]) for pointer, part in spans.items()}
    assert read == leaves(value)


def test_a_token_that_holds_parts_of_two_values_counts_for_both() -> None:
    tokens = [b'{"a":"1', b'","b":"', b'2"', b"}"]
    told = value_confidence('{"a":"1","b":"2"}', tokens, [math.log(p) for p in (0.5, 0.5, 0.8, 0.1)])
    assert told == {"/a": 0.25, "/b": 0.4}


@pytest.mark.parametrize("text", ["", "[", '{"a"', "nonsense", '{"a":1}}', ","])
def test_what_is_no_json_has_none(text: str) -> None:
    assert value_confidence(text, [text.encode()], [0.0]) in ({}, {"": 1.0})
    assert value_confidence('{"a":1}', [b"{"], [0.0]) == {}


@pytest.mark.parametrize("name", ["one text", "numbers"])
def test_probabilities_are_the_models_own(base: Base, encoder: PageEncoder, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """By definition: the whole answer through the stock model at once, softmax over all tokens, no mask; 1 for what had to follow."""
    page = pages_for(of(DOCUMENTS[name]))[0]
    ended: list[Any] = []
    real = Answerer._answer
    monkeypatch.setattr(Answerer, "_answer", lambda self, sequence, stopped: ended.append(sequence) or real(self, sequence, stopped))
    (answer,) = Answerer.of(base).answer([page], SETTINGS)
    (sequence,) = ended
    assert len(sequence.logprobs) == len(sequence.tokens) == answer.tokens
    assert set(answer.values) == {pointer for pointer, _, _ in value_spans(answer.text.encode())}

    prompt = collate([encoder.page(page.id, page.page, page.instruction)], 0)  # type: ignore[arg-type]
    start, count = int(prompt.position_ids[0, 0, -1]) + 1, answer.tokens
    with torch.no_grad():
        logits = base.model(
            input_ids=torch.cat([prompt.input_ids, torch.tensor([sequence.tokens])], dim=1),
            position_ids=torch.cat([prompt.position_ids, torch.arange(start, start + count).expand(3, 1, -1)], dim=2),
            pixel_values=prompt.pixel_values,
            image_grid_thw=prompt.image_grid_thw,
            use_cache=False,
        ).logits[0, -count - 1 : -1]
    expected = torch.log_softmax(logits.float(), dim=-1)[torch.arange(count), torch.tensor(sequence.tokens)]
    given = torch.tensor(sequence.logprobs)
    chosen = given != 0
    assert 0 < int(chosen.sum()) < count
    torch.testing.assert_close(given[chosen], expected[chosen], atol=1e-3, rtol=1e-3)
