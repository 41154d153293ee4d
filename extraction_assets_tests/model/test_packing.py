"""Packed = separate, and what is no longer equal when one of the conditions is missed."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from torch.nn import functional

from extraction_assets.model import attention
from extraction_assets.model.attention import OF_A_PAGE, WITHIN_PAGES, Spans, attend_within_pages, of_a_page, stock_attention, within_pages
from extraction_assets.model.base import load_base
from extraction_assets.model.encoding import EncodedPage, PageEncoder
from extraction_assets.model.lora import add_lora
from extraction_assets.model.packing import Pack, pack
from extraction_assets.settings import TrainingSettings
from extraction_assets.training.loss import response_loss
from extraction_assets_tests.model.pages import page_png

LOGITS, GRADIENTS = 1e-5, 1e-6
"""largest difference of a logit; length of the gradients' difference relative to their own"""


def adapted_model(base_folder: Path, implementation: str) -> PeftModel:
    """In float32, with weights large enough that pages matter to one another if they meet, and adapters that are no longer at 0."""
    base = load_base(base_folder, dtype=torch.float32)
    if implementation == WITHIN_PAGES:
        attend_within_pages(base.model)
    generator = torch.Generator().manual_seed(7)
    model = add_lora(base, TrainingSettings(r=4), seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2 and "patch_embed" not in name:
                parameter.normal_(0, 0.05, generator=generator)
    return model


@pytest.fixture(scope="module", params=["sdpa", WITHIN_PAGES])
def model(request: pytest.FixtureRequest, base_folder: Path) -> PeftModel:
    return adapted_model(base_folder, request.param)


@pytest.fixture(scope="module")
def stock(base_folder: Path) -> PeftModel:
    return adapted_model(base_folder, "sdpa")


@pytest.fixture(scope="module")
def ours(base_folder: Path) -> PeftModel:
    return adapted_model(base_folder, WITHIN_PAGES)


def random_pages(encoder: PageEncoder, seed: int) -> list[EncodedPage]:
    """Two to five pages of random sizes, instructions and answers, some without an answer's worth of text."""
    chance = random.Random(f"pages {seed}")

    def text(most: int) -> str:
        return "".join(chance.choice("aäB 7,.€") for _ in range(chance.randint(0, most)))

    pages = []
    for number in range(chance.randint(2, 5)):
        width, height = 32 * chance.randint(1, 6), 32 * chance.randint(1, 6)
        png = page_png(width, height, chance.randrange(2**31))
        pages.append(encoder.page(str(number), png, "Read " + text(30), f'{{"a":"{text(60)}"}}'))
    return pages


def logits(model: PeftModel, inputs: dict[str, Any]) -> torch.Tensor:
    """(tokens, vocabulary)"""
    with torch.no_grad():
        found: torch.Tensor = model(**inputs).logits[0]
    return found


def logits_of_pages_alone(model: PeftModel, pages: Sequence[EncodedPage]) -> torch.Tensor:
    return torch.cat([logits(model, pack([page]).inputs) for page in pages])


def gradients(model: PeftModel, packs: Sequence[Pack]) -> torch.Tensor:
    model.zero_grad()
    for each in packs:
        response_loss(model, each).backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])


# --- packed = separate ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_logits_of_packed_pages_are_those_of_pages_alone(model: PeftModel, encoder: PageEncoder, seed: int) -> None:
    pages = random_pages(encoder, seed)
    difference = logits(model, pack(pages).inputs) - logits_of_pages_alone(model, pages)
    assert difference.abs().max() < LOGITS


@pytest.mark.parametrize("seed", range(4))
def test_gradients_of_packed_pages_are_those_of_pages_alone(model: PeftModel, encoder: PageEncoder, seed: int) -> None:
    pages = random_pages(encoder, seed)
    together, alone = gradients(model, [pack(pages)]), gradients(model, [pack([page]) for page in pages])
    assert len(alone) == sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert alone.norm() > 0
    assert (together - alone).norm() < GRADIENTS * alone.norm()


# --- the conditions: each mutant must be told from the real thing -----------------------------------------------------------------


def _cache_left_on(inputs: dict[str, Any]) -> dict[str, Any]:
    return {**inputs, "use_cache": True}


def _mask_given(inputs: dict[str, Any]) -> dict[str, Any]:
    return {**inputs, "attention_mask": torch.ones_like(inputs["input_ids"])}


def _causal_mask_over_the_row(inputs: dict[str, Any]) -> dict[str, Any]:
    tokens = inputs["input_ids"].shape[1]
    return {**inputs, "attention_mask": torch.ones(1, 1, tokens, tokens, dtype=torch.bool).tril()}


def _text_positions_not_restarting(inputs: dict[str, Any]) -> dict[str, Any]:
    positions = inputs["position_ids"].clone()
    positions[0, 0] = torch.arange(positions.shape[-1])
    return {**inputs, "position_ids": positions}


def _no_positions_restarting(inputs: dict[str, Any]) -> dict[str, Any]:
    starts, lengths = inputs["page_starts"][:-1], torch.tensor(inputs["page_lengths"])
    return {**inputs, "position_ids": inputs["position_ids"] + torch.repeat_interleave(starts, lengths)}


def _no_text_positions(inputs: dict[str, Any]) -> dict[str, Any]:
    return {**inputs, "position_ids": inputs["position_ids"][1:]}


Mutant = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    "mutant",
    [
        _cache_left_on,
        _mask_given,
        _causal_mask_over_the_row,
        _text_positions_not_restarting,
        _no_positions_restarting,
        _no_text_positions,
    ],
)
def test_on_stock_attention_every_missed_condition_fails_the_comparison(
    stock: PeftModel, encoder: PageEncoder, mutant: Mutant, seed: int
) -> None:
    pages = random_pages(encoder, seed)
    difference = logits(stock, mutant(pack(pages).inputs)) - logits_of_pages_alone(stock, pages)
    first = pages[0].text.tokens
    assert difference[:first].abs().max() < LOGITS  # nothing stands before the first page
    assert difference[first:].abs().max() > 1000 * LOGITS


def test_within_pages_wrong_page_lengths_fail_the_comparison(ours: PeftModel, encoder: PageEncoder) -> None:
    pages = random_pages(encoder, 0)
    whole = pack(pages)
    joined = {**whole.inputs, "page_lengths": (whole.tokens,), "page_starts": torch.tensor([0, whole.tokens], dtype=torch.int32)}
    assert (logits(ours, joined) - logits_of_pages_alone(ours, pages)).abs().max() > 1000 * LOGITS


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"page_lengths": None}, "needs page_lengths"),
        ({"page_starts": None}, "needs page_lengths and page_starts"),
        ({"page_lengths": (7, 8)}, r"for pages of \[7, 8\] tokens in one row"),
    ],
)
def test_within_pages_what_it_cannot_keep_apart_is_an_error(
    ours: PeftModel, encoder: PageEncoder, change: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        logits(ours, {**pack(random_pages(encoder, 0)).inputs, **change})


def test_within_pages_a_mask_over_the_row_is_an_error(ours: PeftModel, encoder: PageEncoder) -> None:
    with pytest.raises(ValueError, match="takes no attention_mask"):
        logits(ours, _causal_mask_over_the_row(pack(random_pages(encoder, 0)).inputs))


@pytest.mark.parametrize("harmless", [_cache_left_on, _mask_given, _text_positions_not_restarting])
def test_within_pages_no_longer_hangs_on_those_conditions(ours: PeftModel, encoder: PageEncoder, harmless: Mutant) -> None:
    pages = random_pages(encoder, 1)
    difference = logits(ours, harmless(pack(pages).inputs)) - logits_of_pages_alone(ours, pages)
    assert difference.abs().max() < LOGITS


def test_only_who_asks_for_it_attends_within_pages(ours: PeftModel, base_folder: Path) -> None:
    assert ours.config.text_config._attn_implementation == WITHIN_PAGES
    assert ours.config.vision_config._attn_implementation == OF_A_PAGE
    as_loaded = load_base(base_folder).model.config
    assert as_loaded.text_config._attn_implementation == as_loaded.vision_config._attn_implementation == "sdpa"


# --- what a pack holds --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_pages_stand_whole_in_their_pack(encoder: PageEncoder, seed: int) -> None:
    pages = random_pages(encoder, seed)
    whole = pack(pages)
    starts = whole.page_starts.tolist()
    assert whole.tokens == starts[-1] == whole.input_ids.shape[1] == sum(page.text.tokens for page in pages)
    assert whole.pixel_values.shape[0] == whole.image_grid_thw.prod(dim=1).sum()
    for page, start, end in zip(pages, starts[:-1], starts[1:], strict=True):
        assert whole.input_ids[0, start:end].tolist() == page.text.input_ids.tolist()
        assert (whole.input_ids[0, start:end] == encoder.image_token).sum() == page.text.rows * page.text.columns
        assert whole.position_ids[0, 0, start:end].tolist() == list(range(end - start))
        assert whole.position_ids[1:, 0, start:end].tolist() == page.text.positions.tolist()
        inside = (whole.response_at >= start) & (whole.response_at < end)
        response = whole.response[inside].tolist()
        assert encoder.decode(response).endswith('"}<|im_end|>')
        assert response == page.text.labels[page.text.labels >= 0].tolist()
        assert whole.input_ids[0, whole.response_at[inside] + 1].tolist() == response


def test_positions_are_the_models_own(stock: PeftModel, encoder: PageEncoder) -> None:
    whole = pack(random_pages(encoder, 2))
    starts = whole.page_starts.tolist()
    for number, (start, end) in enumerate(itertools.pairwise(starts)):
        ids = whole.input_ids[:, start:end]
        own, _ = stock.base_model.model.model.get_rope_index(
            ids, mm_token_type_ids=(ids == encoder.image_token).int(), image_grid_thw=whole.image_grid_thw[number : number + 1]
        )
        assert torch.equal(own, whole.position_ids[1:, :, start:end])


def test_a_pack_without_a_page_is_an_error() -> None:
    with pytest.raises(ValueError, match="needs a page"):
        pack([])


# --- kernels ------------------------------------------------------------------------------------------------------------------------


def varlen_as_documented(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, queries: Spans, pages: Spans, scale: float | None
) -> torch.Tensor:
    """What torch's varlen_attn and flash-attn's varlen function promise, in plain torch: they themselves need a GPU."""
    for starts, longest in (queries, pages):
        assert starts.dtype == torch.int32
        assert longest == starts.diff().max()
    out = torch.empty_like(query)
    for own, page in zip(itertools.pairwise(queries[0].tolist()), itertools.pairwise(pages[0].tolist()), strict=True):
        q, k, v = (tensor[slice(*span)].transpose(0, 1)[None] for tensor, span in ((query, own), (key, page), (value, page)))
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril(k.shape[2] - q.shape[2])
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=True)
        out[slice(*own)] = mixed[0].transpose(0, 1)
    return out


def test_varlen_kernels_are_called_as_they_are_documented(ours: PeftModel, encoder: PageEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pack(random_pages(encoder, 3))
    page_by_page = logits(ours, whole.inputs)
    calls = 0

    def varlen(*arguments: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return varlen_as_documented(*arguments)

    monkeypatch.setattr(attention, "_varlen", lambda *_: varlen)
    assert (logits(ours, whole.inputs) - page_by_page).abs().max() < LOGITS
    assert calls == ours.config.text_config.num_hidden_layers


def test_without_a_gpu_pages_run_one_by_one() -> None:
    assert attention._varlen(torch.device("cpu"), torch.bfloat16, 128) is None
    module = torch.nn.Module()
    query = torch.randn(1, 2, 5, 16)
    out, _ = within_pages(module, query, query, query, None, page_lengths=(2, 3), page_starts=torch.tensor([0, 2, 5]))
    assert torch.equal(out[:, :2], within_pages(module, *[query[:, :, :2]] * 3, None, page_lengths=(2,), page_starts=torch.zeros(2))[0])
    assert not torch.equal(out[:, :1], out[:, 2:3])


def test_on_a_cpu_long_pages_are_computed_in_32_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_BLOCKED_UP_TO", 4)
    module, place = torch.nn.Module(), {"page_lengths": (5,), "page_starts": torch.tensor([0, 5])}
    query, key, value = torch.randn(3, 1, 2, 5, 16)
    with torch.autocast("cpu", torch.bfloat16):  # as training has them: queries and keys come out of norms in 32 bits
        out, _ = within_pages(module, query, key, value.bfloat16(), None, **place)
    wanted, _ = within_pages(module, query, key, value.bfloat16().float(), None, **place)
    assert torch.equal(out, wanted.bfloat16())


def test_on_a_cpu_the_tower_attends_in_blocks_of_16_bits_and_sees_all_of_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_BLOCK", 3 * 2 * 11)
    module = torch.nn.Module()
    query, key, value = torch.randn(3, 1, 2, 11, 16).bfloat16()
    out, _ = of_a_page(module, query, key, value, None, scaling=0.3, is_causal=False)
    whole, _ = of_a_page(module, query.float(), key.float(), value.float(), None, scaling=0.3, is_causal=False)
    expected = functional.scaled_dot_product_attention(query.float(), key.float(), value.float(), scale=0.3).transpose(1, 2)
    assert torch.equal(whole, expected)
    assert out.dtype == torch.bfloat16
    assert (out.float() - expected).norm() < 0.01 * expected.norm()


@pytest.mark.parametrize("asked", [11, 4], ids=["all tokens ask", "the last ones ask"])
def test_on_a_cpu_blocks_in_16_bits_are_attention_but_for_rounding(asked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks smaller than a page, two heads to a key; values and gradients against 32 bits."""
    monkeypatch.setattr(attention, "_BLOCK", 3 * 4 * 11)
    module = torch.nn.Module()
    module.num_key_value_groups = 2  # type: ignore[assignment]
    starts = {"page_starts": torch.tensor([0, 11]), "query_starts": torch.tensor([0, asked])}
    gradient = torch.randn(1, asked, 4, 16)

    def run(dtype: torch.dtype) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(3)
        shapes = ((1, 4, asked, 16), (1, 2, 11, 16), (1, 2, 11, 16))
        inputs = [torch.randn(shape, generator=generator).bfloat16().to(dtype).requires_grad_() for shape in shapes]
        query, key, value = inputs
        out, _ = within_pages(module, query, key, value, None, page_lengths=(11,), queries=(asked,), **starts)
        out.backward(gradient.to(dtype))
        return [out.detach(), *(tensor.grad for tensor in inputs if tensor.grad is not None)]

    for half, whole in zip(run(torch.bfloat16), run(torch.float32), strict=True):
        assert half.dtype == torch.bfloat16
        assert (half.float() - whole).norm() < 0.01 * whole.norm()


def test_a_page_seen_while_answers_are_decoded_is_seen_as_ever(base_folder: Path) -> None:
    """Another thread sees the pages of coming steps meanwhile: with the answers' attention a page would have other bits, now and then."""
    base = load_base(base_folder, dtype=torch.float32)
    attend_within_pages(base.model)
    page = PageEncoder(base.format).page("p", page_png(128, 96, seed=0), "Extract as JSON: number", '{"number":"12"}')
    tower: Any = base.model.model.get_image_features
    own = pack([page], base.format.pages.merge)

    def seen() -> Tensor:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            (features,) = tower(own.pixel_values, own.image_grid_thw, return_dict=True).pooler_output
        return cast(Tensor, features)

    expected = seen()
    with stock_attention(base.model):
        assert torch.equal(seen(), expected)
    assert torch.equal(seen(), expected)
