"""Promises of the generated vendors: what is written, and that it is the same bytes for the same seed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest
import torch

from extraction_assets import demonstration
from extraction_assets.demo.vendors import DEMO_WORDS, LANGUAGES, TYPES, draw_languages, fold_label, generate, make_document, make_vendor
from extraction_assets.demo.vendors.__main__ import main
from extraction_assets.demonstration import VENDORS, make_documents
from extraction_assets.errors import InputError
from extraction_assets.schema import TargetSchema
from extraction_assets.settings import ComputeSettings, recommendation_warnings
from extraction_assets.settings_file import load_settings
from extraction_assets.store import digest_folder

DEMO = Path(__file__).resolve().parents[2] / "data" / "demo"


def documents(seed: int, vendors: int = 6, each: int = 25, **options):
    return [
        make_document(seed, number, index, TYPES[(number - 1) % 3], **options)
        for number in range(1, vendors + 1)
        for index in range(1, each + 1)
    ]


@pytest.fixture(scope="module")
def many():
    return documents(31)


# --- what is written ----------------------------------------------------------------------------------------------------


def test_writes_a_pdf_and_a_label_of_the_same_stem_in_type_and_vendor_folders(tmp_path):
    seen = []
    made = generate(tmp_path, seed=3, vendors=4, documents_per_vendor=3, progress=lambda done, total: seen.append((done, total)))
    assert made.vendors == (
        ("invoice", "vendor-01"),
        ("receipt", "vendor-02"),
        ("purchase_order", "vendor-03"),
        ("invoice", "vendor-04"),
    )
    assert len(made.files) == len(set(made.files)) == 12
    for file in made.files:
        assert (tmp_path / file).read_bytes().startswith(b"%PDF-1.7")
        assert isinstance(json.loads((tmp_path / file).with_suffix(".json").read_text("utf-8")), dict)
    assert len(list(tmp_path.glob("*/*/*"))) == 24
    assert seen[-1] == (12, 12)
    assert len(seen) == 12


def test_same_seed_is_the_same_bytes_in_another_process(tmp_path):
    generate(tmp_path / "here", seed=8, vendors=3, documents_per_vendor=4, hybrid_xml=0.5)
    arguments = [
        "-m",
        "extraction_assets.demo.vendors",
        str(tmp_path / "there"),
        "--seed=8",
        "--vendors=3",
        "--documents=4",
        "--hybrid-xml=0.5",
    ]
    subprocess.run([sys.executable, *arguments], check=True, cwd=DEMO.parents[1], env={"PYTHONHASHSEED": "7", "PATH": ""}, timeout=120)
    assert digest_folder(tmp_path / "here") == digest_folder(tmp_path / "there")


def test_asking_for_more_changes_nothing_that_was_there(tmp_path):
    few = generate(tmp_path / "few", seed=5, vendors=2, documents_per_vendor=2)
    generate(tmp_path / "more", seed=5, vendors=5, documents_per_vendor=4)
    for file in few.files:
        for name in (file, file.with_suffix(".json")):
            assert (tmp_path / "few" / name).read_bytes() == (tmp_path / "more" / name).read_bytes()


def test_another_seed_is_other_vendors_words_and_layouts():
    vendors = [[make_vendor(seed, number, TYPES[(number - 1) % 3], "small", LANGUAGES)[0] for number in range(1, 10)] for seed in (1, 2)]
    names = [{vendor.party.name for vendor in group} for group in vendors]
    assert not names[0] & names[1]
    for a, b in zip(*vendors, strict=True):
        assert a.words != b.words
        assert a.layouts != b.layouts
    assert len({draw_languages(seed) for seed in range(20)}) > 10


def test_vendors_of_one_seed_are_templates_of_their_own():
    vendors = [make_vendor(4, number, "invoice", "small", LANGUAGES)[0] for number in range(1, 22, 3)]
    for what in ("party", "number_pattern", "family", "accent", "logo"):
        assert len({getattr(vendor, what) for vendor in vendors}) >= 4, what
    for vendor in vendors:
        first, second = vendor.layouts
        assert first.head != second.head
        assert first.meta != second.meta
        assert first.table != second.table


def test_a_vendor_keeps_its_formats_and_uses_both_layouts(many):
    for number in range(1, 7):
        own = [document for document in many if document.vendor == f"vendor-{number:02d}"]
        assert {document.facts.layout for document in own} == {0, 1}
        assert len({document.label["cur"] for document in own}) == 1


def test_document_numbers_of_a_vendor_are_distinct(many):
    for number in range(1, 7):
        numbers = [d.facts.number for d in many if d.vendor == f"vendor-{number:02d}" and d.facts.number]
        assert len(numbers) == len(set(numbers))


# --- labels -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TYPES)
def test_labels_follow_the_demo_schema_in_key_order(many, kind):
    schema = TargetSchema.load(DEMO / "schemas" / f"{kind}.schema.json")
    own = [document for document in [*many, *documents(32, 3, 4, page="a4")] if document.type == kind]
    assert own
    for document in own:
        assert schema.violations(document.label) == []
        assert schema.spell(document.label) == json.dumps(document.label, separators=(",", ":"), ensure_ascii=False)


def test_every_optional_field_is_sometimes_null_and_mostly_there(many):
    for kind, field in (("invoice", "pay_by"), ("receipt", "slip_no"), ("purchase_order", "ship_by"), ("purchase_order", "contact")):
        values = [document.label[field] for document in many if document.type == kind]
        assert 0.05 < values.count(None) / len(values) < 0.5, field
    receipts = [d.label["vat"] for seed in range(40, 48) for d in documents(seed, 2, 4) if d.type == "receipt"]
    assert None in receipts


def test_rows_add_up_to_net_and_net_and_tax_to_the_grand_total(many):
    for document in many:
        facts = document.facts
        vendor, _ = make_vendor(31, int(document.vendor[-2:]), document.type, "small", draw_languages(31))
        rows = sum((row.amount for row in facts.rows), Decimal(0))
        assert all(row.amount == (row.quantity * row.price).quantize(Decimal("0.01")) for row in facts.rows)
        if document.type == "receipt" and vendor.tax_included:
            assert rows == facts.gross
        else:
            assert rows == facts.net
        if document.type != "purchase_order" and facts.tax is not None:
            assert facts.net + facts.tax == facts.gross
            assert (facts.net * vendor.tax_rate / 100).quantize(Decimal("0.01"), ROUND_HALF_UP) == pytest.approx(
                facts.tax, abs=Decimal("0.01")
            )


def test_an_answer_is_short(many):
    for kind in TYPES:
        schema = TargetSchema.load(DEMO / "schemas" / f"{kind}.schema.json")
        lengths = [len(schema.spell(document.label)) for document in many if document.type == kind and len(document.page_sizes) == 1]
        assert 150 < sum(lengths) / len(lengths) < 320
        assert max(lengths) < 480


# --- words --------------------------------------------------------------------------------------------------------------


def test_demo_words_hold_every_label_a_vendor_prints():
    for seed in range(3):
        for number in range(1, 13):
            vendor, _ = make_vendor(seed, number, TYPES[(number - 1) % 3], "small", LANGUAGES)
            for word in vendor.words.values():
                printed = word.replace("{r}", "19").replace("{p}", "1").replace("{n}", "2").upper() + ":"
                assert fold_label(printed) in DEMO_WORDS, word


def test_folding_compares_labels_not_their_dress():
    assert fold_label("Invoice No.:") == fold_label("INVOICE NO") == "invoice no"
    assert fold_label("MwSt. 8,1 %") == "mwst"
    assert "" not in DEMO_WORDS
    assert fold_label("Kvittonummer") not in DEMO_WORDS


# --- the demo home ------------------------------------------------------------------------------------------------------


def test_settings_of_the_demo_home_warn_of_what_a_tiny_model_needs_alone_and_fit_its_pages(many):
    settings = load_settings(DEMO / "settings.yaml")
    assert [line.split(":")[0] for line in recommendation_warnings(settings)] == ["training.learning_rate", "training.effective_batch"]
    for document in many:
        for width, height in document.page_sizes:
            grid = settings.render.budget.for_page(width, height)
            assert not grid.limited
            assert grid.width == pytest.approx(width * settings.render.dpi / 72, abs=32)
            assert grid.height == pytest.approx(height * settings.render.dpi / 72, abs=32)


def test_held_out_vendors_are_among_the_demos(tmp_path):
    made = generate(tmp_path, seed=9, vendors=VENDORS, documents_per_vendor=1)
    held_out = set(load_settings(DEMO / "settings.yaml").splits.held_out_vendors)
    vendors = {f"{kind}/{vendor}" for kind, vendor in made.vendors}
    assert held_out < vendors
    left = Counter(vendor.split("/")[0] for vendor in vendors - held_out)
    assert set(left) == set(TYPES)


@pytest.mark.parametrize(("cores", "gpu", "processes"), [(1, False, None), (2, False, 2), (8, False, 2), (8, True, None)])
def test_a_demo_on_several_cores_without_a_gpu_trains_in_two_processes(tmp_path, monkeypatch, cores, gpu, processes):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(demonstration, "_generate", lambda *_: None)
    settings = make_documents(tmp_path / "home", 0, print).settings()
    assert settings.compute.processes == processes
    assert settings.compute.model_copy(update={"processes": None}) == ComputeSettings()
    assert settings.model_copy(update={"compute": ComputeSettings()}) == load_settings(DEMO / "settings.yaml")


# --- bad input ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"vendors": 0}, "0 vendors"),
        ({"documents_per_vendor": -1}, "-1 documents"),
        ({"hybrid_xml": 1.5}, "1.5"),
        ({"types": ("invoice", "letter")}, "letter"),
        ({"types": ()}, "none"),
        ({"page": "a5"}, "a5"),
        ({"languages": ("pl",)}, "pl"),
    ],
)
def test_impossible_arguments_are_one_clear_line_and_write_nothing(tmp_path, options, told):
    with pytest.raises(InputError, match=told):
        generate(tmp_path / "out", **{"seed": 1, "vendors": 1, "documents_per_vendor": 1, **options})
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_an_input_error(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main([str(tmp_path / "file"), "--vendors", "1", "--documents", "1"]) == 2
    assert "cannot be written" in capsys.readouterr().err
