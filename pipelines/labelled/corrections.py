"""Reviewers' decisions about values; they override a product's gold.

A corrections table has the columns `product_id, attribute, value, correct, right_value`, one
decision a row; a row without an answer is skipped, so that a half-reviewed queue can be read. A row
with a right value and no value adds that value. Later rows win.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from pipelines.labelled.decisions import Decision, folded, parse_decision
from pipelines.lake.storage import Storage
from ulsdram_core.labels import match_texts
from ulsdram_core.schema import GoldSpan

FIRST_IDS = 5
COLUMNS = ("product_id", "attribute", "value", "correct", "right_value")


@dataclass(frozen=True, slots=True)
class CorrectedGold:
    """A product's gold after its corrections; `outside` are wanted values its text lacks.

    `num_applied` counts the corrections that changed the gold.
    """

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
        """Return `gold` of one product with its corrections; unchanged where there are none."""
        before = tuple(gold)
        corrections = self.by_product.get(product_id, ())
        spans, outside, num_applied = list(before), [], 0
        for decision in corrections:
            known = list(spans)
            if not decision.is_correct:
                spans = [span for span in spans if not _is_about(decision, span)]
            wanted = decision.wanted
            if wanted is not None and not _has(spans, decision.attribute, wanted):
                found = match_texts(texts, [(decision.attribute, wanted)]).spans
                spans += [span for span in found if span not in spans]
                if not found:
                    outside.append((decision.attribute, wanted))
            num_applied += spans != known
        return CorrectedGold(
            spans=tuple(spans),
            num_applied=num_applied,
            num_removed=len(set(before) - set(spans)),
            num_added=len(set(spans) - set(before)),
            outside=tuple(outside),
        )


@dataclass(slots=True)
class CorrectionTally:
    """What became of corrections; fill it with every product that they might be about."""

    corrections: Corrections
    _seen: set[str] = field(default_factory=set)
    _num_applied: int = 0
    _num_outside: int = 0

    def add(self, product_id: str, texts: Mapping[str, str], gold: Iterable[GoldSpan]) -> None:
        """Count one product, given as it was before its corrections."""
        found = self.corrections.apply(product_id, texts, gold)
        self._seen.add(product_id)
        self._num_applied += found.num_applied
        self._num_outside += len(found.outside)

    def compute(self) -> dict[str, Any]:
        """Return corrections given, of products that are there or not, that changed gold or not."""
        by_product = self.corrections.by_product
        unmatched = [product_id for product_id in by_product if product_id not in self._seen]
        num_unmatched = sum(len(by_product[product_id]) for product_id in unmatched)
        return {
            "given": len(self.corrections),
            "matched": len(self.corrections) - num_unmatched,
            "unmatched": num_unmatched,
            "unmatched_ids": unmatched[:FIRST_IDS],
            "applied": self._num_applied,
            "outside_text": self._num_outside,
        }


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
    for number, row in enumerate(_texts(frame, name).iter_rows(), start=1):
        product_id, attribute, value, said, right = ((cell or "").strip() for cell in row)
        decision = parse_decision(
            (product_id, attribute, value), said=said, right=right, where=f"{name} row {number}"
        )
        if decision is not None:
            own = decisions.setdefault(product_id, {})
            key = (attribute, folded(decision.value))
            own.pop(key, None)  # a repeated decision also takes its later place in the order
            own[key] = decision
    return Corrections({key: tuple(own.values()) for key, own in decisions.items()})


def _texts(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    """Return the known columns as strings; lists and other nested values have no one spelling."""
    frame = frame.select(COLUMNS)
    for column, kind in frame.schema.items():
        if kind.is_nested() or kind == pl.Binary:
            raise ValueError(f"{name}: column {column!r} is {kind}, expected string")
    return frame.cast(pl.String)


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
