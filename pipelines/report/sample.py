"""Which products of a table get a card: a fixed draw that shows what there is to see."""

import polars as pl

from pipelines.analysis.queries import live
from pipelines.lake.frames import collect
from ulsdram_core.schema import Status

UNSURE_SHARE = 0.25
TROUBLE_SHARE = 0.25
_SEED = 11


def sample_ids(extractions: pl.LazyFrame, limit: int) -> list[str]:
    """Return up to `limit` product ids: troubled ones, the least certain, and any others.

    The same table gives the same ids; each group leaves its unused places to the others.
    """
    lowest = pl.col("values").list.eval(pl.element().struct.field("confidence")).list.min()
    listed = live(extractions).select(
        "product_id",
        "status",
        lowest=lowest,
        order=pl.col("product_id").hash(_SEED),
    )
    troubled = listed.filter(pl.col("status") != Status.OK.value)
    unsure = listed.filter((pl.col("status") == Status.OK.value) & pl.col("lowest").is_not_null())
    groups = (
        _lowest(troubled, "order", round(limit * TROUBLE_SHARE)),
        _lowest(unsure, "lowest", round(limit * UNSURE_SHARE)),
        _lowest(listed.filter(pl.col("status") == Status.OK.value), "order", limit),
        _lowest(listed, "order", limit),
    )
    chosen = list(dict.fromkeys(product_id for group in groups for product_id in group))[:limit]
    order = collect(listed.filter(pl.col("product_id").is_in(chosen)).sort("order", "product_id"))
    return order["product_id"].to_list()


def _lowest(frame: pl.LazyFrame, column: str, count: int) -> list[str]:
    found = frame.sort(column, "product_id").head(count).select("product_id")
    return collect(found)["product_id"].to_list()
