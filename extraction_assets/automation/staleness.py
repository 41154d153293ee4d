"""The planner: what is stale, and why, from recorded digests.

An (asset, partition) is fresh if it was made by today's code from exactly the data versions that its inputs have today. Roots
are compared with an observation of the outside world instead. This is our own comparison and not Dagster's stale status, which
never marks an asset with 100 or more upstream partitions as stale and shows partitioned assets as fresh (dagster #22553).
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import dagster as dg

from extraction_assets.assets.materialization import OBSERVED
from extraction_assets.errors import InputError
from extraction_assets.observation import ROOTS, SETTINGS_ROOTS, Observation
from extraction_assets.record import Partition, Provenance, Record, Shape, label
from extraction_assets.store import Store

State = Literal["fresh", "stale", "missing"]
MAX_REASONS = 5


@dataclass(frozen=True)
class Status:
    """One row of `extraction status`."""

    asset: str
    partition: Partition
    state: State
    reasons: tuple[str, ...]
    direct: bool
    """True where a run would have work now; False where something above has to run first and may change nothing"""

    @property
    def name(self) -> str:
        return label(self.asset, self.partition)


class Planner:
    """One look at the record and the outside world. Make a new one, or call refresh(), after something ran."""

    def __init__(self, shape: Shape, record: Record, observation: Observation) -> None:
        self.shape, self.record, self.observation = shape, record, observation
        self._versions: dict[str, dict[Partition, str]] = {}

    @classmethod
    def of(cls, definitions: dg.Definitions, instance: dg.DagsterInstance, observation: Observation) -> Planner:
        shape = Shape.of(definitions.resolve_asset_graph())
        return cls(shape, Record(instance, observation.home), observation)

    @cached_property
    def vendors(self) -> list[str]:
        return self.observation.vendors

    def partitions(self, asset: str) -> list[Partition]:
        return list(self.vendors) if asset in self.shape.partitioned else [None]

    def upward(self, to: Iterable[str] | None = None) -> list[str]:
        """The assets `to` (default: all) and everything above them, upstream first. InputError on an unknown name."""
        if to is None:
            return list(self.shape.parents)
        wanted: set[str] = set()
        for asset in to:
            if asset not in self.shape.parents:
                raise InputError(f"asset {asset}", "is not in the graph", f"one of {', '.join(self.shape.parents)}")
            wanted |= self.shape.upstream_of(asset)
        return [asset for asset in self.shape.parents if asset in wanted]

    def failed_checks(self, asset: str) -> list[str]:
        """What the blocking checks of this asset last found wrong; empty: nothing."""
        return self.record.failed_checks(self.shape, asset) if asset in self.shape.blocking_checks else []

    def status(self, to: Iterable[str] | None = None) -> list[Status]:
        """State of every (asset, partition) at or above the assets `to` (default: all), upstream first."""
        states: dict[tuple[str, Partition], Status] = {}
        for asset in self.upward(to):
            for partition in self.partitions(asset):
                states[asset, partition] = self._judge(asset, partition, states)
        return list(states.values())

    def work(self, asset: str) -> list[Status]:
        """Partitions of one asset that would have work now, whatever stands above it."""
        judged = (self._judge(asset, partition, {}) for partition in self.partitions(asset))
        return [status for status in judged if status.state != "fresh"]

    def never_built_below(self, status: Status, wanted: Sequence[str], unusable: Container[tuple[str, Partition]] = ()) -> list[Status]:
        """The given partition of this asset and of every wanted asset below it that was never built: there is no earlier content at
        which a run could stop, so all of them may run at once. What stands above them outside this list has to be settled and
        usable."""
        chain = {status.asset: status}
        first = wanted.index(status.asset)
        settled = set(wanted[:first])

        def is_ready(parent: tuple[str, Partition]) -> bool:
            asset, partition = parent
            return asset in chain or (asset in settled and parent not in unusable and partition in self._latest(asset))

        for asset in wanted[first + 1 :] if status.state == "missing" and status.partition is not None else ():
            never_built = asset in self.shape.partitioned and status.partition not in self._latest(asset)
            if never_built and all(map(is_ready, self.shape.inputs(asset, status.partition, ()))):
                chain[asset] = Status(asset, status.partition, "missing", ("was never materialized",), True)
        return list(chain.values())

    def refresh(self, asset: str, partition: Partition) -> None:
        """Look again at what has just run. Of the partition alone: a first build has as many of these looks as there are partitions."""
        known = self._versions.get(asset)
        if partition is None or known is None:
            self._versions.pop(asset, None)
            return
        known.pop(partition, None)
        known.update(self.record.latest_versions(asset, True, [partition]))

    def _judge(self, asset: str, partition: Partition, above: Mapping[tuple[str, Partition], Status]) -> Status:
        parents = self.shape.inputs(asset, partition, self.vendors)
        waiting = [above[parent] for parent in parents if parent in above and above[parent].state != "fresh"]
        try:
            return self._compare(asset, partition, parents, waiting)
        except InputError as error:  # its schema or base model is gone or broken: its own trouble, not that of the others
            return Status(asset, partition, "stale", (str(error),), True)

    def _compare(self, asset: str, partition: Partition, parents: list[tuple[str, Partition]], waiting: list[Status]) -> Status:
        version = self._latest(asset).get(partition)
        made_of = self.record.provenance(asset, partition) if version else None
        if version is None:
            return Status(asset, partition, "missing", ("was never materialized",), not waiting)
        if made_of is None or made_of.output != version:
            return Status(asset, partition, "stale", ("its last run left no record of its inputs",), not waiting)
        reasons = list(self._changes(asset, partition, parents, made_of))
        if not self.record.home.store.has(version, ".json"):
            reasons.append("its value is gone from the store")
        if reasons:
            return Status(asset, partition, "stale", tuple(reasons), not waiting)
        if waiting:
            return Status(asset, partition, "stale", tuple(f"{one.name} above it is {one.state}" for one in waiting[:MAX_REASONS]), False)
        return Status(asset, partition, "fresh", (), False)

    def _changes(self, asset: str, partition: Partition, parents: list[tuple[str, Partition]], made_of: Provenance) -> Iterable[str]:
        if made_of.code != self.shape.code[asset]:
            yield f"code version {made_of.code} -> {self.shape.code[asset]}"
        if asset in ROOTS:
            yield from self._outside_changes(asset, partition, made_of)
        now = {label(*parent): self._current_version(*parent) for parent in parents}
        before = {name: version for name, version in made_of.inputs.items() if name != OBSERVED}
        lines = []
        for parent in parents:
            name = label(*parent)
            if name not in before:
                lines.append(f"{name} is new")
            elif now[name] is not None and now[name] != before[name]:
                lines.append(f"{name} changed{self._explain(parent, before[name])}")
        lines += [f"{name} is gone" for name in before if name not in now]
        yield from lines[:MAX_REASONS]
        if len(lines) > MAX_REASONS:
            yield f"and {len(lines) - MAX_REASONS} more inputs"

    def _outside_changes(self, asset: str, partition: Partition, made_of: Provenance) -> Iterable[str]:
        if self.observation.version(asset, partition) == made_of.inputs.get(OBSERVED):
            return
        if asset in SETTINGS_ROOTS or asset == "target_schema":
            old = self._stored(made_of.output)
            yield f"changed: {describe_change(old, self.observation.value(asset, partition))}"
        elif asset == "raw_documents":
            old = self._stored(made_of.output) or {"documents": []}
            before = {row["document"]: row["file"] for row in old["documents"]}
            now = {file.document: file.file for file in self.observation.files(str(partition))}
            refused = {row["file"] for row in old.get("refused", ())}
            added = sorted(now[digest] for digest in now.keys() - before.keys() if now[digest] not in refused)
            gone = sorted(before[digest] for digest in before.keys() - now.keys())
            yield from (f"document added: {name}" for name in added[:MAX_REASONS])
            yield from (f"document gone: {name}" for name in gone[:MAX_REASONS])
            if not added and not gone:
                yield "documents changed"
        else:
            yield {"document_labels": "labels in landing/ changed"}.get(asset, "its files changed")

    def _current_version(self, asset: str, partition: Partition) -> str | None:
        """Data version an input has now; of settings and schemas: will have once it has run (their value is known already)."""
        if asset in SETTINGS_ROOTS or asset == "target_schema":
            return self.observation.version(asset, partition)
        return self._latest(asset).get(partition)

    def _explain(self, parent: tuple[str, Partition], before: str) -> str:
        asset, partition = parent
        if asset not in SETTINGS_ROOTS and asset != "target_schema":
            return ""
        return f": {describe_change(self._stored(before), self.observation.value(asset, partition))}"

    def _stored(self, digest: str) -> Any:
        store: Store = self.record.home.store
        try:
            return store.read_json(digest)
        except InputError:  # the store was cleaned: the change is real, its words are lost
            return None

    def _latest(self, asset: str) -> dict[Partition, str]:
        if asset not in self._versions:
            self._versions[asset] = self.record.latest_versions(asset, asset in self.shape.partitioned)
        return self._versions[asset]


def describe_change(old: Any, new: Any) -> str:
    """The difference of two JSON values in a few words: `dpi 150 -> 200`."""
    lines = list(_differences(old, new, ""))
    more = f" and {len(lines) - MAX_REASONS} more" if len(lines) > MAX_REASONS else ""
    return ", ".join(lines[:MAX_REASONS]) + more or "content"


def _differences(old: Any, new: Any, path: str) -> Iterable[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            place = f"{path}.{key}" if path else str(key)
            if key not in new:
                yield f"{place} removed"
            elif key not in old:
                yield f"{place} added"
            else:
                yield from _differences(old[key], new[key], place)
    elif old != new:
        yield f"{path} {_short(old)} -> {_short(new)}" if path else f"{_short(old)} -> {_short(new)}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
