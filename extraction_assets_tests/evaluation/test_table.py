from __future__ import annotations

import io
import json
from pathlib import Path

from extraction_assets.evaluation.harness import evaluate_files
from extraction_assets.evaluation.table import print_systems, table_text
from extraction_assets.settings import EvaluationSettings
from extraction_assets_tests.evaluation.cases import GOLD, INVOICE, gold


def report(folder: Path) -> dict:  # type: ignore[type-arg]
    answers = [json.dumps(GOLD), json.dumps(gold(grand_total="1")), "{", None, json.dumps(GOLD | {"iban": "x"})]
    predictions, golds = folder / "p.jsonl", folder / "g.jsonl"
    predictions.write_text("".join(json.dumps({"id": str(n), "text": text}) + "\n" for n, text in enumerate(answers)))
    lines = [
        {"id": str(n), "target": GOLD, "vendor": f"v{n % 2}", "stratum": "rotated" if n == 4 else "clean", "twin": "0" if n == 4 else None}
        for n in range(6)
    ]
    golds.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return evaluate_files(predictions, golds, INVOICE, settings=EvaluationSettings(bootstrap=100))


def test_the_table_tells_rates_intervals_n_and_what_to_know(tmp_path: Path) -> None:
    text = table_text(report(tmp_path))
    assert "Evaluation: 6 documents" in text
    for word in (
        "field accuracy",
        "grand_total",
        "line_items",
        "  unit_price",
        "v0",
        "rotated",
        "95 %",
        "against twins",
        "ANLS*",
    ):
        assert word in text
    assert "1 document without prediction" in text
    assert "1 truncated, 2 empty" in text
    assert "1 answer with iban" in text
    assert max(map(len, text.splitlines())) <= 110


def test_systems_stand_side_by_side(tmp_path: Path) -> None:
    summary, out = report(tmp_path), io.StringIO()
    print_systems({"base": summary, "challenger": summary}, "invoice", out, 100)
    text = out.getvalue()
    assert "base" in text
    assert "challenger" in text
    assert "grand_total" in text
