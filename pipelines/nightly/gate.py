"""The one decision before publishing: is what the run made fit to replace what readers see?"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field

from pipelines.nightly.plan.plan import PlanCounts
from ulsdram_core.schema import Status


class GateConfig(BaseModel):
    """Limits of a healthy night; a rate is checked only on enough rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_rows: int = Field(500, ge=1, description="Fewest rows on which a rate means something.")
    max_quarantine_rate: float = Field(
        0.05, ge=0, le=1, description="Rows quarantined of all rows that came in or were extracted."
    )
    max_degraded_rate: float = Field(
        1.0, ge=0, le=1, description="Rows extracted without a usable picture, of those extracted."
    )
    max_null_rate: float = Field(
        0.98, ge=0, le=1, description="Extracted rows without a single value."
    )
    max_row_change: float = Field(
        0.5, ge=0, description="Relative change of the number of input rows since the last night."
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


@dataclass(slots=True)
class RunStatistics:
    """Counts over the rows that the run will publish."""

    rows: int = 0
    empty: int = 0  # neither quarantined nor with a value
    status: dict[str, int] = field(default_factory=dict)
    reason: dict[str, int] = field(default_factory=dict)
    values: dict[str, int] = field(default_factory=dict)  # by attribute

    def add(self, rows: pa.Table) -> None:
        """Count rows of the extractions table."""
        self.rows += rows.num_rows
        _add_counts(self.status, rows["status"])
        _add_counts(self.reason, pc.drop_null(rows["reason"]))
        lists = rows["values"].combine_chunks()
        flat = lists.flatten()
        if len(flat):
            _add_counts(self.values, pc.struct_field(flat, "attribute"))
        is_empty = pc.equal(pc.list_value_length(lists), 0)
        is_judged = pc.not_equal(rows["status"], Status.QUARANTINED.value)
        self.empty += pc.sum(pc.and_(is_empty, is_judged)).as_py() or 0

    def merge(self, other: "RunStatistics") -> None:
        """Add the counts of other rows."""
        self.rows += other.rows
        self.empty += other.empty
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

    def attribute_rates(self) -> dict[str, float]:
        """Values per row that was not quarantined."""
        judged = max(1, self.rows - self.quarantined)
        return {name: count / judged for name, count in sorted(self.values.items())}


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison of the gate."""

    name: str
    found: float
    limit: float
    is_passed: bool
    note: str = ""


def run_gate(
    counts: PlanCounts,
    statistics: RunStatistics,
    last: Mapping[str, Any] | None,
    config: GateConfig,
) -> list[Check]:
    """All checks; `last` is the summary of the last published run (None: there is none)."""
    checks = [_accounting(counts, statistics), *_rates(counts, statistics, config)]
    if last is not None:
        checks.append(_row_change(counts, last, config))
        checks += _drift(statistics, last, config)
    return checks


def _accounting(counts: PlanCounts, statistics: RunStatistics) -> Check:
    quarantined = counts.keyless + counts.duplicates + counts.unreadable + counts.bad_lines
    known = statistics.rows + counts.unchanged + counts.deferred + quarantined
    missing = counts.rows_in - known
    return Check("rows_unaccounted", missing, 0, missing == 0)


def _rates(counts: PlanCounts, statistics: RunStatistics, config: GateConfig) -> list[Check]:
    entries = counts.keyless + counts.duplicates + counts.unreadable + counts.bad_lines
    checks = [
        _limit(
            "quarantine_rate",
            statistics.quarantined + entries,
            statistics.rows + entries,
            config.max_quarantine_rate,
            config,
        )
    ]
    judged = statistics.rows - statistics.quarantined
    degraded = statistics.status.get(Status.DEGRADED.value, 0)
    for name, found, limit in (
        ("degraded_rate", degraded, config.max_degraded_rate),
        ("null_rate", statistics.empty, config.max_null_rate),
    ):
        checks.append(_limit(name, found, judged, limit, config))
    return checks


def _limit(name: str, found: int, rows: int, limit: float, config: GateConfig) -> Check:
    rate = found / max(1, rows)
    if rows < config.min_rows:
        return Check(name, rate, limit, True, f"not judged on {rows} rows")
    return Check(name, rate, limit, rate <= limit)


def _row_change(counts: PlanCounts, last: Mapping[str, Any], config: GateConfig) -> Check:
    before = int(last["rows_in"])
    change = abs(counts.rows_in - before) / max(1, before)
    if max(before, counts.rows_in) < config.min_rows:
        note = f"not judged on {counts.rows_in} rows"
        return Check("row_change", change, config.max_row_change, True, note)
    return Check("row_change", change, config.max_row_change, change <= config.max_row_change)


def _drift(statistics: RunStatistics, last: Mapping[str, Any], config: GateConfig) -> list[Check]:
    before: Mapping[str, float] = last.get("attribute_rates") or {}
    if statistics.rows < config.min_rows or not before:
        return []
    now = statistics.attribute_rates()
    checks = []
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name, 0.0), now.get(name, 0.0)
        if max(old, new) < config.min_attribute_rate:
            continue
        drift = abs(new - old) / max(old, config.min_attribute_rate)
        limit = config.max_attribute_drift
        note = f"{old:.3f} -> {new:.3f} values per row"
        checks.append(Check(f"drift:{name}", drift, limit, drift <= limit, note))
    return checks


def _add_counts(counts: dict[str, int], column: pa.Array) -> None:
    for item in pc.value_counts(column).to_pylist():
        counts[item["values"]] = counts.get(item["values"], 0) + item["counts"]
