"""What the commands on a home do, free of argument parsing and printing."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extraction_assets.automation.instance import open_instance
from extraction_assets.automation.lineage import Chain, trace
from extraction_assets.automation.staleness import Planner, Status
from extraction_assets.automation.store_check import StoreCheck, check_store, repair_store
from extraction_assets.automation.update import Walk, home_lock, require_plan, take_adapter, update
from extraction_assets.dataset.chat import local_split
from extraction_assets.definitions import build_definitions
from extraction_assets.documents.ingest import IngestReport, ingest
from extraction_assets.documents.landing import DigestCache
from extraction_assets.errors import InputError
from extraction_assets.home import Home, chat_record_schema_path
from extraction_assets.observation import Observation, exchange_landing
from extraction_assets.progress import terminal_bar
from extraction_assets.record import Record, Shape
from extraction_assets.settings import recommendation_warnings

if TYPE_CHECKING:
    from extraction_assets.assets.audit_source import AuditedDocument
    from extraction_assets.dataset.export import FormatName
    from extraction_assets.dataset.export.folder import Export
    from extraction_assets.dataset.records import Split
    from extraction_assets.evaluation.label_audit import DoubtfulLabel

Say = Callable[[str], None]

_QWEN3_VL = re.compile(r"Qwen/Qwen3-VL-\d+B-Instruct")
"""bases that the configs of other trainers are written for: dense, and without a thinking part in their chat template"""
_LEARNED: tuple[Split, ...] = ("train", "val")
"""splits that a trainer reads"""


def ingest_command(home: Home, source: Path, type_name: str | None, vendor: str | None, say: Say, reviewed: bool = False) -> IngestReport:
    """reviewed: the source holds answers of the endpoint that people have judged (serving.reviewed)."""
    from extraction_assets.serving.reviewed import list_reviewed

    settings = home.settings()
    if type_name is not None:
        home.schema(type_name)
    schemas = {name: home.schema(name) for name in home.types()}
    with home_lock(home, say):
        cache = DigestCache(home.cache / "digests.json")
        bar = terminal_bar("ingest", "file")
        list_them = list_reviewed if reviewed else None
        exchange_landing(home, terminal_bar("shared landing", "file"))
        report = ingest(source, home.landing, schemas, type_name, vendor, settings.render, cache, bar, list_them=list_them)
        exchange_landing(home, terminal_bar("shared landing", "file"))
        return report


@dataclass(frozen=True)
class LabelAudit:
    """Labels to look at first, most doubtful first, and what they were judged from."""

    doubtful: tuple[tuple[AuditedDocument, DoubtfulLabel], ...]
    labels: int
    champion: str | None
    read_pages: int

    def as_json(self) -> dict[str, Any]:
        rows = [
            {
                "type": it.type,
                "document": it.label.document,
                "label": it.label.file,
                "pages": [page.image for page in it.pages],
                **found.as_json(),
            }
            for it, found in self.doubtful
        ]
        return {"labels": self.labels, "champion": self.champion, "read_pages": self.read_pages, "doubtful": rows}


def audit_command(home: Home) -> LabelAudit:
    """Every label with a sign against it, of all types."""
    from extraction_assets.assets.audit_source import audit_source
    from extraction_assets.evaluation.label_audit import audit_labels

    schemas = {name: home.schema(name) for name in home.types()}
    with open_instance(home) as instance:
        source = audit_source(Record(instance, home), schemas)
    if not source.documents:
        raise InputError(str(home.root), "has no page targets to audit", do=f"Run `extraction --home {home.root} update --to page_targets`")
    by_file = {it.labelled.id: it for it in source.documents}
    found = [
        (by_file[label.id], label)
        for name, schema in schemas.items()
        for label in audit_labels([it.labelled for it in source.documents if it.type == name], schema)
    ]
    found.sort(key=lambda pair: (-pair[1].weight, pair[1].id))
    return LabelAudit(tuple(found), len(source.documents), source.champion, source.read_pages)


def export_audit(home: Home, audit: LabelAudit, out: Path, inline: bool) -> list[Path]:
    """Label Studio tasks of an audit; returns the tasks files."""
    from extraction_assets.assets.audit_source import task_labels
    from extraction_assets.evaluation.label_studio.export import write_export

    schemas = {name: home.schema(name) for name in home.types()}
    labels = [task for it, label in audit.doubtful for task in task_labels(it, label, audit.champion, schemas[it.type])]
    return write_export(labels, schemas, home.store, out, inline)


def import_audit(home: Home, export: Path, say: Say) -> tuple[IngestReport, int]:
    """(what became of the judged labels, how many tasks nobody has judged)."""
    from extraction_assets.evaluation.label_studio.importing import import_judgements

    schemas = {name: home.schema(name) for name in home.types()}
    with home_lock(home, say):
        exchange_landing(home)
        judged = import_judgements(export, home.landing, schemas, DigestCache(home.cache / "digests.json"))
        exchange_landing(home)
        return judged


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
    value = _latest_or_none(home, asset)
    if value is None:
        raise InputError(str(home.root), f"{asset} was never materialized", do=f"Run `extraction --home {home.root} update --to {asset}`")
    return value


def _latest_or_none(home: Home, asset: str) -> Any | None:
    with open_instance(home) as instance:
        return Record(instance, home).latest_value(asset)


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


def export_command(home: Home, format_name: FormatName, out: Path | None) -> Export:
    """The splits in the format of another trainer, with a config of the home's training settings."""
    from extraction_assets.dataset.export.folder import export_splits
    from extraction_assets.dataset.export.trainer_format import MODEL, Recipe
    from extraction_assets.dataset.records import SPLITS

    settings = home.settings()
    digests = {split: latest(home, f"{split}_split")["jsonl"] for split in SPLITS}
    on_hub = _QWEN3_VL.fullmatch(settings.base_model) is not None
    recipe = Recipe(
        model=settings.base_model if on_hub else MODEL,
        training=settings.training,
        max_visual_tokens=settings.render.max_visual_tokens,
        # another base's tokenizer says nothing of how long the examples are to this one
        longest=longest_planned(_latest_or_none(home, "training_plan"), digests) if on_hub else None,
    )
    paths = {split: local_split(digest, home.store) for split, digest in digests.items()}
    return export_splits(format_name, paths, recipe, chat_record_schema_path(), home.root / "exports", out)


def longest_planned(planned: Any, splits: Mapping[Split, str]) -> int | None:
    """Tokens of the longest example to train or validate on, where a plan of these very splits knows all their lengths.

    planned: stored value of training_plan, or None.
    """
    if planned is None or any(planned["splits"][split] != splits[split] for split in _LEARNED):
        return None
    lengths = [planned["plan"][split] for split in _LEARNED if planned["plan"][split] is not None]
    if any(
        it["over_length"] or it.get("unwritable") for it in lengths
    ):  # left out of our training and of these lengths, but not of the export
        return None
    return max(int(it["longest"]) for it in lengths)


def plan_command(home: Home, gpu: str | None) -> tuple[dict[str, Any], str]:
    """(the plan held against a machine; the same in Markdown). gpu: None is this CPU."""
    from extraction_assets.assets.report_source import split_schemas
    from extraction_assets.training.machines import machine_named
    from extraction_assets.training.plan import estimate, plan_training
    from extraction_assets.training.plan_card import plan_card

    machine = machine_named(gpu)
    digests = [latest(home, f"{split}_split")["jsonl"] for split in ("train", "val")]
    train, val = (home.store.local_path(digest, ".jsonl") for digest in digests)
    schemas = {digest: schema for jsonl in digests for digest, schema in split_schemas(home.store, jsonl).items()}
    plan = plan_training(train, val, home.base_model(), home.settings().training, schemas)
    held = estimate(plan, machine)
    return {**plan.model_dump(mode="json"), "machine": held.to_json()}, plan_card(plan, held)


def adopt_command(home: Home, folder: Path, export: Path | None, say: Say) -> dict[str, Any]:
    """Take an adapter that another trainer made on an export of this home's splits as the challenger; returns what it is."""
    from extraction_assets.dataset.export.taught import export_of, read_taught
    from extraction_assets.model.base import load_base_format
    from extraction_assets.training.adapter import read_manifest
    from extraction_assets.training.adoption import Adoption, adopt

    taught = read_taught(export_of(folder, export))
    with home_lock(home, say), open_instance(home) as instance:
        definitions, record = build_definitions(home), Record(instance, home)
        require_plan(Planner.of(definitions, instance, Observation.of(home)))
        planned = record.latest_value("training_plan") or {}
        base = load_base_format(home.base_model())
        adoption = Adoption(taught.trainer, base.name, planned["base"], taught.splits["train"], taught.splits["val"])
        adapter = adopt(folder, adoption, home.base_model(), home.store, planned["splits"]["test"])
        row = take_adapter(definitions, instance, adapter, taught.trainer, say)
    if row.error is not None:
        raise InputError("lora_adapter", row.error)
    manifest = read_manifest(home.store.folder(adapter))
    return {"adapter": adapter, "path": str(home.store.folder(adapter)), "manifest": manifest.model_dump(mode="json")}


def lineage_command(home: Home, what: str) -> Chain:
    with open_instance(home) as instance:
        return trace(Record(instance, home), what)


def check_command(home: Home, repair: bool, say: Say) -> tuple[StoreCheck, list[str]]:
    """(what the store holds and lacks; the assets that a repair made stale)."""
    with home_lock(home, say), open_instance(home) as instance:
        record = Record(instance, home)
        shape = Shape.of(build_definitions(home).resolve_asset_graph())
        check = check_store(record, shape, terminal_bar("check", "object"))
        return check, repair_store(record, shape, check) if repair else []
