"""The one Definitions object: everything Dagster loads."""

from __future__ import annotations

import dagster as dg

from extraction_assets.assets import dataset, deployment, evaluation, pages, roots, serving, sources, training
from extraction_assets.assets.materialization import HomeResource
from extraction_assets.automation.sensors import failure_sensor, heal_schedule, outside_sensor
from extraction_assets.home import Home
from extraction_assets.settings import AutomationSettings


def build_definitions(home: Home) -> dg.Definitions:
    """The graph on one home. Raises InputError where its settings.yaml cannot be used."""
    settings = home.settings()
    automation = settings.automation
    assets = [*_graph_assets(automation), deployment.endpoint_deployment(settings.deployment)]
    roots_job = dg.define_asset_job("roots", dg.AssetSelection.groups("settings", "sources") | dg.AssetSelection.assets("base_model"))
    everything = dg.define_asset_job("everything", dg.AssetSelection.all())
    return dg.Definitions(
        assets=assets,
        resources={
            "home": HomeResource(root=str(home.root)),
            "pipes": dg.PipesSubprocessClient(),
        },
        jobs=[roots_job, everything],
        schedules=[heal_schedule(home, everything, automation)],
        sensors=[
            outside_sensor(home, roots_job, automation),
            failure_sensor(),
            dg.AutomationConditionSensorDefinition(
                "conditions",
                target=dg.AssetSelection.all(),
                default_status=dg.DefaultSensorStatus.RUNNING,
                minimum_interval_seconds=automation.sensor_seconds,
                description="Runs each asset by its own condition.",
            ),
        ],
        executor=dg.in_process_executor,
    )


def _graph_assets(automation: AutomationSettings) -> list[dg.AssetsDefinition]:
    return [
        *roots.settings_roots,
        roots.target_schema,
        roots.base_model,
        sources.raw_documents,
        sources.document_labels,
        pages.page_images,
        pages.page_targets,
        pages.hard_negatives,
        dataset.example_index,
        dataset.split_assignment,
        dataset.train_split,
        dataset.val_split,
        dataset.test_split,
        dataset.dataset_card,
        *training.training_assets(automation),
        *evaluation.evaluation_assets(automation),
        serving.serving_bundle,
    ]
