"""What would change: two sets of extractions of one catalogue, answer by answer.

An answer is the set of values that a product has for one attribute, letter case and stray spaces
ignored; the normalized form counts where there is one. Of the products that both sides hold, an
answer is kept, changed, gained (only the second side has one) or lost (only the first).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from pipelines.analysis.queries import live, long_form
from pipelines.checks import Check, at_least, at_most
from pipelines.evaluate.quality import Quality, measure_quality
from pipelines.lake.frames import collect

KINDS = ("kept", "changed", "gained", "lost")
SAMPLES = 60
_SEED = 11


@dataclass(frozen=True)
class GateLimits:
    """What a promotion must respect; None: no limit."""

    max_changed_share: float | None = None
    min_kept_share: float | None = None

    def __post_init__(self) -> None:
        for name, limit in vars(self).items():
            if limit is not None and not 0 <= limit <= 1:
                option = name.replace("_", "-")
                raise ValueError(f"found --{option} {limit}, expected a share of 0 to 1")


@dataclass(frozen=True)
class Answers:
    """One side: rows of an extractions table, under a name."""

    name: str
    extractions: pl.LazyFrame


@dataclass(frozen=True)
class Comparison:
    """The difference between two sides."""

    names: tuple[str, str]
    num_products: int
    """In both sides; answers of others are not compared."""
    num_only: tuple[int, int]
    num_equal: int
    """Products with the same answers throughout."""
    per_attribute: pl.DataFrame
    """`attribute, kept, changed, gained, lost, agreement`, most differences first."""
    changes: pl.DataFrame
    """`product_id, attribute, kind, before, after`: a fixed draw of differences."""
    quality: tuple[Quality | None, Quality | None] = (None, None)

    @property
    def totals(self) -> dict[str, int]:
        """Answers by kind."""
        return {kind: int(self.per_attribute[kind].sum()) for kind in KINDS}

    @property
    def changed_share(self) -> float:
        """Share of all answers of either side that are not the same in both."""
        totals = self.totals
        whole = sum(totals.values())
        return 1 - totals["kept"] / whole if whole else 0.0

    @property
    def kept_share(self) -> float:
        """Share of the first side's answers that the second gives too."""
        totals = self.totals
        whole = totals["kept"] + totals["changed"] + totals["lost"]
        return totals["kept"] / whole if whole else 1.0

    def gate(self, limits: GateLimits) -> list[Check]:
        """Return the verdict on every limit that is set."""
        checks = []
        if limits.max_changed_share is not None:
            checks.append(at_most("changed share", self.changed_share, limits.max_changed_share))
        if limits.min_kept_share is not None:
            checks.append(at_least("kept share", self.kept_share, limits.min_kept_share))
        return checks

    def to_dict(self) -> dict[str, Any]:
        """Return everything, for JSON."""
        return {
            "before": self.names[0],
            "after": self.names[1],
            "products": self.num_products,
            "products_only_before": self.num_only[0],
            "products_only_after": self.num_only[1],
            "products_equal": self.num_equal,
            "answers": self.totals,
            "changed_share": self.changed_share,
            "kept_share": self.kept_share,
            "quality": [None if found is None else found.total for found in self.quality],
            "per_attribute": self.per_attribute.to_dicts(),
            "changes": self.changes.to_dicts(),
        }


def compare(
    before: Answers,
    after: Answers,
    *,
    gold: pl.LazyFrame | None = None,
    attributes: Sequence[str] = (),
    num_samples: int = SAMPLES,
) -> Comparison:
    """Compare two sides; with gold (`product_id, category, gold`) also their quality."""
    sides = (before, after)
    ids = [live(side.extractions).select("product_id") for side in sides]
    shared = ids[0].join(ids[1], on="product_id", how="semi")
    num_products = _count(shared)
    if not num_products:
        raise ValueError(
            f"found no product that {before.name} and {after.name} share, expected one catalogue"
        )
    pairs = _pairs([_answers(side, shared, attributes) for side in sides])
    differing = pairs.filter(pl.col("kind") != "kept")
    return Comparison(
        names=(before.name, after.name),
        num_products=num_products,
        num_only=(_count(ids[0]) - num_products, _count(ids[1]) - num_products),
        num_equal=num_products - collect(differing.select(pl.col("product_id").n_unique())).item(),
        per_attribute=_per_attribute(pairs),
        changes=_samples(differing, num_samples),
        quality=_qualities(sides, shared, gold, attributes),
    )


def _count(ids: pl.LazyFrame) -> int:
    return int(collect(ids.select(pl.len())).item())


def _answers(side: Answers, shared: pl.LazyFrame, attributes: Sequence[str]) -> pl.LazyFrame:
    """Return `product_id, attribute, answer`: the sorted different values."""
    values = long_form(side.extractions, keep=("product_id",)).join(
        shared, on="product_id", how="semi"
    )
    if attributes:
        values = values.filter(pl.col("attribute").is_in(list(attributes)))
    folded = pl.col("normalized").str.to_lowercase().str.replace_all(r"\s+", " ")
    return values.group_by("product_id", "attribute").agg(
        answer=folded.str.strip_chars().unique().sort()
    )


def _pairs(answers: Sequence[pl.LazyFrame]) -> pl.LazyFrame:
    before, after = (
        frame.rename({"answer": name})
        for frame, name in zip(answers, ("before", "after"), strict=True)
    )
    kind = (
        pl.when(pl.col("before").is_null())
        .then(pl.lit("gained"))
        .when(pl.col("after").is_null())
        .then(pl.lit("lost"))
        .when(pl.col("before") == pl.col("after"))
        .then(pl.lit("kept"))
        .otherwise(pl.lit("changed"))
    )
    return before.join(after, on=["product_id", "attribute"], how="full", coalesce=True).select(
        "product_id", "attribute", "before", "after", kind=kind
    )


def _per_attribute(pairs: pl.LazyFrame) -> pl.DataFrame:
    counts = {kind: (pl.col("kind") == kind).sum().cast(pl.Int64) for kind in KINDS}
    return (
        collect(pairs.group_by("attribute").agg(**counts))
        .with_columns(agreement=pl.col("kept") / pl.sum_horizontal(*KINDS))
        .sort(pl.sum_horizontal(*KINDS[1:]), "attribute", descending=[True, False])
    )


def _samples(differing: pl.LazyFrame, limit: int) -> pl.DataFrame:
    """Return a fixed draw, so that the same comparison shows the same products."""
    order = pl.col("product_id").hash(_SEED)
    return collect(
        differing.with_columns(order=order)
        .sort("order", "product_id", "attribute")
        .head(limit)
        .select("product_id", "attribute", "kind", "before", "after")
    )


def _qualities(
    sides: tuple[Answers, Answers],
    shared: pl.LazyFrame,
    gold: pl.LazyFrame | None,
    attributes: Sequence[str],
) -> tuple[Quality | None, Quality | None]:
    if gold is None:
        return None, None
    if attributes:
        wanted = pl.element().struct.field("attribute").is_in(list(attributes))
        gold = gold.with_columns(pl.col("gold").list.eval(pl.element().filter(wanted)))
    gold = gold.join(shared, on="product_id", how="semi")
    found = []
    for side in sides:
        values = long_form(side.extractions, keep=("product_id",))
        if attributes:
            values = values.filter(pl.col("attribute").is_in(list(attributes)))
        found.append(measure_quality(side.extractions, values, gold))
    return found[0], found[1]
