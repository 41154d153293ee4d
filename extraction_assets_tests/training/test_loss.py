from __future__ import annotations

import itertools
import math

import pytest
import torch

from extraction_assets.model.base import Base
from extraction_assets.model.encoding import EncodedPage, PageEncoder, collate
from extraction_assets.model.packing import pack
from extraction_assets.training.loss import exploding_since, learning_rate, response_loss
from extraction_assets_tests.model.pages import page_png


@pytest.fixture(scope="module")
def pages(encoder: PageEncoder) -> list[EncodedPage]:
    targets = ['{"a":1}', '{"buyer":"Müller & Söhne GmbH","total":"1,234.50"}', "{}", '{"a":[1,2,3]}']
    return [encoder.page(str(i), page_png(64 + 32 * i, 64, i), "Read", target) for i, target in enumerate(targets)]


def test_it_is_the_stock_loss_as_a_sum(base: Base, pages: list[EncodedPage]) -> None:
    for page in pages:
        batch = collate([page], 0)
        stock = base.model(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            pixel_values=batch.pixel_values,
            image_grid_thw=batch.image_grid_thw,
            labels=batch.labels,
            use_cache=False,
        ).loss
        ours = response_loss(base.model, pack([page])) / page.text.response_tokens
        assert ours.item() == pytest.approx(stock.item(), rel=1e-5)


def test_packs_of_any_size_sum_to_the_same_loss(base: Base, pages: list[EncodedPage]) -> None:
    with torch.no_grad():
        whole = response_loss(base.model, pack(pages)).item()
        ones = sum(response_loss(base.model, pack([page])).item() for page in pages)
        pairs = sum(response_loss(base.model, pack(pages[i : i + 2])).item() for i in (0, 2))
    assert ones == pytest.approx(whole, rel=1e-5)
    assert pairs == pytest.approx(whole, rel=1e-5)


def test_prompt_tokens_carry_no_loss(base: Base, pages: list[EncodedPage]) -> None:
    logits_rows = []
    hook = base.model.lm_head.register_forward_hook(lambda _, __, out: logits_rows.append(tuple(out.shape[:2])))
    response_loss(base.model, pack(pages))
    hook.remove()
    assert logits_rows == [(1, sum(page.text.response_tokens for page in pages))]


def test_learning_rate_warms_up_and_ends_near_zero() -> None:
    rates = [learning_rate(step, 100, 10, 1e-3) for step in range(1, 101)]
    assert rates[0] == pytest.approx(1e-4)
    assert rates[9] == pytest.approx(1e-3)
    assert max(rates) == pytest.approx(1e-3)
    assert all(a >= b for a, b in itertools.pairwise(rates[9:]))
    assert 0 < rates[-1] < 1e-5
    assert all(math.isfinite(rate) for rate in rates)


@pytest.mark.parametrize(
    ("losses", "since"),
    [
        ([5.9], None),
        ([5.9, 5.0, 4.1, 3.0, 0.2], None),
        ([0.5, 2.9, 2.9, 2.9], None),  # pages that the base knows worse than those of the first step
        ([0.5, 0.4, 7.0, 7.1, 0.6, 7.0], None),  # single batches
        ([0.5, 0.4, 7.0, 6.8, 7.2], 3),
        ([0.5, 0.4, 3.1, 3.1, 3.1], 3),
        ([0.01, 0.02, 1.9, 1.9, 1.9], None),  # a champion that learns on, and a vendor that it has never seen
        ([5.9, 6.0, 60.0], None),
        ([5.9, 6.0, 70.0], 3),
        ([5.9, 20.0, 70.0], 2),
        ([0.5, 0.4, 7.0, 7.0, 7.0, 7.0, 0.4], None),  # has come back: with training.exploding: continue
    ],
    ids=str,
)
def test_a_loss_explodes_where_it_stays_far_above_the_first_or_leaves_all_bounds(losses: list[float], since: int | None) -> None:
    assert exploding_since(losses) == since
