"""Masks, forced tokens and drafts agree with one another, step by step; what lies beyond the tokenizer is never allowed."""

from __future__ import annotations

import random

import numpy as np
import pytest

from extraction_assets.inference.grammar import Grammar, Grammars
from extraction_assets.inference.matcher import Mask, Matcher, allowed, allows, forbid
from extraction_assets.inference.vocabulary import Vocabulary
from extraction_assets.schema import TargetSchema
from extraction_assets_tests.inference.grammar_schemas import all_schemas, random_target

SCHEMAS = all_schemas()
INVOICE = next(schema for schema in SCHEMAS if schema.name == "invoice")


@pytest.fixture(scope="module")
def grammars(vocabulary: Vocabulary) -> Grammars:
    return Grammars(vocabulary)


@pytest.fixture(scope="module")
def invoice(grammars: Grammars) -> Grammar:
    return grammars.of(INVOICE)


def target_tokens(schema: TargetSchema, vocabulary: Vocabulary, seed: int = 3) -> list[int]:
    """As a training target is encoded, <|im_end|> included."""
    text = schema.spell(random_target(schema, random.Random(seed)))
    return [*vocabulary.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"], vocabulary.end_token]


def allowed_now(matcher: Matcher, masks: Mask, vocabulary: Vocabulary) -> list[int]:
    matcher.fill_mask(masks)
    return [int(token) for token in allowed(masks[0], vocabulary.size).nonzero()[0]]


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: f"{schema.name}-{schema.digest[:4]}")
def test_forced_tokens_are_those_that_masks_leave_as_the_only_choice(schema: TargetSchema, grammars: Grammars) -> None:
    vocabulary = grammars.vocabulary
    for seed in range(3):
        matcher, masks = grammars.of(schema).matcher(), grammars.of(schema).mask_buffer(1)
        tokens = target_tokens(schema, vocabulary, seed)
        forced_in_all = 0
        while not matcher.is_ended:
            at = matcher.consumed
            forced = matcher.forced()
            for token in forced:  # every forced token is the only one that its mask allows
                assert allowed_now(matcher, masks, vocabulary) == [token]
                assert matcher.consume([token]) == 1
            choices = allowed_now(matcher, masks, vocabulary)
            assert matcher.is_ended or matcher.forced() or len(choices) != 1  # and an only choice is forced
            assert tokens[at : at + len(forced)] == forced  # and the one that a training target has: no other split of its text
            forced_in_all += len(forced)
            if not forced:
                assert tokens[at] in choices
                assert matcher.consume([tokens[at]]) == 1
        assert forced_in_all > 1
        assert matcher.consumed == len(tokens)


def test_nothing_beyond_the_tokenizer_and_no_control_token_is_allowed(invoice: Grammar) -> None:
    vocabulary = invoice.vocabulary
    controls = [token for token in vocabulary.tokenizer.all_special_ids if token != vocabulary.end_token]
    controls += [vocabulary.tokenizer.convert_tokens_to_ids("<|image_pad|>")]
    assert vocabulary.size == len(vocabulary.tokenizer) + 40
    matcher, masks = invoice.matcher(), invoice.mask_buffer(1)
    masks[:] = -1  # a buffer is never clean
    for token in target_tokens(INVOICE, vocabulary):
        matcher.fill_mask(masks)
        row = np.unpackbits(masks[0].view(np.uint8), bitorder="little").astype(bool)
        assert not row[len(vocabulary.tokenizer) :].any()
        assert not row[controls].any()
        assert row[vocabulary.end_token] == matcher.is_complete
        assert matcher.consume([token]) == 1
    assert allowed_now(matcher, masks, vocabulary) == []
    assert matcher.forced() == []
    assert matcher.consume([vocabulary.end_token]) == 0


def test_the_end_token_closes_a_whole_object_and_nothing_else(invoice: Grammar) -> None:
    tokens = target_tokens(INVOICE, invoice.vocabulary)
    matcher = invoice.matcher()
    assert matcher.consume([*tokens[:5], tokens[-1]]) == 5
    assert not matcher.is_complete
    assert matcher.consume([*tokens[5:], *tokens]) == len(tokens) - 5
    assert matcher.is_ended
    matcher.rollback(1)
    assert matcher.is_complete
    assert not matcher.is_ended
    assert matcher.forced() == [invoice.vocabulary.end_token]


def test_other_checkpoint_stops_do_not_end_an_answer(invoice: Grammar) -> None:
    """generation_config also names <|endoftext|>: no target ends with it."""
    other = invoice.vocabulary.tokenizer.convert_tokens_to_ids("<|endoftext|>")
    matcher = invoice.matcher()
    matcher.consume(target_tokens(INVOICE, invoice.vocabulary)[:-1])
    assert matcher.is_complete
    assert matcher.consume([other]) == 0


def test_masks_of_drafts_are_those_of_stepping_and_leave_the_state_alone(invoice: Grammar) -> None:
    vocabulary = invoice.vocabulary
    tokens = target_tokens(INVOICE, vocabulary)
    matcher, masks, one = invoice.matcher(), invoice.mask_buffer(9), invoice.mask_buffer(1)
    for at in range(0, len(tokens), 5):
        drafts = tokens[at : at + 8]
        assert matcher.fill_masks(drafts, masks) == len(drafts) + 1
        stepping = matcher.copy()
        for row, draft in enumerate(drafts):
            stepping.fill_mask(one)
            assert (masks[row] == one[0]).all()
            assert stepping.consume([draft]) == 1
        stepping.fill_mask(one)
        assert (masks[len(drafts)] == one[0]).all()
        assert matcher.consumed == at
        assert matcher.consume(tokens[at : at + 5]) == len(tokens[at : at + 5])


def test_a_wrong_draft_ends_the_drafts_and_changes_nothing(invoice: Grammar) -> None:
    vocabulary = invoice.vocabulary
    tokens = target_tokens(INVOICE, vocabulary)
    masks, before, after = invoice.mask_buffer(9), invoice.mask_buffer(1), invoice.mask_buffer(1)
    for seed in range(60):
        chosen = random.Random(seed)
        matcher = invoice.matcher()
        matcher.consume(tokens[: chosen.randrange(len(tokens))])
        at = matcher.consumed
        matcher.fill_mask(before)
        right = chosen.randrange(4)
        drafts = [*tokens[at : at + right], vocabulary.tokenizer.convert_tokens_to_ids("<|image_pad|>"), *tokens[at + right : at + 4]]
        assert matcher.fill_masks(drafts, masks) == len(tokens[at : at + right]) + 1
        matcher.fill_mask(after)
        assert (before == after).all()
        assert matcher.consume(tokens[at:]) == len(tokens) - at


def test_a_draft_that_spells_forced_text_in_other_tokens_is_no_draft(invoice: Grammar) -> None:
    """The grammar would take any split of the text, but the loop would not have chosen it: answers with and without drafts must agree."""
    vocabulary = invoice.vocabulary
    other_split = [vocabulary.byte_tokens[byte] for byte in b'{"invoice']
    masks = invoice.mask_buffer(len(other_split) + 1)
    assert invoice.matcher().consume(other_split) == len(other_split)
    assert other_split[:2] != target_tokens(INVOICE, vocabulary)[:2]
    assert invoice.matcher().fill_masks(other_split, masks) == 1


def test_rolling_back_and_copying_bring_the_same_masks_again(invoice: Grammar) -> None:
    vocabulary = invoice.vocabulary
    tokens = target_tokens(INVOICE, vocabulary)
    matcher, first, again = invoice.matcher(), invoice.mask_buffer(len(tokens) + 1), invoice.mask_buffer(1)
    for row, token in enumerate(tokens):
        matcher.fill_mask(first, row)
        assert matcher.consume([token]) == 1
    twin = matcher.copy()
    for row in reversed(range(len(tokens))):
        twin.rollback(1)
        twin.fill_mask(again)
        assert (first[row] == again[0]).all()
    assert matcher.is_ended
    assert twin.consumed == 0
    with pytest.raises(ValueError, match="1 tokens cannot be taken back: 0 were consumed"):
        twin.rollback(1)


def test_sequences_of_one_grammar_do_not_see_each_other(invoice: Grammar) -> None:
    one, two = invoice.matcher(), invoice.matcher()
    masks = invoice.mask_buffer(2)
    one.consume(target_tokens(INVOICE, invoice.vocabulary)[:9])
    two.fill_mask(masks, 0)
    invoice.matcher().fill_mask(masks, 1)
    assert (masks[0] == masks[1]).all()


def test_forbidden_logits_are_minus_infinity_and_the_others_untouched(invoice: Grammar) -> None:
    vocabulary = invoice.vocabulary
    masks = invoice.mask_buffer(2)
    matcher = invoice.matcher()
    matcher.fill_mask(masks, 0)
    matcher.consume(target_tokens(INVOICE, vocabulary)[:12])
    matcher.fill_mask(masks, 1)
    logits = np.random.default_rng(0).normal(size=(2, vocabulary.size)).astype(np.float32)
    masked = logits.copy()
    forbid(masked, masks)
    for row in range(2):
        for token in range(vocabulary.size):
            expected = logits[row, token] if allows(masks[row], token) else -np.inf
            assert masked[row, token] == expected


def test_a_buffer_of_another_width_is_refused(invoice: Grammar) -> None:
    with pytest.raises(ValueError, match="buffer size"):
        invoice.matcher().fill_mask(np.zeros((1, 3), dtype=np.int32))
    with pytest.raises(ValueError, match="contiguous"):
        invoice.matcher().fill_mask(np.zeros((3, 9), dtype=np.int32).T)


def test_forced_tokens_and_drafts_change_no_greedy_answer(grammars: Grammars) -> None:
    """Against a model whose logits hang on all that stands before; drafts are the answer itself, broken at random places."""
    for schema in SCHEMAS:
        grammar = grammars.of(schema)
        for seed in range(2):
            plain = greedy(grammar, seed, [], use_forced=False)
            assert greedy(grammar, seed, [], use_forced=True) == plain
            chosen = random.Random(seed)
            broken = [token if chosen.random() < 0.8 else chosen.randrange(grammar.vocabulary.size) for token in plain]
            assert greedy(grammar, seed, broken, use_forced=True) == plain
            assert greedy(grammar, seed, broken, use_forced=False) == plain


def greedy(grammar: Grammar, seed: int, draft: list[int], use_forced: bool, most: int = 60) -> list[int]:
    """The loop to come, with the model played by a random generator."""
    matcher, masks, tokens = grammar.matcher(), grammar.mask_buffer(5), []
    while not matcher.is_ended and len(tokens) < most:
        if use_forced and (forced := matcher.forced()):
            tokens += forced[: matcher.consume(forced)]
            continue
        drafts = draft[len(tokens) : len(tokens) + 4]
        rows = matcher.fill_masks(drafts, masks)
        logits = np.stack([logits_behind([*tokens, *drafts[:row]], seed, grammar.vocabulary) for row in range(rows)])  # one pass
        forbid(logits, masks[:rows])
        best = logits.argmax(axis=-1).tolist()
        agreed = next((row for row in range(rows - 1) if drafts[row] != best[row]), rows - 1)
        tokens += best[: matcher.consume(best[: agreed + 1])]
    return tokens[:most]


def logits_behind(tokens: list[int], seed: int, vocabulary: Vocabulary) -> np.ndarray:
    generator = np.random.default_rng([seed, *tokens])
    logits = generator.normal(size=vocabulary.size)
    logits[vocabulary.byte_tokens[ord('"')]] += 2  # it likes to end strings
    return logits
