"""Reviewers' decisions about values; they override a product's gold.

A corrections table has the columns `product_id, attribute, value, correct, right_value`, one
decision a row. `correct` is yes or no; a right value alone means no, and a row with neither is
skipped, so that a half-reviewed queue can be read. Later rows win.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import polars as pl

from pipelines.storage import Storage
from ulsdram_core.labels import match_texts
from ulsdram_core.schema import GoldSpan

COLUMNS = ("product_id", "attribute", "value", "correct", "right_value")
_ANSWERS = {
    **dict.fromkeys(("yes", "y", "true", "1"), True),
    **dict.fromkeys(("no", "n", "false", "0"), False),
}


@dataclass(frozen=True, slots=True)
class Correction:
    """One decision: `value` is right for `attribute`, or it is not and perhaps another one is."""

    attribute: str
    value: str
    is_correct: bool
    right_value: str | None = None

    @property
    def wanted(self) -> str | None:
        """The value that the product should have for this attribute, if the reviewer named one."""
        return self.value if self.is_correct else self.right_value


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

    by_product: Mapping[str, tuple[Correction, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(map(len, self.by_product.values()))

    def apply(
        self, product_id: str, texts: Mapping[str, str], gold: Iterable[GoldSpan]
    ) -> CorrectedGold:
        """`gold` of one product with its corrections; unchanged where there are none."""
        before = tuple(gold)
        corrections = self.by_product.get(product_id, ())
        spans, outside = list(before), []
        for correction in corrections:
            if not correction.is_correct:
                spans = [span for span in spans if not _is_about(correction, span)]
            wanted = correction.wanted
            if wanted is None or _has(spans, correction.attribute, wanted):
                continue
            found = match_texts(texts, [(correction.attribute, wanted)]).spans
            spans += [span for span in found if span not in spans]
            if not found:
                outside.append((correction.attribute, wanted))
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
    decisions: dict[str, dict[tuple[str, str], Correction]] = {}
    for number, row in enumerate(frame.select(COLUMNS).cast(pl.String).iter_rows(), start=1):
        product_id, correction = _decision(row, where=f"{name} row {number}")
        if correction is not None:
            own = decisions.setdefault(product_id, {})
            key = (correction.attribute, _folded(correction.value))
            own.pop(key, None)  # a repeated decision also takes its later place in the order
            own[key] = correction
    return Corrections({key: tuple(own.values()) for key, own in decisions.items()})


def _read_frame(place: Storage) -> pl.DataFrame:
    data = io.BytesIO(place.read_bytes())
    try:
        if place.name.endswith((".parquet", ".pq")):
            return pl.read_parquet(data)
        return pl.read_csv(data, infer_schema=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ValueError(f"cannot read corrections {place.uri}: {error}") from error


def _decision(row: tuple[str | None, ...], *, where: str) -> tuple[str, Correction | None]:
    product_id, attribute, value, answer, right = (cell.strip() if cell else "" for cell in row)
    if not answer and not right:
        return product_id, None
    is_correct = _ANSWERS.get(answer.lower()) if answer else False
    if is_correct is None:
        raise ValueError(f"{where} has correct={answer!r}, expected yes or no; correct the table")
    if not (product_id and attribute and value):
        raise ValueError(f"{where} lacks product_id, attribute or value; fill it or drop the row")
    if is_correct and right and _folded(right) != _folded(value):
        raise ValueError(
            f"{where} says {value!r} is correct and {right!r} is right; answer no or drop one"
        )
    return product_id, Correction(attribute, value, is_correct, right or None)


def _is_about(correction: Correction, span: GoldSpan) -> bool:
    return span.attribute == correction.attribute and _folded(span.value) == _folded(
        correction.value
    )


def _has(spans: Iterable[GoldSpan], attribute: str, value: str) -> bool:
    return any(
        span.attribute == attribute and _folded(span.value) == _folded(value) for span in spans
    )


def _folded(value: str) -> str:
    return " ".join(value.casefold().split())
