"""Queries that hold extracted values against the `specs` the catalogue already has."""

import polars as pl

from pipelines.analysis.queries import join_totals, live, long_form, with_category
from pipelines.normalization.normalizer import Normalizer

# Specs go through the join as one string per product: gathering nested columns is dear.
# Normalized text holds neither separator, both count as spaces.
_ITEM, _FIELD = "\u001e", "\u001f"
_GIVEN, _EXTRACTED, _BOTH, _PRODUCT = "g", "e", "b", "p"


def given_specs(specs: pl.LazyFrame) -> pl.LazyFrame:
    """Return specs stripped, `product_id, specs`: null where either was null or blank."""
    attribute = pl.element().struct.field("attribute").str.strip_chars()
    value = pl.element().struct.field("value").str.strip_chars()
    is_given = (attribute != "") & (value != "")  # null where either is null
    cleaned = pl.struct(
        attribute=pl.when(is_given).then(attribute), value=pl.when(is_given).then(value)
    )
    return specs.select("product_id", specs=pl.col("specs").list.eval(cleaned))


def fill_gain(
    extractions: pl.LazyFrame, specs: pl.LazyFrame, *, categories: pl.LazyFrame | None = None
) -> pl.LazyFrame:
    """Return what extraction adds to the fill rate of each attribute, the largest gain first.

    `attribute, products, in_specs, extracted, both, gained, fill_before, fill_after, gain`, and
    `category` after the attribute if categories are given; `gained` products have an extracted
    value where specs had none.
    """
    by = () if categories is None else ("category",)
    name = pl.element().struct.field("attribute")
    extracted = live(extractions).select(
        "product_id", extracted=pl.col("values").list.eval(name).list.unique()
    )
    given = given_specs(specs).select(
        "product_id", given=pl.col("specs").list.eval(name).list.drop_nulls().list.unique()
    )
    products = with_category(extracted.join(given, on="product_id", how="left"), categories)
    return _rates(_tagged_counts(products, by), by)


def _tagged_counts(products: pl.LazyFrame, by: tuple[str, ...]) -> pl.LazyFrame:
    """Return products per tag, attribute and group; in one pass, each lists what it counts for."""
    products = products.with_columns(pl.col("extracted", "given").fill_null([]))
    lists = {
        _GIVEN: pl.col("given"),
        _EXTRACTED: pl.col("extracted"),
        _BOTH: pl.col("extracted").list.set_intersection("given"),
    }
    tagged = [names.list.eval(pl.lit(tag) + pl.element()) for tag, names in lists.items()]
    return (
        products.select(*by, entry=pl.concat_list(pl.lit(_PRODUCT), *tagged))
        .explode("entry")
        .group_by("entry", *by)
        .agg(count=pl.len().cast(pl.Int64))
        .with_columns(tag=pl.col("entry").str.head(1), attribute=pl.col("entry").str.slice(1))
    )


def _rates(counts: pl.LazyFrame, by: tuple[str, ...]) -> pl.LazyFrame:
    numbers = {"in_specs": _GIVEN, "extracted": _EXTRACTED, "both": _BOTH}
    totals = counts.filter(pl.col("tag") == _PRODUCT).select(*by, products="count")
    attributes = (
        counts.filter(pl.col("tag") != _PRODUCT)
        .group_by("attribute", *by)
        .agg(
            pl.col("count").filter(pl.col("tag") == tag).sum().alias(name)
            for name, tag in numbers.items()
        )
    )
    gained = pl.col("extracted") - pl.col("both")
    return (
        join_totals(attributes, totals, by)
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
    """Return values that differ from all that specs give for the attribute, most certain first.

    `product_id, attribute, value, normalized, confidence, spec_values`. Both sides are
    normalized anew, by the same rules.
    """
    attribute, value = pl.col("attribute"), pl.col("normalized")
    rows = (
        long_form(extractions, keep=("product_id",))
        .select("product_id", "attribute", "value", "confidence", "start")
        .join(_keyed_specs(specs, normalizer), on="product_id")
        .filter(pl.col("keys").str.contains(_ITEM + attribute + _FIELD, literal=True))
        .with_columns(normalized=normalizer.expression())
        .filter(
            ~pl.col("keys").str.contains(_ITEM + attribute + _FIELD + value + _ITEM, literal=True)
        )
        .select("product_id", "attribute", "value", "normalized", "confidence", "start", "given")
        .sort(
            "confidence", "product_id", "attribute", "start", descending=[True, False, False, False]
        )
    )
    rows = rows if limit is None else rows.head(limit)
    return rows.drop("start").with_columns(spec_values=_values_given()).drop("given")


def _keyed_specs(specs: pl.LazyFrame, normalizer: Normalizer) -> pl.LazyFrame:
    """Return products with specs as strings: normalized pairs in separators, pairs as given."""

    def fill(column: pl.Series) -> pl.Series:
        return pl.Series(normalizer.fill(column.to_arrow()))

    element = pl.element().struct
    kind = pl.List(pl.Struct(dict.fromkeys(("attribute", "value", "normalized"), pl.String)))
    shaped = pl.col("specs").list.eval(
        pl.struct(
            attribute=element.field("attribute"),
            value=element.field("value"),
            normalized=pl.lit(None, dtype=pl.String),
        )
    )

    def pairs(field: str) -> pl.Expr:
        pair = pl.concat_str(element.field("attribute"), element.field(field), separator=_FIELD)
        return pl.col("specs").list.eval(pair).list.drop_nulls().list.join(_ITEM)

    return (
        given_specs(specs)
        .with_columns(specs=shaped.map_batches(fill, return_dtype=kind, is_elementwise=True))
        .select("product_id", keys=pairs("normalized"), given=pairs("value"))
        .filter(pl.col("keys") != "")
        .with_columns(keys=_ITEM + pl.col("keys") + _ITEM)
    )


def _values_given() -> pl.Expr:
    """Return what the specs give for the row's attribute, joined."""

    def join(rows: pl.Series) -> pl.Series:
        columns = (rows.struct.field(name).to_list() for name in ("attribute", "given"))
        given = [
            " | ".join(
                pair[len(attribute) + 1 :]
                for pair in pairs.split(_ITEM)
                if pair.startswith(attribute + _FIELD)
            )
            for attribute, pairs in zip(*columns, strict=True)
        ]
        return pl.Series(given, dtype=pl.String)

    return pl.struct("attribute", "given").map_batches(
        join, return_dtype=pl.String, is_elementwise=True
    )
