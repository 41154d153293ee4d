"""Hard negatives: pages made harder on purpose, each with the target that is then right, and a link to its clean twin.

Which pages get which kind is decided page by page from (seed, page digest, kind): no page's fate depends on another page.
What is done to it is drawn from a Random of the same three. Equal inputs therefore make equal bytes, in any order and with any
number of workers, and what was made once is found again by the digest of what made it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from extraction_assets.dataset.erasing import erasable_fields, erase, without_fields
from extraction_assets.dataset.made_before import recall, remember
from extraction_assets.dataset.other_pages import blank_page, foreign_page
from extraction_assets.dataset.records import HardNegative, PageTarget, VendorNegatives, VendorTargets
from extraction_assets.dataset.scan_effects import scan_noise, skew, stamp, turn
from extraction_assets.documents.records import PageImage, PageText, VendorPages
from extraction_assets.errors import InputError
from extraction_assets.page_budget import GRID_PX
from extraction_assets.settings import NegativeSettings
from extraction_assets.store import Store, digest_of

KINDS = ("rotated", "stamped", "noisy", "missing_field", "blank", "foreign")
CODE_VERSION = 1
"""raised whenever the same inputs would make other pixels or targets"""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class _Job:
    target: PageTarget
    page: PageImage
    kind: str


def build_negatives(
    targets: VendorTargets,
    pages: VendorPages,
    store: Store,
    settings: NegativeSettings,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> VendorNegatives:
    """Hard negatives of one vendor's pages, sorted by (document, page, kind). Their PNGs are in the store.

    workers: threads (the work is in C and lets go of the interpreter); 0: one per core.
    """
    images = {(page.document, page.page): page for page in pages.pages}
    jobs = []
    for target in targets.targets:
        page = images.get((target.document, target.page))
        if page is None or page.image != target.image:
            raise InputError(
                f"page_targets[{targets.type}/{targets.vendor}]", f"page {target.page} of {target.document} is not among the page images",
                do="Run update again",
            )  # fmt: skip
        jobs += [_Job(target, page, kind) for kind in KINDS if is_chosen(settings, target.image, kind)]
    made: list[HardNegative] = []
    with ThreadPoolExecutor(max_workers=workers or os.cpu_count() or 1) as pool:
        for done, negative in enumerate(pool.map(lambda job: _make_or_recall(job, store, settings), jobs), start=1):
            if negative is not None:
                made.append(negative)
            if progress:
                progress(done, len(jobs))
    return VendorNegatives(
        type=targets.type,
        vendor=targets.vendor,
        schema_digest=targets.schema_digest,
        instruction=targets.instruction,
        targets=digest_of(targets.model_dump(mode="json")),
        negatives=tuple(sorted(made, key=lambda negative: (negative.document, negative.page, negative.kind))),
    )


def is_chosen(settings: NegativeSettings, image: str, kind: str) -> bool:
    """Whether this page gets this kind: a hash in [0, 1) of (seed, page digest, kind) below the kind's share."""
    return int.from_bytes(_hash(settings.seed, image, kind)[:8], "big") / 2**64 < getattr(settings, kind)


def _hash(seed: int, image: str, kind: str) -> bytes:
    return hashlib.sha256(f"{seed}/{image}/{kind}".encode()).digest()


def _make_or_recall(job: _Job, store: Store, settings: NegativeSettings) -> HardNegative | None:
    key = _key(job, settings)
    known = recall(store, "negatives", key)
    if isinstance(known, dict):
        if known == {"none": True}:
            return None
        if {"image", "width", "height", "dpi", "target", "what"} == set(known) and store.has(known["image"], ".png"):
            return _record(job, known)
    made = _make(job, store, settings)
    if made is None:
        remember(store, "negatives", key, {"none": True})
        return None
    pixels, rest = made
    answer = {**rest, "image": store.put_bytes(_png(pixels), ".png"), "width": pixels.shape[1], "height": pixels.shape[0]}
    remember(store, "negatives", key, answer)
    return _record(job, answer)


def _key(job: _Job, settings: NegativeSettings) -> str:
    page, target = job.page, job.target
    matters: list[Any] = [settings.seed]
    if job.kind == "rotated":
        matters += [settings.max_angle, settings.quarter_turns]
    if job.kind == "missing_field":
        matters += [{pointer: [list(box) for box in boxes] for pointer, boxes in target.value_boxes.items()}, target.text]
        matters += [settings.missing_at_once] if settings.missing_at_once > 1 else []
    size = [page.width, page.height, page.content_width, page.content_height, page.dpi]
    return digest_of([target.image, target.target, job.kind, matters, size, CODE_VERSION])


def _record(job: _Job, made: dict[str, Any]) -> HardNegative:
    return HardNegative(document=job.target.document, page=job.target.page, kind=job.kind, twin=job.target.image, **made)


def _make(job: _Job, store: Store, settings: NegativeSettings) -> tuple[Pixels, dict[str, Any]] | None:
    """Pixels on the 32-px grid, and the record's values that follow from how they were made; None where the kind cannot be made."""
    page, target = job.page, job.target
    rng = Random(_hash(settings.seed, target.image, f"{job.kind}/how"))
    width, height = page.content_width, page.content_height
    dpi, spelled = page.dpi, target.target
    if job.kind == "blank":
        content, what, spelled = blank_page(width, height, rng), "an empty page", _emptied(spelled)
    elif job.kind == "foreign":
        content, what = foreign_page(width, height, dpi, rng)
        spelled = _emptied(spelled)
    elif job.kind == "missing_field":
        erased = _erase_fields(target, store, settings.missing_at_once, rng)
        if erased is None:
            return None
        content, what, spelled = erased
        content = content[:height, :width]
    else:
        content = _pixels(store, target.image)[:height, :width]
        if job.kind == "rotated":
            content, what, dpi = _rotate(content, dpi, settings, rng)
        elif job.kind == "stamped":
            content, what = stamp(content, rng)
        else:
            content, what = scan_noise(content, rng)
    return _padded(content), {"dpi": dpi, "target": spelled, "what": what}


def _rotate(content: Pixels, dpi: float, settings: NegativeSettings, rng: Random) -> tuple[Pixels, str, float]:
    if rng.random() < settings.quarter_turns:
        quarter = rng.choice((1, 2, 3))
        return turn(content, quarter), f"turned by {quarter * 90} degrees", dpi
    # an angle too small to see would only be a copy of the clean page
    angle = rng.choice((-1, 1)) * rng.uniform(0.2 * settings.max_angle, settings.max_angle)
    content, scale = skew(content, angle, rng)
    return content, f"skewed by {angle:+.2f} degrees", round(dpi * scale, 2)


def _erase_fields(target: PageTarget, store: Store, at_most: int, rng: Random) -> tuple[Pixels, str, str] | None:
    value = json.loads(target.target)
    groups = erasable_fields(target.value_boxes, value)
    if not groups:
        return None
    # one field alone is chosen as it always was: what was made before stays as it is
    chosen = [rng.choice(groups)] if at_most == 1 else rng.sample(groups, rng.randint(1, min(at_most, len(groups))))
    group = sorted({pointer for one in chosen for pointer in one})
    words = PageText.model_validate(store.read_json(target.text)).words if target.text else ()
    pixels = _pixels(store, target.image).copy()
    erase(pixels, [box for pointer in group for box in target.value_boxes[pointer]], words)
    return pixels, "erased " + ", ".join(group), without_fields(value, group)


def _emptied(spelled: str) -> str:
    """The target of a page that holds nothing, in the same shape: every value null, every list empty."""

    def empty(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: empty(item) for key, item in value.items()}
        return [] if isinstance(value, list) else None

    return json.dumps(empty(json.loads(spelled)), separators=(",", ":"), ensure_ascii=False)


def _pixels(store: Store, image: str) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(store.read_bytes(image, ".png"))).convert("RGB"))


def _padded(content: Pixels) -> Pixels:
    """White on the right and at the bottom up to the 32-px grid, as rendering does it."""
    height, width = (-(-side // GRID_PX) * GRID_PX for side in content.shape[:2])
    page = np.full((height, width, 3), 255, dtype=np.uint8)
    page[: content.shape[0], : content.shape[1]] = content
    return page


def _png(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def kinds_made(negatives: VendorNegatives) -> Iterator[tuple[str, int]]:
    """(kind, how many), in the order of KINDS."""
    for kind in KINDS:
        yield kind, sum(negative.kind == kind for negative in negatives.negatives)
