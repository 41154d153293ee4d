"""One run of one asset (partition): its inputs are pinned at the start, its output is stored, and both are recorded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg

from extraction_assets.documents.records import Refusal
from extraction_assets.errors import InputError
from extraction_assets.home import Home
from extraction_assets.progress import Progress, terminal_bar
from extraction_assets.record import PROCESS_TAG, Partition, Provenance, Record, Shape, label, process_identity
from extraction_assets.settings import Settings

OWNERS = ["team:document-operations"]
OBSERVED = "observed"
"""name, among a root's inputs, of what it saw outside the graph"""


MOST_WARNINGS = 10
"""lines about one kind of trouble in one run; the metadata tells of all"""


class HomeResource(dg.ConfigurableResource):
    """The home that a code location serves."""

    root: str

    def home(self) -> Home:
        return Home.open(Path(self.root))


class Materialization:
    """Open it first thing in an asset; end with finish()."""

    def __init__(self, context: dg.AssetExecutionContext, resource: HomeResource, observed: str | None = None) -> None:
        self.context = context
        # whoever finds this run in progress can see whether its process still lives (automation.update.end_abandoned_runs)
        context.instance.add_run_tags(context.run.run_id, {PROCESS_TAG: process_identity()})
        self.home = resource.home()
        self.store = self.home.store
        self.asset = context.asset_key.to_user_string()
        self.partition: Partition = context.partition_key if context.has_partition_key else None
        self.record = Record(context.instance, self.home)
        self._shape = Shape.of(context.job_def.asset_layer.asset_graph)
        self.inputs = self._pin()
        if observed is not None:
            self.inputs[OBSERVED] = observed

    @cached_property
    def settings(self) -> Settings:
        return self.home.settings()

    @property
    def type(self) -> str:
        """Document type of the partition."""
        return str(self.partition).split("/", 1)[0]

    def version(self, asset: str) -> str:
        """Data version of an input: this partition's, where the input is partitioned like this asset."""
        own = label(asset, self.partition)
        return self.inputs[own if own in self.inputs else asset]

    def read(self, asset: str) -> Any:
        """Stored JSON value of an input."""
        return self.store.read_json(self.version(asset))

    def read_partitions(self, asset: str) -> Iterator[tuple[str, Any]]:
        """(partition key, stored JSON value) of every partition of an input, in the order of the keys, one in memory at a time."""
        prefix = f"{asset}["
        for name, version in sorted(self.inputs.items()):
            if name.startswith(prefix):
                yield name[len(prefix) : -1], self.store.read_json(version)

    def progress(self, unit: str) -> Progress:
        """A bar on stderr for this run."""
        return terminal_bar(label(self.asset, self.partition), unit)

    def warn_left_out(self, refused: Sequence[Refusal], files: Mapping[str, str] | None = None) -> None:
        """Say which documents could not be taken: a run that succeeds without them is else silent. files: document -> its file."""
        for one in refused[:MOST_WARNINGS]:
            self.context.log.warning(f"{(files or {}).get(one.file, one.file)} is left out: {one.reason}: {one.detail}")
        if len(refused) > MOST_WARNINGS:
            self.context.log.warning(f"{label(self.asset, self.partition)}: and {len(refused) - MOST_WARNINGS} more are left out")

    def finish(
        self,
        value: Any,
        metadata: Mapping[str, Any] | None = None,
        checks: Sequence[dg.AssetCheckResult] = (),
    ) -> dg.MaterializeResult:
        """Store the JSON value; its digest is the data version."""
        return self.finish_stored(self.store.put_json(value), metadata, checks)

    def finish_stored(
        self,
        version: str,
        metadata: Mapping[str, Any] | None = None,
        checks: Sequence[dg.AssetCheckResult] = (),
    ) -> dg.MaterializeResult:
        """The value lies in the store already, under this digest."""
        self.record.write_provenance(
            self.asset,
            self.partition,
            Provenance(
                run=self.context.run.run_id, output=version, code=self._shape.code[self.asset], inputs=dict(sorted(self.inputs.items()))
            ),
        )
        return dg.MaterializeResult(
            data_version=dg.DataVersion(version), metadata={**(metadata or {}), "digest": version}, check_results=checks
        )

    def _pin(self) -> dict[str, str]:
        vendors = self.record.vendors()
        wanted = self._shape.inputs(self.asset, self.partition, vendors)
        only = [self.partition] if self.partition is not None else None
        versions = {name: self.record.latest_versions(name, name in self._shape.partitioned, only) for name in {name for name, _ in wanted}}
        pinned = {}
        for name, partition in wanted:
            version = versions[name].get(partition)
            if version is None:
                raise InputError(label(name, partition), "is not materialized yet", do=f"Materialize it before {self.asset}")
            pinned[label(name, partition)] = version
        return pinned
