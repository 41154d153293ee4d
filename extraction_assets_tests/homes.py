"""Small real homes for tests: PDFs drawn here, a random tiny base, settings that train one step."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pymupdf
import yaml

from extraction_assets.demo.tiny_base import write_random_base
from extraction_assets.home import Home

SETTINGS = {
    "workers": 1,
    "base_model": "base",
    "render": {"dpi": 72, "max_visual_tokens": 120},
    "negatives": {"rotated": 0.5, "stamped": 0.5, "noisy": 0.0, "missing_field": 0.5, "blank": 0.0, "foreign": 0.0},
    "training": {"max_steps": 1, "effective_batch": 4, "micro_batch": 4, "checkpoint_every": 1, "val_answers": 2, "max_target_tokens": 128},
    "decoding": {"max_output_tokens": 8, "batch_size": 8},
    "evaluation": {"bootstrap": 20},
    "automation": {"sensor_seconds": 5},
}

SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "additionalProperties": False,
    "required": ["number", "date", "total"],
    "properties": {
        "number": {"type": ["string", "null"], "maxLength": 20, "x-type": "id"},
        "date": {"type": ["string", "null"], "maxLength": 10, "x-type": "date"},
        "total": {"type": ["string", "null"], "maxLength": 12, "x-type": "amount"},
    },
}


def make_home(root: Path, vendors: dict[str, int], types: tuple[str, ...] = ("invoice", "receipt"), base: bool = True) -> Home:
    """A home with `vendors` ("type/vendor" -> number of one-page documents)."""
    (root / "schemas").mkdir(parents=True)
    (root / "settings.yaml").write_text(yaml.safe_dump(SETTINGS))
    for name in types:
        # equal schemas would hide a mix-up of types
        (root / "schemas" / f"{name}.schema.json").write_text(json.dumps({**SCHEMA, "title": name}))
    if base:
        write_random_base(root / "base", seed=1, preset="test")
    home = Home.open(root)
    home.landing.mkdir()
    for vendor, count in vendors.items():
        for number in range(count):
            drop_document(home, vendor, f"{vendor.split('/')[1]}-{number}", label=True)
    return home


@contextmanager
def instance_in_memory() -> Iterator[dg.DagsterInstance]:
    """Dagster's own instance for tests, for hundreds of runs in this process. Its database connects 30,000 times in a walk of the change
    table, and a run of the home's instance starts four processes that copy what it prints. It knows no pools."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def drop_document(home: Home, vendor: str, name: str, label: bool = True, words: str = "") -> Path:
    """Put one PDF (and its label) into landing/, as a person would."""
    folder = home.landing / vendor
    folder.mkdir(parents=True, exist_ok=True)
    total = f"{sum(map(ord, name)) % 900 + 10}.50"
    day = f"2024-03-{sum(map(ord, name)) % 28 + 1:02d}"
    if label:
        (folder / f"{name}.json").write_text(json.dumps({"number": name, "date": day, "total": total}))
    draw_pdf(folder / f"{name}.pdf", [f"Number {name}", f"Date {day}", f"Total {total} EUR", f"of {vendor} {words}"])
    return folder / f"{name}.pdf"


def draw_pdf(path: Path, lines: list[str], width: int = 224, height: int = 160) -> None:
    with pymupdf.open() as document:
        page = document.new_page(width=width, height=height)
        for row, line in enumerate(lines):
            page.insert_text((16, 30 + 24 * row), line, fontsize=12)
        # no time stamps: the same page has the same bytes
        document.set_metadata({})
        path.write_bytes(document.tobytes(no_new_id=True))


def edit_settings(home: Home, edit: Callable[[dict], None]) -> None:
    values = yaml.safe_load(home.settings_path.read_text())
    edit(values)
    home.settings_path.write_text(yaml.safe_dump(values))


def edit_schema(home: Home, name: str, edit: Callable[[dict], None]) -> None:
    path = home.schemas_folder / f"{name}.schema.json"
    values = json.loads(path.read_text())
    edit(values)
    path.write_text(json.dumps(values))
