"""What a night would cost before it is run."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pipelines.nightly.plan.plan import Plan


class EstimateConfig(BaseModel):
    """What turns rows into time and money."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    products_per_second: float = Field(
        50.0, gt=0, description="Assumed until a run of this table has measured it."
    )
    start_seconds: float = Field(60.0, ge=0, description="Start of the cluster and of the models.")
    cost_per_hour: float = Field(0.0, ge=0, description="Price of the cluster, in any currency.")


def estimate(plan: Plan, last: Mapping[str, Any] | None, config: EstimateConfig) -> dict[str, Any]:
    """Rows, bytes, seconds and cost of running the plan."""
    counts = plan.counts
    rows = counts.extract - counts.staged
    measured = float((last or {}).get("products_per_second") or 0.0)
    rate = measured or config.products_per_second
    seconds = config.start_seconds + rows / rate if rows else 0.0
    return {
        "rows_to_extract": rows,
        "bytes_to_read": counts.bytes_to_read,
        "estimated_seconds": round(seconds, 1),
        "estimated_cost": round(seconds / 3600 * config.cost_per_hour, 4),
        "assumed_products_per_second": round(rate, 3),
        "is_rate_measured": bool(measured),
    }
