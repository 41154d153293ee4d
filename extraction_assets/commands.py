"""What the commands on a home do, free of argument parsing and printing."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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
from extraction_assets.settings import RenderSettings, recommendation_warnings

if TYPE_CHECKING:
    from extraction_assets.assets.audit_source import AuditedDocument
    from extraction_assets.dataset.export import FormatName
    from extraction_assets.dataset.export.folder import Export
    from extraction_assets.dataset.records import Split
    from extraction_assets.evaluation.label_audit import DoubtfulLabel
    from extraction_assets.inference.predict import RenderedPage
    from extraction_assets.inference.side_by_side import SideBySide
    from extraction_assets.serving.rollout import Plan, Report

Say = Callable[[str], None]

ENDPOINT_KEY = "EXTRACTION_ENDPOINT_KEY"
"""environment variable with the key of an endpoint that asks for one"""

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


def render_command(home_folder: Path, files: Sequence[Path], out: Path, dpi: float | None) -> list[dict[str, Any]]:
    """Works with or without a home; a home lends its render settings."""
    from extraction_assets.documents.rendering import render_files

    settings = Home.open(home_folder).settings().render if (home_folder / "settings.yaml").is_file() else RenderSettings()
    if dpi is not None:
        low, high = 18, 600
        if not low <= dpi <= high:
            raise InputError("--dpi", f"found {dpi:g}", f"{low} to {high}")
        settings = RenderSettings.from_json({**settings.model_dump(mode="json"), "dpi": dpi})
    outcomes = render_files(files, out, settings, progress=terminal_bar("render", "page"))
    return [outcome.as_json() for outcome in outcomes]


def predict_command(
    home: Home, files: Sequence[Path], type_name: str | None, adapter: Path | None, say: Say
) -> tuple[list[dict[str, Any]], list[InputError]]:
    """(one row a page; the files that could not be read). adapter: None is the champion, or the base model where there is none yet."""
    from extraction_assets.evaluation.strict_json import parse_answer
    from extraction_assets.inference.answers import Answerer
    from extraction_assets.inference.predict import predict_pages
    from extraction_assets.model.base import load_base
    from extraction_assets.training.adapter import verify_adapter

    settings = home.settings()
    schema = home.schema(type_name or _only_type(home)).on_wire(settings.targets.wire)
    adapter = adapter or _champion(home, say)
    if adapter is not None:
        schema = schema.as_taught(verify_adapter(adapter).schemas)
    pages, refused = _rendered(files, settings.render)
    if not pages:
        return [], refused
    answerer = Answerer.of(load_base(home.base_model()), adapter)
    rows = []
    for page in predict_pages(pages, schema, answerer, settings.decoding, progress=terminal_bar("predict", "page")):
        parsed = parse_answer(page.answer.text, page.answer.finish_reason)
        rows.append(
            {
                "file": page.file,
                "page": page.page,
                "answer": parsed.value if parsed.strict else None,
                "text": page.answer.text,
                "finish_reason": page.answer.finish_reason,
                "schema_valid": bool(parsed.strict and schema.is_valid(parsed.value)),
                "confidence": page.answer.confidence,
                "field_confidence": dict(page.answer.values),
                "timing": {"seconds": round(page.answer.seconds, 4), "tokens": page.answer.tokens},
            }
        )
    return rows, refused


def _rendered(files: Sequence[Path], settings: RenderSettings) -> tuple[list[RenderedPage], list[InputError]]:
    """(pages in the order of `files`; the files, or pages of them, that could not be drawn)."""
    from extraction_assets.documents.rendering import render_bytes
    from extraction_assets.inference.predict import RenderedPage

    pages: list[RenderedPage] = []
    refused: list[InputError] = []
    for file in files:
        try:
            rendered = render_bytes(file.read_bytes(), settings)
        except OSError as error:
            refused.append(InputError(str(file), f"cannot be read: {error.strerror or error}"))
            continue
        refused += [InputError(str(file), f"{refusal.reason}: {refusal.detail}") for refusal in rendered.refused]
        pages += [RenderedPage(str(file), p.record.page, p.png, p.record.width, p.record.height, p.text) for p in rendered.pages]
    return pages, refused


def predict_remotely(
    home: Home, files: Sequence[Path], type_name: str | None, endpoint: str
) -> tuple[list[dict[str, Any]], list[InputError]]:
    """predict_command by an endpoint: pages are drawn here, on its grid, and answered there.

    The key that it may ask for is taken from the environment (ENDPOINT_KEY).
    """
    from extraction_assets.serving.client import EndpointClient, Refused

    schema = home.schema(type_name or _only_type(home))
    with EndpointClient(endpoint, os.environ.get(ENDPOINT_KEY)) as client:
        pages, refused = _rendered(files, client.render_settings(home.settings().render))
        rows: dict[int, dict[str, Any]] = {}
        bar = terminal_bar("predict", "page")
        for index, told in client.score_each([page.png for page in pages], schema.name):
            page = pages[index]
            row = {"file": page.file, "page": page.page}
            if not isinstance(told, Refused):
                rows[index] = row | {
                    "answer": told["answer"],
                    "text": json.dumps(told["answer"], ensure_ascii=False, separators=(",", ":")),
                    "finish_reason": told["finish_reason"],
                    "schema_valid": schema.is_valid(told["answer"]),
                    "confidence": told["confidence"]["mean"],
                    "field_confidence": told["confidence"]["fields"],
                    "timing": {"seconds": round(told["timing"]["model_ms"] / 1000, 4), "tokens": told["timing"]["tokens"]},
                }
            elif told.code in ("answer_truncated", "answer_invalid"):  # read, but without an answer: as predict_command tells it
                finish = "length" if told.code == "answer_truncated" else "stop"
                nothing: dict[str, Any] = {"answer": None, "text": "", "schema_valid": False, "confidence": 0.0, "field_confidence": {}}
                rows[index] = row | nothing | {"finish_reason": finish, "timing": {"seconds": 0.0, "tokens": 0}}
            else:
                refused.append(InputError(f"{page.file} p{page.page}", f"{told.code}: {told.message}"))
            bar(len(rows) + len(refused), len(pages))
    return [rows[index] for index in sorted(rows)], refused


def _bundle_folder(home: Home) -> Path:
    value = latest(home, "serving_bundle")
    if value["bundle"] is None:
        raise InputError(
            str(home.root), "has no champion yet, so no bundle", do="Train one that is better than its base, or name a --bundle"
        )
    return home.store.folder(value["bundle"])


def deploy_command(home: Home, bundle: Path | None, out: Path) -> list[Path]:
    """Specs, container recipe and rollout for Azure ML. bundle: None is the home's latest."""
    from extraction_assets.serving.azure_files import write_specs
    from extraction_assets.serving.bundle import open_bundle

    settings = home.settings().deployment
    return write_specs(open_bundle(bundle or _bundle_folder(home)), settings, out)


def rollout_command(home: Home, bundle: Path | None, target: str, dry_run: bool, say: Say) -> tuple[Plan, Report]:
    """A bundle (None: the home's latest) onto its endpoint on Azure ML, or a rehearsal of that on this machine."""
    from extraction_assets.serving.azure_service import azure_service
    from extraction_assets.serving.bundle import open_bundle
    from extraction_assets.serving.rollout import rehearse, roll_out

    settings = home.settings().deployment
    opened = open_bundle(bundle or _bundle_folder(home))
    if target == "fake":
        return rehearse(opened, settings, dry_run, say)
    return roll_out(azure_service(settings), opened, settings, dry_run, say)


def serve_command(
    home_folder: Path, bundle: Path | None, host: str, port: int, say: Say, page: bool = False, vllm: str | None = None
) -> None:
    """bundle: None is the home's latest; vllm: where vLLM's server answers with the bundle's merged weights."""
    from extraction_assets.serving.supervisor import serve

    serve(bundle or _bundle_folder(Home.open(home_folder)), host, port, say, page, vllm)


def document_answers(home: Home, pages: Sequence[dict[str, Any]], type_name: str | None) -> list[dict[str, Any]]:
    """Rows of predict_command, merged file by file in the order given."""
    from extraction_assets.inference.documents import merge_pages

    schema = home.schema(type_name or _only_type(home))
    answers: dict[str, list[tuple[int, dict[str, Any] | None]]] = {}
    for page in pages:
        answers.setdefault(page["file"], []).append((page["page"], page["answer"]))
    return [{"file": file, **merge_pages(found, schema).as_json()} for file, found in answers.items()]


def merge_command(home: Home, adapter: Path | None, out: Path, most_pages: int, say: Say) -> tuple[dict[str, Any], SideBySide]:
    """Merge an adapter (None: the champion) into the home's base, then answer and score test pages with the adapter beside it and merged.

    A merged weight is rounded to the base's type once more than the adapter beside it, so a few answers may differ.
    """
    from extraction_assets.assets.report_source import split_schemas
    from extraction_assets.inference.answers import Answer, Answerer
    from extraction_assets.inference.page_answer import PagePrompt
    from extraction_assets.inference.side_by_side import SideBySide, side_by_side
    from extraction_assets.model.base import load_base
    from extraction_assets.model.examples import read_examples
    from extraction_assets.model.merging import merge_adapter
    from extraction_assets.training.adapter import verify_adapter

    settings = home.settings()
    found = adapter or _champion(home, say)
    if found is None:
        raise InputError("--adapter", "is needed: this home has no champion yet", "an adapter folder")
    taught = verify_adapter(found).schemas
    split = latest(home, "test_split")["jsonl"] if most_pages else None
    merge = merge_adapter(home.base_model(), found, out)

    def answers(of: str, base: str | Path, adapter: Path | None, prompts: Sequence[PagePrompt]) -> list[Answer]:
        return Answerer.of(load_base(base), adapter).answer(prompts, settings.decoding, terminal_bar(of, "page"))

    compared = SideBySide(())
    if split is not None:
        compared = side_by_side(
            read_examples(local_split(split, home.store))[:most_pages],
            split_schemas(home.store, split),
            taught,
            partial(answers, "with the adapter", home.base_model(), found),
            partial(answers, "merged", out, None),
        )
    accuracy = dict(zip(("beside", "merged"), compared.accuracy or (None, None), strict=True))
    return {
        **merge.to_json(),
        "folder": str(out),
        "pages": len(compared.pages),
        "equal_answers": compared.equal,
        "field_accuracy": accuracy,
        "compared": [page.to_json() for page in compared.pages],
    }, compared


def _only_type(home: Home) -> str:
    types = home.types()
    if len(types) != 1:
        raise InputError("--type", "is needed: this home has several document types", f"one of {', '.join(types)}")
    return types[0]


def _champion(home: Home, say: Say) -> Path | None:
    with open_instance(home) as instance:
        value = Record(instance, home).latest_value("champion_adapter")
    if not value or not value["adapter"]:
        say("no champion yet: the base model answers alone")
        return None
    return home.store.folder(value["adapter"])
