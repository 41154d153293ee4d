"""`extraction update`: materialize what is stale, upstream first, nothing else.

The graph is walked in topological order and asked again after every asset, so that a re-run with unchanged content stops there
(early cutoff). Everything runs as Dagster runs in the home's instance, so the UI shows what the terminal did: one run for each
(asset, partition), and a single one for all that was never built of a vendor.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES, RunsFilter
from filelock import FileLock, Timeout

from extraction_assets.automation.instance import terminal_logger
from extraction_assets.automation.staleness import Planner, Status
from extraction_assets.errors import InputError
from extraction_assets.home import Home
from extraction_assets.observation import Observation
from extraction_assets.record import ADOPTED_TAG, BY_NAME, PROCESS_TAG, VENDORS, Partition, is_alive, label, process_identity

LOCK_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Ran:
    """One row of `extraction update --json`."""

    asset: str
    partition: Partition
    run: str
    ok: bool
    error: str | None = None


@dataclass(frozen=True)
class Walk:
    """What an update did."""

    ran: list[Ran]
    blocked: list[str]
    """one line for each blocking check that does not pass, so that nothing below its asset ran"""

    @property
    def failures(self) -> list[str]:
        return [row.error or f"{row.asset} failed" for row in self.ran if not row.ok] + self.blocked


@contextmanager
def home_lock(home: Home, say: Callable[[str], None]) -> Iterator[None]:
    """One writer at a time on a home; a second one says whom it waits for. The lock goes with its process."""
    path = home.root / ".lock"
    lock, owner = FileLock(path), path.with_suffix(".owner")
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            holder = owner.read_text().strip() if owner.exists() else "another process"
            say(f"{home.root} is in use by {holder}; waiting for it to end")
            lock.acquire(timeout=LOCK_SECONDS)
        owner.write_text(f"process {os.getpid()}")
    except OSError as error:
        raise InputError(str(path), f"cannot be locked: {error.strerror or error}", do="Check space and rights of the home") from error
    try:
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def update(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    home: Home,
    to: Iterable[str] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Walk:
    """Bring `to` (default: everything) up to date. Call under home_lock(). What failed is in the rows, what hangs on it is not run."""
    end_abandoned_runs(instance)
    observation = Observation.of(home)
    sync_vendors(instance, observation)
    planner = Planner.of(definitions, instance, observation)
    job = definitions.resolve_implicit_global_asset_job_def().with_logger_defs({"console": terminal_logger})
    return walk(planner, lambda statuses: _run(job, instance, statuses, say), to, say)


def require_plan(planner: Planner) -> None:
    """Raises InputError where what an adapter is held against is not up to date."""
    for status in planner.status(["training_plan"]):
        if status.state != "fresh":
            do = "Run `extraction update --to training_plan` first; the adapter stands beside the plan, and would be stale at once"
            raise InputError(status.name, f"is {status.state}: {status.reasons[0]}", do=do)


def take_adapter(definitions: dg.Definitions, instance: dg.DagsterInstance, adapter: str, trainer: str, say: Callable[[str], None]) -> Ran:
    """lora_adapter, materialized from an adapter in the store that another trainer made. Call under home_lock(), the plan being fresh."""
    job = definitions.resolve_implicit_global_asset_job_def().with_logger_defs({"console": terminal_logger})
    status = Status("lora_adapter", None, "stale", (f"takes {adapter[:12]}, trained by {trainer}",), True)
    (row,) = _run(job, instance, [status], say, {ADOPTED_TAG: adapter})
    return row


def walk(
    planner: Planner,
    run: Callable[[list[Status]], list[Ran]],
    to: Iterable[str] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Walk:
    """Run what has work, upstream first, asking again after each asset. Below a failure nothing runs."""
    ran: list[Ran] = []
    blocked: list[str] = []
    unusable: set[tuple[str, Partition]] = set()
    wanted = planner.upward(to)
    for asset in [name for name, how in planner.shape.attended.items() if how == BY_NAME] if to is None else ():
        wanted.remove(asset)
        if planner.work(asset):
            say(f"{asset} waits to be asked for: `update --to {asset}`")
    for asset in wanted:
        below_failure = {
            partition
            for partition in planner.partitions(asset)
            if unusable.intersection(planner.shape.inputs(asset, partition, planner.vendors))
        }
        for status in planner.work(asset):
            if status.partition in below_failure:
                continue
            rows = run(planner.never_built_below(status, wanted, unusable))
            ran += rows
            unusable.update((row.asset, row.partition) for row in rows if not row.ok)
            for row in rows:
                planner.refresh(row.asset, row.partition)
        unusable.update((asset, partition) for partition in below_failure)
        if planner.failed_checks(asset) and any(asset in planner.shape.parents[below] for below in wanted):
            blocked.append(f"{asset}: {'; '.join(planner.failed_checks(asset))}, so nothing below it runs")
            say(blocked[-1])
            unusable.update((asset, partition) for partition in planner.partitions(asset))
    return Walk(ran, blocked)


def sync_vendors(instance: dg.DagsterInstance, observation: Observation) -> None:
    """Make the vendor partitions those that landing/ holds now."""
    known, now = set(instance.get_dynamic_partitions(VENDORS)), set(observation.vendors)
    if now - known:
        instance.add_dynamic_partitions(VENDORS, sorted(now - known))
    for gone in sorted(known - now):
        instance.delete_dynamic_partition(VENDORS, gone)


def end_abandoned_runs(instance: dg.DagsterInstance) -> None:
    """Runs whose process was killed count as failed, and nothing that has ended keeps a pool slot.

    Else they would look in progress for ever: conditions would wait for them, and a training would wait for their slot in silence.
    """
    for run in instance.get_runs(RunsFilter(statuses=IN_PROGRESS_RUN_STATUSES)):
        process = run.tags.get(PROCESS_TAG)
        if process is not None and not is_alive(process):
            instance.report_run_failed(run, "The process that ran this was killed.")
            _end_output_readers(run.run_id)
    storage = instance.event_log_storage
    slots = storage.get_concurrency_infos(sorted(storage.get_concurrency_keys()))
    claimed = {slot.run_id for pool in slots.values() for slot in pool.claimed_slots}
    # a step is promised its slot before it claims it: one killed in between has only the promise
    for run_id in sorted(claimed | storage.get_concurrency_run_ids()):
        holder = instance.get_run_by_id(run_id)
        if holder is None or holder.is_finished:
            storage.free_concurrency_slots_for_run(run_id)


def _end_output_readers(run_id: str) -> None:
    """Dagster shows a run's output by `tail`, and starts a second process that ends it with the run's. Killed between the two, nobody does."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
            if words[0].endswith(b"tail") and any(run_id.encode() in word for word in words):
                os.kill(int(path.parent.name), signal.SIGTERM)
        except OSError:  # has ended meanwhile, or is somebody else's
            continue


def _run(
    job: dg.JobDefinition,
    instance: dg.DagsterInstance,
    statuses: list[Status],
    say: Callable[[str], None],
    tags: Mapping[str, str] | None = None,
) -> list[Ran]:
    """One Dagster run for assets of one partition. What stands below a failed one is not in the answer: it did not run."""
    for reasons, alike in itertools.groupby(statuses, lambda status: status.reasons):
        say(f"{label(', '.join(status.asset for status in alike), statuses[0].partition)}: {'; '.join(reasons)}")
    with _still_terminated():
        result = job.execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey.from_user_string(status.asset) for status in statuses],
            partition_key=statuses[0].partition,
            run_config={"loggers": {"console": {}}},  # ours, in place of Dagster's, which prints every event
            tags={PROCESS_TAG: process_identity(), **(tags or {})},
            raise_on_error=False,
        )
    errors = failures(result, statuses[0].partition)
    done = {event.asset_key.to_user_string() for event in result.get_asset_materialization_events() if event.asset_key}
    rows = []
    for status in statuses:
        error = errors.get(status.asset)
        if error is not None:
            say(f"{status.name} failed: {error}")
        if error is not None or status.asset in done:
            rows.append(Ran(status.asset, status.partition, result.run_id, error is None, error))
    if not rows and result.dagster_run.status in (dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.CANCELING):
        raise KeyboardInterrupt
    if not rows:
        rows = [
            Ran(statuses[0].asset, statuses[0].partition, result.run_id, False, "the run failed before its first step; see the Dagster UI")
        ]
    return rows


@contextmanager
def _still_terminated() -> Iterator[None]:
    """Behind a run Dagster gives SIGTERM the handler of SIGINT, which a shell's background job ignores: then nothing but a kill would end it."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not signal.SIG_IGN and signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:
            signal.signal(signal.SIGTERM, signal.default_int_handler)


def failures(result: dg.ExecuteInProcessResult, partition: Partition) -> dict[str, str]:
    """Asset -> its error in one line: an InputError as it stands, anything else with its asset and class."""
    found = {}
    for event in result.all_events:
        if event.is_step_failure and event.step_key:
            error = event.step_failure_data.error
            if error is not None and error.cls_name == "DagsterAssetCheckFailedError":
                continue  # the asset is there; the walk says what its check found
            if error is not None and "DagsterExecutionInterruptedError" in (error.cls_name, error.cause.cls_name if error.cause else None):
                raise KeyboardInterrupt
            cause = error.cause if error and error.cause else error
            text = " ".join(cause.message.split()) if cause is not None else "failed without a word"
            ours = f"{InputError.__module__}.{InputError.__name__}: "
            # an InputError says where; anything else would not even say whose it is
            found[event.step_key] = text.removeprefix(ours) if text.startswith(ours) else f"{label(event.step_key, partition)}: {text}"
    return found
