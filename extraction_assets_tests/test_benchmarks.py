"""Benchmarks that nobody runs for weeks, since they want a machine that is seldom at hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize("sections", ["train", "answers"])
def test_every_path_of_the_gpu_figures_runs_on_a_cpu(sections: str) -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "gpu_8b.py"), "--tiny", "--only", sections], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "0 sections failed or left out" in done.stdout
