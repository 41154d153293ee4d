"""Stage 5: predictions, the eval report, and the champion."""

from __future__ import annotations

import dagster as dg

from extraction_assets.settings import AutomationSettings


def evaluation_assets(automation: AutomationSettings) -> list[dg.AssetsDefinition]:
    return []
