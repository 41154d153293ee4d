"""Stage 7: the bundle onto its endpoint, as `deployment.target` says. Below the bundle and the deployment's settings, above nothing."""

from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.storage.tags import AUTOMATION_CONDITION_TAG, SCHEDULE_NAME_TAG, SENSOR_NAME_TAG

from extraction_assets.assets.conditions import on_change
from extraction_assets.assets.materialization import OWNERS, HomeResource, Materialization
from extraction_assets.assets.training import TRAINING_POOL
from extraction_assets.errors import InputError
from extraction_assets.record import ATTENDED_TAG, BY_NAME
from extraction_assets.settings import DeploymentSettings

if TYPE_CHECKING:
    from extraction_assets.serving.rollout import Plan, Report

NOTHING = "nothing is deployed"
LEFT = "nothing_is_left_behind"
"""check: what a rollout could not delete is still paid for"""
_UNATTENDED = (AUTOMATION_CONDITION_TAG, SCHEDULE_NAME_TAG, SENSOR_NAME_TAG)
"""tags of runs that nobody asked for"""


def endpoint_deployment(planned: DeploymentSettings) -> dg.AssetsDefinition:
    """planned: of the home when the graph is loaded; they say only whether the asset may start by itself. A run reads its own."""
    attended = {} if planned.automatic else {ATTENDED_TAG: BY_NAME if planned.target == "azure" else "on_request"}

    @dg.asset(
        name="endpoint_deployment",
        group_name="serving",
        deps=["serving_bundle", "deployment_settings"],
        pool=TRAINING_POOL,  # a rehearsal loads the model
        automation_condition=on_change() if planned.automatic else None,
        tags=attended,
        description="The bundle on its endpoint: created at 0 %, proved on the golden pages, mirrored, 10 %, all; at a failure traffic is as it "
        "was. `deployment.target` says where: none, fake (a rehearsal on this machine, never called deployed) or azure.",
        owners=OWNERS,
        kinds={"azureml"},
        code_version="1",
        check_specs=[dg.AssetCheckSpec(LEFT, asset="endpoint_deployment", description="What the rollout could not delete or set back.")],
    )
    def deployed(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult:
        run = Materialization(context, home)
        settings = DeploymentSettings.from_json(run.read("deployment_settings"))
        made = run.read("serving_bundle")
        if settings.target == "none" or made["bundle"] is None:
            why = "deployment.target is none" if settings.target == "none" else "there is no champion, so no bundle"
            return run.finish(_value(settings.target, "nothing", made), {"outcome": f"{NOTHING}: {why}"}, [_nothing_left([])])
        if not settings.automatic and any(tag in context.run.tags for tag in _UNATTENDED):
            raise InputError("deployment.automatic", "is false, and nobody asked for this run", do="Ask for it, or set it to true")
        plan, report = _roll_out(run, made, settings)
        for line in report.left:
            context.log.error(f"left: {line}")
        if report.outcome == "rolled back":
            raise dg.Failure(
                description=f"{settings.target}: {report.failed}", metadata=_metadata(plan, report), allow_retries=False
            ) from InputError(f"endpoint_deployment ({settings.target})", f"rolled back: {report.failed}")
        value = _value(settings.target, report.outcome, made, report)
        return run.finish(value, _metadata(plan, report), [_nothing_left(report.left)])

    return deployed


def _roll_out(run: Materialization, made: dict[str, Any], settings: DeploymentSettings) -> tuple["Plan", "Report"]:
    """Raises InputError where a plan cannot work; nothing was touched then."""
    from extraction_assets.serving.azure_service import azure_service  # torch: `status` and the dataset do without it
    from extraction_assets.serving.bundle import open_bundle
    from extraction_assets.serving.rollout import rehearse, roll_out

    bundle = open_bundle(run.store.folder(made["bundle"]))
    say = run.context.log.info
    if settings.target == "fake":
        return rehearse(bundle, settings, False, say)
    return roll_out(azure_service(settings), bundle, settings, False, say)


def _value(target: str, outcome: str, made: dict[str, Any], report: "Report | None" = None) -> dict[str, Any]:
    """What stands there, without times: the same again is the same data version."""
    value = {"target": target, "outcome": outcome, "bundle": made["bundle"], "adapter": made["adapter"]}
    if report is not None:
        value |= {"endpoint": report.endpoint, "deployment": report.deployment, "sealed": report.bundle, "traffic": report.traffic}
        value |= {"agreement": _agreement(report), "left": report.left}
    return value


def _agreement(report: "Report") -> float | None:
    """Share of the golden values that the endpoint last answered as this machine does."""
    return next((step["agreement"] for step in reversed(report.steps) if "agreement" in step), None)


def _metadata(plan: "Plan", report: "Report") -> dict[str, Any]:
    agreement = _agreement(report)
    return {
        "outcome": report.outcome if report.target == "azure" else f"{report.outcome} on this machine; nothing is deployed",
        "endpoint": report.endpoint,
        "deployment": report.deployment,
        "steps": dg.MetadataValue.md("\n".join(["| step | s | found |", "|---|---|---|", *map(_row, report.steps)])),
        "traffic": dg.MetadataValue.json(report.traffic),
        **({} if agreement is None else {"agreement": dg.MetadataValue.float(agreement)}),
        "plan": dg.MetadataValue.md("\n".join(f"{number}. {step}" for number, step in enumerate(plan.steps, 1))),
        "difference": dg.MetadataValue.md("```diff\n" + "\n".join(plan.diff) + "\n```"),
        "costs": dg.MetadataValue.md("```\n" + "\n".join(plan.costs.lines()) + "\n```"),
        **({"failed": report.failed} if report.failed else {}),
        **({"left": dg.MetadataValue.md("\n".join(f"- {line}" for line in report.left))} if report.left else {}),
    }


def _row(step: dict[str, Any]) -> str:
    found = ", ".join(f"{key} {value}" for key, value in step.items() if key not in ("step", "seconds"))
    return f"| {step['step']} | {step['seconds']} | {found} |"


def _nothing_left(left: list[str]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=LEFT, passed=not left, severity=dg.AssetCheckSeverity.WARN, metadata={"left": dg.MetadataValue.json(left)}
    )
