"""What was made before need not be made again: small JSON answers in the store, named by the digest of what made them.

    made/<kind>/ab/<key>.json

An answer is written whole or not at all; one that cannot be read is as good as absent.
"""

from __future__ import annotations

import json
from typing import Any

from extraction_assets.store import Store, canonical_json, write_atomically


def recall(store: Store, kind: str, key: str) -> Any | None:
    """The answer stored under this key, or None."""
    try:
        return json.loads((store.root / "made" / kind / key[:2] / f"{key}.json").read_bytes())
    except (OSError, ValueError):
        return None


def remember(store: Store, kind: str, key: str, answer: Any) -> None:
    """Store an answer. InputError where the store cannot be written."""
    write_atomically(store.root / "made" / kind / key[:2] / f"{key}.json", canonical_json(answer).encode())
