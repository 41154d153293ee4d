"""Stage 6: the champion as a bundle that an endpoint can serve."""

from pathlib import Path
from typing import Any

import dagster as dg

from extraction_assets.assets.conditions import on_change
from extraction_assets.assets.materialization import OWNERS, HomeResource, Materialization
from extraction_assets.assets.report_source import split_records, split_schemas
from extraction_assets.assets.training import TRAINING_POOL
from extraction_assets.dataset.records import CLEAN
from extraction_assets.evaluation.calibration import Routing
from extraction_assets.settings import DecodingSettings, RenderSettings, ServingSettings
from extraction_assets.store import Store, digest_of

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
