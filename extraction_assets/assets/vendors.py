"""The partition: a vendor within its document type, added as folders land. Keys are type/vendor."""

from __future__ import annotations

import dagster as dg

from extraction_assets.record import VENDORS

vendors_partitions = dg.DynamicPartitionsDefinition(name=VENDORS)
