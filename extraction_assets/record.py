"""What was made from what: Dagster's event log, and beside it the inputs of every latest materialization.

The data version of an asset is the digest of its output, and the output lies in the store under that digest: the event log
therefore is the one table of contents. Dagster can be asked for the latest data versions of 10,000 partitions in one query,
but not for what they were made of, so each run leaves a small provenance file (home/dagster/provenance/). It counts only while
it speaks of the data version that the event log holds; a killed run's file does not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.data_version import DATA_VERSION_TAG  # the tag's name is stable, its import path is not
from dagster._core.events import DagsterEventType
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from extraction_assets.home import Home
from extraction_assets.store import canonical_json, digest_bytes, write_atomically

VENDORS = "vendors"
"""name of the dynamic partitions: keys are type/vendor"""

PROCESS_TAG = "extraction/process"
"""on a run: process_identity() of the process that works on it"""

DECISION = "decision"
"""metadata of champion_adapter: its whole value"""
ATTENDED_TAG = "extraction/attended"
"""on an asset that never runs unattended; BY_NAME: nor in an `update` that does not name it"""
BY_NAME = "by_name"
ADOPTED_TAG = "extraction/adopted"
"""on a run of lora_adapter: name in the store of the adapter that it takes in place of training one"""
TOGETHER_TAG = "extraction/together"
"""assets with the same value are asked for together: half a dataset is none"""

Partition = str | None

_EVALUATED = {AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED}


@dataclass(frozen=True)
class Provenance:
    """What one materialization was made of."""

    run: str
    output: str
    """data version"""
    code: str
    inputs: Mapping[str, str]
    """name, or name[partition] -> data version; `observed`: digest of what a root saw outside"""


@dataclass(frozen=True)
class Shape:
    """The asset graph as names: what each asset depends on and which are partitioned by vendor."""

    parents: Mapping[str, tuple[str, ...]]
    """topological order"""
    partitioned: frozenset[str]
    code: Mapping[str, str]
    """code version"""
    blocking_checks: Mapping[str, tuple[str, ...]]
    """names of checks that must have passed before anything below may run"""
    together: Mapping[str, str]
    """asset -> value of its TOGETHER_TAG"""
    attended: Mapping[str, str]
    """asset -> value of its ATTENDED_TAG"""

    @classmethod
    def of(cls, graph: AssetGraph) -> Shape:
        # within a level the unpartitioned come first: a vendor's whole chain can then be run at once, with everything above it settled
        order = [
            key for level in graph.toposorted_asset_keys_by_level for key in sorted(level, key=lambda k: (graph.get(k).is_partitioned, k))
        ]
        nodes = {key.to_user_string(): graph.get(key) for key in order}
        return cls(
            parents={name: tuple(sorted(parent.to_user_string() for parent in node.parent_keys)) for name, node in nodes.items()},
            partitioned=frozenset(name for name, node in nodes.items() if node.is_partitioned),
            code={name: node.code_version or "" for name, node in nodes.items()},
            blocking_checks=_blocking_checks(graph),
            together={name: node.tags[TOGETHER_TAG] for name, node in nodes.items() if TOGETHER_TAG in node.tags},
            attended={name: node.tags[ATTENDED_TAG] for name, node in nodes.items() if ATTENDED_TAG in node.tags},
        )

    def inputs(self, asset: str, partition: Partition, vendors: Iterable[str]) -> list[tuple[str, Partition]]:
        """Every (asset, partition) that this one is made of: the same vendor's, or all vendors' for an unpartitioned asset."""
        found: list[tuple[str, Partition]] = []
        for parent in self.parents[asset]:
            if parent not in self.partitioned:
                found.append((parent, None))
            elif asset in self.partitioned:
                found.append((parent, partition))
            else:
                found.extend((parent, vendor) for vendor in sorted(vendors))
        return found

    def upstream_of(self, asset: str) -> set[str]:
        """The asset, those made together with it, and everything above them."""
        found = {asset} | {name for name, value in self.together.items() if value == self.together.get(asset)}
        for name in reversed(list(self.parents)):
            if name in found:
                found.update(self.parents[name])
        return found


def _blocking_checks(graph: AssetGraph) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for assets in graph.assets_defs:
        for spec in assets.check_specs:
            if spec.blocking:
                found.setdefault(spec.asset_key.to_user_string(), []).append(spec.name)
    return {name: tuple(sorted(checks)) for name, checks in found.items()}


def label(asset: str, partition: Partition) -> str:
    """How people and files name it: page_images[invoice/acme]."""
    return asset if partition is None else f"{asset}[{partition}]"


class Record:
    """Reads (and, for provenance, writes) the record of one home."""

    def __init__(self, instance: dg.DagsterInstance, home: Home) -> None:
        self.instance, self.home = instance, home

    def vendors(self) -> list[str]:
        return sorted(self.instance.get_dynamic_partitions(VENDORS))

    def latest_versions(self, asset: str, partitioned: bool, only: Sequence[str] | None = None) -> dict[Partition, str]:
        """Latest data version by partition (None for an unpartitioned asset); one query whatever the number of partitions."""
        key = dg.AssetKey.from_user_string(asset)
        if not partitioned:
            event = self.instance.get_latest_materialization_event(key)
            tags = (event.asset_materialization.tags or {}) if event and event.asset_materialization else {}
            return {None: tags[DATA_VERSION_TAG]} if DATA_VERSION_TAG in tags else {}
        by_partition = self.instance.event_log_storage.get_latest_tags_by_partition(
            key, DagsterEventType.ASSET_MATERIALIZATION, [DATA_VERSION_TAG], asset_partitions=only
        )
        return {partition: tags[DATA_VERSION_TAG] for partition, tags in by_partition.items()}

    def latest_value(self, asset: str, partition: Partition = None) -> Any | None:
        """The stored JSON value of the latest materialization, or None if there is none."""
        version = self.latest_versions(asset, partition is not None).get(partition)
        return None if version is None else self.home.store.read_json(version)

    def failed_checks(self, shape: Shape, asset: str) -> list[str]:
        """What the latest evaluations of an asset's blocking checks found wrong, one line a check.

        A run that failed or was killed before its checks leaves them planned: what counts is the evaluation before.
        """
        failed = []
        for check in shape.blocking_checks.get(asset, ()):
            key = dg.AssetCheckKey(dg.AssetKey.from_user_string(asset), check)
            for execution in self.instance.event_log_storage.get_asset_check_execution_history(key, limit=1, status=_EVALUATED):
                event = execution.event.dagster_event if execution.event else None
                if event is not None and not event.asset_check_evaluation_data.passed:
                    failed.append(event.asset_check_evaluation_data.description or f"the check {check} failed")
        return failed

    def provenance(self, asset: str, partition: Partition) -> Provenance | None:
        try:
            found = Provenance(**json.loads(self._provenance_path(asset, partition).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None
        return found if isinstance(found.inputs, dict) else None

    def write_provenance(self, asset: str, partition: Partition, provenance: Provenance) -> None:
        write_atomically(self._provenance_path(asset, partition), canonical_json(vars(provenance)).encode())

    def _provenance_path(self, asset: str, partition: Partition) -> Path:
        # vendor names may hold what a file name may not, or be too long with a suffix
        name = asset if partition is None else digest_bytes(partition.encode())[:32]
        return self.home.dagster / "provenance" / asset / f"{name}.json"


def process_identity() -> str:
    """pid and start time of this process: a pid alone comes round again."""
    return f"{os.getpid()}.{_start_time(os.getpid())}"


def is_alive(identity: str) -> bool:
    pid, _, started = identity.partition(".")
    return _start_time(int(pid)) == started


def _start_time(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]  # field 22 of proc(5): starttime
    except (OSError, IndexError):
        return "gone"
