"""Queries on extractions alone: lazy frame in, lazy frame out, sorted so that answers repeat.

An `extractions` frame has one row per product; a `values` frame (see `long_form`) one per value.
"""

import polars as pl

from pipelines.lake.errors import QueryError
from pipelines.lake.tables import VALUE_FIELDS
from pipelines.normalization.normalizer import Normalizer
from ulsdram_core.reasons import MEANINGS
from ulsdram_core.schema import Status

PROVENANCE = ("model_id", "run_id", "extracted_at")


def live(extractions: pl.LazyFrame) -> pl.LazyFrame:
    """Return the products that are still in the catalogue."""
    return extractions.filter(pl.col("status") != Status.VANISHED.value)


def long_form(
    extractions: pl.LazyFrame,
    *,
    normalizer: Normalizer | None = None,
    keep: tuple[str, ...] = ("product_id", "status", *PROVENANCE),
) -> pl.LazyFrame:
    """Return one row per value of the live products, with the product's `keep` columns.

    `normalized` is what the table holds, or else the raw value; with a normalizer it is made anew.
    """
    values = (
        live(extractions)
        .select(*keep, "values")
        .filter(pl.col("values").list.len() > 0)
        .explode("values")
        .select(*keep, *(pl.col("values").struct.field(name).alias(name) for name in VALUE_FIELDS))
    )
    if normalizer is None:
        return values.with_columns(pl.coalesce("normalized", "value").alias("normalized"))
    return values.with_columns(normalizer.expression().alias("normalized"))


def summary(extractions: pl.LazyFrame) -> pl.LazyFrame:
    """Return `status, products, values, values_per_product` of every status."""
    num_values = pl.col("values").list.len()
    return (
        extractions.group_by("status")
        .agg(
            products=pl.len().cast(pl.Int64),
            values=num_values.sum().cast(pl.Int64),
            values_per_product=num_values.fill_null(0).mean(),
        )
        .sort("status")
    )


def with_category(frame: pl.LazyFrame, categories: pl.LazyFrame | None) -> pl.LazyFrame:
    """Return the frame with its products' `category` (null: unknown), if categories are given."""
    if categories is None:
        return frame
    return frame.join(categories, on="product_id", how="left")


def join_totals(counts: pl.LazyFrame, totals: pl.LazyFrame, by: tuple[str, ...]) -> pl.LazyFrame:
    """Return counts with their group's `products`; with no group, with the one total."""
    if not by:
        return counts.join(totals, how="cross")
    return counts.join(totals, on=list(by), nulls_equal=True)


def attribute_products(
    extractions: pl.LazyFrame, categories: pl.LazyFrame | None = None
) -> pl.LazyFrame:
    """Return `attribute, filled, products`: live products with it, and all; by category if any.

    One pass: every product lists its attributes once, and null for being there at all.
    """
    by = () if categories is None else ("category",)
    attributes = pl.col("values").list.eval(pl.element().struct.field("attribute")).list.unique()
    listed = live(extractions).select(
        "product_id",
        attribute=pl.concat_list(pl.lit(None, dtype=pl.String), attributes.fill_null([])),
    )
    counts = (
        with_category(listed, categories)
        .select(*by, "attribute")
        .explode("attribute")
        .group_by("attribute", *by)
        .agg(filled=pl.len().cast(pl.Int64))
    )
    totals = counts.filter(pl.col("attribute").is_null()).select(*by, products="filled")
    return join_totals(counts.filter(pl.col("attribute").is_not_null()), totals, by)


def coverage(
    extractions: pl.LazyFrame,
    *,
    normalizer: Normalizer | None = None,
    categories: pl.LazyFrame | None = None,
) -> pl.LazyFrame:
    """Return how much of the catalogue has each attribute, per category if categories are given.

    `attribute, [category,] products, filled, coverage, values, distinct_values, mean_confidence`;
    `products` are all live ones, quarantined included. Pairs without any value are left out.
    """
    by = () if categories is None else ("category",)
    long = long_form(extractions, normalizer=normalizer, keep=("product_id",))
    values = (
        with_category(
            long.select("product_id", "attribute", "normalized", "confidence"), categories
        )
        .group_by("attribute", *by)
        .agg(
            values=pl.len().cast(pl.Int64),
            distinct_values=pl.col("normalized").n_unique().cast(pl.Int64),
            mean_confidence=pl.col("confidence").cast(pl.Float64).mean(),
        )
    )
    return (
        attribute_products(extractions, categories)
        .join(values, on=["attribute", *by], nulls_equal=True)
        .with_columns(coverage=pl.col("filled") / pl.col("products"))
        .select(
            "attribute", *by, "products", "filled", "coverage",
            "values", "distinct_values", "mean_confidence",
        )
        .sort("attribute", *by)
    )  # fmt: skip


def value_counts(values: pl.LazyFrame) -> pl.LazyFrame:
    """Return `attribute, normalized, count, mean_confidence, example`, which is a raw value."""
    return values.group_by("attribute", "normalized").agg(
        count=pl.len().cast(pl.Int64),
        mean_confidence=pl.col("confidence").cast(pl.Float64).mean(),
        example=pl.col("value").min(),
    )


def top_values(values: pl.LazyFrame, *, limit: int = 20) -> pl.LazyFrame:
    """Return the most frequent normalized values of each attribute, with their share of all."""
    share = pl.col("count") / pl.col("count").sum().over("attribute")
    return (
        value_counts(values)
        .with_columns(share=share)
        .sort("attribute", "count", "normalized", descending=[False, True, False])
        .with_columns(rank=pl.int_range(1, pl.len() + 1).over("attribute"))
        .filter(pl.col("rank") <= limit)
        .select("attribute", "rank", "normalized", "count", "share", "mean_confidence", "example")
    )


def histogram(values: pl.LazyFrame, *, bins: int = 10) -> pl.LazyFrame:
    """Return `attribute, bin_start, bin_end, count` of equal bins; 1.0 is in the last one."""
    if bins < 1:
        raise QueryError(f"found {bins} bins, expected at least 1")
    number = (pl.col("confidence").cast(pl.Float64) * bins).floor().clip(0, bins - 1)
    counts = (
        values.filter(pl.col("confidence").is_finite())
        .group_by("attribute", bin=number.cast(pl.Int64))
        .agg(count=pl.len().cast(pl.Int64))
    )
    grid = (
        counts.select("attribute")
        .unique()
        .join(pl.LazyFrame({"bin": pl.int_range(bins, eager=True)}), how="cross")
    )
    return (
        grid.join(counts, on=["attribute", "bin"], how="left")
        .sort("attribute", "bin")
        .select(
            "attribute",
            bin_start=pl.col("bin") / bins,
            bin_end=(pl.col("bin") + 1) / bins,
            count=pl.col("count").fill_null(0),
        )
    )


def low_confidence(
    values: pl.LazyFrame, *, threshold: float = 0.5, limit: int | None = 100
) -> pl.LazyFrame:
    """Return values below a confidence, the least certain first."""
    found = values.filter(pl.col("confidence") < threshold).sort(
        "confidence", "product_id", "attribute", "start", "source"
    )
    return found if limit is None else found.head(limit)


def _with_repeats(extractions: pl.LazyFrame) -> pl.LazyFrame:
    """Return products that name some attribute more than once: the few that can hold a conflict."""
    attributes = pl.col("values").list.eval(pl.element().struct.field("attribute"))
    return extractions.filter(attributes.list.n_unique() < pl.col("values").list.len())


def conflicts(
    extractions: pl.LazyFrame,
    *,
    normalizer: Normalizer | None = None,
    single_valued: tuple[str, ...] | None = None,
    max_multiple: float = 0.1,
) -> pl.LazyFrame:
    """Return products with several values of a single-valued attribute, closest call first.

    `product_id, attribute, num_values, values, confidence, margin`: `values` from the most to the
    least certain; `margin` between the best two. Unless named, an attribute counts as single-valued
    when at most `max_multiple` of the products that have it have several values.
    """
    values = long_form(_with_repeats(extractions), normalizer=normalizer, keep=("product_id",))
    if single_valued is not None:
        values = values.filter(pl.col("attribute").is_in(list(single_valued)))
    several = (
        values.group_by("product_id", "attribute", "normalized")
        .agg(confidence=pl.col("confidence").max())
        .sort("product_id", "attribute", "confidence", "normalized",
              descending=[False, False, True, False])
        .group_by("product_id", "attribute", maintain_order=True)
        .agg("normalized", "confidence")
        .filter(pl.col("normalized").list.len() > 1)
    )  # fmt: skip
    if single_valued is None:
        filled = attribute_products(extractions)
        multiple = several.group_by("attribute").agg(multiple=pl.len())
        rare = filled.join(multiple, on="attribute").filter(
            pl.col("multiple") <= max_multiple * pl.col("filled")
        )
        several = several.join(rare.select("attribute"), on="attribute", how="semi")
    best = pl.col("confidence").list.get(0)
    return several.select(
        "product_id",
        "attribute",
        num_values=pl.col("normalized").list.len().cast(pl.Int64),
        values=pl.col("normalized").list.join(" | "),
        confidence=best,
        margin=best - pl.col("confidence").list.get(1),
    ).sort("margin", "product_id", "attribute")


def reasons(extractions: pl.LazyFrame, quarantine: pl.LazyFrame) -> pl.LazyFrame:
    """Return what went wrong, from both tables: `kept_in, status, reason, entries, rows, meaning`.

    `rows` counts input rows; an entry whose file hides how many it held adds none.
    """
    by_reason = ("kept_in", "status", "reason")
    products = extractions.filter(pl.col("reason").is_not_null()).select(
        pl.lit("extractions").alias("kept_in"), "status", "reason", rows=pl.lit(1, pl.Int64)
    )
    rejected = quarantine.select(
        pl.lit("quarantine").alias("kept_in"),
        pl.lit(Status.QUARANTINED.value).alias("status"),
        "reason",
        rows=pl.col("num_rows"),
    )
    meanings = {reason.value: meaning for reason, meaning in MEANINGS.items()}
    return (
        pl.concat([products, rejected])
        .group_by(by_reason)
        .agg(entries=pl.len().cast(pl.Int64), rows=pl.col("rows").sum())
        .with_columns(
            meaning=pl.col("reason").replace_strict(meanings, default="", return_dtype=pl.String)
        )
        .sort("kept_in", "rows", "reason", "status", descending=[False, True, False, False])
    )
