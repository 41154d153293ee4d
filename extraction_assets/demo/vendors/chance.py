"""Randomness with a name: every draw comes from a seed and the identity of the thing drawn, never from order or time."""

from __future__ import annotations

import random

from extraction_assets.store import digest_of


def chance_for(*identity: str | int) -> random.Random:
    """A generator of its own for this identity, e.g. chance_for(seed, "vendor", 7); equal in every process and on every machine."""
    return random.Random(int(digest_of(list(identity)), 16))
