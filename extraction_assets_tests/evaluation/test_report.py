from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from extraction_assets.errors import InputError
from extraction_assets.evaluation.gate import decide
from extraction_assets.evaluation.plots import as_markdown
from extraction_assets.evaluation.report import Report, build_report
from extraction_assets.evaluation.report_data import HistoryPoint
from extraction_assets.evaluation.run import Answer, ReportExample, ScoredRun, TypeExamples, score_examples
from extraction_assets.schema import TargetSchema
from extraction_assets.settings import EvaluationSettings
from extraction_assets_tests.evaluation import chromium
from extraction_assets_tests.evaluation.cases import GOLD, INVOICE, gold, leaf, obj, with_rows

SETTINGS = EvaluationSettings(bootstrap=200)
SYSTEMS = ("base", "champion", "challenger")
NOTE = TargetSchema(obj({"number": leaf("id"), "name": leaf("text")}), "note")
EVIL = "</script><script>window.evil=1</script><img src=x onerror='window.evil=2'>"


def picture(folder: Path, name: str) -> Path:
    path = folder / f"{name}.png"
    out = io.BytesIO()
    Image.new("RGB", (320, 416), (250, 250, 250)).save(out, "PNG")
    path.write_bytes(out.getvalue())
    return path


def scored(folder: Path, pages: int = 12, conditions: dict[str, str] | None = None) -> ScoredRun:
    """Invoices of three vendors with hard negatives, one kind of mistake each, and a second type with markup in its values."""
    faults: list[Any] = [
        GOLD,
        gold(grand_total="2856.61"),
        gold(invoice_date=None),
        gold(due_date="2024-01-01"),
        with_rows(lambda rows: rows.pop()),
        with_rows(lambda rows: rows[1].update(amount="3.00")),
        gold(line_items=[*GOLD["line_items"], {"description": "x", "quantity": "9", "unit_price": "9", "amount": "81"}]),
        json.dumps(GOLD)[:150],
        gold(iban="DE00"),
    ]
    boxes = {
        "/grand_total": [(200.0, 380.0, 260.0, 395.0)],
        "/line_items/1/amount": [(200.0, 200.0, 250.0, 212.0)],
        "/seller_name": [(10.0, 10.0, 90.0, 24.0)],
    }
    examples = []
    for number in range(pages):
        fault = faults[number % len(faults)]
        answers = {
            "base": Answer("{}", tokens=2),
            "champion": Answer(json.dumps(gold(buyer_name="?")), tokens=150),
            "challenger": Answer(fault if isinstance(fault, str) else json.dumps(fault), tokens=140, confidence=0.5 + number / (4 * pages)),
        }
        clean = ReportExample(
            id=f"page{number}",
            vendor=f"invoice/v{number % 3}",
            stratum="clean",
            document=f"doc{number}",
            gold=GOLD,
            answers=answers,
            page=1,
            seen=number % 3 > 0,
            image=picture(folder, f"p{number}"),
            width=320,
            height=416,
            value_boxes=boxes,
        )
        examples.append(clean)
        if number % 4 == 0:
            turned = answers | {"challenger": Answer(json.dumps(gold(net_total="1.00")), tokens=141, confidence=0.4)}
            what = {"stratum": "rotated", "twin": clean.id, "what": "turned by 2 degrees", "image": None, "value_boxes": {}}
            examples.append(dataclasses.replace(clean, id=f"{clean.id}r", answers=turned, **what))  # type: ignore[arg-type]
    target = {"number": "1", "name": EVIL}
    said = {"challenger": Answer(json.dumps({"number": "2", "name": EVIL + "!"}), confidence=0.9)}
    note = ReportExample("note1", "note/é", "clean", "n1", target, said, seen=True)
    right = {name: Answer(json.dumps(target), confidence=0.9) for name in SYSTEMS}
    fine = ReportExample("note2", "note/é", "clean", "n2", target, right, seen=True)
    types = [TypeExamples("invoice", INVOICE, examples), TypeExamples("note", NOTE, [note, fine])]
    return score_examples(types, SYSTEMS, conditions)


def report(folder: Path, **options: Any) -> Report:
    run = scored(folder)
    decision = decide(run.systems["champion"], run.systems["challenger"], run.systems["base"], SETTINGS)
    history = [HistoryPoint("100", 0.5, 0.4, 0.6), HistoryPoint("200", 0.7, 0.6, 0.8)]
    return build_report(run, SETTINGS, decision=decision, history=history, **options)


def test_the_report_is_the_same_for_the_same_answers(tmp_path: Path) -> None:
    first, second = report(tmp_path), report(tmp_path)
    assert first.html == second.html
    assert json.dumps(first.data, allow_nan=False) == json.dumps(second.data, allow_nan=False)


def test_the_report_tells_systems_types_vendors_twins_tokens_and_the_decision(tmp_path: Path) -> None:
    data = report(tmp_path).data
    assert data["systems"] == list(SYSTEMS)
    assert (data["pages"], data["documents"]) == (17, 14)
    assert set(data["types"]) == {"invoice", "note"}
    assert data["types"]["invoice"]["systems"]["challenger"]["twins"]["rotated"]["pairs"] == 3
    assert data["tokens"]["base"]["mean"] == 2.0
    assert data["answers"]["challenger"] == {"strict": 16, "truncated": 1}
    assert data["decision"]["promote"] is False
    assert [comparison["a"] for comparison in data["comparisons"]] == ["base", "champion"]
    assert data["worst_vendor"]["challenger"]["vendor"] == "note/é"
    assert set(data["seen"]) == {"seen vendors", "unseen vendors"}
    assert data["risk_coverage"][-1]["coverage"] == 1.0
    assert data["risk_coverage"][0]["error"] == 1.0 or data["risk_coverage"][0]["error"] == 0.0


def test_every_rate_lies_between_0_and_1(tmp_path: Path) -> None:
    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if {"value", "low", "high", "n"} == set(value) and value["value"] is not None:
                assert 0 <= value["value"] <= 1
                assert value["low"] is None or 0 <= value["low"] <= value["high"] <= 1
            for child in value.values():
                walk(child)
        elif isinstance(value, list):
            for child in value:
                walk(child)

    walk({name: told for name, told in report(tmp_path).data.items() if name != "comparisons"})


def test_plots_are_wellformed_svg_with_a_title(tmp_path: Path) -> None:
    plots = report(tmp_path).plots
    overall = {"headline", "learning curve", "risk coverage"}
    of_type = {f"{name} invoice" for name in ("fields", "outcomes", "vendors", "strata", "twins")}
    assert overall | of_type | {"columns invoice line_items"} <= set(plots)
    for svg in plots.values():
        root = ElementTree.fromstring(svg)
        assert base64.b64decode(as_markdown(svg, "x").split("base64,")[1][:-1]).decode() == svg
        assert root.find("{http://www.w3.org/2000/svg}title") is not None
        assert not re.search(r"=\"nan|>nan<|[ ,]nan[ \"]", svg.casefold())


def test_the_page_names_no_address_outside_itself(tmp_path: Path) -> None:
    html = re.sub(r"data:image/jpeg;base64,[^\"]*", "", report(tmp_path).html)
    assert set(re.findall(r"https?://[^/\"'\\ ]*", html)) == {"http://www.w3.org"}  # the name of SVG, not an address that is asked
    assert not re.search(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=[\"'](?!data:)", html)


def test_answers_cannot_become_markup(tmp_path: Path) -> None:
    html = report(tmp_path).html
    assert "<script>window.evil" not in html
    assert html.count("</script>") == 3


def test_pictures_are_inside_a_small_report_and_beside_a_large_one(tmp_path: Path) -> None:
    inside = report(tmp_path)
    assert inside.html.count("data:image/jpeg;base64") == 10
    assert inside.images == {}
    beside = report(tmp_path, images="beside")
    assert "data:image/jpeg" not in beside.html
    path = beside.write(tmp_path / "out")
    assert path.read_text(encoding="utf-8") == beside.html
    names = sorted(file.name for file in (tmp_path / "out" / "pages").iterdir())
    assert names == [f"{number:05d}.jpg" for number in range(10)]
    with Image.open(tmp_path / "out" / "pages" / names[0]) as small:
        assert (small.format, small.size) == ("JPEG", (320, 416))
    assert json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8")) == json.loads(json.dumps(beside.data))
    assert report(tmp_path, images="none").html.count('"image":') == 0


def test_only_pages_that_are_not_exactly_right_are_in_the_browser(tmp_path: Path) -> None:
    html = report(tmp_path).html
    browser = json.loads(re.findall(r'id="data">(.*?)</script>', html, re.S)[0])
    ids = [page["id"] for page in browser["pages"]]
    assert "page1" in ids
    assert "note1" in ids
    assert not {"page0", "page9", "note2"} & set(ids)
    assert ids[0] == "page7"  # the truncated answer is the worst
    page = next(page for page in browser["pages"] if page["id"] == "page4")
    assert page["answers"]["challenger"]["rows"]["line_items"]["pairs"] == [[0, 0, [1] * 4], [1, 1, [1] * 4]]


def test_an_id_that_stands_twice_is_refused(tmp_path: Path) -> None:
    example = ReportExample("a", "v", "clean", "d", GOLD, {})
    with pytest.raises(InputError, match="stands twice"):
        score_examples([TypeExamples("invoice", INVOICE, [example, example])], ("base",))


def test_a_report_of_one_system_and_no_mistake_and_one_of_no_page_are_reports(tmp_path: Path) -> None:
    right = ReportExample("a", "v", "clean", "d", GOLD, {"x": Answer(json.dumps(GOLD))})
    made = build_report(score_examples([TypeExamples("invoice", INVOICE, [right])], ("x",)), SETTINGS)
    assert "Every page is exactly right." in made.html
    empty = build_report(score_examples([TypeExamples("invoice", INVOICE, [])], ("x",)), SETTINGS)
    assert empty.data["overall"]["x"]["field_accuracy"]["value"] is None


browser = pytest.mark.skipif(chromium.PROGRAM is None, reason="no Chromium on this machine")


def choose(page: chromium.Browser, filter: str, value: str) -> None:
    page.run(f"document.getElementById({filter!r}).value = {value!r}")
    page.run(f"document.getElementById({filter!r}).dispatchEvent(new Event('input', {{bubbles: true}}))")


@browser
@pytest.mark.parametrize("images", ["inside", "beside"])
def test_the_page_opens_offline_without_errors_or_requests_and_can_be_stepped_through(tmp_path: Path, images: Any) -> None:
    path = report(tmp_path, images=images).write(tmp_path / "out")
    with chromium.Browser(tmp_path / "profile") as page:
        page.open(path.as_uri())
        assert page.errors == []
        assert all(url.startswith(("file://", "data:")) for url in page.requests), page.requests
        text = "document.getElementById('sheet').innerText"
        head = "document.querySelector('#head code').textContent"
        assert page.run("document.getElementById('count').textContent") == "14 of 14 pages"
        assert page.run(head) == "page7"
        assert "truncated answer" in page.run(text)
        assert "Müller & Söhne KG" in page.run(text)
        assert "Seal kit" in page.run(text)
        page.press("j")
        second = page.run(head)
        assert second != "page7"
        page.press("k")
        assert page.run(head) == "page7"

        choose(page, "f-field", "grand_total")
        choose(page, "f-outcome", "wrong")
        assert page.run("document.getElementById('count').textContent") == "2 of 14 pages"
        choose(page, "f-text", "page1")
        choose(page, "f-outcome", "")
        assert page.run(head).startswith("page1")
        assert "2856.61" in page.run(text)
        picture = "document.querySelector('#stage img')"
        assert page.run(f"{picture}.decode().then(() => {picture}.naturalWidth)") == 320
        assert page.run("[...document.querySelectorAll('#stage rect')].map(r => [r.dataset.pointer, r.getAttribute('class')])") == [
            ["/grand_total", "box-wrong"],
            ["/line_items/1/amount", "box-right"],
            ["/seller_name", "box-right"],
        ]
        page.press("s")
        assert page.run("document.querySelector('#head [aria-pressed=true]').textContent").startswith("base")
        assert page.run("document.querySelectorAll('#stage .box-wrong').length") == 3
        page.press("b")
        assert page.run("document.querySelectorAll('#stage rect').length") == 0
        assert page.errors == []


@browser
def test_markup_in_answers_is_shown_as_text(tmp_path: Path) -> None:
    path = report(tmp_path).write(tmp_path / "out")
    with chromium.Browser(tmp_path / "profile") as page:
        page.open(path.as_uri() + "#page=note1")
        assert "onerror=" in page.run("document.getElementById('sheet').innerText")
        assert page.run("window.evil === undefined")


@browser
def test_no_page_fits_is_said(tmp_path: Path) -> None:
    path = report(tmp_path).write(tmp_path / "out")
    with chromium.Browser(tmp_path / "profile") as page:
        page.open(path.as_uri())
        choose(page, "f-text", "nothing like this")
        assert "No page fits" in page.run("document.getElementById('stage').innerText")
        page.press("j")
        assert page.errors == []
