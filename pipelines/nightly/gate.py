"""The one decision before publishing: is what the run made fit to replace what readers see?"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field

from pipelines.checks import FAILED, NOT_JUDGED, PASSED, Check, at_most
from pipelines.nightly.plan.plan import PlanCounts
from ulsdram_core.schema import Status

_UNLIKELY = 0.001


class GateConfig(BaseModel):
    """Limits of a healthy night."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_rows: int = Field(500, ge=1, description="Fewest rows on which a rate means something.")
    min_compared_rows: int = Field(
        50, ge=1, description="Fewest rows whose totals are compared with those of the last run."
    )
    max_quarantine_rate: float = Field(
        0.05, ge=0, le=1, description="Rows quarantined of all rows that came in or were extracted."
    )
    max_degraded_rate: float = Field(
        1.0, ge=0, le=1, description="Rows extracted without a usable picture, of those extracted."
    )
    max_degraded_jump: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Rise of degraded rows by input rows since the last run: 0.1 is 10 points.",
    )
    max_null_rate: float = Field(
        0.98, ge=0, le=1, description="Extracted rows without a single value."
    )
    max_values_drop: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of its values per product that a run may lose against the last; a run "
        "without a single value is judged whatever its size. 1: no limit.",
    )
    max_row_change: float = Field(
        0.5, ge=0, description="Relative change of the number of input rows since the last night."
    )
    max_vanished_rate: float = Field(
        0.05, ge=0, le=1, description="Products newly marked vanished, of those the table shows."
    )
    free_vanished: int = Field(
        2, ge=0, description="Products that may vanish from a table however small it is, not all."
    )
    allow_vanished: bool = Field(False, description="Any share of the products may vanish.")
    allow_empty: bool = Field(False, description="The input may be empty: all products vanish.")
    max_unreadable_files: int = Field(
        0, ge=0, description="Input files that could not be read; they are tried again every night."
    )
    max_attribute_drift: float = Field(
        0.5,
        ge=0,
        description="Relative change of an attribute's values per row since a run with "
        "enough rows.",
    )
    min_attribute_rate: float = Field(
        0.02, ge=0, description="Values per row below which an attribute is too rare to judge."
    )


# What `RunStatistics` looks at.
COUNTED = ("status", "reason", "values", "range")


@dataclass(slots=True)
class RunStatistics:
    """Counts over the rows that the run will publish."""

    rows: int = 0
    empty: int = 0  # neither quarantined nor with a value
    status: dict[str, int] = field(default_factory=dict)
    reason: dict[str, int] = field(default_factory=dict)
    values: dict[str, int] = field(default_factory=dict)  # by attribute
    bad_scores: int = 0  # confidences and scores that are no number from 0 to 1

    def add(self, rows: pa.Table) -> None:
        """Count rows of the extractions table."""
        self.rows += rows.num_rows
        _add_counts(self.status, rows["status"])
        _add_counts(self.reason, pc.drop_null(rows["reason"]))
        lists = rows["values"].combine_chunks()
        flat = lists.flatten()
        if len(flat):
            _add_counts(self.values, pc.struct_field(flat, "attribute"))
            self.bad_scores += _count_bad(pc.struct_field(flat, "confidence"))
        scores = rows["range"].combine_chunks().flatten()
        self.bad_scores += _count_bad(pc.struct_field(scores, "score"))
        is_empty = pc.equal(pc.list_value_length(lists), 0)
        is_judged = pc.not_equal(rows["status"], Status.QUARANTINED.value)
        self.empty += pc.sum(pc.and_(is_empty, is_judged)).as_py() or 0

    def merge(self, other: "RunStatistics") -> None:
        """Add the counts of other rows."""
        self.rows += other.rows
        self.empty += other.empty
        self.bad_scores += other.bad_scores
        for mine, theirs in (
            (self.status, other.status),
            (self.reason, other.reason),
            (self.values, other.values),
        ):
            for name, count in theirs.items():
                mine[name] = mine.get(name, 0) + count

    @property
    def quarantined(self) -> int:
        """Rows with status quarantined."""
        return self.status.get(Status.QUARANTINED.value, 0)

    @property
    def usable(self) -> int:
        """Rows that were not quarantined."""
        return self.rows - self.quarantined

    def attribute_rates(self) -> dict[str, float]:
        """Return values per row that was not quarantined."""
        judged = max(1, self.usable)
        return {name: count / judged for name, count in sorted(self.values.items())}


def run_gate(
    counts: PlanCounts,
    statistics: RunStatistics,
    last: Mapping[str, Any] | None,
    config: GateConfig,
    *,
    shown: int = 0,
) -> list[Check]:
    """Return all checks; `last` is the summary of the last published run (None: there is none).

    `shown` is the number of products that the table shows, vanished ones aside; `counts.vanished`
    of them are about to vanish.
    """
    return [
        _accounting(counts, statistics),
        at_most("unreadable_files", counts.unreadable_files, config.max_unreadable_files),
        at_most("bad_confidences", statistics.bad_scores, 0),
        _empty_input(counts, shown, config),
        _vanished(counts, shown, config),
        *_rates(counts, statistics, config),
        _degraded_jump(counts, statistics, last, config),
        _values_drop(counts, statistics, last, config),
        _row_change(counts, last, config),
        *_drift(statistics, last, config),
    ]


def _accounting(counts: PlanCounts, statistics: RunStatistics) -> Check:
    quarantined = counts.keyless + counts.duplicates + counts.unreadable + counts.bad_lines
    known = statistics.rows + counts.unchanged + counts.deferred + quarantined
    missing = counts.rows_in - known
    return Check("rows_unaccounted", missing, 0, PASSED if missing == 0 else FAILED)


def _empty_input(counts: PlanCounts, shown: int, config: GateConfig) -> Check:
    """Return an input without a row, over a table that shows products, is a broken export."""
    is_empty = counts.rows_in == 0 and shown > 0
    note = f"no row for {shown} products of the table; --allow-empty if they are gone"
    limit = 1 if config.allow_empty else 0
    return at_most("empty_input", int(is_empty), limit, note if is_empty else "")


def _vanished(counts: PlanCounts, shown: int, config: GateConfig) -> Check:
    rate = counts.vanished / max(1, shown)
    is_empty = counts.rows_in == 0  # judged by `_empty_input`
    limit = 1.0 if is_empty or config.allow_vanished else config.max_vanished_rate
    note = f"{counts.vanished} of {shown} products vanish" if counts.vanished else ""
    if counts.vanished <= config.free_vanished and rate < 1:
        return Check("vanished_rate", rate, max(limit, rate), PASSED, note)
    return at_most("vanished_rate", rate, limit, f"{note}; --allow-vanished if they are gone")


def _rates(counts: PlanCounts, statistics: RunStatistics, config: GateConfig) -> list[Check]:
    entries = counts.keyless + counts.duplicates + counts.unreadable + counts.bad_lines
    bad, rows = statistics.quarantined + entries, statistics.rows + entries
    degraded = statistics.status.get(Status.DEGRADED.value, 0)
    usable = statistics.usable
    return [
        _rate("quarantine_rate", bad, rows, config.max_quarantine_rate, config),
        _rate("degraded_rate", degraded, usable, config.max_degraded_rate, config),
        _rate("null_rate", statistics.empty, usable, config.max_null_rate, config),
    ]


def _rate(name: str, found: int, rows: int, limit: float, config: GateConfig) -> Check:
    rate = found / max(1, rows)
    if rows < config.min_rows:
        return Check(name, rate, limit, NOT_JUDGED, f"{rows} rows are too few")
    return at_most(name, rate, limit)


def _degraded_jump(
    counts: PlanCounts,
    statistics: RunStatistics,
    last: Mapping[str, Any] | None,
    config: GateConfig,
) -> Check:
    """Return degraded rows of all input rows: a night of few rows, all tried again, is no jump."""
    name, limit = "degraded_jump", config.max_degraded_jump
    if last is None or last.get("degraded_rate") is None:
        return Check(name, 0.0, limit, NOT_JUDGED, "no run before")
    before = float(last["degraded_rate"])
    now = statistics.status.get(Status.DEGRADED.value, 0) / max(1, counts.rows_in)
    if counts.rows_in < config.min_compared_rows:
        return Check(name, now - before, limit, NOT_JUDGED, f"{counts.rows_in} rows are too few")
    return at_most(name, now - before, limit, f"{before:.3f} -> {now:.3f} of the input rows")


def _values_drop(
    counts: PlanCounts,
    statistics: RunStatistics,
    last: Mapping[str, Any] | None,
    config: GateConfig,
) -> Check:
    """Compare values per product with the last run; one without any is judged whatever its size."""
    name, limit = "values_drop", config.max_values_drop
    rows, now = statistics.usable, sum(statistics.attribute_rates().values())
    before = sum((last or {}).get("attribute_rates", {}).values())
    is_most = 2 * rows >= counts.rows_in
    drop = max(0.0, 1 - now / before) if before else float(now == 0 and rows > 0)
    note = f"{before:.3f} -> {now:.3f} values per product" if before else f"{now:.3f} per product"
    is_dead = now == 0 and rows > 0 and ((before > 0 and is_most) or _is_no_chance(rows, last))
    if is_dead or (before and is_most and rows >= config.min_compared_rows):
        return at_most(name, drop, limit, note)
    return Check(name, drop, limit, NOT_JUDGED, f"{note}; {rows} of {counts.rows_in} rows")


def _is_no_chance(rows: int, last: Mapping[str, Any] | None) -> bool:
    """Return whether so many rows are not all without values by chance."""
    usual = max(0.5, float((last or {}).get("empty_rate") or 0.0))
    return usual**rows < _UNLIKELY


def _row_change(counts: PlanCounts, last: Mapping[str, Any] | None, config: GateConfig) -> Check:
    name, limit = "row_change", config.max_row_change
    if last is None:
        return Check(name, 0.0, limit, NOT_JUDGED, "no run before")
    before = int(last["rows_in"])
    change = abs(counts.rows_in - before) / max(1, before)
    if max(before, counts.rows_in) < config.min_rows:
        return Check(name, change, limit, NOT_JUDGED, f"{counts.rows_in} rows are too few")
    return at_most(name, change, limit, f"{before} -> {counts.rows_in} rows")


def _drift(
    statistics: RunStatistics, last: Mapping[str, Any] | None, config: GateConfig
) -> list[Check]:
    before: Mapping[str, float] = (last or {}).get("attribute_rates") or {}
    if statistics.rows < config.min_rows or not before:
        return []
    now = statistics.attribute_rates()
    checks = []
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name, 0.0), now.get(name, 0.0)
        if max(old, new) < config.min_attribute_rate:
            continue
        drift = abs(new - old) / max(old, config.min_attribute_rate)
        note = f"{old:.3f} -> {new:.3f} values per row"
        checks.append(at_most(f"drift:{name}", drift, config.max_attribute_drift, note))
    return checks


def _count_bad(scores: pa.Array) -> int:
    """Return numbers that are missing, NaN or outside 0 to 1."""
    is_good = pc.and_(pc.greater_equal(scores, 0), pc.less_equal(scores, 1))
    return len(scores) - (pc.sum(pc.fill_null(is_good, False)).as_py() or 0)


def _add_counts(counts: dict[str, int], column: pa.Array) -> None:
    for item in pc.value_counts(column).to_pylist():
        counts[item["values"]] = counts.get(item["values"], 0) + item["counts"]
