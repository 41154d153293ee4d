"""How many documents a second the harness scores: all own metrics with intervals, from two files to the report.

Documents hold eleven header fields and twenty rows; a third of the answers have something wrong (a digit, a missing or reordered
row, an invented field, a format of another country, a truncated answer). Peer: `anls-star`, called once per document on the same
parsed answers, which is what one would otherwise do to compare JSON with JSON; timed on a sample, since it is slow.

    python benchmarks/evaluation.py [--quick] [--json] [--documents N]
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from printing import Row, print_rows

from extraction_assets.evaluation.harness import evaluate_files
from extraction_assets.evaluation.strict_json import parse_answer
from extraction_assets.schema import TargetSchema
from extraction_assets.settings import EvaluationSettings

ROWS = 20
SCHEMA = Path(__file__).resolve().parent.parent / "schemas" / "invoice.schema.json"


def gold_target(number: int, draw: random.Random) -> dict[str, Any]:
    rows, net = [], 0
    for row in range(ROWS):
        quantity, cents = draw.randint(1, 40), draw.randint(50, 90000)
        net += quantity * cents
        rows.append(
            {
                "description": f"{draw.choice(['Widget', 'Bracket', 'Cable', 'Valve', 'Hose'])} {draw.choice('ABCDEFG')}{row}",
                "quantity": str(quantity),
                "unit": draw.choice(["C62", "H87", None]),
                "unit_price": f"{cents / 100:.2f}",
                "amount": f"{quantity * cents / 100:.2f}",
                "tax_rate": "19",
            }
        )
    tax = net * 19 // 100
    return {
        "invoice_number": f"INV-{number:06d}",
        "invoice_date": f"2024-{draw.randint(1, 12):02d}-{draw.randint(1, 28):02d}",
        "seller_name": f"Vendor {number % 50} GmbH",
        "buyer_name": "Acme Ltd",
        "order_reference": None,
        "currency": "EUR",
        "due_date": None,
        "net_total": f"{net / 100:.2f}",
        "tax_total": f"{tax / 100:.2f}",
        "grand_total": f"{(net + tax) / 100:.2f}",
        "amount_due": f"{(net + tax) / 100:.2f}",
        "line_items": rows,
    }


def answer_text(gold: dict[str, Any], draw: random.Random) -> str:
    answer = json.loads(json.dumps(gold))
    fault = draw.randrange(21)
    if fault == 0:
        answer["grand_total"] = answer["grand_total"][:-1] + "7"
    elif fault == 1:
        del answer["line_items"][draw.randrange(ROWS)]
    elif fault == 2:
        draw.shuffle(answer["line_items"])
    elif fault == 3:
        answer["due_date"] = "2024-01-01"
    elif fault == 4:
        answer["net_total"] = answer["net_total"].replace(".", ",")
    elif fault == 5:
        for row in answer["line_items"][:5]:
            row["amount"] = "0.00"
    text = json.dumps(answer, separators=(",", ":"), ensure_ascii=False)
    return text[: len(text) // 2] if fault == 6 else text


def write_files(folder: Path, documents: int, seed: int) -> tuple[Path, Path, list[tuple[dict[str, Any], str]]]:
    draw = random.Random(seed)
    predictions, gold, sample = folder / "predictions.jsonl", folder / "gold.jsonl", []
    with predictions.open("w") as left, gold.open("w") as right:
        for number in range(documents):
            target = gold_target(number, draw)
            text = answer_text(target, draw)
            left.write(json.dumps({"id": f"d{number}", "text": text}) + "\n")
            line = {"id": f"d{number}", "target": target, "vendor": f"v{number % 50}", "stratum": ["clean", "rotated"][number % 2]}
            right.write(json.dumps(line) + "\n")
            if len(sample) < 8:
                sample.append((target, text))
    return predictions, gold, sample


def ours(documents: int, seed: int) -> tuple[float, list[tuple[dict[str, Any], str]]]:
    with tempfile.TemporaryDirectory() as folder:
        predictions, gold, sample = write_files(Path(folder), documents, seed)
        schema = TargetSchema.load(SCHEMA)
        start = time.perf_counter()
        report = evaluate_files(predictions, gold, schema, Path(folder) / "out.jsonl", EvaluationSettings(), comparison=False)
        seconds = time.perf_counter() - start
        assert report["documents"] == documents
        return documents / seconds, sample


def peer(sample: list[tuple[dict[str, Any], str]]) -> float:
    from anls_star import anls_score

    start = time.perf_counter()
    for target, text in sample:
        anls_score(target, parse_answer(text).value)
    return len(sample) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2,000 documents, once")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--documents", type=int, default=None)
    arguments = parser.parse_args()
    documents = arguments.documents or (2000 if arguments.quick else 10000)
    own, theirs = [], []
    for run in range(1 if arguments.quick else 3):  # in turn, so that a busy machine slows both
        rate, sample = ours(documents, run)
        own.append(rate)
        theirs.append(peer(sample))
    rows = [
        Row(
            "documents_per_s",
            round(statistics.median(own), 1),
            f"documents of {ROWS} rows per second ({documents} documents, one process)",
            "higher",
            round(statistics.median(theirs), 2),
            "anls-star, one call per document",
        ),
        Row("peak_memory_mb", round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1), "MB resident, whole process", "lower"),
    ]
    print_rows(rows, ("numpy", "scipy", "anls-star", "jsonschema-rs"), arguments.json)


if __name__ == "__main__":
    main()
