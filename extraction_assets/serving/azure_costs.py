"""What a deployment would cost and take by SKU. Prices come from the user's settings with their day and source; none is built in."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from extraction_assets.serving.azure_specs import SKUS, needed_gib
from extraction_assets.settings import DeploymentSettings

HOURS_A_MONTH = 730
"""365 days / 12"""


@dataclass(frozen=True)
class SkuCost:
    sku: str
    gpu: str | None
    gib: float
    """memory of one GPU, or of the machine where it has none"""
    fits: bool
    """the weights, with room for activations"""
    requests_at_once: int
    """over all instances; Azure answers 429 above it: twice what the deployment says it works on at a time"""
    per_hour: float | None
    """one instance; None: settings name no price"""
    per_month: float | None
    """all instances"""
    rollout_per_hour: float | None
    """while the old and the new deployment both stand"""


@dataclass(frozen=True)
class CostSheet:
    instances: int
    needed_gib: float
    currency: str
    price_date: str | None
    price_source: str | None
    skus: tuple[SkuCost, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        source = (
            f"prices of {self.price_date}, {self.price_source}, in {self.currency}"
            if self.price_date
            else "no prices: name them in deployment.price_per_hour"
        )
        rows = [f"{self.instances} instance(s), {self.needed_gib:g} GiB needed; {source}"]
        for row in self.skus:
            price = (
                "no price" if row.per_month is None else f"{row.per_month:,.0f} a month, {row.rollout_per_hour:,.2f} an hour in a rollout"
            )
            rows.append(
                f"  {row.sku:<26} {row.gpu or 'CPU':<5} {row.gib:>3g} GiB  {'fits' if row.fits else 'too small':<9} {row.requests_at_once:>4} at once  {price}"
            )
        return rows


def cost_sheet(settings: DeploymentSettings, weight_bytes: int, concurrent: int) -> CostSheet:
    """weight_bytes: of the bundle; concurrent: max_concurrent_requests_per_instance of the deployment."""
    needed = needed_gib(weight_bytes)
    rows = []
    for name, sku in SKUS.items():
        price = settings.price_per_hour.get(name)
        month = None if price is None else round(price * settings.instances * HOURS_A_MONTH, 2)
        both = None if price is None else round(2 * price * settings.instances, 4)
        rows.append(SkuCost(name, sku.gpu, sku.gib, needed <= sku.gib, 2 * concurrent * settings.instances, price, month, both))
    return CostSheet(settings.instances, needed, settings.currency, settings.price_date, settings.price_source, tuple(rows))
