"""Steps of a CPU: what each sequence reads, it reads as if it were alone, and as in a padded batch."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from transformers import Qwen3VLForConditionalGeneration

from extraction_assets.inference import packed_steps
from extraction_assets.inference.packed_steps import KEYS_AT_ONCE, LEAST_ROWS, SLOT_BY_SLOT, PackedSteps
from extraction_assets.inference.slots import SlotCache
from extraction_assets.inference.steps import Steps
from extraction_assets.model.base import Base

LENGTHS = [5, 600, 41]
FED = [[11], [7, 8, 9, 10, 11, 12], [3, 4, 5]]
PAD = 0


@pytest.fixture(scope="module")
def model(base: Base) -> Qwen3VLForConditionalGeneration:
    return copy.deepcopy(base.model).eval()


def cache(model: Qwen3VLForConditionalGeneration, slots: Sequence[int] = range(len(LENGTHS))) -> SlotCache:
    """What the sequences of these numbers hold, each in a slot."""
    text = model.config.get_text_config()
    made = SlotCache(
        text.num_hidden_layers, len(slots), text.num_key_value_heads, 2 * KEYS_AT_ONCE, text.head_dim, torch.float32, torch.device("cpu")
    )
    for layer in range(text.num_hidden_layers):
        for slot, number in enumerate(slots):
            held = torch.randn(
                2, 1, text.num_key_value_heads, LENGTHS[number], text.head_dim, generator=torch.Generator().manual_seed(layer * 10 + number)
            )
            made.open_prefill(slot)
            made.update(held[0], held[1], layer)
    return made


@torch.inference_mode()
def logits(steps: Steps, fed: Sequence[Sequence[int]], lengths: Sequence[int]) -> list[torch.Tensor]:
    """(tokens, vocabulary) of each sequence."""
    told = steps.read(fed, lengths, lengths)
    return [told([slot] * len(tokens), range(len(tokens))).clone() for slot, tokens in enumerate(fed)]


def test_a_row_of_all_sequences_reads_as_a_padded_batch(model: Qwen3VLForConditionalGeneration) -> None:
    padded = logits(Steps(model, cache(model), PAD), FED, LENGTHS)
    packed = logits(PackedSteps(model, cache(model), PAD), FED, LENGTHS)
    for one, other in zip(packed, padded, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("number", range(len(FED)))
def test_a_sequence_reads_the_same_alone_and_token_by_token(model: Qwen3VLForConditionalGeneration, number: int) -> None:
    beside = logits(PackedSteps(model, cache(model), PAD), FED, LENGTHS)[number]
    alone = logits(PackedSteps(model, cache(model, [number]), PAD), [FED[number]], [LENGTHS[number]])[0]
    torch.testing.assert_close(alone, beside, rtol=1e-5, atol=1e-5)
    steps = PackedSteps(model, cache(model, [number]), PAD)
    by_token = [logits(steps, [[token]], [LENGTHS[number] + read])[0] for read, token in enumerate(FED[number])]
    torch.testing.assert_close(torch.cat(by_token), beside, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("slots", [[0], [0, 1, 2]])
def test_no_product_has_a_shape_that_orders_its_sums_otherwise(
    model: Qwen3VLForConditionalGeneration, slots: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    rows: list[int] = []
    attend = packed_steps.scaled_dot_product_attention

    def recorded(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: object) -> torch.Tensor:
        asked.append((query.shape[2], key.shape[2]))
        return attend(query, key, value, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(packed_steps, "scaled_dot_product_attention", recorded)
    linears = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    hooks = [linear.register_forward_pre_hook(lambda _, given: rows.append(given[0].shape[-2])) for linear in linears]
    steps = PackedSteps(model, cache(model, slots), PAD)
    logits(steps, [FED[slot] for slot in slots], [LENGTHS[slot] for slot in slots])
    for hook in hooks:
        hook.remove()
    assert len(asked) == len(slots) * model.config.get_text_config().num_hidden_layers
    assert min(queries for queries, _ in asked) == LEAST_ROWS
    assert {keys % KEYS_AT_ONCE for _, keys in asked} == {0}
    assert {keys for _, keys in asked} == {KEYS_AT_ONCE * (1 if slot != 1 else 2) for slot in slots}
    assert min(rows) >= LEAST_ROWS


def test_without_parts_the_model_is_what_it_was(base: Base) -> None:
    stock, packed = copy.deepcopy(base.model).eval(), copy.deepcopy(base.model).eval()
    PackedSteps(packed, cache(packed), PAD)
    assert packed.config.get_text_config()._attn_implementation == SLOT_BY_SLOT
    assert packed.config.vision_config._attn_implementation == stock.config.vision_config._attn_implementation
    tokens = torch.arange(1, 25).reshape(2, 12)
    mask = torch.ones_like(tokens)
    mask[1, :4] = 0
    for attention_mask in (None, mask):
        given = {"input_ids": tokens, "attention_mask": attention_mask}
        assert torch.equal(packed(**given).logits, stock(**given).logits)
        told = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": PAD}
        assert torch.equal(packed.generate(**given, **told), stock.generate(**given, **told))
