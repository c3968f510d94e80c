"""Making a plan: the keys of all input files are compared with the table, bucket by bucket."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from pipelines.lake.snapshot import Snapshot
from pipelines.lake.storage import Storage, retrying
from pipelines.nightly.crash import crash_point
from pipelines.nightly.plan.changes import (
    BucketChanges,
    ChangeRules,
    bucket_changes,
    known_frame,
)
from pipelines.nightly.plan.feed import Feed, FeedCheck
from pipelines.nightly.plan.keys import KeyTable
from pipelines.nightly.plan.plan import WORK_ROWS, Plan, PlanCounts
from pipelines.nightly.plan.quarantine import (
    ENTRY_SCHEMA,
    entries_table,
    file_entries,
    keyless_table,
    losers_table,
)
from pipelines.nightly.plan.rows import RowSettings
from pipelines.nightly.plan.scan import PlannedFile, RowMap

_KEY_ROWS_AT_ONCE = 3_000_000  # x 48 bytes x a few copies: under 1 GB
StagedIds = Callable[[int], pl.DataFrame | None]


@dataclass(frozen=True, slots=True)
class SaveOptions:
    """`staged(bucket)` gives the ids and hashes that this run has extracted.

    `listing`, `feed`: see Plan.
    """

    staged: StagedIds
    limit: int | None = None
    listing: str = ""
    feed: dict[str, Any] | None = None


class PlanBuilder:
    """Compares scanned files with the table; keeps what `save` or an estimate needs."""

    def __init__(
        self,
        files: Sequence[PlannedFile],
        table: KeyTable,
        snapshot: Snapshot,
        rules: ChangeRules,
        feed: Feed | None = None,
    ) -> None:
        self.rows = RowMap(files)
        self._files = list(files)
        self._table = table
        self._snapshot = snapshot
        self._rules = rules
        self._feed = None if feed is None else FeedCheck(feed, snapshot.num_buckets)
        self.counts = _count_files(files)
        self._group_is_read = np.zeros(len(self.rows.group_bytes), bool)

    def estimate(self, limit: int | None) -> Plan:
        """Return counts only; nothing is written and no row number is kept."""
        for _, changes in self._all_changes(lambda _: None):
            self._count(changes)
            self._mark_groups(changes.extract["order"].to_numpy())
        if limit is not None:
            self.counts.deferred = max(0, self.counts.extract - limit)
            self.counts.extract -= self.counts.deferred
        return self._plan()

    def save(self, place: Storage, *, generation: int, options: SaveOptions) -> Plan:
        """Return store the plan below `place`; `plan.json` comes last."""
        folder = place.join(f"plan-{generation:04d}")
        folder.delete()  # parts of a plan that was never finished
        orders, staged_orders = [], []
        with _EntryWriter() as entries:
            entries.add(entries_table([e for file in self._files for e in file_entries(file)]))
            for bucket, changes in self._all_changes(options.staged):
                self._count(changes)
                _put_frame(folder, f"accepted-{bucket:05d}.arrow", changes.extract)
                _put_frame(folder, f"vanished-{bucket:05d}.arrow", changes.vanished)
                entries.add(losers_table(changes.losers, self.rows))
                is_staged = changes.extract["is_staged"].to_numpy()
                numbers = changes.extract["order"].to_numpy()
                orders.append(numbers[~is_staged])
                staged_orders.append(numbers[is_staged])
            entries.add(self._keyless())
        folder.join("quarantine.parquet").write_bytes(entries.content())
        plan = self._plan_work(folder, orders, staged_orders, options)
        plan.generation = generation
        plan.listing, plan.feed = options.listing, options.feed
        crash_point("before_plan_saved")
        plan.store()
        crash_point("after_plan_saved")
        return plan

    def _plan_work(
        self,
        folder: Storage,
        orders: list[np.ndarray],
        staged_orders: list[np.ndarray],
        options: SaveOptions,
    ) -> Plan:
        work = np.sort(np.concatenate([np.zeros(0, np.int64), *orders]))
        last_order = None
        if options.limit is not None:
            every = np.sort(np.concatenate([work, *staged_orders]))
            self.counts.deferred = max(0, len(every) - options.limit)
            self.counts.extract = len(every) - self.counts.deferred
            kept = every[: options.limit]
            last_order = int(kept[-1]) if len(kept) else -1
            work = work[work <= last_order]
            self.counts.staged = self.counts.extract - len(work)
        self._mark_groups(work)
        plan = self._plan()
        plan.place = folder
        plan.last_order = last_order
        plan.is_complete &= options.limit is None
        _write_work(folder.join("work.arrow"), work)
        return plan

    def _plan(self) -> Plan:
        counts = self.counts
        counts.bytes_to_read = int(self.rows.group_bytes[self._group_is_read].sum())
        assert counts.is_balanced(), counts
        is_readable = not (counts.unreadable_files or counts.unreadable_row_groups)
        is_complete = is_readable and not counts.bad_lines
        num_buckets = self._snapshot.num_buckets
        return Plan(0, self._files, num_buckets, counts, is_complete=is_complete)

    def _all_changes(self, staged: StagedIds) -> Iterator[tuple[int, BucketChanges]]:
        """Yield buckets in turn, read from the key table a few at a time."""
        num_buckets = self._snapshot.num_buckets
        at_once = max(1, num_buckets * _KEY_ROWS_AT_ONCE // max(1, self.rows.num_rows))
        for start in range(0, num_buckets, at_once):
            buckets = range(start, min(start + at_once, num_buckets))
            for bucket, keys in zip(buckets, self._table.buckets(buckets), strict=True):
                yield bucket, self._changes(bucket, keys, staged(bucket))
        if self._feed is not None:
            self._feed.check_total()

    def _changes(
        self, bucket: int, keys: pl.DataFrame, staged: pl.DataFrame | None
    ) -> BucketChanges:
        known = known_frame(self._snapshot.bucket(bucket), self._rules)
        if self._feed is None:
            return bucket_changes(keys, known, staged)
        changes, num_others = self._feed.changes(bucket, keys, known, staged)
        self.counts.rows_in += num_others
        self.counts.unchanged += num_others
        return changes

    def _keyless(self) -> pa.Table:
        last = self._snapshot.num_buckets
        (keys,) = self._table.buckets(range(last, last + 1))
        return keyless_table(keys.sort("order"), self.rows)

    def _count(self, changes: BucketChanges) -> None:
        self.counts.extract += len(changes.extract)
        self.counts.staged += int(changes.extract["is_staged"].sum())
        self.counts.unchanged += changes.num_unchanged
        self.counts.duplicates += len(changes.losers)
        self.counts.vanished += len(changes.vanished)

    def _mark_groups(self, orders: np.ndarray) -> None:
        self._group_is_read[self.rows.groups_of(orders)] = True


def check_columns(files: Sequence[PlannedFile], settings: RowSettings) -> None:
    """Refuse a request whose column names fit no file at all."""
    columns = settings.columns
    readable = [planned for planned in files if planned.summary.columns]
    found = {name for planned in readable for name in planned.summary.columns}
    found |= {name for planned in readable for name, _ in planned.file.partitions}
    texts = settings.text_columns()
    if not readable or (columns.product_id in found and found.intersection(texts)):
        return
    raise ValueError(
        f"found columns {', '.join(sorted(found))}, expected {columns.product_id} and one of "
        f"{', '.join(texts)}; name the columns with --set columns.product_id=... and "
        "--set columns.sources.title=..."
    )


def _count_files(files: Sequence[PlannedFile]) -> PlanCounts:
    counts = PlanCounts(files=len(files))
    for planned in files:
        summary = planned.summary
        counts.rows_in += summary.num_visible + len(summary.bad_lines)
        counts.bad_lines += len(summary.bad_lines)
        if summary.problem is not None:
            counts.unreadable_files += 1
            counts.unreadable += summary.num_visible
            continue
        counts.keyless += summary.num_keyless
        counts.unreadable_row_groups += len(summary.bad_row_groups)
        counts.unreadable += sum(summary.visible_in(i) for i in summary.bad_row_groups)
    return counts


class _EntryWriter:
    """Quarantine entries of many sources as one compressed file in memory."""

    def __init__(self) -> None:
        self._sink = io.BytesIO()
        self._writer = pq.ParquetWriter(self._sink, ENTRY_SCHEMA)

    def __enter__(self) -> "_EntryWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def add(self, table: pa.Table) -> None:
        if table.num_rows:
            self._writer.write_table(table)

    def content(self) -> bytes:
        return self._sink.getvalue()


def _put_frame(folder: Storage, name: str, frame: pl.DataFrame) -> None:
    if frame.is_empty():
        return
    sink = io.BytesIO()
    frame.write_ipc(sink)
    retrying(lambda: folder.join(name).write_bytes(sink.getvalue()))


def _write_work(place: Storage, orders: np.ndarray) -> None:
    schema = pa.schema([("order", pa.int64())])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        for start in range(0, len(orders), WORK_ROWS):
            numbers = pa.array(orders[start : start + WORK_ROWS])
            writer.write_batch(pa.record_batch([numbers], schema=schema))
    retrying(lambda: place.write_bytes(sink.getvalue().to_pybytes()))


class EstimateConfig(BaseModel):
    """What turns rows into time and money."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    products_per_second: float = Field(
        50.0, gt=0, description="Assumed until a run of this table has measured it."
    )
    start_seconds: float = Field(60.0, ge=0, description="Start of the cluster and of the models.")
    cost_per_hour: float = Field(0.0, ge=0, description="Price of the cluster, in any currency.")


def estimate(plan: Plan, last: Mapping[str, Any] | None, config: EstimateConfig) -> dict[str, Any]:
    """Return rows, bytes, seconds and cost of running the plan."""
    counts = plan.counts
    rows = counts.extract - counts.staged
    measured = float((last or {}).get("products_per_second") or 0.0)
    rate = measured or config.products_per_second
    seconds = config.start_seconds + rows / rate if rows else 0.0
    return {
        "rows_to_extract": rows,
        "bytes_to_read": counts.bytes_to_read,
        "estimated_seconds": round(seconds, 1),
        "estimated_cost": round(seconds / 3600 * config.cost_per_hour, 4),
        "assumed_products_per_second": round(rate, 3),
        "is_rate_measured": bool(measured),
    }
