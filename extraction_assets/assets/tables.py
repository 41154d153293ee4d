"""Small tables and pictures for the Dagster UI."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from typing import Any

from extraction_assets.store import Store

MAX_ROWS = 50
THUMBNAIL_PX = 160
"""longest side: thumbnails live in the event log, so they stay small"""


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table of at most 50 rows; "none" without rows."""
    rows = list(rows)
    if not rows:
        return "none"
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows[:MAX_ROWS]]
    if len(rows) > MAX_ROWS:
        lines.append(f"\n... and {len(rows) - MAX_ROWS} more")
    return "\n".join(lines)


def thumbnails(store: Store, images: Sequence[tuple[str, str]]) -> str:
    """Markdown with small pictures of stored PNGs: (caption, digest) pairs."""
    from PIL import Image

    parts = []
    for caption, digest in images:
        with Image.open(io.BytesIO(store.read_bytes(digest, ".png"))) as picture:
            small = picture.convert("RGB")
            small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
            out = io.BytesIO()
            small.save(out, "JPEG", quality=60)
        parts.append(f"![{caption}](data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}) {caption}")
    return "\n\n".join(parts) or "none"
