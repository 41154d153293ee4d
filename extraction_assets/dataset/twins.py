"""Twins: documents that must share a split, because one of them would give away the other.

Two documents are linked by any of
  picture  a page image of the same bytes
  text     near-duplicate text: the share of common word triples reaches settings.near_duplicate, and so does that of their numbers
  scan     the same picture to the eye (perceptual hash), for pages without text
  target   the same label, where it says enough to be no coincidence
  number   the same document number (the first id field) from the same vendor
and groups are what links connect. Two invoices of one template share nearly all their words, yet not their numbers: they are no
twins. Pages whose target is empty (terms, back sides) link nothing, or every document of a vendor would be one group.
"""

from __future__ import annotations

import functools
import io
import itertools
import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from extraction_assets.dataset.index import holds_values, leaves, per_document
from extraction_assets.dataset.made_before import recall, remember
from extraction_assets.dataset.records import CLEAN, IndexRow
from extraction_assets.documents.records import PageText
from extraction_assets.schema import TargetSchema
from extraction_assets.settings import SplitSettings
from extraction_assets.store import Store, digest_of

FINGERPRINT_VERSION = 1
PERMUTATIONS = 128
_SCHEME = "affine32"  # named, since signatures outlive the process: datasketch 2 changed its default, and a mix is silently wrong
SAME_SCAN_BITS = 10
"""of 256 bits of perceptual hash. On 60 receipts and 120 pages of print, the same picture saved again or made smaller differs by 2
to 12, the nearest two pages of one template by 14, two receipts of one shop by 32. Sixteen bands of 16 bits find every pair that
differs in fewer than sixteen"""
ENOUGH_VALUES = 3
"""non-null values from which equal labels are no coincidence"""
FEW_TRIPLES = 8
"""texts shorter than this many word triples are not compared"""


@dataclass(frozen=True, order=True)
class TwinLink:
    """Two documents, a < b, and why they are twins."""

    a: str
    b: str
    reason: str
    """picture, text, scan, target or number"""


@dataclass(frozen=True)
class TwinGroups:
    """Which documents share a split."""

    group: Mapping[str, str]
    """document -> its group, named by the smallest document digest in it; every document has one"""
    links: tuple[TwinLink, ...]
    """sorted; enough links to connect each group, not every pair in it"""

    @property
    def sizes(self) -> dict[int, int]:
        """Documents in a group -> how many such groups."""
        members: dict[str, int] = defaultdict(int)
        for group in self.group.values():
            members[group] += 1
        sizes: dict[int, int] = defaultdict(int)
        for size in members.values():
            sizes[size] += 1
        return dict(sorted(sizes.items()))

    def without(self, documents: Iterable[str]) -> TwinGroups:
        """The groups that remain when these documents are left out; what only they connected falls apart."""
        gone = set(documents)
        links = tuple(link for link in self.links if link.a not in gone and link.b not in gone)
        return TwinGroups(_groups((document for document in self.group if document not in gone), links), links)


def find_twins(
    rows: Iterable[IndexRow],
    schemas: Mapping[str, TargetSchema],
    settings: SplitSettings,
    store: Store,
    progress: Callable[[int, int], None] | None = None,
) -> TwinGroups:
    """Groups over every document of the index. schemas: by document type, for the document number's field."""
    clean: dict[str, list[IndexRow]] = defaultdict(list)
    documents: set[str] = set()
    for row in itertools.chain.from_iterable(map(per_document, rows)):
        documents.add(row.document)
        if row.stratum == CLEAN:
            clean[row.document].append(row)
    telling = {document: [row for row in pages if holds_values(row.target)] or pages for document, pages in clean.items()}
    links: list[TwinLink] = []
    links += _equal(((row.image, document) for document, pages in telling.items() for row in pages), "picture")
    links += _equal(_whole_targets(telling), "target")
    links += _equal(_numbers(telling, schemas), "number")
    prints = _fingerprints(telling, store, progress)
    links += _near_texts(prints, telling, settings.near_duplicate, store)
    links += _near_scans(prints)
    kept = tuple(sorted(set(links)))
    return TwinGroups(_groups(documents, kept), kept)


# --- equal values -------------------------------------------------------------------------------------------------------------


def _equal(keyed: Iterable[tuple[str, str]], reason: str) -> Iterator[TwinLink]:
    """Links within each set of documents that share a key: a star around the smallest, which connects them all."""
    members: dict[str, set[str]] = defaultdict(set)
    for key, document in keyed:
        members[key].add(document)
    for documents in members.values():
        first, *others = sorted(documents)
        for other in others:
            yield TwinLink(first, other, reason)


def _whole_targets(telling: Mapping[str, Sequence[IndexRow]]) -> Iterator[tuple[str, str]]:
    for document, pages in telling.items():
        targets = [row.target for row in sorted(pages, key=lambda row: row.page)]
        if sum(len(leaves(json.loads(target))) for target in targets) >= ENOUGH_VALUES:
            yield digest_of([pages[0].type, *targets]), document


def _numbers(telling: Mapping[str, Sequence[IndexRow]], schemas: Mapping[str, TargetSchema]) -> Iterator[tuple[str, str]]:
    for document, pages in telling.items():
        schema = schemas.get(pages[0].type)
        field = next((leaf for leaf in schema.fields if leaf.type == "id"), None) if schema else None
        for row in pages if field else ():
            value: Any = json.loads(row.target)
            for key in field.path if field else ():
                value = value.get(key) if isinstance(value, dict) else None
            number = re.sub(r"[\W_]", "", str(value or "")).casefold()
            if len(number) >= 3 and any(char.isdigit() for char in number):
                yield f"{row.vendor}\x00{number}", document


# --- near-equal text and pictures ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Prints:
    minhash: dict[str, NDArray[np.uint32]]
    """document -> (PERMUTATIONS,) signature of its word triples"""
    scans: list[tuple[str, int]]
    """(document, 256-bit perceptual hash) of every page without text"""


def _fingerprints(telling: Mapping[str, Sequence[IndexRow]], store: Store, progress: Callable[[int, int], None] | None) -> _Prints:
    prints = _Prints({}, [])
    for done, (document, pages) in enumerate(sorted(telling.items()), start=1):
        texts = _texts(pages)
        if texts:
            key = digest_of(["minhash", FINGERPRINT_VERSION, PERMUTATIONS, texts])
            known = recall(store, "fingerprints", key)
            if not (isinstance(known, dict) and len(known.get("minhash", ())) in (0, PERMUTATIONS)):
                known = {"minhash": _signature(_words(texts, store))}
                remember(store, "fingerprints", key, known)
            if known["minhash"]:
                prints.minhash[document] = np.array(known["minhash"], dtype=np.uint32)
        for row in pages:
            if row.text is None:
                prints.scans.append((document, _scan_hash(row.image, store)))
        if progress:
            progress(done, len(telling))
    return prints


def _texts(pages: Sequence[IndexRow]) -> list[str]:
    return [row.text for row in sorted(pages, key=lambda row: row.page) if row.text is not None]


def _words(texts: Sequence[str], store: Store) -> list[str]:
    """Words of these page texts, folded, with their digits, without marks."""
    words = (word.text for text in texts for word in PageText.model_validate(store.read_json(text)).words)
    return [clean for word in words if (clean := re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", word).casefold()))]


def _triples(words: Sequence[str]) -> set[str]:
    return {" ".join(triple) for triple in zip(words, words[1:], words[2:], strict=False)}


@functools.cache
def _permutations() -> Any:
    """Drawn once: drawing them takes as long as hashing a page."""
    from datasketch import MinHash

    return MinHash(num_perm=PERMUTATIONS, seed=1, scheme=_SCHEME).permutations


def _signature(words: Sequence[str]) -> list[int]:
    from datasketch import MinHash

    triples = _triples(words)
    if len(triples) < FEW_TRIPLES:
        return []
    minhash = MinHash(num_perm=PERMUTATIONS, seed=1, permutations=_permutations(), scheme=_SCHEME)
    minhash.update_batch([triple.encode() for triple in sorted(triples)])
    return [int(value) for value in minhash.hashvalues]


def _near_texts(prints: _Prints, telling: Mapping[str, Sequence[IndexRow]], threshold: float, store: Store) -> Iterator[TwinLink]:
    """Candidates by locality-sensitive hashing, then the exact shares. Pairs that are already connected are not compared again."""
    from datasketch import MinHash, MinHashLSH

    lsh = MinHashLSH(threshold=min(max(threshold - 0.15, 0.05), 0.95), num_perm=PERMUTATIONS)
    joined: dict[str, str] = {}
    cache: dict[str, tuple[set[str], set[str]]] = {}

    def sets(document: str) -> tuple[set[str], set[str]]:
        if document not in cache:
            if len(cache) > 4096:
                cache.clear()
            words = _words(_texts(telling[document]), store)
            cache[document] = _triples(words), {word for word in words if any(char.isdigit() for char in word)}
        return cache[document]

    for document in sorted(prints.minhash):
        signature = prints.minhash[document]
        minhash = MinHash(num_perm=PERMUTATIONS, seed=1, hashvalues=signature, permutations=_permutations(), scheme=_SCHEME)
        for other in sorted(lsh.query(minhash)):
            if _root(joined, document) == _root(joined, other):
                continue
            # four standard deviations of the estimate: what is below is not worth reading both texts
            if float((signature == prints.minhash[other]).mean()) < threshold - 0.12:
                continue
            (triples, numbers), (other_triples, other_numbers) = sets(document), sets(other)
            if _share(triples, other_triples) >= threshold and _share(numbers, other_numbers) >= threshold:
                joined[_root(joined, document)] = _root(joined, other)
                yield TwinLink(min(document, other), max(document, other), "text")
        lsh.insert(document, minhash)


def _share(a: set[str], b: set[str]) -> float:
    """Jaccard: common over all; two empty sets are equal."""
    return len(a & b) / len(a | b) if a or b else 1.0


def _scan_hash(image: str, store: Store) -> int:
    key = digest_of(["phash", FINGERPRINT_VERSION, image])
    known = recall(store, "fingerprints", key)
    if not (isinstance(known, str) and re.fullmatch("[0-9a-f]{64}", known)):
        import imagehash

        bits = imagehash.phash(Image.open(io.BytesIO(store.read_bytes(image, ".png"))).convert("L"), hash_size=16).hash
        known = np.packbits(bits.reshape(-1)).tobytes().hex()
        remember(store, "fingerprints", key, known)
    return int(known, 16)


def _near_scans(prints: _Prints) -> Iterator[TwinLink]:
    bands: dict[tuple[int, int], list[tuple[str, int]]] = defaultdict(list)
    for document, bits in sorted(prints.scans):
        for band in range(16):
            bands[band, (bits >> (16 * band)) & 0xFFFF].append((document, bits))
    for members in bands.values():
        for (a, bits_a), (b, bits_b) in itertools.combinations(members, 2):
            if a != b and (bits_a ^ bits_b).bit_count() <= SAME_SCAN_BITS:
                yield TwinLink(min(a, b), max(a, b), "scan")


# --- groups -------------------------------------------------------------------------------------------------------------------


def _groups(documents: Iterable[str], links: Iterable[TwinLink]) -> dict[str, str]:
    """Connected components, each named by its smallest document."""
    joined: dict[str, str] = {}
    for link in links:
        a, b = _root(joined, link.a), _root(joined, link.b)
        if a != b:
            joined[max(a, b)] = min(a, b)
    return {document: _root(joined, document) for document in sorted(documents)}


def _root(joined: dict[str, str], document: str) -> str:
    root = document
    while joined.get(root, root) != root:
        root = joined[root]
    while joined.get(document, document) != root:
        joined[document], document = root, joined[document]
    return root
