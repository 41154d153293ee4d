"""Promises about splits: 80/10/10 by document, stratified by vendor, stable for life."""

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extraction_assets.dataset.ledger import LedgerEntry, SplitLedger, assignment_digest
from extraction_assets.dataset.records import SPLITS
from extraction_assets.dataset.splits import Assignment, SplitDocument, assign_splits, split_documents, split_rows
from extraction_assets.dataset.twins import TwinGroups, TwinLink, _groups
from extraction_assets.errors import InputError
from extraction_assets.settings import SplitSettings
from extraction_assets_tests.dataset.rows import row, sha

DEFAULT = SplitSettings()
Pair = tuple[str, str]


def documents(names: list[str], vendor: str = "invoice/acme") -> list[SplitDocument]:
    return [SplitDocument(sha(name), (vendor,), (sha(f"{name}/1"),), (sha(f"{name}/1"),)) for name in names]


def grouped(docs: list[SplitDocument], links: list[Pair] | None = None) -> TwinGroups:
    found = tuple(sorted(TwinLink(min(a, b), max(a, b), "text") for a, b in links or []))
    return TwinGroups(_groups((d.document for d in docs), found), found)


def assign(docs: list[SplitDocument], folder: Path, links: list[Pair] | None = None, its: SplitSettings = DEFAULT) -> Assignment:
    """As every update does: the ledger is read anew."""
    return assign_splits(docs, grouped(docs, links), its, SplitLedger(folder, its))


def counts(assignment: Assignment) -> dict[str, int]:
    found = Counter(assignment.splits.values())
    return {split: found[split] for split in SPLITS}


def test_a_hundred_documents_are_split_80_10_10(tmp_path: Path) -> None:
    assert counts(assign(documents([str(n) for n in range(100)]), tmp_path)) == {"train": 80, "val": 10, "test": 10}


def test_every_vendor_is_spread_and_small_vendors_take_turns(tmp_path: Path) -> None:
    big = [d for v in range(4) for d in documents([f"{v}/{n}" for n in range(50)], f"invoice/big{v}")]
    small = [d for v in range(60) for d in documents([f"s{v}/{n}" for n in range(v % 3 + 1)], f"invoice/small{v}")]
    done = assign(big + small, tmp_path)
    for v in range(4):
        its = Counter(done.splits[d.document] for d in big if d.vendor == f"invoice/big{v}")
        assert abs(its["val"] - 5) <= 2, its
        assert abs(its["test"] - 5) <= 2, its
    few = Counter(done.splits[d.document] for d in small)
    assert few["val"] >= 6, "120 documents of vendors with one to three each do not starve val"
    assert few["test"] >= 6
    overall = counts(done)
    assert abs(overall["val"] - 32) <= 3
    assert abs(overall["test"] - 32) <= 3


@pytest.mark.parametrize("number", range(3, 13))
def test_with_three_documents_or_more_no_split_is_empty(tmp_path: Path, number: int) -> None:
    names = [str(n) for n in range(number)]
    assert min(counts(assign(documents(names), tmp_path / "at once")).values()) >= 1
    for upto in range(1, number + 1):
        done = assign(documents(names[:upto]), tmp_path / "one by one")
    assert min(counts(done).values()) >= 1


def test_a_large_group_of_twins_goes_to_train_and_leaves_the_small_ones_for_the_rest(tmp_path: Path) -> None:
    docs = documents([str(n) for n in range(60)])
    links = [(docs[0].document, d.document) for d in docs[1:40]]
    done = assign(docs, tmp_path, links)
    assert {done.splits[d.document] for d in docs[:40]} == {"train"}
    assert counts(done) == {"train": 48, "val": 6, "test": 6}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_adding_documents_in_any_order_and_batches_moves_nobody_and_parts_no_twins(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    total = data.draw(st.integers(3, 40))
    vendors = data.draw(st.integers(1, 6))
    docs = [SplitDocument(sha(str(n)), (f"invoice/v{n % vendors}",), (sha(f"p{n}"),), (sha(f"p{n}"),)) for n in range(total)]
    pairs = data.draw(st.lists(st.tuples(st.integers(0, total - 1), st.integers(0, total - 1)).filter(lambda p: p[0] != p[1]), max_size=6))
    links = [(docs[a].document, docs[b].document) for a, b in pairs]
    order = data.draw(st.permutations(docs))
    cuts = sorted(data.draw(st.sets(st.integers(1, total), max_size=5)) | {total})
    seen: dict[str, str] = {}
    for cut in cuts:
        present = order[:cut]
        inside = {d.document for d in present}
        here = [link for link in links if inside.issuperset(link)]
        done = assign(present, folder, here)
        assert all(done.splits.get(document, split) == split for document, split in seen.items()), "nobody moves"
        left_out = {out.document for out in done.left_out}
        assert left_out.isdisjoint(done.splits)
        assert left_out | set(done.splits) == inside
        for a, b in here:
            assert a in left_out or b in left_out or done.splits[a] == done.splits[b], "twins are not parted"
        seen |= done.splits
        shuffled = random.Random(cut).sample(present, len(present))
        assert assign(shuffled, folder, here) == done, "the order of documents means nothing"


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=25), seed=st.integers(0, 5), batches=st.integers(1, 5))
def test_quotas_are_near_whatever_the_vendors_and_batches(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], seed: int, batches: int
) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    docs = [d for v, size in enumerate(sizes) for d in documents([f"{v}/{n}" for n in range(size)], f"invoice/v{v}")]
    random.Random(seed).shuffle(docs)
    its = SplitSettings(seed=seed)
    for batch in range(1, batches + 1):
        done = assign(docs[: len(docs) * batch // batches], folder, its=its)
    for split, share in (("train", 0.8), ("val", 0.1), ("test", 0.1)):
        assert abs(counts(done)[split] - share * len(docs)) <= max(3, 0.03 * len(docs))


def test_one_document_a_night_of_each_vendor_does_not_send_one_vendor_to_test(tmp_path: Path) -> None:
    docs: list[SplitDocument] = []
    for night in range(20):
        docs += [d for v in range(10) for d in documents([f"{v}/{night}"], f"invoice/v{v}")]
        done = assign(docs, tmp_path)
    for v in range(10):
        its = Counter(done.splits[d.document] for d in docs if d.vendor == f"invoice/v{v}")
        assert its["test"] <= 5, its
        assert its["train"] >= 13, its


def test_a_document_that_leaves_and_comes_back_finds_its_split(tmp_path: Path) -> None:
    docs = documents([str(n) for n in range(30)])
    first = assign(docs, tmp_path)
    without = assign(docs[10:], tmp_path)
    assert all(first.splits[document] == split for document, split in without.splits.items())
    assert assign(docs, tmp_path) == first


def test_a_new_twin_joins_its_twins_and_one_between_two_splits_is_left_out(tmp_path: Path) -> None:
    docs = documents([str(n) for n in range(20)])
    first = assign(docs, tmp_path)
    test, train = first.documents("test")[0], first.documents("train")[0]
    joined, torn = documents(["joined", "torn"])
    links = [(joined.document, test), (torn.document, test), (torn.document, train)]
    done = assign([*docs, joined, torn], tmp_path, links[:1] + links[1:])
    assert done.splits == {**first.splits}, "joined shares a group with torn, whose twins sit in two splits"
    assert [(out.document, out.reason) for out in done.left_out] == sorted(
        (d.document, "its twins are in train and test") for d in (joined, torn)
    )
    alone = assign([*docs, joined], tmp_path, links[:1])
    assert alone.splits[joined.document] == "test"


def test_assigned_documents_that_turn_out_to_be_twins_stay_where_they_are_but_only_the_stricter_split_keeps_them(tmp_path: Path) -> None:
    docs = documents([str(n) for n in range(20)])
    first = assign(docs, tmp_path)
    test, train = first.documents("test")[0], first.documents("train")[0]
    done = assign(docs, tmp_path, [(test, train)])
    assert [out.document for out in done.left_out] == [train]
    assert done.splits[test] == "test"
    assert assign(docs, tmp_path).splits[train] == "train", "once they are no twins any more, it is back"


def test_a_copy_of_a_page_whose_document_left_the_home_joins_its_split(tmp_path: Path) -> None:
    docs = documents([str(n) for n in range(20)])
    first = assign(docs, tmp_path)
    gone = next(d for d in docs if d.document == first.documents("val")[0])
    copy = SplitDocument(sha("copy"), gone.vendors, gone.images, gone.pages)
    done = assign([d for d in docs if d != gone] + [copy], tmp_path)
    assert done.splits[copy.document] == "val"


def test_held_out_vendors_are_test_and_count_in_no_quota(tmp_path: Path) -> None:
    held = documents([f"h{n}" for n in range(30)], "invoice/unseen")
    rest = documents([str(n) for n in range(50)])
    its = SplitSettings(held_out_vendors=("invoice/unseen", "invoice/misspelt"))
    done = assign(held + rest, tmp_path, its=its)
    assert {done.splits[d.document] for d in held} == {"test"}
    assert Counter(done.splits[d.document] for d in rest) == {"train": 40, "val": 5, "test": 5}
    assert done.unknown_held_out == ("invoice/misspelt",)
    assert not {d.document for d in held} & set(SplitLedger(tmp_path, its).entries)


def test_holding_out_a_vendor_later_moves_nobody_else(tmp_path: Path) -> None:
    some, rest = documents([f"s{n}" for n in range(20)], "invoice/some"), documents([str(n) for n in range(50)])
    first = assign(some + rest, tmp_path)
    held = assign(some + rest, tmp_path, its=SplitSettings(held_out_vendors=("invoice/some",)))
    assert {held.splits[d.document] for d in some} == {"test"}
    assert all(held.splits[d.document] == first.splits[d.document] for d in rest)
    assert assign(some + rest, tmp_path) == first


def test_a_twin_of_a_held_out_document_is_never_trained_on(tmp_path: Path) -> None:
    held, rest = documents(["h"], "invoice/unseen"), documents([str(n) for n in range(20)])
    first = assign(rest, tmp_path)
    trained = first.documents("train")[0]
    fresh = documents(["fresh"])
    its = SplitSettings(held_out_vendors=("invoice/unseen",))
    one = assign(held + rest, tmp_path, [(held[0].document, trained)], its)
    assert [(out.document, out.reason) for out in one.left_out] == [(trained, "a twin of it is in test")]
    two = assign(held + rest + fresh, tmp_path, [(held[0].document, fresh[0].document)], its)
    assert two.splits[fresh[0].document] == "test"


def test_other_shares_or_seeds_are_another_ledger_and_held_out_vendors_are_not() -> None:
    base = assignment_digest(DEFAULT)
    assert assignment_digest(SplitSettings(seed=1)) != base
    assert assignment_digest(SplitSettings(train=0.7, val=0.2, test=0.1)) != base
    assert assignment_digest(SplitSettings(held_out_vendors=("invoice/x",))) == base


def test_a_share_of_nothing_stays_empty(tmp_path: Path) -> None:
    done = assign(documents([str(n) for n in range(20)]), tmp_path, its=SplitSettings(train=0.9, val=0, test=0.1))
    assert counts(done) == {"train": 18, "val": 0, "test": 2}


def test_a_damaged_ledger_is_one_clear_error(tmp_path: Path) -> None:
    assign(documents(["a", "b", "c"]), tmp_path)
    path = SplitLedger(tmp_path, DEFAULT).path
    path.write_text(path.read_text() + '{"document":"x","split":"trian","vendor":"v","images":[]}\n')
    with pytest.raises(InputError, match=r"jsonl:4: is no ledger line"):
        SplitLedger(tmp_path, DEFAULT)


def test_the_ledger_refuses_to_move_a_document(tmp_path: Path) -> None:
    ledger = SplitLedger(tmp_path, DEFAULT)
    ledger.record([LedgerEntry("d", "test", "v")])
    with pytest.raises(ValueError, match="for life"):
        ledger.record([LedgerEntry("d", "train", "v")])
    assert SplitLedger(tmp_path, DEFAULT).entries["d"].split == "test"


def test_negatives_go_with_their_clean_page_and_a_shared_page_stands_in_one_split_for_life(tmp_path: Path) -> None:
    rows = []
    for n in range(20):
        clean = row(f"d{n:02d}")
        rows += [clean, row(f"d{n:02d}", stratum="noisy", twin=clean.id)]
    docs = [f"d{n:02d}" for n in range(20)]
    terms = row("d05", 2, target={"number": None, "total": None}, image="terms", copies=[("invoice/acme", d, 2) for d in docs[6:]])
    rows += [terms, row("d05", 2, target={"number": None, "total": None}, image="terms noisy", stratum="noisy", twin=terms.id)]

    def where(table: list) -> dict[str, str]:
        parts = split_rows(table, assign(split_documents(table), tmp_path))
        for split in SPLITS:
            for it in parts[split]:
                assert it.twin is None or it.twin in {other.id for other in parts[split]}
        return {it.id: split for split in SPLITS for it in parts[split]}

    first = where(rows)
    assert set(first) == {it.id for it in rows}
    for smaller in ("d00", "d01"):  # other documents come to own the row as the table grows
        moved = [
            it.model_copy(update={"document": sha(smaller), "copies": (("invoice/acme", sha("d05"), 2), *it.copies)})
            if it.page == 2
            else it
            for it in rows
        ]
        assert where(moved) == first
