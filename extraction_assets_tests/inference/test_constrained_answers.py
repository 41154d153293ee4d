"""Answers held to a grammar: the definition of constrained greedy, in fewer passes; strict JSON or an explicit truncation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from extraction_assets.evaluation.strict_json import parse_answer
from extraction_assets.inference.answers import Answerer
from extraction_assets.inference.grammar import Grammars
from extraction_assets.inference.matcher import Matcher, allowed, mask_buffer
from extraction_assets.inference.page_answer import PagePrompt
from extraction_assets.inference.vocabulary import Vocabulary
from extraction_assets.model.base import Base
from extraction_assets.model.encoding import PageEncoder, collate
from extraction_assets.schema import TargetSchema
from extraction_assets.settings import DecodingSettings
from extraction_assets_tests.inference.grammar_schemas import DOCUMENTS, of
from extraction_assets_tests.model.pages import page_png

SIZES = [(64, 64), (96, 64), (128, 96), (32, 32), (64, 160), (96, 96)]
SETTINGS = DecodingSettings(max_output_tokens=400, batch_size=4)
NAMES = ("one text", "dates", "amounts", "numbers")


def pages_for(schema: TargetSchema) -> list[PagePrompt]:
    return [PagePrompt(f"p{i}", "Extract" + "." * i, page_png(w, h, i), w, h, schema=schema) for i, (w, h) in enumerate(SIZES)]


@pytest.fixture(scope="module")
def answerer(base: Base) -> Answerer:
    return Answerer.of(base)


def _by_definition(base: Base, encoder: PageEncoder, page: PagePrompt, most: int) -> list[int]:
    """The whole sequence through the stock model for every token; the most probable one that the mask allows. Nothing is forced ahead."""
    assert isinstance(page.page, bytes)
    assert page.schema is not None
    vocabulary = Vocabulary.of(base.format)
    matcher, mask = Grammars(vocabulary).of(page.schema).matcher(), mask_buffer(vocabulary, 1)
    batch = collate([encoder.page(page.id, page.page, page.instruction)], 0)
    ids, positions, out = batch.input_ids, batch.position_ids, []
    while len(out) < most and not matcher.is_ended:
        with torch.no_grad():
            logits = base.model(
                input_ids=ids, position_ids=positions, pixel_values=batch.pixel_values, image_grid_thw=batch.image_grid_thw, use_cache=False
            ).logits[0, -1]
        matcher.fill_mask(mask)
        out.append(int(logits.masked_fill(~torch.from_numpy(allowed(mask[0], len(logits))), float("-inf")).argmax()))
        matcher.consume(out[-1:])
        ids = torch.cat([ids, torch.tensor([out[-1:]])], dim=1)
        positions = torch.cat([positions, positions[:, :, -1:] + 1], dim=2)
    return out


@pytest.mark.parametrize("name", NAMES)
def test_answers_are_the_constrained_greedy_ones_in_fewer_passes(base: Base, encoder: PageEncoder, answerer: Answerer, name: str) -> None:
    page = pages_for(of(DOCUMENTS[name]))[1]
    (answer,) = answerer.answer([page], SETTINGS)
    tokens = _by_definition(base, encoder, page, SETTINGS.max_output_tokens)
    assert answer.text == encoder.decode(tokens[:-1])
    assert answer.tokens == len(tokens)
    assert answer.finish_reason == "stop"
    assert answer.passes < answer.tokens


@pytest.mark.parametrize("name", NAMES)
def test_neither_company_nor_forced_tokens_change_an_answer(answerer: Answerer, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    pages = pages_for(of(DOCUMENTS[name]))
    alone = [answerer.answer([page], SETTINGS)[0] for page in pages]
    together = answerer.answer(pages, SETTINGS)
    assert [(a.text, a.tokens, a.finish_reason) for a in together] == [(a.text, a.tokens, a.finish_reason) for a in alone]
    monkeypatch.setattr(Matcher, "forced", lambda _: [])  # masks alone: one token a pass
    stepwise = answerer.answer(pages, SETTINGS)
    assert [a.text for a in stepwise] == [a.text for a in alone]
    assert all(step.passes > fewer.passes for step, fewer in zip(stepwise, alone, strict=True))


@pytest.mark.parametrize("name", list(DOCUMENTS))
def test_a_model_that_knows_nothing_answers_with_valid_json_or_is_cut_off(answerer: Answerer, name: str) -> None:
    schema = of(DOCUMENTS[name])
    for answer in answerer.answer(pages_for(schema)[:2], SETTINGS):
        if answer.finish_reason == "stop":
            parsed = parse_answer(answer.text, answer.finish_reason)
            assert parsed.strict
            assert schema.is_valid(parsed.value)
            if "number" not in json.dumps(schema.document):  # a float has more than one spelling
                assert answer.text == json.dumps(parsed.value, ensure_ascii=False, separators=(",", ":"))
        else:
            assert answer.tokens == SETTINGS.max_output_tokens


def test_an_answer_without_room_is_cut_off_also_among_forced_tokens(answerer: Answerer) -> None:
    pages = pages_for(of(DOCUMENTS["dates"]))
    whole = answerer.answer(pages[:1], SETTINGS)[0]
    for most in (1, 2, 5, whole.tokens - 1):
        (answer,) = answerer.answer(pages[:1], DecodingSettings(max_output_tokens=most))
        assert (answer.tokens, answer.finish_reason) == (most, "length")
        assert whole.text.startswith(answer.text.rstrip("\ufffd"))
    (answer,) = answerer.answer(pages[:1], DecodingSettings(max_output_tokens=whole.tokens))
    assert answer == whole


def test_pages_of_several_types_and_free_ones_go_together(answerer: Answerer, tmp_path: Path) -> None:
    mixed = [pages_for(of(DOCUMENTS[name]))[i] for i, name in enumerate(NAMES)]
    free = PagePrompt("free", "Read", page_png(64, 64, 9), 64, 64)
    settings = DecodingSettings(max_output_tokens=60, batch_size=8)
    together = answerer.answer([*mixed, free], settings)
    assert [a.text for a in together] == [answerer.answer([page], settings)[0].text for page in (*mixed, free)]
