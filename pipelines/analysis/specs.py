"""Queries that hold extracted values against the `specs` the catalogue already has."""

import polars as pl

from pipelines.analysis.queries import VALUE_FIELDS, live
from pipelines.normalize import Normalizer

_SEPARATOR = "\u001f"


def given_specs(specs: pl.LazyFrame) -> pl.LazyFrame:
    """Specs without nulls and blanks: `product_id, specs`."""
    attribute = pl.element().struct.field("attribute").str.strip_chars()
    value = pl.element().struct.field("value").str.strip_chars()
    cleaned = pl.col("specs").list.eval(
        pl.struct(attribute=attribute, value=value).filter(
            attribute.is_not_null() & (attribute != "") & value.is_not_null() & (value != "")
        )
    )
    return specs.select("product_id", specs=cleaned)


def fill_gain(
    extractions: pl.LazyFrame, specs: pl.LazyFrame, *, by: tuple[str, ...] = ()
) -> pl.LazyFrame:
    """What extraction adds to the fill rate of each attribute, the largest gain first.

    `attribute, *by, products, in_specs, extracted, both, gained, fill_before, fill_after, gain`;
    `gained` products have an extracted value where specs had none.
    """
    extracted = pl.col("values").list.eval(pl.element().struct.field("attribute")).list.unique()
    named = pl.col("specs").list.eval(pl.element().struct.field("attribute")).list.unique()
    products = (
        live(extractions)
        .join(given_specs(specs), on="product_id", how="left")
        .select(
            *by,
            extracted=extracted.fill_null([]),
            in_specs=named.fill_null([]),
        )
    )
    both = pl.col("extracted").list.set_intersection("in_specs")
    counts = [
        _count(products.select(*by, attribute=attributes), name=name, by=by)
        for name, attributes in (
            ("in_specs", pl.col("in_specs")),
            ("extracted", pl.col("extracted")),
            ("both", both),
        )
    ]
    on = ["attribute", *by]
    merged = counts[0].join(counts[1], on=on, how="full", coalesce=True, nulls_equal=True)
    merged = merged.join(counts[2], on=on, how="left", nulls_equal=True)
    totals = (
        products.group_by(by).agg(products=pl.len()) if by else products.select(products=pl.len())
    )
    merged = (
        merged.join(totals, on=list(by), nulls_equal=True)
        if by
        else merged.join(totals, how="cross")
    )
    return _rates(merged, by=by)


def _count(frame: pl.LazyFrame, *, name: str, by: tuple[str, ...]) -> pl.LazyFrame:
    return (
        frame.filter(pl.col("attribute").list.len() > 0)
        .explode("attribute")
        .group_by("attribute", *by)
        .agg(pl.len().cast(pl.Int64).alias(name))
    )


def _rates(counts: pl.LazyFrame, *, by: tuple[str, ...]) -> pl.LazyFrame:
    numbers = ("in_specs", "extracted", "both")
    gained = pl.col("extracted") - pl.col("both")
    return (
        counts.with_columns(pl.col(numbers).fill_null(0), pl.col("products").cast(pl.Int64))
        .with_columns(gained=gained)
        .with_columns(
            fill_before=pl.col("in_specs") / pl.col("products"),
            fill_after=(pl.col("in_specs") + pl.col("gained")) / pl.col("products"),
            gain=pl.col("gained") / pl.col("products"),
        )
        .select(
            "attribute", *by, "products", *numbers, "gained", "fill_before", "fill_after", "gain"
        )
        .sort("gain", "attribute", *by, descending=[True, False, *(False for _ in by)])
    )


def spec_conflicts(
    extractions: pl.LazyFrame,
    specs: pl.LazyFrame,
    *,
    normalizer: Normalizer,
    limit: int | None = None,
) -> pl.LazyFrame:
    """Values that differ from every value that specs give for the attribute, most certain first.

    `product_id, attribute, value, normalized, confidence, spec_values`. Both sides are
    normalized anew, by the same rules.
    """
    rows = (
        live(extractions)
        .select("product_id", "values")
        .filter(pl.col("values").list.len() > 0)
        .join(_keyed_specs(specs, normalizer), on="product_id")
        .explode("values")
        .select(
            "product_id",
            *(pl.col("values").struct.field(name).alias(name) for name in VALUE_FIELDS),
            "specs",
            "named",
            "keys",
        )
        .filter(pl.col("named").list.contains(pl.col("attribute")))
    )
    rows = (
        rows.with_columns(normalized=normalizer.expression())
        .filter(~pl.col("keys").list.contains(_key(pl.col("attribute"), pl.col("normalized"))))
        .select("product_id", "attribute", "value", "normalized", "confidence", "start", "specs")
        .sort(
            "confidence", "product_id", "attribute", "start", descending=[True, False, False, False]
        )
    )
    rows = rows if limit is None else rows.head(limit)
    return rows.drop("start").with_columns(spec_values=_values_given()).drop("specs")


def _key(attribute: pl.Expr, normalized: pl.Expr) -> pl.Expr:
    return pl.concat_str(attribute, normalized, separator=_SEPARATOR)


def _keyed_specs(specs: pl.LazyFrame, normalizer: Normalizer) -> pl.LazyFrame:
    """Products with specs: the attributes `named`, one key per (attribute, normalized value)."""

    def fill(column: pl.Series) -> pl.Series:
        return pl.Series(normalizer.fill(column.to_arrow()))

    element = pl.element().struct
    shaped = pl.struct(
        attribute=element.field("attribute"),
        value=element.field("value"),
        normalized=pl.lit(None, dtype=pl.String),
    )
    kind = pl.List(pl.Struct(dict.fromkeys(("attribute", "value", "normalized"), pl.String)))
    return (
        given_specs(specs)
        .filter(pl.col("specs").list.len() > 0)
        .with_columns(
            pl.col("specs")
            .list.eval(shaped)
            .map_batches(fill, return_dtype=kind, is_elementwise=True)
        )
        .with_columns(
            named=pl.col("specs").list.eval(element.field("attribute")),
            keys=pl.col("specs").list.eval(
                _key(element.field("attribute"), element.field("normalized"))
            ),
        )
    )


def _values_given() -> pl.Expr:
    """What `specs` give for the row's attribute, joined."""

    def join(rows: pl.Series) -> pl.Series:
        pairs = zip(
            rows.struct.field("attribute").to_list(),
            rows.struct.field("specs").to_list(),
            strict=True,
        )
        given = [
            " | ".join(spec["value"] for spec in specs if spec["attribute"] == attribute)
            for attribute, specs in pairs
        ]
        return pl.Series(given, dtype=pl.String)

    return pl.struct("attribute", "specs").map_batches(
        join, return_dtype=pl.String, is_elementwise=True
    )
