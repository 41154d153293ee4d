"""What `dagster dev -w workspace.yaml` loads: the definitions of the home in EXTRACTION_HOME (default: data/)."""

from __future__ import annotations

from extraction_assets.definitions import build_definitions
from extraction_assets.home import Home

defs = build_definitions(Home.from_environment())
