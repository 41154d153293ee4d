"""Where a run starts: at the base model, or at the champion's weights, where those fit and have seen no page of today's test split."""

from __future__ import annotations

import json
from collections.abc import Iterator

from extraction_assets.settings import TrainingSettings
from extraction_assets.store import Store
from extraction_assets.training.adapter import read_manifest, verify_adapter
from extraction_assets.training.manifest import AdapterManifest

_SHAPE = ("r", "alpha", "targets", "rslora", "dora")
"""settings under which an adapter's weights mean the same"""


def warm_start(store: Store, champion: str | None, settings: TrainingSettings, base: str, test_split: str) -> tuple[str | None, str]:
    """(adapter to start from or None for the base, why in words). base: digest of the base model; test_split: digest of its JSONL.

    A nightly run must go on, so a champion that does not fit is no error: the run starts from the base and says why.
    Raises InputError if the champion's folder is damaged.
    """
    if settings.start == "base":
        return None, "the base model"
    if settings.shuffle_targets:
        return None, "the base model: a control run that went on from the champion would score what the champion reads"
    if champion is None:
        return None, "the base model: there is no champion yet"
    manifest = verify_adapter(store.folder(champion))
    if manifest.base_digest != base:
        return None, "the base model: the champion was trained on another base"
    if manifest.settings is None:
        return None, f"the base model: the champion was trained elsewhere, by {manifest.trainer}"
    for name in _SHAPE:
        own, wanted = getattr(manifest.settings, name), getattr(settings, name)
        if own != wanted:
            return None, f"the base model: the champion has training.{name}: {own}, now {wanted}"
    tested = set(documents_of(store, test_split))
    learnt: set[str] = set()
    for ancestor in ancestry(store, champion):
        for split in (ancestor.train_digest, ancestor.val_digest):
            learnt.update(documents_of(store, split))
    if seen := tested & learnt:
        return None, f"the base model: the champion, or one before it, was trained on {len(seen)} documents of today's test split"
    return champion, f"the champion {champion[:12]}"


def ancestry(store: Store, adapter: str) -> Iterator[AdapterManifest]:
    """An adapter's manifest, then that of the adapter it started from, and so on back to the base; weights are not looked at.

    Raises InputError where a folder or its manifest is gone.
    """
    start: str | None = adapter
    while start is not None:
        manifest = read_manifest(store.folder(start))
        yield manifest
        start = manifest.start


def documents_of(store: Store, jsonl: str) -> Iterator[str]:
    """Digests of the documents that a split's lines are of."""
    for line in store.read_bytes(jsonl, ".jsonl").splitlines():
        yield json.loads(line)["meta"]["document"]
