from __future__ import annotations

from extraction_assets.training.order import epoch_order, global_batches

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
