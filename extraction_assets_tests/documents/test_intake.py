"""Intake: content decides what a file is; labels come from their file, else from the e-invoice's XML."""

from __future__ import annotations

from pathlib import Path

import pytest

from extraction_assets.documents import intake
from extraction_assets.documents.digest_cache import DigestCache
from extraction_assets.documents.intake import collect_documents, collect_labels
from extraction_assets.documents.records import VendorLabels
from extraction_assets.errors import InputError
from extraction_assets.settings import RenderSettings
from extraction_assets.store import Store
from extraction_assets_tests.documents.samples import digest_bytes, pdf, put, scan
from extraction_assets_tests.documents.test_einvoice import hybrid

KEY = "invoice/acme"


def labels_of(landing: Path, store: Store, cache: DigestCache, settings: RenderSettings) -> VendorLabels:
    return collect_labels(landing, KEY, collect_documents(landing, KEY, store, cache), store, cache, settings)


def test_content_decides_and_refusals_have_a_reason(landing: Path, store: Store, cache: DigestCache) -> None:
    put(landing, "invoice/acme/picture.pdf", scan())
    put(landing, "invoice/acme/paper.png", pdf("x"))
    put(landing, "invoice/acme/page.pdf", "<!DOCTYPE html><html>")
    put(landing, "invoice/acme/nothing.pdf", b"")
    put(landing, "invoice/acme/fax.tif", b"II*\0rest")
    value = collect_documents(landing, KEY, store, cache)
    assert {document.file: document.media for document in value.documents} == {
        "invoice/acme/picture.pdf": "image/png",
        "invoice/acme/paper.png": "application/pdf",
    }
    assert [(refused.file, refused.reason) for refused in value.refused] == [
        ("invoice/acme/fax.tif", "not_a_document"),
        ("invoice/acme/nothing.pdf", "empty_file"),
        ("invoice/acme/page.pdf", "not_a_document"),
    ]
    assert "TIFF" in value.refused[0].detail
    assert store.read_bytes(digest_bytes(scan()), ".png") == scan()


def test_the_same_bytes_are_one_document(landing: Path, store: Store, cache: DigestCache) -> None:
    put(landing, "invoice/acme/b.pdf", pdf("x"))
    put(landing, "invoice/acme/a.pdf", pdf("x"))
    (document,) = collect_documents(landing, KEY, store, cache).documents
    assert document.file == "invoice/acme/a.pdf"
    assert document.bytes == len(pdf("x"))


def test_a_second_intake_yields_the_same_value_and_writes_nothing(landing: Path, store: Store, cache: DigestCache) -> None:
    put(landing, "invoice/acme/a.pdf", pdf("x"))
    first = collect_documents(landing, KEY, store, cache)
    objects = {path: path.stat().st_mtime_ns for path in Path(store.root.path).rglob("*")}
    assert collect_documents(landing, KEY, store, cache) == first
    assert {path: path.stat().st_mtime_ns for path in Path(store.root.path).rglob("*")} == objects


def test_an_empty_vendor_has_no_documents(landing: Path, store: Store, cache: DigestCache) -> None:
    assert collect_documents(landing, KEY, store, cache).documents == ()


def test_a_label_file_wins_over_the_xml_and_the_xml_over_nothing(
    landing: Path, store: Store, cache: DigestCache, settings: RenderSettings
) -> None:
    put(landing, "invoice/acme/own.pdf", hybrid(number="A-1"))
    put(landing, "invoice/acme/own.json", '{"invoice_number": "mine"}')
    put(landing, "invoice/acme/xml.pdf", hybrid(number="A-2"))
    put(landing, "invoice/acme/none.pdf", pdf("no label"))
    put(landing, "invoice/acme/scan.png", scan())
    value = labels_of(landing, store, cache, settings)
    assert {(label.file, label.origin, label.label["invoice_number"]) for label in value.labels} == {
        ("invoice/acme/own.json", "file", "mine"),
        ("invoice/acme/xml.pdf", "e-invoice", "A-2"),
    }
    assert [label.document for label in value.labels] == sorted(label.document for label in value.labels)


def test_xml_is_read_once(
    landing: Path, store: Store, cache: DigestCache, settings: RenderSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(landing, "invoice/acme/xml.pdf", hybrid(number="A-2"))
    put(landing, "invoice/acme/none.pdf", pdf("no label"))
    first = labels_of(landing, store, cache, settings)
    monkeypatch.setattr(intake, "warm_sandbox", None)
    assert labels_of(landing, store, cache, settings) == first


def test_a_hostile_pdf_has_no_label_and_costs_the_others_nothing(
    landing: Path, store: Store, cache: DigestCache, settings: RenderSettings
) -> None:
    put(landing, "invoice/acme/bad.pdf", b"%PDF-1.4\n%%EOF" + b"\0\xff" * 1000)
    put(landing, "invoice/acme/xml.pdf", hybrid(number="A-2"))
    assert [label.file for label in labels_of(landing, store, cache, settings).labels] == ["invoice/acme/xml.pdf"]


def test_a_label_that_is_no_strict_object_names_file_and_line(
    landing: Path, store: Store, cache: DigestCache, settings: RenderSettings
) -> None:
    put(landing, "invoice/acme/a.pdf", pdf("x"))
    for text, line in (("[1]", 1), ('{"a": 1,\n"a": 2}', 2), ('{"a":\n\nNaN}', 3)):
        put(landing, "invoice/acme/a.json", text)
        with pytest.raises(InputError, match=rf"invoice/acme/a\.json:{line}"):
            labels_of(landing, store, cache, settings)


def test_two_labels_for_one_document_are_an_error(landing: Path, store: Store, cache: DigestCache, settings: RenderSettings) -> None:
    for name, text in (("a", '{"n": 1}'), ("b", '{"n": 2}')):
        put(landing, f"invoice/acme/{name}.pdf", pdf("x"))
        put(landing, f"invoice/acme/{name}.json", text)
    with pytest.raises(InputError, match="another label for the same document"):
        labels_of(landing, store, cache, settings)
    put(landing, "invoice/acme/b.json", '{ "n": 1 }')
    assert len(labels_of(landing, store, cache, settings).labels) == 1
