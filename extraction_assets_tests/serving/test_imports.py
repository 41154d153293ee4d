"""Who watches a server, or plans and describes one, loads no model library: torch and transformers are eight seconds of a core and 0.7 GB."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["serving.supervisor", "serving.rollout", "serving.openapi", "serving.client", "commands"])
def test_it_needs_no_model_library(module: str) -> None:
    program = f"import sys, extraction_assets.{module}; print(sorted({{'torch', 'transformers', 'peft'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout == "[]\n"
