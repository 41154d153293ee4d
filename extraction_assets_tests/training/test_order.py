from __future__ import annotations

from extraction_assets.training.order import epoch_order, global_batches, micro_batches

IDS = [f"e{i}" for i in range(10)]


def test_every_epoch_reads_every_example_once_in_another_order() -> None:
    first, second = epoch_order(IDS, 1, 0), epoch_order(IDS, 1, 1)
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert first == epoch_order(IDS, 1, 0)
    assert first != epoch_order(IDS, 2, 0)


def test_order_is_of_the_examples_not_of_their_places() -> None:
    names = [IDS[row] for row in epoch_order(IDS, 1, 0)]
    turned = IDS[::-1]
    assert [turned[row] for row in epoch_order(turned, 1, 0)] == names


def test_a_resumed_run_reads_on_where_it_stood() -> None:
    whole = list(global_batches(IDS, 3, effective_batch=4, steps=8))
    assert [batch.step for batch in whole] == list(range(1, 9))
    assert [len(batch.rows) for batch in whole[:3]] == [4, 4, 2]
    assert [batch.ends_epoch for batch in whole[:3]] == [False, False, True]
    for done in range(9):
        assert list(global_batches(IDS, 3, 4, 8, done)) == whole[done:]


def test_micro_batches_and_ranks_cover_a_batch_exactly() -> None:
    lengths = [5, 9, 1, 7, 3, 8, 2, 6, 4, 10]
    for ranks in (1, 2, 3):
        shares = [micro_batches(range(10), lengths, 3, ranks, rank) for rank in range(ranks)]
        rows = sorted(row for share in shares for group in share for row in group)
        assert rows == list(range(10))
        assert all(len(group) <= 3 for share in shares for group in share)
        assert all(share for share in shares)


def test_pages_of_like_length_share_a_forward_pass() -> None:
    groups = micro_batches(range(4), [10, 100, 11, 99], 2)
    assert groups == [(1, 3), (2, 0)]
