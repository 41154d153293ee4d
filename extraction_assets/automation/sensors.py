"""What starts by itself: the look at landing/ and settings, the nightly heal, the report of failures."""

from collections.abc import Iterator

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES, RunsFilter

from extraction_assets.automation.staleness import Planner, Status
from extraction_assets.automation.update import end_abandoned_runs
from extraction_assets.errors import InputError
from extraction_assets.home import Home
from extraction_assets.observation import ROOTS, Observation
from extraction_assets.record import VENDORS, Record, Shape
from extraction_assets.settings import AutomationSettings
from extraction_assets.store import digest_bytes, digest_of

ROOT_TAG = "extraction/root"
INDEX = "example_index"


def outside_sensor(home: Home, roots_job: UnresolvedAssetJobDefinition, settings: AutomationSettings) -> dg.SensorDefinition:
    """Looks at landing/, settings.yaml, schemas/ and the base model; requests exactly the roots whose content changed.

    What lies below follows by the assets' own conditions.
    """

    @dg.sensor(
        name="outside",
        job=roots_job,
        minimum_interval_seconds=settings.sensor_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="New, changed or removed documents in landing/, changed settings or schemas: their roots run. Content counts, not time stamps.",
    )
    def outside(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        observation = Observation.of(home)
        for problem in observation.problems:
            context.log.warning(str(problem))
        known, now = set(context.instance.get_dynamic_partitions(VENDORS)), set(observation.vendors)
        changes: list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest] = []
        if now - known:
            changes.append(dg.AddDynamicPartitionsRequest(VENDORS, sorted(now - known)))
        if known - now:
            changes.append(dg.DeleteDynamicPartitionsRequest(VENDORS, sorted(known - now)))
        graph = context.repository_def.asset_graph if context.repository_def else None
        if graph is None:
            return dg.SensorResult(skip_reason="no repository")
        planner = Planner(Shape.of(graph), Record(context.instance, home), observation)
        end_abandoned_runs(context.instance)
        busy = _busy(context.instance)
        requests = [request for request in _root_requests(planner) if request.tags[ROOT_TAG] not in busy]
        if not requests and not changes:
            return dg.SensorResult(skip_reason=f"{len(now)} vendors looked at, nothing changed")
        return dg.SensorResult(run_requests=requests, dynamic_partitions_requests=changes)

    return outside


def _root_requests(planner: Planner) -> Iterator[dg.RunRequest]:
    """One run a vendor for all its stale roots, one for each stale settings root; and the index where a vendor is gone, which no
    condition of an asset sees."""
    together: dict[str | None, list[Status]] = {}
    for root in ROOTS:
        if root not in planner.shape.parents:
            continue
        for status in planner.work(root):
            together.setdefault(status.partition or status.asset, []).append(status)
    for status in planner.work(INDEX):
        if any(reason.endswith(" is gone") for reason in status.reasons):
            together[INDEX] = [status]
    problems = digest_of(sorted(str(problem) for problem in planner.observation.problems))
    for name, statuses in together.items():
        # what it was made from before belongs to the key: a document that leaves and comes back is a new request, while a folder
        # that failed is not asked for again before it, or what is wrong with it, changes
        made = [planner.record.provenance(status.asset, status.partition) for status in statuses]
        state = digest_of(
            [[vars(before) if before else None for before in made], [_seen(planner, status) for status in statuses], problems]
        )
        yield dg.RunRequest(
            run_key=f"{name}:{state[:32]}",
            asset_selection=[dg.AssetKey.from_user_string(status.asset) for status in statuses],
            partition_key=statuses[0].partition,
            tags={ROOT_TAG: _tag(str(name))},
        )


def _seen(planner: Planner, status: Status) -> str:
    try:
        return planner.observation.version(status.asset, status.partition) if status.asset in ROOTS else "; ".join(status.reasons)
    except InputError as error:  # a schema or base model that is gone: the run will say so
        return str(error)


def _tag(name: str) -> str:
    return digest_bytes(name.encode())[:32]  # tag values hold 63 plain characters, vendor names more


def _busy(instance: dg.DagsterInstance) -> set[str]:
    """Roots whose run is under way: asking again would only queue a second one."""
    return {run.tags[ROOT_TAG] for run in instance.get_runs(RunsFilter(statuses=IN_PROGRESS_RUN_STATUSES)) if ROOT_TAG in run.tags}


def heal_schedule(home: Home, everything_job: UnresolvedAssetJobDefinition, settings: AutomationSettings) -> dg.ScheduleDefinition:
    """Every night: what failed since its inputs changed runs again. Declarative conditions count a failed run as handled."""

    @dg.schedule(
        name="nightly_heal",
        job=everything_job,
        cron_schedule=settings.cron,
        execution_timezone=settings.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Requests again what failed and has all its inputs. New training starts by the condition of training_plan at the same tick.",
    )
    def nightly_heal(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        graph = context.repository_def.asset_graph
        planner = Planner(Shape.of(graph), Record(context.instance, home), Observation.of(home))
        failed = failed_partitions(context.instance, planner)
        if not failed:
            yield dg.SkipReason("nothing failed")
        for status in failed:
            yield dg.RunRequest(
                run_key=f"{context.scheduled_execution_time.isoformat()}:{status.name}",
                asset_selection=[dg.AssetKey.from_user_string(status.asset)],
                partition_key=status.partition,
            )

    return nightly_heal


def failed_partitions(instance: dg.DagsterInstance, planner: Planner) -> list[Status]:
    """What has work of its own (its inputs are fresh and passed their checks) and whose last attempt ended in failure."""
    statuses = [status for status in planner.status() if status.state != "fresh" and status.direct]
    failed = []
    for status in statuses:
        if status.asset in planner.shape.attended or any(planner.failed_checks(parent) for parent in planner.shape.parents[status.asset]):
            continue
        run = _last_attempt(instance, status)
        if run is not None and run.status in (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED):
            failed.append(status)
    return failed


def _last_attempt(instance: dg.DagsterInstance, status: Status) -> dg.DagsterRun | None:
    planned = instance.get_latest_planned_materialization_info(dg.AssetKey.from_user_string(status.asset), status.partition)
    return instance.get_run_by_id(planned.run_id) if planned else None


def failure_sensor() -> dg.SensorDefinition:
    """Writes one line for every failed run: what, and why."""

    @dg.run_failure_sensor(
        name="report_failures", default_status=dg.DefaultSensorStatus.RUNNING, description="Logs one line for each failed run."
    )
    def report_failures(context: dg.RunFailureSensorContext) -> None:
        names = ", ".join(sorted(key.to_user_string() for key in context.dagster_run.asset_selection or ()))
        partition = context.dagster_run.tags.get("dagster/partition")
        where = f"{names}[{partition}]" if partition else names
        context.log.error(f"{where} failed in run {context.dagster_run.run_id}: {context.failure_event.message}")

    return report_failures
