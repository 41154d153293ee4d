"""What the commands on a home do, free of argument parsing and printing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from extraction_assets.automation.instance import open_instance
from extraction_assets.automation.lineage import Chain, trace
from extraction_assets.automation.staleness import Planner, Status
from extraction_assets.automation.update import Walk, home_lock, update
from extraction_assets.definitions import build_definitions
from extraction_assets.documents.ingest import IngestReport, ingest
from extraction_assets.documents.landing import DigestCache
from extraction_assets.errors import InputError
from extraction_assets.home import Home
from extraction_assets.observation import Observation
from extraction_assets.progress import terminal_bar
from extraction_assets.record import Record
from extraction_assets.settings import RenderSettings, recommendation_warnings

Say = Callable[[str], None]


def ingest_command(home: Home, source: Path, type_name: str | None, vendor: str | None, say: Say) -> IngestReport:
    settings = home.settings()
    if type_name is not None:
        home.schema(type_name)
    schemas = {name: home.schema(name) for name in home.types()}
    with home_lock(home, say):
        cache = DigestCache(home.cache / "digests.json")
        return ingest(source, home.landing, schemas, type_name, vendor, settings.render, cache, progress=terminal_bar("ingest", "file"))


def status_command(home: Home) -> tuple[list[Status], Sequence[InputError]]:
    observation = Observation.of(home)
    with open_instance(home) as instance:
        planner = Planner.of(build_definitions(home), instance, observation)
        return planner.status(), observation.problems


def update_command(home: Home, to: Sequence[str] | None, say: Say) -> tuple[Walk, Sequence[InputError]]:
    settings = home.settings()
    for line in recommendation_warnings(settings):
        say(f"warning: {line}")
    with home_lock(home, say):
        observation = Observation.of(home)
        if not observation.vendors and not observation.problems:
            raise InputError(
                str(home.landing),
                "holds no documents",
                do="Put PDFs and labels into landing/<type>/<vendor>/, or run `extraction ingest SRC --type TYPE`",
            )
        with open_instance(home) as instance:
            return update(build_definitions(home), instance, home, to, say), observation.problems


def latest(home: Home, asset: str) -> Any:
    """Stored value of an unpartitioned asset; InputError where it was never made."""
    with open_instance(home) as instance:
        value = Record(instance, home).latest_value(asset)
    if value is None:
        raise InputError(str(home.root), f"{asset} was never materialized", do=f"Run `extraction --home {home.root} update --to {asset}`")
    return value


def dataset_command(home: Home) -> tuple[dict[str, Any], str]:
    """(counts, digests and paths; the card in Markdown)."""
    from extraction_assets.dataset.card import DatasetCard
    from extraction_assets.dataset.records import SPLITS

    card = DatasetCard.model_validate(latest(home, "dataset_card"))
    splits = {split: latest(home, f"{split}_split") for split in SPLITS}
    paths = {split: str(home.store.path(value["jsonl"], ".jsonl")) for split, value in splits.items()}
    return (
        {
            "splits": {
                split: {"examples": value["examples"], "digest": value["jsonl"], "path": paths[split]} for split, value in splits.items()
            },
            "card": card.model_dump(mode="json"),
        },
        card.to_markdown() + "\n" + "\n".join(f"{split}: {path}" for split, path in paths.items()),
    )


def plan_command(home: Home, gpu: str | None) -> tuple[dict[str, Any], str]:
    """(the plan held against a machine; the same in Markdown). gpu: None is this CPU."""
    from extraction_assets.training.machines import machine_named
    from extraction_assets.training.plan import estimate, plan_training
    from extraction_assets.training.plan_card import plan_card

    machine = machine_named(gpu)
    paths = [Path(str(home.store.path(latest(home, f"{split}_split")["jsonl"], ".jsonl"))) for split in ("train", "val")]
    plan = plan_training(*paths, home.base_model(), home.settings().training)
    held = estimate(plan, machine)
    return {**plan.model_dump(mode="json"), "machine": held.to_json()}, plan_card(plan, held)


def lineage_command(home: Home, what: str) -> Chain:
    with open_instance(home) as instance:
        return trace(Record(instance, home), what)


def render_command(home_folder: Path, files: Sequence[Path], out: Path, dpi: float | None) -> list[dict[str, Any]]:
    """Works with or without a home; a home lends its render settings."""
    from extraction_assets.documents.rendering import render_files

    settings = Home.open(home_folder).settings().render if (home_folder / "settings.yaml").is_file() else RenderSettings()
    if dpi is not None:
        settings = RenderSettings.from_json({**settings.model_dump(mode="json"), "dpi": dpi})
    outcomes = render_files(files, out, settings, progress=terminal_bar("render", "page"))
    return [outcome.as_json() for outcome in outcomes]


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
