"""Pages drawn by a real Ray on this machine: what this machine draws, and a plain word where a fleet cannot."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from extraction_assets.documents import fleet
from extraction_assets.documents.records import VendorDocuments
from extraction_assets.documents.rendering import render_vendor
from extraction_assets.errors import InputError
from extraction_assets.settings import FleetSettings, RenderSettings
from extraction_assets.store import Store
from extraction_assets_tests.documents.samples import pdf, vendor_documents

ray = pytest.importorskip("ray", reason="Ray is not installed")
pytestmark = pytest.mark.slow
LOCAL = FleetSettings(backend="ray", address="local", documents_per_task=2)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")  # else it leaves a token in ~/.ray, and every Ray after it asks for that
        ray.init(num_cpus=2, object_store_memory=100_000_000, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


def test_no_cluster_at_an_address_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unheard.getsockname()[1]}"
        with pytest.raises(InputError, match=f"compute.rendering.address: {address}: no Ray cluster there: .*refused"):
            fleet._connect(address)


def documents_in(store: Store) -> VendorDocuments:
    return vendor_documents(store, *(pdf(*[f"Invoice {number}"] * (1 + number % 3)) for number in range(7)), b"%PDF-1.7 and nothing more")


def test_a_fleet_draws_what_this_machine_draws(tmp_path: Path, settings: RenderSettings) -> None:
    here, there = Store(tmp_path / "here"), Store(tmp_path / "there")
    seen: list[tuple[int, int]] = []
    drawn = render_vendor(
        documents_in(there), there, settings, 2, lambda done, total: seen.append((done, total)), partial(fleet.draw_on_ray, fleet=LOCAL)
    )
    assert drawn == render_vendor(documents_in(here), here, settings, 1)
    assert len(drawn.refused) == 1
    assert seen == [(done, 8) for done in range(9)]
    for page in drawn.pages:
        assert there.read_bytes(page.image, ".png") == here.read_bytes(page.image, ".png")
        assert page.text is not None
        assert there.read_json(page.text) == here.read_json(page.text)


def test_what_a_fleet_has_drawn_is_not_drawn_again(tmp_path: Path, settings: RenderSettings) -> None:
    store = Store(tmp_path)
    drawn = render_vendor(documents_in(store), store, settings, 2, draw=partial(fleet.draw_on_ray, fleet=LOCAL))

    def never(*_: object) -> Iterator[tuple[str, fleet.page_cache.Entry]]:
        raise AssertionError("drawn again")

    assert render_vendor(documents_in(store), store, settings, draw=never) == drawn


def test_a_machine_with_other_engines_is_refused(tmp_path: Path, settings: RenderSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    own = fleet.engine_versions()
    store = Store(tmp_path)
    documents = documents_in(store)
    monkeypatch.setattr(fleet, "engine_versions", lambda: {**own, "pymupdf": "0.1"})  # of this side: the workers import their own
    with pytest.raises(
        InputError, match=rf"compute.rendering.backend: ray: a machine there draws with pymupdf {own['pymupdf']}; expected pymupdf 0.1"
    ):
        render_vendor(documents, store, settings, draw=partial(fleet.draw_on_ray, fleet=LOCAL))


def test_a_machine_that_does_not_see_the_store_says_so(tmp_path: Path, settings: RenderSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    documents = documents_in(store)
    monkeypatch.setattr(fleet, "_probe", lambda _: "0" * 64)
    with pytest.raises(InputError, match=rf"a machine there does not see {tmp_path}; expected the store under the same path"):
        render_vendor(documents, store, settings, draw=partial(fleet.draw_on_ray, fleet=LOCAL))


def test_a_document_that_is_gone_is_named(tmp_path: Path, settings: RenderSettings) -> None:
    store = Store(tmp_path)
    documents = documents_in(store)
    gone = store.path(documents.documents[3].document, ".pdf")
    gone.unlink()
    with pytest.raises(InputError, match=gone.name):
        render_vendor(documents, store, settings, draw=partial(fleet.draw_on_ray, fleet=LOCAL))
