"""The change table: what an event outside makes run, as exact sets of (asset, partition)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from extraction_assets.home import Home
from extraction_assets_tests.homes import drop_document, edit_schema, edit_settings

Ran = set[tuple[str, str | None]]

VENDOR_CHAIN = ("raw_documents", "document_labels", "target_schema", "page_images", "page_targets", "hard_negatives")
SPLITS = ("split_assignment", "train_split", "val_split", "test_split")
LEARNING = ("training_plan", "lora_adapter", "predictions", "eval_report", "champion_adapter")
BUNDLE_INPUTS = ("champion_adapter", "base_model", "render_settings", "decoding_settings", "serving_settings")
"""serving_bundle runs if and only if one of these has another version, endpoint_deployment if it has: no row names them for that"""


@dataclass(frozen=True)
class Row:
    event: str
    change: Callable[[Home], None]
    runs: Callable[[list[str]], Ran]
    """expected (asset, partition) pairs, given the vendors"""
    real_work: bool = False
    """early cutoff: to be seen only where the work is really done, not where an output is the digest of its inputs"""


def each(assets: Iterable[str], vendors: Iterable[str]) -> Ran:
    return {(asset, vendor) for asset in assets for vendor in vendors}


def once(*assets: str) -> Ran:
    return {(asset, None) for asset in assets}


def invoices(vendors: list[str]) -> list[str]:
    return [vendor for vendor in vendors if vendor.startswith("invoice/")]


DATASET_AND_BELOW = once("example_index", *SPLITS, "dataset_card", *LEARNING)


def _dpi(home: Home) -> None:
    edit_settings(home, lambda values: values["render"].update(dpi=66))


def _same_pixels(home: Home) -> None:
    edit_settings(home, lambda values: values["render"].update(memory_mb=1900))


def _one_schema(home: Home) -> None:
    edit_schema(home, "invoice", lambda schema: schema["properties"]["number"].update(maxLength=30))


def _wire(home: Home) -> None:
    edit_settings(home, lambda values: values.setdefault("targets", {}).update(wire="rows_as_arrays"))


def _negatives(home: Home) -> None:
    edit_settings(home, lambda values: values["negatives"].update(seed=7))


def _training(home: Home) -> None:
    edit_settings(home, lambda values: values["training"].update(learning_rate=1.5e-4))


def _evaluation(home: Home) -> None:
    edit_settings(home, lambda values: values["evaluation"].update(bootstrap=21))


def _decoding(home: Home) -> None:
    edit_settings(home, lambda values: values["decoding"].update(max_output_tokens=9))


def _serving(home: Home) -> None:
    edit_settings(home, lambda values: values.setdefault("serving", {}).update(waiting=9))


def _deployment(home: Home) -> None:
    edit_settings(home, lambda values: values["deployment"].update(instances=2))


def _touch(home: Home) -> None:
    for path in [home.settings_path, *home.schemas_folder.iterdir(), *home.landing.rglob("*.*")]:
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data)


def _reformat(home: Home) -> None:
    text = home.settings_path.read_text()
    home.settings_path.write_text("# a comment\n" + text.replace("max_visual_tokens: 120", "max_visual_tokens:   120"))
    for path in [*home.schemas_folder.iterdir(), *home.landing.rglob("*.json")]:
        values = json.loads(path.read_text())
        path.write_text(json.dumps(dict(reversed(values.items())), indent=3))


def _new_pdf(home: Home) -> None:
    drop_document(home, "invoice/acme", "acme-new", words="a new one")


def _new_vendor(home: Home) -> None:
    for number in range(3):
        drop_document(home, "receipt/dora", f"dora-{number}")


def _label(home: Home) -> None:
    path = next(iter(sorted((home.landing / "receipt" / "corner").glob("*.json"))))
    label = json.loads(path.read_text())
    path.write_text(json.dumps({**label, "total": None}))


def _vendor_gone(home: Home) -> None:
    shutil.rmtree(home.landing / "receipt" / "dora")


CHANGE_TABLE = [
    Row("nothing", lambda home: None, lambda vendors: set()),
    Row("every file touched", _touch, lambda vendors: set()),
    Row("comments, white space, key order", _reformat, lambda vendors: set()),
    Row(
        "render.dpi",
        _dpi,
        lambda vendors: once("render_settings") | each(("page_images", "page_targets", "hard_negatives"), vendors) | DATASET_AND_BELOW,
    ),
    Row(
        "a re-render that yields the same pages",
        _same_pixels,
        lambda vendors: once("render_settings") | each(("page_images",), vendors),
        real_work=True,
    ),
    Row(
        "one type's schema",
        _one_schema,
        lambda vendors: each(("target_schema", "page_targets", "hard_negatives"), invoices(vendors)) | DATASET_AND_BELOW,
    ),
    Row(
        "targets.wire",
        _wire,
        lambda vendors: once("target_settings") | each(("page_targets", "hard_negatives"), vendors) | DATASET_AND_BELOW,
    ),
    Row("negatives", _negatives, lambda vendors: once("negative_settings") | each(("hard_negatives",), vendors) | DATASET_AND_BELOW),
    Row("training", _training, lambda vendors: once("training_settings", *LEARNING)),
    Row("evaluation", _evaluation, lambda vendors: once("evaluation_settings", "eval_report", "champion_adapter")),
    Row("decoding", _decoding, lambda vendors: once("decoding_settings", "predictions", "eval_report", "champion_adapter")),
    Row("serving", _serving, lambda vendors: once("serving_settings")),
    Row("deployment", _deployment, lambda vendors: once("deployment_settings", "endpoint_deployment")),
    Row(
        "one new PDF of one vendor",
        _new_pdf,
        lambda vendors: (
            each(("raw_documents", "document_labels", "page_images", "page_targets", "hard_negatives"), ["invoice/acme"])
            | DATASET_AND_BELOW
        ),
    ),
    Row(
        "one label corrected",
        _label,
        lambda vendors: each(("document_labels", "page_targets", "hard_negatives"), ["receipt/corner"]) | DATASET_AND_BELOW,
    ),
    Row("a new vendor", _new_vendor, lambda vendors: each(VENDOR_CHAIN, ["receipt/dora"]) | DATASET_AND_BELOW),
    Row("a vendor removed", _vendor_gone, lambda vendors: DATASET_AND_BELOW),
]
"""Rows follow one another on one home: each starts where the one before has settled."""
