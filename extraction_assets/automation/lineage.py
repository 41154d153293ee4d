"""`extraction lineage`: from anything that was made back to the very PDFs and labels.

Walks the latest record of the home: deployment -> bundle -> adapter -> plan -> splits -> examples -> page images -> documents -> files in landing/.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from extraction_assets.dataset.records import SPLITS
from extraction_assets.errors import InputError
from extraction_assets.record import Record
from extraction_assets.serving import BUNDLE_SEAL
from extraction_assets.store import digest_file
from extraction_assets.training.adapter import read_manifest
from extraction_assets.training.manifest import MANIFEST
from extraction_assets.training.warm_start import ancestry

MIN_DIGITS = 6
"""a digest may be shortened to this many characters"""


@dataclass
class Chain:
    """What was asked for, what stands between, and where it came from."""

    kind: str
    digest: str
    links: list[tuple[str, str]] = field(default_factory=list)
    """(what, digest or value), from the thing asked for towards its documents"""
    documents: list[dict[str, Any]] = field(default_factory=list)
    """document (digest), file, label_file, label_review (where a person has judged the label), vendor, and the examples made of it
    that stand in this chain"""

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "digest": self.digest,
            "chain": [{"what": what, "value": value} for what, value in self.links],
            "documents": self.documents,
        }

    def text(self) -> str:
        lines = [f"{self.kind} {self.digest}"]
        lines += [f"  <- {what} {value}" for what, value in self.links]
        lines.append(f"  <- {len(self.documents)} documents")
        for row in self.documents:
            label = f", label {row['label_file']}{_reviewed(row.get('label_review'))}" if row["label_file"] else ", no label"
            lines.append(
                f"     {row['document'][:12]} {row['file']}{label} ({', '.join(row['examples'][:3])}{', ...' if len(row['examples']) > 3 else ''})"
            )
        return "\n".join(lines)


def trace(record: Record, what: str) -> Chain:
    """The chain of a deployment's name, of a digest (a bundle, an adapter, a split's JSONL, a page image, a document, an example id; 6 characters are enough) or of a path."""
    wanted = _as_digest(what)
    for find in (_deployment, _bundle, _adapter, _split, _example_or_page, _document):
        chain = find(record, wanted)
        if chain is not None:
            return chain
    raise InputError(
        what,
        "is nothing that this home made or holds",
        "the name of the last deployment, the digest or path of a bundle, an adapter, a split, a page image or a document, or an example id",
        f"Home: {record.home.root}",
    )


def _as_digest(what: str) -> str:
    """Paths in the store carry the digest in their name: store/folders/<digest>, store/objects/ab/<digest>.png. Elsewhere it is
    that of the content: an adapter that was copied names its job, a document is its bytes."""
    if "/" in what or Path(what).exists():
        path = Path(what).resolve()
        for part in (path.stem, *(parent.name for parent in path.parents)):
            if _is_digest(part):
                return part
        if (path / MANIFEST).is_file():
            return read_manifest(path).job
        if path.is_file():
            return digest_file(path)
    if len(what) < MIN_DIGITS:
        raise InputError(what, "is too short to name anything", f"at least {MIN_DIGITS} characters of a digest, or a path")
    return what.lower()


def _is_digest(name: str) -> bool:
    return len(name) == 64 and set(name) <= set("0123456789abcdef")


def _deployment(record: Record, wanted: str) -> Chain | None:
    """By its name, by the endpoint's, or by the asset's data version. A rehearsal is found too, and named one."""
    value = record.latest_value("endpoint_deployment")
    if not value or "deployment" not in value:
        return None
    version = record.latest_versions("endpoint_deployment", False)[None]
    if wanted not in (value["deployment"], value["endpoint"].lower()) and not version.startswith(wanted):
        return None
    chain = Chain(
        "deployment", version, [(f"{value['target']} endpoint", f"{value['endpoint']} {value['deployment']}: {value['outcome']}")]
    )
    chain.links += [("bundle", value["bundle"]), ("champion adapter", value["adapter"])]  # that very one, also where a newer one is made
    if (adapter := _adapter(record, value["adapter"])) is not None:
        chain.links += adapter.links
        chain.documents = adapter.documents
    return chain


def _bundle(record: Record, wanted: str) -> Chain | None:
    value = record.latest_value("serving_bundle")
    if not value or not value["bundle"]:
        return None
    sealed = record.home.store.folder_path(value["bundle"]) / BUNDLE_SEAL
    names = [value["bundle"], sealed.read_text(encoding="ascii").strip() if sealed.is_file() else ""]
    if not any(name.startswith(wanted) for name in names if name):
        return None
    chain = Chain("bundle", value["bundle"], [("champion adapter", value["adapter"])])
    if (adapter := _adapter(record, value["adapter"])) is not None:
        chain.links += adapter.links
        chain.documents = adapter.documents
    return chain


def _adapter(record: Record, wanted: str) -> Chain | None:
    champion = record.latest_value("champion_adapter")
    named = [("champion adapter", champion), ("adapter", record.latest_value("lora_adapter"))]
    candidates = [(role, value["adapter"]) for role, value in named if value and value["adapter"]]
    if _is_digest(wanted) and (record.home.store.folder_path(wanted) / "adapter_config.json").is_file():
        candidates.append(("adapter", wanted))  # an earlier one
    for role, digest in candidates:
        if not digest.startswith(wanted):
            continue
        chain = Chain(role, digest)
        records: dict[str, dict[str, Any]] = {}
        for manifest in ancestry(record.home.store, digest):
            if manifest.trainer is not None:
                chain.links.append(("trained by", manifest.trainer))
            if manifest.start is None:
                chain.links.append(("base model", f"{manifest.base} {manifest.base_digest}"))
            for split, jsonl in (("train", manifest.train_digest), ("val", manifest.val_digest)):
                chain.links.append((f"{split} split", jsonl))
                records |= {row["id"]: row for row in _records(record, jsonl)}
            if manifest.start is not None:
                chain.links.append(("weights of adapter", manifest.start))
        chain.links.append(("examples", str(len(records))))
        chain.documents = _documents(record, list(records.values()))
        return chain
    return None


def _split(record: Record, wanted: str) -> Chain | None:
    for split in SPLITS:
        value = record.latest_value(f"{split}_split")
        if value and value["jsonl"].startswith(wanted):
            records = list(_records(record, value["jsonl"]))
            chain = Chain(f"{split} split", value["jsonl"], [("examples", str(len(records)))])
            chain.documents = _documents(record, records)
            return chain
    return None


def _example_or_page(record: Record, wanted: str) -> Chain | None:
    for split in SPLITS:
        value = record.latest_value(f"{split}_split")
        if not value:
            continue
        found = [
            row for row in _records(record, value["jsonl"]) if row["id"].startswith(wanted) or row["meta"]["page_digest"].startswith(wanted)
        ]
        if found:
            names = {name for row in found for name in (row["id"], row["meta"]["page_digest"]) if name.startswith(wanted)}
            if len(names) > 1:
                raise InputError(
                    wanted, f"is the beginning of {len(names)} things", do=f"Give more characters: {', '.join(sorted(names)[:3])}"
                )
            meta = found[0]["meta"]
            by_id = found[0]["id"].startswith(wanted)
            chain = Chain("example" if by_id else "page image", found[0]["id"] if by_id else meta["page_digest"])
            chain.links = [
                ("split", split),
                ("stratum", meta["stratum"]),
                ("page image", meta["page_digest"]),
                ("page", str(meta["page"])),
                ("schema", meta["schema"]),
            ]
            if meta["twin"]:
                chain.links.append(("clean twin", meta["twin"]))
            chain.documents = _documents(record, found)
            return chain
    return None


def _document(record: Record, wanted: str) -> Chain | None:
    for document, row in _sources(record).items():
        if document.startswith(wanted):
            return Chain("document", document, [], [{**row, "examples": []}])
    return None


def _reviewed(review: dict[str, Any] | None) -> str:
    if not review:
        return ""
    replaced = f", in place of {review['replaced']['label'][:12]} ({review['replaced']['origin']})" if review["replaced"] else ""
    return f" reviewed by {review['by'] or 'nobody named'} at {review['at'] or 'no time given'} ({review['origin']}){replaced}"


def _records(record: Record, jsonl: str) -> Iterator[dict[str, Any]]:
    for line in record.home.store.read_bytes(jsonl, ".jsonl").splitlines():
        yield json.loads(line)


def _documents(record: Record, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    sources = _sources(record)
    examples: dict[str, list[str]] = {}
    for row in records:
        examples.setdefault(row["meta"]["document"], []).append(row["id"])
    unknown = {"file": "no longer in landing/", "label_file": None, "vendor": None}
    return [{"document": document, **unknown, **sources.get(document, {}), "examples": ids} for document, ids in sorted(examples.items())]


def _sources(record: Record) -> dict[str, dict[str, Any]]:
    """Every document that the record knows: its file and its label's."""
    found: dict[str, dict[str, Any]] = {}
    store = record.home.store
    for vendor, version in record.latest_versions("raw_documents", True).items():
        for row in store.read_json(version)["documents"]:
            found[row["document"]] = {"document": row["document"], "file": row["file"], "label_file": None, "vendor": vendor}
    for version in record.latest_versions("document_labels", True).values():
        for row in store.read_json(version)["labels"]:
            if row["document"] in found:
                found[row["document"]]["label_file"] = row["file"]
                if row.get("review"):
                    found[row["document"]]["label_review"] = row["review"]
    return found
