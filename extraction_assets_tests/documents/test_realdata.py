"""Real documents: 254 of vendors and 64 hostile ones, named by EXTRACTION_REALDATA."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from extraction_assets.documents.digest_cache import DigestCache
from extraction_assets.documents.einvoice import label_of_pdf
from extraction_assets.documents.ingest import ingest
from extraction_assets.documents.landing import scan_landing
from extraction_assets.documents.rendering import render_files
from extraction_assets.schema import TargetSchema
from extraction_assets.settings import RenderSettings

MUST_BE_REFUSED = {"reject with a named reason; no crash, no hang"}
MUST_HAVE_PAGES = {
    "render",
    "render upright",
    "repair, render",
    "render with annotations drawn",
    "render with field values",
    "render the CropBox only",
}


def test_every_real_file_is_ingested_or_refused_with_a_reason(realdata: Path, tmp_path: Path, schemas: dict[str, TargetSchema]) -> None:
    cache = DigestCache(tmp_path / "cache.json")
    report = ingest(realdata / "open", tmp_path / "landing", schemas, None, None, RenderSettings(), cache)
    lines = [json.loads(line) for line in (realdata / "open/manifest.jsonl").read_text().splitlines()]
    assert report.added + report.unchanged + len(report.refused) == len(lines)
    assert Counter(refused.reason for refused in report.refused) == {"no_type": sum(line["type"] is None for line in lines)}
    scan = scan_landing(tmp_path / "landing", cache)
    assert scan.problems == ()
    assert sum(map(len, scan.vendors.values())) == report.added
    again = ingest(realdata / "open", tmp_path / "landing", schemas, None, None, RenderSettings(), cache)
    assert (again.added, again.unchanged) == (0, report.added + report.unchanged)


def test_every_hybrid_invoice_has_a_label_that_follows_the_schema(realdata: Path, schemas: dict[str, TargetSchema]) -> None:
    """Compared with labels made by others from the same XML: white space apart, only dates they left in format 203 may differ."""
    differences = Counter[str]()
    for file in sorted((realdata / "open/hybrid_einvoice").glob("*.pdf")):
        label = label_of_pdf(file.read_bytes())
        assert label is not None, file.name
        assert schemas["invoice"].violations(label) == [], file.name
        theirs = json.loads(file.with_suffix(".json").read_text())
        for key, value in theirs.items():
            differences[key] += _squeezed(value) != _squeezed(label[key])
    assert {key: count for key, count in differences.items() if count} == {"invoice_date": 3}


def _squeezed(value: object) -> str:
    return json.dumps(value).replace("\\n", " ").replace("  ", " ")


@pytest.mark.slow
@pytest.mark.parametrize("with_passwords", [False, True])
def test_hostile_files_end_as_their_manifest_asks(realdata: Path, tmp_path: Path, with_passwords: bool) -> None:
    manifest = {item["file"]: item for item in json.loads((realdata / "hardpdfs/manifest.json").read_text())}
    passwords = tuple(sorted({item["password"] for item in manifest.values() if item["password"]})) if with_passwords else ()
    files = sorted((realdata / "hardpdfs").glob("*.pdf"))
    outcomes = render_files(files, tmp_path, RenderSettings(page_seconds=8, passwords=passwords))
    assert len(outcomes) == len(manifest)
    for outcome in outcomes:
        item = manifest[Path(outcome.file).name]
        assert (outcome.outcome == "refused") == (not outcome.pages), outcome
        assert (outcome.reason is None) == (outcome.outcome == "rendered"), outcome
        if item["expect"] in MUST_BE_REFUSED:
            assert outcome.outcome == "refused", outcome
        if item["expect"] in MUST_HAVE_PAGES:
            assert outcome.pages, outcome
        if item["password"]:
            assert (outcome.outcome != "refused") if with_passwords else outcome.reason == "encrypted", outcome
        assert all(page.width * page.height // 1024 <= RenderSettings().max_visual_tokens for page in outcome.pages)
