"""Small results remembered in the store, named by what made them: <kind>/ab/<key>.json.

A memory is never a source. An entry that is damaged, half written or of another shape counts as absent, and the work is done
again; deleting the whole folder costs time only.
"""

from __future__ import annotations

import json
from typing import Any

from extraction_assets.store import Store, canonical_json, digest_bytes, write_atomically


def recall(store: Store, kind: str, key: str) -> Any | None:
    """The JSON value remembered under a key (a digest of everything that decides it), or None."""
    try:
        digest, _, body = (store.root / _name(kind, key)).read_bytes().partition(b"\n")
        return json.loads(body) if digest_bytes(body).encode() == digest else None
    except (OSError, ValueError):
        return None


def remember(store: Store, kind: str, key: str, value: Any) -> None:
    """Keep a JSON value; its own digest goes before it, so that damage shows."""
    body = canonical_json(value).encode()
    write_atomically(store.root / _name(kind, key), digest_bytes(body).encode() + b"\n" + body)


def _name(kind: str, key: str) -> str:
    return f"{kind}/{key[:2]}/{key}.json"
