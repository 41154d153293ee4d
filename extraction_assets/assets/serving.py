"""Stage 6: the champion as a bundle that an endpoint can serve, and that bundle on its endpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from extraction_assets.assets.conditions import on_change
from extraction_assets.assets.materialization import OWNERS, HomeResource, Materialization
from extraction_assets.assets.report_source import split_records, split_schemas
from extraction_assets.assets.tables import markdown_table
from extraction_assets.assets.training import TRAINING_POOL
from extraction_assets.dataset.records import CLEAN
from extraction_assets.evaluation.calibration import Routing
from extraction_assets.settings import DecodingSettings, DeploymentSettings, RenderSettings, ServingSettings
from extraction_assets.store import Store, digest_of

if TYPE_CHECKING:
    from extraction_assets.serving.rollout import Plan, Report

BUNDLE_CODE = "1"


@dg.asset(
    group_name="serving",
    deps=["champion_adapter", "base_model", "render_settings", "decoding_settings", "serving_settings"],
    pool=TRAINING_POOL,
    automation_condition=on_change(),
    description="All that an endpoint needs to answer: base and adapter, schemas, page budget, limits, and golden pages with their answers, "
    "each file under its digest. `extraction serve` answers from it.",
    owners=OWNERS,
    kinds={"huggingface"},
    code_version=BUNDLE_CODE,
)
def serving_bundle(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult:
    run = Materialization(context, home)
    champion = run.read("champion_adapter")
    adapter, split = champion["adapter"], champion["split"]
    if adapter is None:
        return run.finish({"bundle": None, "adapter": None}, {"path": "none: there is no champion yet"})
    parts = {
        "code": BUNDLE_CODE,
        "adapter": adapter,
        "base": run.read("base_model")["base_digest"],
        "split": split,
        "routing": champion["routing"],
        **{name: run.read(name) for name in ("render_settings", "decoding_settings", "serving_settings")},
    }
    bundle = digest_of(parts)
    folder = run.store.build_folder(bundle, lambda empty: _build(run, empty, champion))
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return run.finish(
        {"bundle": bundle, "adapter": adapter, "base": parts["base"], "split": split},
        {
            "path": dg.MetadataValue.path(str(folder)),
            "adapter": adapter,
            "megabytes": round(size / 1e6, 1),
            "serve": dg.MetadataValue.md(f"`extraction --home {run.home.root} serve`"),
        },
    )


@dg.asset(
    group_name="serving",
    deps=["serving_bundle", "deployment_settings"],
    automation_condition=on_change(),
    description="The bundle on its endpoint, as `deployment.target` says: none (nothing is rolled out), fake (the rollout rehearsed on this "
    "machine: never called deployed) or azure (created at 0 %, smoke-tested, mirrored, 10 %, 100 %). A failed rollout fails this asset and "
    "leaves traffic as it was.",
    owners=OWNERS,
    kinds={"azure"},
    code_version="1",
)
def endpoint_deployment(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult:
    run = Materialization(context, home)
    settings = DeploymentSettings.from_json(run.read("deployment_settings"))
    bundle = run.read("serving_bundle")["bundle"]
    if settings.target == "none" or bundle is None:
        why = "deployment.target is none" if bundle else "there is no bundle yet"
        return run.finish({"target": settings.target, "outcome": "none", "bundle": None}, {"outcome": f"none: {why}"})
    plan, report = _roll_out(run, bundle, settings)
    metadata = {
        "outcome": report.outcome,
        "steps": dg.MetadataValue.md(markdown_table(["step", "seconds", "found"], [_step_row(step) for step in report.steps])),
        "traffic": dg.MetadataValue.json(report.traffic or {}),
        "plan": dg.MetadataValue.md("```\n" + "\n".join(plan.lines()) + "\n```"),
    }
    if report.failed:
        left = f" Not set back: {'; '.join(report.left)}." if report.left else " Traffic is as it was."
        raise dg.Failure(f"endpoint {report.endpoint}: {report.outcome}: {report.failed}.{left}", metadata, allow_retries=False)
    value = {name: getattr(report, name) for name in ("target", "outcome", "endpoint", "deployment", "bundle", "traffic")}
    return run.finish(value, metadata)


def _roll_out(run: Materialization, bundle: str, settings: DeploymentSettings) -> "tuple[Plan, Report]":
    from extraction_assets.serving.azure_service import azure_service  # torch, by way of the bundle
    from extraction_assets.serving.bundle import open_bundle
    from extraction_assets.serving.rollout import rehearse, roll_out

    opened = open_bundle(run.store.folder(bundle))
    if settings.target == "fake":
        return rehearse(opened, settings, False, run.context.log.info)
    return roll_out(azure_service(settings), opened, settings, False, run.context.log.info)


def _step_row(step: Mapping[str, Any]) -> tuple[str, float, str]:
    found = {name: value for name, value in step.items() if name not in ("step", "seconds")}
    return step["step"], step["seconds"], ", ".join(f"{name} {value}" for name, value in found.items())


def _build(run: Materialization, folder: Path, champion: dict[str, Any]) -> None:
    from extraction_assets.serving.bundle import write_bundle  # torch: `status` and the dataset do without it

    adapter, split = champion["adapter"], champion["split"]
    serving = ServingSettings.from_json(run.read("serving_settings"))
    schemas = {schema.name: schema for schema in split_schemas(run.store, split).values()}
    write_bundle(
        folder,
        run.home.base_model(),
        run.store.folder(adapter),
        adapter,
        schemas,
        _golden(run.store, split, serving.golden_pages),
        RenderSettings.from_json(run.read("render_settings")),
        DecodingSettings.from_json(run.read("decoding_settings")),
        serving,
        Routing.model_validate(champion["routing"]),
    )


def _golden(store: Store, split: str, each: int) -> list[Any]:
    """The first clean test pages of each type, in the order of their ids."""
    from extraction_assets.serving.bundle import GoldenQuestion

    taken: dict[str, list[GoldenQuestion]] = {}
    for record in sorted(split_records(store, split), key=lambda record: record.id):
        meta = record.meta
        pages = taken.setdefault(meta.type, [])
        if meta.stratum == CLEAN and len(pages) < each:
            pages.append(GoldenQuestion(meta.type, store.read_bytes(meta.page_digest, ".png"), meta.width, meta.height))
    return [question for _, pages in sorted(taken.items()) for question in pages]
