"""How right stored values are where the products table has gold: counted by polars joins.

A value is right when gold has its attribute, source, start and end: TAG precision, recall and F1.
"""

from dataclasses import dataclass

import polars as pl

from pipelines.lake.frames import collect

_KEY = ("product_id", "attribute", "source", "start", "end")


@dataclass(frozen=True)
class Quality:
    """Figures of the products that are labelled and in the table.

    Every frame has `precision, recall, f1, correct, predicted, gold`.
    """

    num_products: int
    sources: tuple[str, ...]
    """Text columns whose gold counts: those that values come from."""
    total: dict[str, float]
    per_attribute: pl.DataFrame
    per_category: pl.DataFrame
    reliability: pl.DataFrame
    """`bin_start, bin_end, count, confidence, precision` of ten bins of confidence."""


def measure_quality(
    extractions: pl.LazyFrame, values: pl.LazyFrame, gold: pl.LazyFrame
) -> Quality | None:
    """Compare with gold; None when no labelled product is in the table."""
    known = extractions.filter(pl.col("status") != "vanished").select("product_id").unique()
    labelled = gold.join(known, on="product_id", how="semi")
    judged = collect(_judged(values, labelled))
    num_products = collect(labelled.select(pl.len())).item()
    if not num_products:
        return None
    sources = sorted(judged.filter(pl.col("predicted") == 1)["source"].unique()) or ["title"]
    judged = judged.filter(pl.col("source").is_in(sources))
    return Quality(
        num_products,
        tuple(sources),
        _figures(judged, ()).row(0, named=True),
        _figures(judged, ("attribute",)).sort("gold", "attribute", descending=[True, False]),
        _figures(judged, ("category",)).sort(
            "gold", "category", descending=[True, False], nulls_last=True
        ),
        _reliability(judged),
    )


def _judged(values: pl.LazyFrame, labelled: pl.LazyFrame) -> pl.LazyFrame:
    """Return predicted and gold spans: `predicted`, `gold` (0 or 1), `confidence`, category."""
    span = pl.col("gold").struct
    wanted = (
        labelled.select("product_id", "gold")
        .explode("gold")
        .filter(pl.col("gold").is_not_null())
        .select(
            "product_id",
            attribute=span.field("attribute"),
            source=span.field("source").fill_null("title"),
            start=span.field("start").cast(pl.Int32),
            end=span.field("end").cast(pl.Int32),
        )
        .drop_nulls()
        .unique()
        .with_columns(gold=pl.lit(1, pl.Int64))
    )
    predicted = (
        values.join(labelled.select("product_id"), on="product_id", how="semi")
        .group_by(_KEY)
        .agg(confidence=pl.col("confidence").max().cast(pl.Float64))
        .with_columns(predicted=pl.lit(1, pl.Int64))
    )
    return (
        predicted.join(wanted, on=_KEY, how="full", coalesce=True)
        .with_columns(pl.col("predicted", "gold").fill_null(0))
        .join(labelled.select("product_id", "category"), on="product_id", how="left")
        .select("attribute", "source", "category", "confidence", "predicted", "gold")
    )


def _figures(judged: pl.DataFrame, by: tuple[str, ...]) -> pl.DataFrame:
    correct = (pl.col("predicted") * pl.col("gold")).sum()
    sums = {
        "correct": correct,
        "predicted": pl.col("predicted").sum(),
        "gold": pl.col("gold").sum(),
    }
    counts = judged.group_by(by).agg(**sums) if by else judged.select(**sums)
    part = pl.col("correct")
    return counts.with_columns(
        precision=_ratio(part, pl.col("predicted")),
        recall=_ratio(part, pl.col("gold")),
        f1=_ratio(2 * part, pl.col("predicted") + pl.col("gold")),
    )


def _ratio(part: pl.Expr, whole: pl.Expr) -> pl.Expr:
    return pl.when(whole > 0).then(part / whole).otherwise(0.0)


def _reliability(judged: pl.DataFrame, *, bins: int = 10) -> pl.DataFrame:
    number = (pl.col("confidence") * bins).floor().clip(0, bins - 1).cast(pl.Int64)
    return (
        judged.filter((pl.col("predicted") == 1) & pl.col("confidence").is_finite())
        .group_by(bin=number)
        .agg(
            count=pl.len(), confidence=pl.col("confidence").mean(), precision=pl.col("gold").mean()
        )
        .sort("bin")
        .select(
            bin_start=pl.col("bin") / bins,
            bin_end=(pl.col("bin") + 1) / bins,
            count="count", confidence="confidence", precision="precision",
        )
    )  # fmt: skip
