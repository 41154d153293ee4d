from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extraction_assets.model.encoding import PageEncoder
from extraction_assets.training.feed import Feed
from extraction_assets.training.packs import pack_rows, shares
from extraction_assets.training.plan import split_lengths
from extraction_assets_tests.training.conftest import SETTINGS, Data

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=40)


def tokens(pack: tuple[int, ...], lengths: list[int]) -> int:
    return sum(lengths[row] for row in pack)


def test_the_longest_goes_first_and_each_into_the_fullest_pack_with_room() -> None:
    lengths = [3, 6, 4, 7, 2]
    assert pack_rows(range(5), lengths, 10) == [(3, 0), (1, 2), (4,)]
    assert pack_rows([1, 2, 4], lengths, 8) == [(1, 4), (2,)]


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(1, 60))
def test_every_example_is_packed_whole_and_no_pack_overflows(lengths: list[int], room: int) -> None:
    packs = pack_rows(range(len(lengths)), lengths, room)
    assert sorted(itertools.chain(*packs)) == list(range(len(lengths)))
    assert all(len(pack) == 1 or tokens(pack, lengths) <= room for pack in packs)
    assert all(tokens(a, lengths) + tokens(b, lengths) > room for a, b in itertools.combinations(packs, 2))  # no two could be one


def test_among_equal_lengths_the_seeded_order_decides_who_meets() -> None:
    lengths = [5] * 6
    assert pack_rows([0, 1, 2, 3, 4, 5], lengths, 10) == [(0, 1), (2, 3), (4, 5)]
    assert pack_rows([5, 0, 3, 1, 2, 4], lengths, 10) == [(5, 0), (3, 1), (2, 4)]


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(1, 60), st.integers(1, 4))
def test_ranks_share_a_batch_exactly_and_evenly(lengths: list[int], room: int, ranks: int) -> None:
    dealt = shares(range(len(lengths)), lengths, room, ranks)
    assert sorted(row for share in dealt for pack in share for row in pack) == list(range(len(lengths)))
    assert all(len(pack) == 1 or tokens(pack, lengths) <= room for share in dealt for pack in share)
    counts = [len(share) for share in dealt]
    if len(lengths) >= ranks:
        assert min(counts) >= 1
    if sum(counts) < len(lengths):  # some pack could still be divided
        assert len(set(counts)) == 1
    load = [sum(tokens(pack, lengths) for pack in share) for share in dealt]
    assert max(load) - min(load) <= max(tokens(pack, lengths) for share in dealt for pack in share)


def test_one_rank_reads_the_plans_own_packs() -> None:
    lengths = [5, 9, 1, 7, 3, 8, 2, 6, 4, 10]
    assert sorted(shares(range(10), lengths, 20)[0]) == sorted(pack_rows(range(10), lengths, 20))


@pytest.mark.parametrize("room", [1, 60, 10_000])
@pytest.mark.parametrize("max_target_tokens", [30, 768])
def test_nothing_is_truncated(data: Data, encoder: PageEncoder, room: int, max_target_tokens: int) -> None:
    """Neither a budget of target tokens nor a small pack cuts visual tokens or the closing brace: a whole example goes, or none of it."""
    budget = SETTINGS.model_copy(update={"max_target_tokens": max_target_tokens})
    examples, lengths = split_lengths(data.train, encoder, budget, 10_000)
    assert bool(lengths.over_length) == (max_target_tokens == 30)
    feed = Feed(examples, encoder)
    seen = []
    for pack in feed.packs(shares(range(len(examples)), feed.lengths, room)[0]):
        starts = pack.page_starts.tolist()
        for example, start, end in zip(pack.ids, starts[:-1], starts[1:], strict=True):
            record = next(it for it, _ in examples if it.id == example)
            text = encoder.decode(pack.input_ids[0, start:end].tolist())
            assert text.endswith(record.target + "<|im_end|>")
            assert record.target.endswith("}")
            assert (pack.input_ids[0, start:end] == encoder.image_token).sum() == record.width * record.height // 32**2
            seen.append(example)
    assert sorted(seen) == sorted(example.id for example, _ in examples)
