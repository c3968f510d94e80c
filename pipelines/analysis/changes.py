"""Queries over two states of a table: what is new, what drifted."""

import polars as pl

from pipelines.analysis.queries import attribute_products, value_counts


def new_values(before: pl.LazyFrame, after: pl.LazyFrame) -> pl.LazyFrame:
    """Return normalized values that no product had before, the most frequent first.

    Takes two `values` frames; gives `attribute, normalized, count, mean_confidence, example`.
    """
    pair = ["attribute", "normalized"]
    known = before.select(pair).unique()
    return (
        value_counts(after)
        .join(known, on=pair, how="anti")
        .sort("count", "attribute", "normalized", descending=[True, False, False])
    )


def drift(
    before: pl.LazyFrame,
    after: pl.LazyFrame,
    *,
    values_before: pl.LazyFrame,
    values_after: pl.LazyFrame,
) -> pl.LazyFrame:
    """Return coverage, confidence and mix of each attribute in two states, largest shift first.

    `value_shift` is the total variation distance between the shares of the normalized values:
    0 the same mix, 1 nothing in common; null when one state has no value of the attribute.
    """
    sides = [
        _state(before, values_before, suffix="before"),
        _state(after, values_after, suffix="after"),
    ]
    filled = ("filled_before", "filled_after", "coverage_before", "coverage_after")
    return (
        sides[0]
        .join(sides[1], on="attribute", how="full", coalesce=True)
        .with_columns(pl.col(filled).fill_null(0))
        .join(_value_shift(values_before, values_after), on="attribute", how="left")
        .with_columns(coverage_change=pl.col("coverage_after") - pl.col("coverage_before"))
        .select(
            "attribute", "filled_before", "filled_after",
            "coverage_before", "coverage_after", "coverage_change",
            "confidence_before", "confidence_after",
            "value_shift", "new_values", "lost_values",
        )
        .sort(pl.col("coverage_change").abs(), "attribute", descending=[True, False])
    )  # fmt: skip


def _state(extractions: pl.LazyFrame, values: pl.LazyFrame, *, suffix: str) -> pl.LazyFrame:
    confidence = values.group_by("attribute").agg(
        pl.col("confidence").cast(pl.Float64).mean().alias(f"confidence_{suffix}")
    )
    return (
        attribute_products(extractions)
        .join(confidence, on="attribute")
        .select(
            "attribute",
            pl.col("filled").alias(f"filled_{suffix}"),
            (pl.col("filled") / pl.col("products")).alias(f"coverage_{suffix}"),
            f"confidence_{suffix}",
        )
    )


def _value_shift(before: pl.LazyFrame, after: pl.LazyFrame) -> pl.LazyFrame:
    pair = ["attribute", "normalized"]
    counts = [
        values.group_by(pair).agg(pl.len().cast(pl.Int64).alias(side))
        for values, side in ((before, "before"), (after, "after"))
    ]
    both = (
        counts[0]
        .join(counts[1], on=pair, how="full", coalesce=True)
        .with_columns(pl.col("before", "after").fill_null(0))
    )
    old, new = pl.col("before"), pl.col("after")
    distance = (old / old.sum() - new / new.sum()).abs().sum() / 2
    return both.group_by("attribute").agg(
        value_shift=pl.when((old.sum() > 0) & (new.sum() > 0)).then(distance),
        new_values=(old == 0).sum().cast(pl.Int64),
        lost_values=(new == 0).sum().cast(pl.Int64),
    )
