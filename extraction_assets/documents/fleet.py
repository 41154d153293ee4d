"""Pages drawn by a fleet: Ray Data hands a vendor's documents to workers on the machines of a cluster, and each draws its share with the
very function that draws them here, in its own sandbox.

The machines see the store under the same path (a shared file system) and have this package; what comes back are records, never pixels.
A machine that is lost costs its documents of the moment, which Ray gives to another.
"""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

from extraction_assets.documents import engine_versions, page_cache
from extraction_assets.documents.records import Document
from extraction_assets.documents.rendering import draw_into
from extraction_assets.errors import InputError
from extraction_assets.settings import FleetSettings, RenderSettings
from extraction_assets.store import Store

_WHERE = "compute.rendering"
_REACH_SECONDS = 10


def draw_on_ray(
    store: Store, documents: Sequence[Document], settings: RenderSettings, workers: int, fleet: FleetSettings
) -> Iterator[tuple[str, page_cache.Entry]]:
    """As rendering.draw_into, on a cluster. workers: at most so many of its CPUs draw (0: all).

    Raises InputError: no Ray here, no cluster at fleet.address, or machines there that cannot see the store, or would draw otherwise.
    """
    if find_spec("ray") is None:
        raise InputError(f"{_WHERE}.backend: ray", "needs the package ray", do="pip install 'extraction-assets[ray]'")
    import ray
    from ray.exceptions import RayError

    _connect(fleet.address)
    cpus = int(ray.cluster_resources().get("CPU", 1))
    try:
        yield from _drawn(store, documents, settings, min(workers or cpus, cpus), fleet)
    except RayError as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(
            f"{_WHERE}.address: {fleet.address}", f"Ray stopped: {first}", do="Look at the cluster's dashboard and run update again"
        ) from error


def _connect(address: str) -> None:
    import ray

    if ray.is_initialized():
        return
    host, _, port = address.rpartition(":")
    try:
        if host and port.isdecimal():  # Ray itself tries for minutes, and then ends the process
            socket.create_connection((host.removeprefix("ray://"), int(port)), timeout=_REACH_SECONDS).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except (OSError, RuntimeError, ValueError) as error:  # ConnectionError is an OSError
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(
            f"{_WHERE}.address: {address}",
            f"no Ray cluster there: {first}",
            "auto (the cluster that this machine is in) or HOST:PORT",
            "Start one with `ray start --head`",
        ) from None


def _drawn(
    store: Store, documents: Sequence[Document], settings: RenderSettings, most: int, fleet: FleetSettings
) -> Iterator[tuple[str, page_cache.Entry]]:
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # ours is drawn by whoever reads
    shares = -(-len(documents) // fleet.documents_per_task)
    asked = ray.data.from_items([{"document": document.model_dump_json()} for document in documents], override_num_blocks=shares)
    drawn = asked.map_batches(
        _Worker,
        fn_constructor_args=(store, settings, _probe(store)),
        batch_size=None,  # what travels together stays together
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, min(most, shares))),
        num_cpus=1,
    )
    own = engine_versions()
    for row in drawn.iter_rows():
        if row["problem"]:
            raise InputError(*json.loads(row["problem"]))
        theirs = json.loads(row["engines"])
        if theirs != own:  # their pages would stand in the store as if they were ours
            apart = {name: version for name, version in theirs.items() if own.get(name) != version}
            expected = ", ".join(f"{name} {own.get(name)}" for name in apart)
            found = ", ".join(f"{name} {version}" for name, version in apart.items())
            raise InputError(
                f"{_WHERE}.backend: ray", f"a machine there draws with {found}", expected, "Install the same constraints.txt there"
            )
        yield row["document"], page_cache.Entry.model_validate_json(row["entry"])


def _probe(store: Store) -> str:
    """Digest of an object that a machine finds where it sees the same store."""
    return store.put_json({"rendering": "a fleet sees this store"})


class _Worker:
    """Lives on a machine of the cluster; draws one share of documents after the other with warm processes."""

    def __init__(self, store: Store, settings: RenderSettings, probe: str) -> None:
        self._store, self._settings, self._probe = store, settings, probe

    def __call__(self, share: dict[str, Any]) -> dict[str, Any]:
        entries: list[tuple[str, page_cache.Entry]] = []
        problem = ""
        try:
            if not self._store.has(self._probe, ".json"):
                raise InputError(
                    f"{_WHERE}.backend: ray",
                    f"a machine there does not see {self._store.root}",
                    "the store under the same path (a shared file system)",
                )
            documents = [Document.model_validate_json(text) for text in share["document"]]
            entries = list(draw_into(self._store, documents, self._settings, 1))
        except InputError as error:  # as a row: Ray would wrap it, try again and say so at length
            problem = json.dumps([error.where, error.found, error.expected, error.do])
        rows = entries or [("", page_cache.Entry(pages=()))]
        return {
            "document": [document for document, _ in rows],
            "entry": [entry.model_dump_json() for _, entry in rows],
            "problem": [problem] * len(rows),
            "engines": [json.dumps(engine_versions())] * len(rows),
        }
