"""From page targets to splits: time and memory of the index, the twin search, the splits' JSONL, the leak check and the card, at size.

    python benchmarks/dataset.py [--pages N] [--quick] [--json]

N invoices of one page each (words, values and rows drawn from a seed; 50 a vendor; one in fifty is a near copy of another) and as many hard
negatives: 2 N examples. What the dataset stage does with them is called as its assets call it; page images are not opened there, so none are
made. The whole runs in a process of its own, whose peak memory is reported; texts and index lie in a store on disk. Exits 1 where a near copy
stands in another split than its original, or an example is lost.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from printing import Row, print_rows

from extraction_assets.dataset.card import dataset_card
from extraction_assets.dataset.chat import as_taught, load_split, write_split
from extraction_assets.dataset.index import build_index, read_index, write_index
from extraction_assets.dataset.leaks import find_leaks
from extraction_assets.dataset.ledger import SplitLedger
from extraction_assets.dataset.records import SPLITS, HardNegative, PageTarget, Split, VendorNegatives, VendorTargets
from extraction_assets.dataset.splits import assign_splits, split_documents, split_rows
from extraction_assets.dataset.twins import find_twins
from extraction_assets.documents.records import PageText, Word
from extraction_assets.home import PROJECT, chat_record_schema_path
from extraction_assets.schema import TargetSchema
from extraction_assets.settings import SplitSettings
from extraction_assets.store import Store, digest_bytes, digest_of

A_VENDOR = 50
"""documents"""
COPY_EVERY = 50
T = TypeVar("T")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=50_000)
    parser.add_argument("--quick", action="store_true", help="1,000 pages")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    pages = 1_000 if arguments.quick else arguments.pages
    if arguments.measure:
        json.dump(measure(arguments.measure), sys.stdout)
        return
    with tempfile.TemporaryDirectory() as scratch:
        write_inputs(Path(scratch), pages)
        command = [sys.executable, __file__, "--measure", scratch]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    seconds = found["seconds"]
    whole = sum(seconds.values())
    rows = [
        Row("examples", found["examples"], f"lines of the three splits; {found['splits']}", "higher"),
        Row("peak_memory", round(found["peak_mb"]), "MB resident, the whole process", "lower"),
        Row("seconds", round(whole, 1), "s, all stages", "lower"),
        Row("pages_per_s", round(found["examples"] / whole, 1), "examples a second, all stages", "higher"),
        *(Row(name, round(value, 1), "s", "lower") for name, value in seconds.items()),
        Row("twin_pairs", found["twins"], f"near copies found in one group, of {found['copies']}", "higher"),
    ]
    print_rows(rows, ("pydantic", "jsonschema-rs"), arguments.json)
    for fault in found["faults"]:
        print(fault, file=sys.stderr)
    sys.exit(bool(found["faults"]))


# --- the inputs ------------------------------------------------------------------------------------------------------------------


def write_inputs(root: Path, pages: int) -> None:
    """root/store with the texts, root/vendors.jsonl with a line [targets, negatives] a vendor, root/copies.json."""
    store = Store(root / "store")
    schema = _schema()
    schema_digest = store.put_json(schema.document)
    copies: list[tuple[str, str]] = []
    with (root / "vendors.jsonl").open("w") as file:
        for first in range(0, pages, A_VENDOR):
            targets, negatives = [], []
            for number in range(first, min(first + A_VENDOR, pages)):
                is_copy = number % COPY_EVERY == COPY_EVERY - 1
                drawn = random.Random(number - 1 if is_copy else number)  # a near copy: the same page, printed a second later
                value, lines = invoice(drawn, first // A_VENDOR)
                words = [
                    Word(text=text, box=(0.0, 20.0 * row, 60.0, 20.0 * row + 14), line=row)
                    for row, line in enumerate(lines)
                    for text in line
                ]
                if is_copy:
                    value["order_reference"] = None
                    copies.append((document(number - 1), document(number)))
                text = store.put_json(PageText(words=tuple(words)).model_dump(mode="json"))
                page = {"document": document(number), "page": 1, "width": 992, "height": 1408, "dpi": 120.0}
                image = digest_bytes(b"image %d" % number)
                targets.append(PageTarget(**page, image=image, target=schema.spell(value), text=text))
                missing = schema.spell({**value, "invoice_date": None})
                harder = digest_bytes(b"negative %d" % number)
                negatives.append(
                    HardNegative(**page, kind="missing_field", image=harder, target=missing, twin=image, what="erased /invoice_date")
                )
            shared = {
                "type": "invoice",
                "vendor": f"vendor-{first // A_VENDOR:05}",
                "schema_digest": schema_digest,
                "instruction": schema.instruction,
            }
            built = VendorTargets(**shared, targets=tuple(sorted(targets, key=lambda one: one.document)))
            made = VendorNegatives(
                **shared,
                targets=digest_of(built.model_dump(mode="json")),
                negatives=tuple(sorted(negatives, key=lambda one: one.document)),
            )
            file.write(json.dumps([built.model_dump(mode="json"), made.model_dump(mode="json")]) + "\n")
    (root / "copies.json").write_text(json.dumps(copies))


def document(number: int) -> str:
    return digest_bytes(b"document %d" % number)


def invoice(rng: random.Random, vendor: int) -> tuple[dict[str, object], list[list[str]]]:
    """(value, lines of words)"""
    rows = []
    for _ in range(rng.randint(2, 12)):
        quantity, price = rng.randint(1, 40), rng.randint(100, 90_000)
        name = " ".join(rng.choice(WORDS) for _ in range(3))
        rows.append({"description": name, "quantity": str(quantity), "unit_price": _money(price), "amount": _money(quantity * price)})
    net = sum(int(row["amount"].replace(".", "")) for row in rows)
    value = {
        "invoice_number": f"{rng.randrange(10**8):08}",
        "invoice_date": f"20{rng.randint(18, 26)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}",
        "seller_name": f"Vendor {vendor} Ltd",
        "buyer_name": f"{rng.choice(WORDS).title()} and {rng.choice(WORDS).title()}",
        "order_reference": f"PO-{rng.randrange(10**6):06}",
        "currency": "EUR",
        "net_total": _money(net),
        "tax_total": _money(net // 5),
        "grand_total": _money(net + net // 5),
    }
    lines = [[key.replace("_", " "), *str(told).split()] for key, told in value.items()]
    lines += [[*row["description"].split(), row["quantity"], row["unit_price"], row["amount"]] for row in rows]
    lines += [[rng.choice(WORDS) for _ in range(9)] for _ in range(3)]
    return {**value, "line_items": rows}, lines


def _money(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02}"


_SYLLABLES = ("ba", "cor", "del", "fen", "gra", "hul", "jin", "kes", "lom", "mar", "nev", "pos", "rin", "sul", "tav", "ver", "wax", "zol")
WORDS = tuple(a + b + c for a in _SYLLABLES for b in _SYLLABLES[::3] for c in ("", *_SYLLABLES[::5]))


def _schema() -> TargetSchema:
    return TargetSchema.load(PROJECT / "schemas" / "invoice.schema.json")


# --- what is measured ------------------------------------------------------------------------------------------------------------


def measure(root: Path) -> dict[str, object]:
    store, schema, settings = Store(root / "store"), _schema(), SplitSettings()
    chat_schema = chat_record_schema_path()
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], T]) -> T:
        began = time.perf_counter()
        result = work()
        seconds[name] = time.perf_counter() - began
        return result

    def vendors() -> Iterator[list[dict[str, object]]]:
        with (root / "vendors.jsonl").open() as file:
            yield from map(json.loads, file)

    def index() -> str:
        targets = (VendorTargets.model_validate(built) for built, _ in vendors())
        negatives = (VendorNegatives.model_validate(made) for _, made in vendors())
        return write_index(build_index(targets, negatives), store)

    digest = timed("index", index)
    # each asset reads the table again, as they do in runs of their own
    twins = timed("twins", lambda: find_twins(rows := read_index(digest, store), {"invoice": schema} if rows else {}, settings, store))
    ledger = SplitLedger(root, settings)
    assignment = timed("assignment", lambda: assign_splits(split_documents(read_index(digest, store)), twins, settings, ledger))

    def write(split: Split) -> str:
        rows = split_rows(read_index(digest, store), assignment)[split]
        return write_split(as_taught(rows, store), split, store, chat_schema)

    digests: dict[Split, str] = timed("jsonl", lambda: {split: write(split) for split in SPLITS})

    def card() -> dict[str, int]:
        records = (record for one in digests.values() for record in load_split(store.path(one, ".jsonl"), chat_schema))
        leaks = find_leaks(records, assignment.groups.group)
        made = dataset_card(
            split_rows(list(as_taught(read_index(digest, store), store)), assignment),
            digests,
            assignment,
            (VendorTargets.model_validate(built) for built, _ in vendors()),
            settings={},
            leaks=leaks,
            count_tokens=len,
        )
        return {"leaks": len(made.leaks)}

    leaks = timed("leaks_and_card", card)["leaks"]
    lines = {split: sum(1 for _ in store.path(one, ".jsonl").open("rb")) for split, one in digests.items()}
    copies = json.loads((root / "copies.json").read_text())
    together = sum(twins.group.get(one) is not None and twins.group.get(one) == twins.group.get(other) for one, other in copies)
    expected = sum(len(built["targets"]) + len(made["negatives"]) for built, made in vendors())  # type: ignore[arg-type]
    faults = [f"{leaks} leaks"] if leaks else []
    faults += [f"{len(copies) - together} near copies were not found"] if together < len(copies) else []
    faults += [f"{sum(lines.values())} of {expected} examples stand in a split"] if sum(lines.values()) != expected else []
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "seconds": seconds,
        "examples": sum(lines.values()),
        "splits": lines,
        "peak_mb": peak_mb,
        "twins": together,
        "copies": len(copies),
        "faults": faults,
    }


if __name__ == "__main__":
    main()
