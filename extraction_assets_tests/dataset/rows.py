"""Index rows without pictures, for the tests of twins, splits, chat records and the card."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from extraction_assets.dataset.index import example_id
from extraction_assets.dataset.records import IndexRow
from extraction_assets.documents.records import PageText, Word
from extraction_assets.store import Store, digest_bytes

INSTRUCTION = "Extract as JSON: number, total"


def sha(name: str) -> str:
    return digest_bytes(name.encode())


def row(
    document: str,
    page: int = 1,
    vendor: str = "invoice/acme",
    target: dict[str, Any] | None = None,
    image: str | None = None,
    stratum: str = "clean",
    twin: str | None = None,
    text: str | None = None,
    copies: Sequence[tuple[str, str, int]] = (),
) -> IndexRow:
    """One row; document and image are names that stand for their digests."""
    spelled = json.dumps(
        target if target is not None else {"number": None, "total": f"{document}.00"}, separators=(",", ":"), ensure_ascii=False
    )
    picture = sha(image or f"{document}/{page}/{stratum}")
    return IndexRow(
        id=example_id(picture, spelled, INSTRUCTION),
        type=vendor.split("/")[0],
        vendor=vendor,
        document=sha(document),
        page=page,
        stratum=stratum,
        twin=twin,
        image=picture,
        width=64,
        height=96,
        dpi=120.0,
        schema_digest=sha("schema"),
        instruction=INSTRUCTION,
        target=spelled,
        text=text,
        copies=tuple((v, sha(d), p) for v, d, p in copies),
    )


def text_of(store: Store, words: Sequence[str]) -> str:
    page = PageText(words=tuple(Word(text=word, box=(0, 0, 10, 10), line=i) for i, word in enumerate(words)))
    return store.put_json(page.model_dump(mode="json"))
