"""What the frozen tower made of a page is kept over epochs: fewer pages are opened, and not one bit of the adapter is another."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from extraction_assets.model.base import Base, load_base
from extraction_assets.model.encoding import PageEncoder
from extraction_assets.model.examples import read_examples
from extraction_assets.model.kept_pages import KeptPages, OwnPages, SharedPages
from extraction_assets.model.packing import Pack, pack
from extraction_assets.model.visual_memory import VisualMemory
from extraction_assets.training import feed, run
from extraction_assets.training.loss import response_loss
from extraction_assets_tests.training.conftest import SETTINGS, Data


def _train(data: Data, work: Path, gigabytes: float, monkeypatch: pytest.MonkeyPatch) -> tuple[bytes, int]:
    """(the adapter's weights, page files opened)"""
    opened = 0
    real = feed.read_page

    def counted(*arguments: object) -> object:
        nonlocal opened
        opened += 1
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(feed, "read_page", counted)
    job = data.job(work).model_copy(update={"visual_memory": round(gigabytes * 1e9)})
    weights = (run.train(job) / "adapter_model.safetensors").read_bytes()
    monkeypatch.setattr(feed, "read_page", real)
    return weights, opened


def test_pages_are_seen_once_and_the_adapter_is_the_same_bit_for_bit(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without, every_time = _train(data, tmp_path / "without", 0, monkeypatch)
    whole, once = _train(data, tmp_path / "whole", 1, monkeypatch)
    some, between = _train(data, tmp_path / "some", 5e-5, monkeypatch)
    assert without == whole == some
    tried = every_time - 3 * (10 + 3)  # the preflight's pages
    assert 1 <= tried <= 4
    assert 10 + 3 + tried <= once <= 10 + 3 + tried + 4  # the feed reads ahead of what is kept
    assert once < between < every_time


def test_a_pack_with_and_without_pixels_has_the_same_loss(data: Data, base: Base, encoder: PageEncoder) -> None:
    model = load_base(data.base, dtype=torch.float32).model
    pages = [encoder.page(e.id, e.image.read_bytes(), e.instruction, e.target) for e in read_examples(data.train)[:3]]
    stock = response_loss(model, pack(pages))
    memory = VisualMemory(model, OwnPages(10**9))
    with memory.pages_of(pack(pages[:2]), keep=True):
        response_loss(model, pack(pages[:2]))
    assert [page.id in memory for page in pages] == [True, True, False]
    known = [type(page)(page.id, page.text, encoder.no_patches) if page.id in memory else page for page in pages]
    both = []
    for some in (pages, known):
        with memory.pages_of(pack(some), keep=False):
            both.append(response_loss(model, pack(some)))
    assert torch.equal(*both)
    torch.testing.assert_close(both[0], stock, rtol=1e-6, atol=0)
    assert pages[2].id not in memory
    torch.testing.assert_close(response_loss(model, pack(pages)), stock)  # outside, the model is as it was


def test_a_page_seen_ahead_is_the_page_seen_in_its_step(data: Data, base: Base, encoder: PageEncoder) -> None:
    model = load_base(data.base, dtype=torch.float32).model
    pages = [encoder.page(e.id, e.image.read_bytes(), e.instruction, e.target) for e in read_examples(data.train)[:2]]
    packed, seen = pack(pages), 0
    real = model.model.get_image_features

    def counted(*arguments: object, **options: object) -> object:
        nonlocal seen
        seen += 1
        return real(*arguments, **options)

    model.model.get_image_features = counted
    memory = VisualMemory(model, OwnPages(10**9))
    with memory.pages_of(packed, keep=False):
        in_step = response_loss(model, packed)
    assert seen == 2
    with ThreadPoolExecutor(1) as pool:
        pool.submit(memory.see_ahead, packed).result()
    assert seen == 4
    with memory.pages_of(packed, keep=False):
        ahead = response_loss(model, packed)
    assert seen == 4
    assert torch.equal(in_step, ahead)
    with memory.pages_of(packed, keep=False):  # what was seen ahead served once
        response_loss(model, packed)
    assert seen == 6


def test_pages_of_a_folder_serve_every_process_that_knows_it(data: Data, base: Base, encoder: PageEncoder, tmp_path: Path) -> None:
    pages = [encoder.page(e.id, e.image.read_bytes(), e.instruction, e.target) for e in read_examples(data.train)[:2]]
    losses = []
    for _ in range(2):  # the second has not seen the pages, and gets none to see
        model = load_base(data.base, dtype=torch.float32).model
        memory = VisualMemory(model, SharedPages(tmp_path, 10**9))
        packed = pack([type(p)(p.id, p.text, encoder.no_patches) if p.id in memory else p for p in pages])
        with memory.pages_of(packed, keep=True):
            losses.append(response_loss(model, packed))
    assert packed.patches == (0, 0)
    assert torch.equal(*losses)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".safetensors"] * 2


@pytest.mark.parametrize("kind", ["own", "shared"])
def test_no_more_is_kept_than_the_budget_and_nothing_is_dropped(tmp_path: Path, kind: str) -> None:
    kept: KeptPages = OwnPages(4000) if kind == "own" else SharedPages(tmp_path, 4000)
    page = (torch.ones(10, 20), torch.zeros(10, 20, dtype=torch.bfloat16))  # 1,200 bytes
    for name in ("a/b", "ä", "c", "d"):
        kept.put(name, page)
    assert [name in kept for name in ("a/b", "ä", "c", "d", "e")] == [True, True, True, False, False]
    found = kept.get("ä")
    assert found is not None
    assert all(torch.equal(*pair) and pair[0].dtype == pair[1].dtype for pair in zip(found, page, strict=True))
    assert kept.get("d") is None
    kept.put("e", tuple(part[:2] for part in page))  # there is room for that one
    assert "e" in kept


def test_a_disk_is_never_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, page = SharedPages(tmp_path, 10**9), (torch.ones(10, 20),)
    kept.put("a", page)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**30 + 799))
    kept.put("b", page)
    monkeypatch.undo()
    kept.put("c", page)  # once is enough: what is kept and what is seen again must not alternate
    assert ["a" in kept, "b" in kept, "c" in kept] == [True, False, False]


def test_a_folder_that_cannot_be_written_keeps_nothing_and_stops_nothing(tmp_path: Path) -> None:
    kept = SharedPages(tmp_path / "gone", 10**9)
    kept.put("a", (torch.ones(2, 2),))
    assert "a" not in kept
    assert kept.get("a") is None


def test_training_sees_pages_ahead_in_its_own_precision(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit: with bfloat16 products, features of another precision would be another adapter."""
    settings = SETTINGS.model_copy(update={"precision": "bfloat16", "epochs": 1})
    ahead = run.train(data.job(tmp_path / "ahead", settings))
    threads = set()

    def nothing(memory: VisualMemory, packed: Pack) -> None:
        threads.add(threading.current_thread())

    monkeypatch.setattr(VisualMemory, "see_ahead", nothing)
    in_steps = run.train(data.job(tmp_path / "in_steps", settings))
    assert threads
    assert threading.main_thread() not in threads
    assert (ahead / "adapter_model.safetensors").read_bytes() == (in_steps / "adapter_model.safetensors").read_bytes()
