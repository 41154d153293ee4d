"""Every row of the change table, through the planner behind `update` and through declarative automation, on real Dagster instances."""

from __future__ import annotations

import datetime
import functools
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.data_version import DATA_VERSION_TAG

from extraction_assets.automation.staleness import Planner, Status
from extraction_assets.automation.update import Ran as RunRow
from extraction_assets.automation.update import sync_vendors, update, walk
from extraction_assets.definitions import build_definitions
from extraction_assets.home import Home
from extraction_assets.observation import ROOTS, Observation
from extraction_assets.record import Partition, Provenance, Record, label
from extraction_assets_tests.automation.change_table import BUNDLE_INPUTS, CHANGE_TABLE, Ran, once
from extraction_assets_tests.homes import edit_settings, instance_in_memory, make_home
from extraction_assets_tests.training_here import training_here

THREE_VENDORS = {"invoice/acme": 5, "invoice/bolt & co": 3, "receipt/corner": 4}
Engine = Callable[[], Ran]


def automatic(home: Home) -> Home:
    """With a deployment that runs by itself: what it does, nothing, the table does not ask."""
    edit_settings(home, lambda values: values.update(deployment={"automatic": True}))
    return home


def run_change_table(record: Record, settle: Engine, simulated: bool = False) -> None:
    """Every row starts from the state in which the one before has settled."""
    settle()
    wrong = []
    home = record.home

    def bundle_inputs() -> list[str]:
        return [record.latest_versions(name, False)[None] for name in BUNDLE_INPUTS]

    def bundle() -> str:
        return record.latest_versions("serving_bundle", False)[None]

    for row in CHANGE_TABLE:
        if simulated and row.real_work:
            continue
        before, bundle_before = bundle_inputs(), bundle()
        row.change(home)
        ran, expected = settle(), row.runs(Observation.of(home).vendors)
        if bundle_inputs() != before:  # whether there is another champion is the gate's decision
            expected |= once("serving_bundle")
        if bundle() != bundle_before:
            expected |= once("endpoint_deployment")
        if ran != expected:
            wrong.append(f"{row.event}: ran needlessly {sorted(ran - expected, key=str)}, did not run {sorted(expected - ran, key=str)}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
def test_the_planner_runs_exactly_what_the_table_says(tmp_path: Path) -> None:
    home = automatic(make_home(tmp_path / "home", THREE_VENDORS))
    with instance_in_memory() as instance, training_here():

        def settle() -> Ran:
            done = update(build_definitions(home), instance, home)
            assert not done.failures
            return {(row.asset, row.partition) for row in done.ran}

        run_change_table(Record(instance, home), settle)


@pytest.mark.slow
def test_declarative_automation_runs_exactly_what_the_table_says(tmp_path: Path) -> None:
    home = automatic(make_home(tmp_path / "home", THREE_VENDORS))
    with instance_in_memory() as instance, training_here():
        nights = Nights(home, instance)
        run_change_table(Record(instance, home), nights.settle)


class Nights:
    """Plays the daemon: the sensor's requests, then ticks of the conditions, until all is quiet by day and after the night's tick."""

    def __init__(self, home: Home, instance: dg.DagsterInstance) -> None:
        self.home, self.instance = home, instance
        self.definitions = build_definitions(home)
        self.job = self.definitions.resolve_implicit_global_asset_job_def()
        # what one tick requests, a daemon may run in any order: here downstream first, the order that forgives least
        graph = self.definitions.resolve_asset_graph()
        order = [key for level in reversed(graph.toposorted_asset_keys_by_level) for key in sorted(level)]
        self.conditioned = [key for key in order if graph.get(key).automation_condition is not None]
        self.now = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
        self.cursor: str | None = None
        self._tick()  # conditions count from their first evaluation

    def settle(self) -> Ran:
        ran: Ran = set()
        ran |= self._outside()
        ran |= self._until_quiet()
        assert not ran & {("training_plan", None)}, "training started by day"
        self.now = (self.now + datetime.timedelta(days=1)).replace(hour=2, minute=1)
        return ran | self._until_quiet()

    def _outside(self) -> Ran:
        sensor = self.definitions.resolve_sensor_def("outside")
        context = dg.build_sensor_context(instance=self.instance, definitions=self.definitions)
        result = sensor(context)
        assert isinstance(result, dg.SensorResult)
        for request in result.dynamic_partitions_requests or ():
            if isinstance(request, dg.AddDynamicPartitionsRequest):
                self.instance.add_dynamic_partitions(request.partitions_def_name, request.partition_keys)
            else:
                for key in request.partition_keys:
                    self.instance.delete_dynamic_partition(request.partitions_def_name, key)
        ran: Ran = set()
        for request in result.run_requests or ():
            ran |= self._run([key.to_user_string() for key in request.asset_selection or ()], request.partition_key)
        return ran

    def _until_quiet(self) -> Ran:
        ran: Ran = set()
        for _ in range(30):
            requested = self._tick()
            if not requested:
                return ran
            assert not ran.intersection(requested), f"requested twice for one change: {ran.intersection(requested)}"
            for asset, partition in requested:
                ran |= self._run([asset], partition)
        raise AssertionError("automation never came to rest")

    def _tick(self) -> list[tuple[str, str | None]]:
        self.now += datetime.timedelta(seconds=30)
        with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
            warnings.simplefilter("ignore")
            # as in the daemon, whose loader reads the partitions once a tick; the tester would ask the database for each condition's node
            patch.setattr(self.instance, "get_dynamic_partitions", functools.cache(self.instance.get_dynamic_partitions))
            result = dg.evaluate_automation_conditions(
                self.definitions,
                self.instance,
                cursor=self.cursor,
                evaluation_time=self.now,  # type: ignore[arg-type]
            )
        self.cursor = result.cursor
        return [(key.to_user_string(), partition) for key in self.conditioned for partition in result.get_requested_partitions(key)]

    def _run(self, assets: list[str], partition: str | None) -> Ran:
        result = self.job.execute_in_process(
            instance=self.instance,
            asset_selection=[dg.AssetKey.from_user_string(asset) for asset in assets],
            partition_key=partition,
        )
        assert result.success
        return {(asset, partition) for asset in assets}


# --- 120 vendors: beyond the 100 upstream partitions where Dagster's own staleness gives up ------------------------------------


@pytest.fixture
def simulated(tmp_path: Path) -> Iterator[tuple[Record, Engine]]:
    """120 vendors with real landing files, real settings, a real event log; the work itself is replaced by the digest of its inputs."""
    vendors = {f"invoice/vendor {number:03d}": 1 for number in range(80)} | {f"receipt/vendor {number:03d}": 1 for number in range(38)}
    home = make_home(tmp_path / "home", {**vendors, "invoice/acme": 1, "receipt/corner": 1})
    automatic(home)
    definitions = build_definitions(home)
    with instance_in_memory() as instance:

        def settle() -> Ran:
            observation = Observation.of(home)
            sync_vendors(instance, observation)
            planner = Planner.of(definitions, instance, observation)
            record = Record(instance, home)
            versions: dict[str, dict[Partition, str]] = {}
            """what the event log says, asked once for each asset"""

            def versions_of(asset: str, partition: Partition) -> dict[Partition, str]:
                if asset not in versions:
                    versions[asset] = record.latest_versions(asset, partition is not None)
                return versions[asset]

            def run_all(statuses: list[Status]) -> list[RunRow]:
                return [run(status) for status in statuses]

            def run(status: Status) -> RunRow:
                parents = planner.shape.inputs(status.asset, status.partition, planner.vendors)
                inputs = {label(*parent): versions_of(*parent)[parent[1]] for parent in parents}
                observed = {"observed": observation.version(status.asset, status.partition)} if status.asset in ROOTS else {}
                # settings and schemas: their data version is the digest of what was seen, as in the real assets
                settings = status.asset in ROOTS and status.asset not in ("raw_documents", "document_labels", "base_model")
                value = observation.value(status.asset, status.partition) if settings else {**inputs, **observed, "documents": []}
                output = home.store.put_json(value)
                record.write_provenance(
                    status.asset, status.partition, Provenance("run", output, planner.shape.code[status.asset], {**inputs, **observed})
                )
                instance.report_runless_asset_event(
                    dg.AssetMaterialization(status.asset, partition=status.partition, tags={DATA_VERSION_TAG: output})
                )
                versions_of(status.asset, status.partition)[status.partition] = output
                return RunRow(status.asset, status.partition, "run", True)

            return {(row.asset, row.partition) for row in walk(planner, run_all).ran}

        yield Record(instance, home), settle


@pytest.mark.slow
def test_the_planner_runs_exactly_what_the_table_says_with_120_vendors(simulated: tuple[Record, Engine]) -> None:
    run_change_table(*simulated, simulated=True)
