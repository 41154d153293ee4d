"""What the record says of a home after runs that ended well, badly or not at all."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from extraction_assets.home import Home
from extraction_assets.record import Record, Shape


@pytest.mark.parametrize("passed", [True, False])
def test_a_run_that_ends_before_its_checks_leaves_the_evaluation_before(tmp_path: Path, passed: bool) -> None:
    breaks = True

    @dg.asset(check_specs=[dg.AssetCheckSpec("holds", asset="thing", blocking=True)])
    def thing() -> dg.MaterializeResult:
        if breaks:
            raise RuntimeError("before its checks")
        return dg.MaterializeResult(check_results=[dg.AssetCheckResult(check_name="holds", passed=passed, description="it does not hold")])

    definitions = dg.Definitions(assets=[thing])
    shape = Shape.of(definitions.resolve_asset_graph())
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        record = Record(instance, Home(tmp_path))

        def materialize() -> None:
            definitions.resolve_implicit_global_asset_job_def().execute_in_process(instance=instance, raise_on_error=False)

        materialize()
        assert record.failed_checks(shape, "thing") == []
        breaks = False
        materialize()
        evaluated = record.failed_checks(shape, "thing")
        assert evaluated == ([] if passed else ["it does not hold"])
        breaks = True
        materialize()
        assert record.failed_checks(shape, "thing") == evaluated
