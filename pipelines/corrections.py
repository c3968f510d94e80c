"""Reviewers' decisions about values; they override a product's gold.

A corrections table has the columns `product_id, attribute, value, correct, right_value`, one
decision a row; a row without an answer is skipped, so that a half-reviewed queue can be read. Later
rows win.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import polars as pl

from pipelines.decisions import Decision, folded, parse_decision
from pipelines.storage import Storage
from ulsdram_core.labels import match_texts
from ulsdram_core.schema import GoldSpan

COLUMNS = ("product_id", "attribute", "value", "correct", "right_value")


@dataclass(frozen=True, slots=True)
class CorrectedGold:
    """A product's gold after its corrections; `outside` are wanted values its text lacks."""

    spans: tuple[GoldSpan, ...]
    num_applied: int = 0
    num_removed: int = 0
    num_added: int = 0
    outside: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Corrections:
    """All decisions by product id, each product's in table order."""

    by_product: Mapping[str, tuple[Decision, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(map(len, self.by_product.values()))

    def apply(
        self, product_id: str, texts: Mapping[str, str], gold: Iterable[GoldSpan]
    ) -> CorrectedGold:
        """`gold` of one product with its corrections; unchanged where there are none."""
        before = tuple(gold)
        corrections = self.by_product.get(product_id, ())
        spans, outside = list(before), []
        for decision in corrections:
            if not decision.is_correct:
                spans = [span for span in spans if not _is_about(decision, span)]
            wanted = decision.wanted
            if wanted is None or _has(spans, decision.attribute, wanted):
                continue
            found = match_texts(texts, [(decision.attribute, wanted)]).spans
            spans += [span for span in found if span not in spans]
            if not found:
                outside.append((decision.attribute, wanted))
        return CorrectedGold(
            spans=tuple(spans),
            num_applied=len(corrections),
            num_removed=len(set(before) - set(spans)),
            num_added=len(set(spans) - set(before)),
            outside=tuple(outside),
        )


def read_corrections(place: Storage) -> Corrections:
    """Read a corrections table (.parquet, else CSV with a header)."""
    if not place.exists() or place.is_folder():
        raise ValueError(f"found no corrections file at {place.uri}; name a .csv or .parquet file")
    return corrections_from_frame(_read_frame(place), name=place.name)


def corrections_from_frame(frame: pl.DataFrame, *, name: str = "corrections") -> Corrections:
    """Check and index the decisions; of equal (product, attribute, value) the last one counts."""
    frame = frame.rename({column: column.strip().replace(" ", "_") for column in frame.columns})
    missing = [column for column in COLUMNS[:-1] if column not in frame.columns]
    if missing:
        raise ValueError(
            f"{name} has columns {frame.columns}, expected {list(COLUMNS)}; "
            f"add {', '.join(missing)}"
        )
    if "right_value" not in frame.columns:
        frame = frame.with_columns(pl.lit(None, dtype=pl.String).alias("right_value"))
    decisions: dict[str, dict[tuple[str, str], Decision]] = {}
    for number, row in enumerate(frame.select(COLUMNS).cast(pl.String).iter_rows(), start=1):
        product_id, attribute, value, said, right = ((cell or "").strip() for cell in row)
        decision = parse_decision(
            (product_id, attribute, value), said=said, right=right, where=f"{name} row {number}"
        )
        if decision is not None:
            own = decisions.setdefault(product_id, {})
            key = (attribute, folded(value))
            own.pop(key, None)  # a repeated decision also takes its later place in the order
            own[key] = decision
    return Corrections({key: tuple(own.values()) for key, own in decisions.items()})


def _read_frame(place: Storage) -> pl.DataFrame:
    data = io.BytesIO(place.read_bytes())
    try:
        if place.name.endswith((".parquet", ".pq")):
            return pl.read_parquet(data)
        return pl.read_csv(data, infer_schema=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ValueError(f"cannot read corrections {place.uri}: {error}") from error


def _is_about(decision: Decision, span: GoldSpan) -> bool:
    return span.attribute == decision.attribute and folded(span.value) == folded(decision.value)


def _has(spans: Iterable[GoldSpan], attribute: str, value: str) -> bool:
    return any(
        span.attribute == attribute and folded(span.value) == folded(value) for span in spans
    )
