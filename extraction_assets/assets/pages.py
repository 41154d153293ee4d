"""Stage 2: page images, page targets and hard negatives of one vendor."""

from collections import Counter
from functools import partial

import dagster as dg

from extraction_assets.assets.conditions import on_change
from extraction_assets.assets.materialization import OWNERS, HomeResource, Materialization
from extraction_assets.assets.roots import target_schema
from extraction_assets.assets.sources import document_labels, raw_documents
from extraction_assets.assets.tables import markdown_table, thumbnails
from extraction_assets.assets.vendors import vendors_partitions
from extraction_assets.dataset.negatives import build_negatives
from extraction_assets.dataset.page_targets import build_page_targets
from extraction_assets.dataset.records import VendorTargets
from extraction_assets.documents.records import VendorDocuments, VendorLabels, VendorPages
from extraction_assets.documents.rendering import Draw, draw_into, render_vendor
from extraction_assets.schema import TargetSchema
from extraction_assets.settings import FleetSettings, NegativeSettings, RenderSettings, TargetSettings

THUMBNAILS = 4


@dg.asset(
    group_name="pages",
    partitions_def=vendors_partitions,
    deps=[raw_documents, "render_settings"],
    automation_condition=on_change(),
    description="Every page rendered straight onto the 32-pixel grid of Qwen3-VL, in a sandbox, with the words of its text layer.",
    owners=OWNERS,
    kinds={"pymupdf", "png"},
    code_version="1",
)
def page_images(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult:
    run = Materialization(context, home)
    documents = VendorDocuments.model_validate(run.read("raw_documents"))
    settings = RenderSettings.from_json(run.read("render_settings"))
    pages = render_vendor(
        documents,
        run.store,
        settings,
        workers=run.settings.workers,
        progress=run.progress("page"),
        draw=_drawer(run.settings.compute.rendering),
    )
    limited = [page for page in pages.pages if page.limited]
    if limited:
        lowest = min(page.dpi for page in limited)
        context.log.warning(
            f"{len(limited)} of {len(pages.pages)} pages rendered below {settings.dpi:g} dpi (lowest {lowest:g}): "
            f"render.max_visual_tokens is {settings.max_visual_tokens}"
        )
    run.warn_left_out(pages.refused, {document.document: document.file for document in documents.documents})
    flags = Counter(flag for page in pages.pages for flag in page.flags)
    return run.finish(
        pages.model_dump(mode="json"),
        {
            "pages": len(pages.pages),
            "pages_below_asked_dpi": len(limited),
            "pages_with_text_layer": sum(page.text is not None for page in pages.pages),
            "flags": dg.MetadataValue.md(markdown_table(["flag", "pages"], sorted(flags.items()))),
            "refused": dg.MetadataValue.md(
                markdown_table(["document", "reason", "detail"], [(r.file, r.reason, r.detail) for r in pages.refused])
            ),
            "thumbnails": dg.MetadataValue.md(
                thumbnails(run.store, [(f"page {page.page}, {page.dpi:g} dpi", page.image) for page in pages.pages[:THUMBNAILS]])
            ),
        },
    )


def _drawer(fleet: FleetSettings) -> Draw:
    if fleet.backend == "here":
        return draw_into
    from extraction_assets.documents.fleet import draw_on_ray

    return partial(draw_on_ray, fleet=fleet)


@dg.asset(
    group_name="pages",
    partitions_def=vendors_partitions,
    deps=[document_labels, page_images, target_schema, "target_settings"],
    automation_condition=on_change(),
    description="What each page must yield: the label's fields that stand on this page, null for the others, in schema order.",
    owners=OWNERS,
    kinds={"json"},
    code_version="1",
    check_specs=[
        dg.AssetCheckSpec(
            "label_values_stand_on_a_page", asset="page_targets", description="Values found on no page are nulled and listed."
        )
    ],
)
def page_targets(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult:
    run = Materialization(context, home)
    settings = TargetSettings.from_json(run.read("target_settings"))
    schema = TargetSchema(run.read("target_schema"), run.type, source=f"schemas/{run.type}.schema.json").on_wire(settings.wire)
    run.store.put_json(schema.document)  # everything below finds the schema, and with it the wire, under the digest that examples name
    targets = build_page_targets(
        VendorLabels.model_validate(run.read("document_labels")),
        VendorPages.model_validate(run.read("page_images")),
        schema,
        settings,
        run.store,
    )
    for pages in targets.undecided:
        context.log.warning(f"document {pages.document[:12]}: pages {', '.join(map(str, pages.pages))} have no target: {pages.reason}")
    unplaced = [(value.document[:12], value.pointer, value.value) for value in targets.unplaced]
    if targets.ignored_keys:
        context.log.warning(f"label keys that the schema does not have are left out: {', '.join(targets.ignored_keys)}")
    return run.finish(
        targets.model_dump(mode="json"),
        {
            "targets": len(targets.targets),
            "unplaced_values": dg.MetadataValue.md(markdown_table(["document", "pointer", "value"], unplaced)),
            "dropped_documents": len(targets.dropped_documents),
            "ignored_label_keys": ", ".join(targets.ignored_keys) or "none",
            "example": dg.MetadataValue.md(f"```json\n{targets.targets[0].target}\n```" if targets.targets else "none"),
        },
        [
            dg.AssetCheckResult(
                check_name="label_values_stand_on_a_page",
                passed=not unplaced,
                severity=dg.AssetCheckSeverity.WARN,
                metadata={"unplaced": len(unplaced)},
            )
        ],
    )


@dg.asset(
    group_name="pages",
    partitions_def=vendors_partitions,
    deps=[page_targets, page_images, "negative_settings"],
    automation_condition=on_change(),
    description="Pages made harder on purpose: rotated, stamped, noisy, a field missing, blank, foreign. Each knows its clean twin.",
    owners=OWNERS,
    kinds={"png"},
    code_version="1",
)
def hard_negatives(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult:
    run = Materialization(context, home)
    negatives = build_negatives(
        VendorTargets.model_validate(run.read("page_targets")),
        VendorPages.model_validate(run.read("page_images")),
        run.store,
        NegativeSettings.from_json(run.read("negative_settings")),
        workers=run.settings.workers,
        progress=run.progress("page"),
    )
    kinds = Counter(negative.kind for negative in negatives.negatives)
    first_of_kind = {negative.kind: negative for negative in reversed(negatives.negatives)}
    return run.finish(
        negatives.model_dump(mode="json"),
        {
            "negatives": len(negatives.negatives),
            "kinds": dg.MetadataValue.md(markdown_table(["kind", "pages"], sorted(kinds.items()))),
            "thumbnails": dg.MetadataValue.md(
                thumbnails(run.store, [(f"{kind}: {one.what}", one.image) for kind, one in sorted(first_of_kind.items())][:THUMBNAILS])
            ),
        },
    )
