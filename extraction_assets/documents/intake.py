"""Intake: a vendor's documents and labels, from landing/ into the store.

What a file is, its bytes decide. A file that is none of PDF, JPEG and PNG is refused by name; whether a PDF can be drawn is
found out where it is drawn. Labels come from the .json of the same stem, else from the XML that a hybrid e-invoice carries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from extraction_assets.documents import einvoice_versions, media
from extraction_assets.documents.digest_cache import DigestCache
from extraction_assets.documents.label_file import read_label
from extraction_assets.documents.label_provenance import provenance_path, read_history
from extraction_assets.documents.landing import scan_vendor
from extraction_assets.documents.memory import recall, remember
from extraction_assets.documents.names import split_key
from extraction_assets.documents.records import EXTENSIONS, Document, Label, Refusal, VendorDocuments, VendorLabels
from extraction_assets.documents.sandbox import Task, warm_sandbox
from extraction_assets.errors import InputError
from extraction_assets.settings import RenderSettings
from extraction_assets.store import Store, digest_of

Progress = Callable[[int, int], None]

_KIND = "einvoices"


def collect_documents(landing: Path, key: str, store: Store, cache: DigestCache, progress: Progress | None = None) -> VendorDocuments:
    """Copy one vendor's documents into the store under (digest, extension by content); refused files are listed with a reason.

    key: type/vendor. The same bytes under two names are one document, named after the first file by name. Raises InputError on
    what is wrong with the folder as such (a bad label, a folder in a folder): see landing.scan_vendor.
    """
    type_name, vendor = split_key(key)
    files = scan_vendor(landing, key, cache)
    documents: dict[str, Document] = {}
    refused: list[Refusal] = []
    for number, file in enumerate(files):
        if file.document not in documents:
            taken = _take(landing, file.file, file.document, store)
            if isinstance(taken, Refusal):
                refused.append(taken)
            else:
                documents.setdefault(taken.document, taken)
        if progress:
            progress(number + 1, len(files))
    return VendorDocuments(
        type=type_name,
        vendor=vendor,
        documents=tuple(documents[digest] for digest in sorted(documents)),
        refused=tuple(sorted(refused, key=lambda refusal: refusal.file)),
    )


def _take(landing: Path, file: str, expected: str, store: Store) -> Document | Refusal:
    path = landing / file
    try:
        with path.open("rb") as opened:
            head = opened.read(media.SNIFF_BYTES)
            size = path.stat().st_size
            kind = media.sniff(head)
            if kind is None:
                reason = "not_a_document" if head else "empty_file"
                return Refusal(file=file, reason=reason, detail=f"is no PDF, JPEG or PNG but {media.describe(head)}")
            if store.has(expected, EXTENSIONS[kind]):
                return Document(document=expected, file=file, media=kind, bytes=size)
            data = head + opened.read()
    except OSError as error:
        return Refusal(file=file, reason="unreadable", detail=f"cannot be read: {error.strerror or error}")
    digest = store.put_bytes(data, EXTENSIONS[kind])  # what was read counts, should the file have changed since the scan
    return Document(document=digest, file=file, media=kind, bytes=len(data))


def collect_labels(
    landing: Path,
    key: str,
    documents: VendorDocuments,
    store: Store,
    cache: DigestCache,
    settings: RenderSettings | None = None,
    workers: int = 0,
    progress: Progress | None = None,
) -> VendorLabels:
    """The label of every document that has one: its label file, else (for a PDF) the e-invoice XML embedded in it.

    settings: passwords and limits of the workers that open the PDFs. Raises InputError on a label file that is no JSON object, or
    where two files of the same bytes have different labels.
    """
    type_name, vendor = split_key(key)
    wanted = {document.document: document for document in documents.documents}
    labels: dict[str, Label] = {}
    for file in scan_vendor(landing, key, cache):
        if file.label_file is None or file.document not in wanted:
            continue
        value = read_label(landing / file.label_file)
        known = labels.get(file.document)
        if known is not None and known.label != value:
            raise InputError(
                str(landing / file.label_file), f"is another label for the same document as {known.file}", do="Keep one of them"
            )
        review = read_history(provenance_path(landing / file.label_file), file.document).of_label(digest_of(value))
        label = Label(document=file.document, label=value, origin="file", file=file.label_file, review=review)
        if known is None or known.review is None:
            labels[file.document] = label
    without = [d for digest, d in wanted.items() if digest not in labels and d.media == "application/pdf"]
    found = _embedded_labels(without, store, settings or RenderSettings(), workers, progress)
    for document in without:
        if document.document in found:
            value = found[document.document]
            labels[document.document] = Label(document=document.document, label=value, origin="e-invoice", file=document.file)
    return VendorLabels(type=type_name, vendor=vendor, labels=tuple(labels[digest] for digest in sorted(labels)))


def _embedded_labels(
    documents: Sequence[Document], store: Store, settings: RenderSettings, workers: int, progress: Progress | None
) -> dict[str, dict[str, Any]]:
    """Document digest -> label from its XML. A PDF that cannot be opened has none; rendering says why."""
    labels: dict[str, dict[str, Any]] = {}
    unknown: list[Document] = []
    for document in documents:
        known = recall(store, _KIND, _memory_key(document.document, settings))
        if known is None:
            unknown.append(document)
        elif known["label"] is not None:
            labels[document.document] = known["label"]
    done = len(documents) - len(unknown)
    if progress:
        progress(done, len(documents))
    if not unknown:
        return labels

    def task(document: Document) -> Task:
        request = {"op": "einvoice", "passwords": list(settings.passwords)}
        return Task(document.document, lambda: store.read_bytes(document.document, EXTENSIONS[document.media]), request)

    with warm_sandbox(settings, workers) as sandbox:
        for frame in sandbox.frames(map(task, unknown)):
            if frame.kind == "label":
                label = frame.values["label"] if isinstance(frame.values["label"], dict) else None
                remember(store, _KIND, _memory_key(frame.task.key, settings), {"label": label})
                if label is not None:
                    labels[frame.task.key] = label
            elif frame.kind in ("done", "died"):
                done += 1
                if progress:
                    progress(done, len(documents))
    return labels


def _memory_key(document: str, settings: RenderSettings) -> str:
    return digest_of([document, einvoice_versions(), list(settings.passwords)])
