"""The settings, the target schemas and the base model: cheap roots, one node for each thing that can change on its own."""

import dagster as dg
import yaml

from extraction_assets.assets.materialization import OWNERS, HomeResource, Materialization
from extraction_assets.assets.vendors import vendors_partitions
from extraction_assets.observation import SETTINGS_ROOTS, Observation
from extraction_assets.settings import recommendation_warnings

_WHAT = {
    "render_settings": "How pages become images: dpi, visual tokens, limits.",
    "target_settings": "How labels become page targets.",
    "negative_settings": "Which hard negatives are made, and how many.",
    "split_settings": "Who learns, who validates, who is tested.",
    "training_settings": "The recipe of the training run.",
    "decoding_settings": "How answers are generated.",
    "evaluation_settings": "Scores, intervals and the gate.",
    "serving_settings": "What a bundle holds, and the endpoint's limits.",
    "deployment_settings": "Where the endpoint stands, and how it gets there.",
}


def _settings_root(name: str) -> dg.AssetsDefinition:
    section = SETTINGS_ROOTS[name]

    @dg.asset(
        name=name,
        group_name="settings",
        description=f"{_WHAT[name]} Section `{section}` of settings.yaml; its version is the digest of the parsed values.",
        owners=OWNERS,
        kinds={"yaml"},
        code_version="1",
    )
    def root(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult:
        seen = Observation.of(home.home())
        run = Materialization(context, home, observed=seen.version(name))
        value = seen.value(name)
        warnings = [line for line in recommendation_warnings(seen.settings) if line.startswith(f"{section}.")]
        for line in warnings:
            context.log.warning(line)
        return run.finish(
            value,
            {
                "values": dg.MetadataValue.md(f"```yaml\n{yaml.safe_dump(value, sort_keys=False)}```"),
                "warnings": dg.MetadataValue.md("\n".join(f"- {line}" for line in warnings) or "none"),
            },
        )

    return root


settings_roots = [_settings_root(name) for name in SETTINGS_ROOTS]


@dg.asset(
    group_name="settings",
    partitions_def=vendors_partitions,
    description="The target schema that governs a vendor's documents: that of its type. Partitioned like the documents, so that a "
    "changed schema makes stale exactly the vendors of its type.",
    owners=OWNERS,
    kinds={"json"},
    code_version="1",
)
def target_schema(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult:
    seen = Observation.of(home.home())
    vendor = context.partition_key
    run = Materialization(context, home, observed=seen.version("target_schema", vendor))
    schema = seen.schema(vendor)
    return run.finish(
        schema.document,
        {
            "instruction": schema.instruction,
            "fields": dg.MetadataValue.md("\n".join(f"- `{leaf.name}` {leaf.type}" for leaf in schema.fields)),
            "row_arrays": ", ".join(array.name for array in schema.row_arrays) or "none",
            "schema_digest": schema.digest,
        },
    )


@dg.asset(
    group_name="training",
    description="The model that learns: a folder or a hub name. Its version is the digest of its files.",
    owners=OWNERS,
    kinds={"huggingface"},
    code_version="1",
)
def base_model(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult:
    seen = Observation.of(home.home())
    digest = seen.version("base_model")
    run = Materialization(context, home, observed=digest)
    return run.finish({"base_digest": digest}, {"name": seen.settings.base_model, "path": seen.home.base_model()})
