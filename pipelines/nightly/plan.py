"""What a run has to do: scan what is new, compare with the table, store the answer.

`plan-<generation>/` of a run holds, bucket by bucket, the rows that must come out of the run
(`accepted-*.arrow`: id, hash, order) and the products that vanished, the quarantine entries, the
row numbers to extract in `work.arrow` (one batch per wave), and at last `plan.json`.
"""

import io
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.nightly.changes import BucketChanges, ChangeRules, bucket_changes, keys_frame
from pipelines.nightly.changes import known_frame as read_known
from pipelines.nightly.crash import crash_point
from pipelines.nightly.inputs import InputFile
from pipelines.nightly.quarantine import (
    ENTRY_SCHEMA,
    entries_table,
    file_entries,
    keyless_table,
    losers_table,
)
from pipelines.nightly.rowmap import PlannedFile, RowMap
from pipelines.nightly.rows import RowSettings
from pipelines.nightly.runs import read_json, write_json
from pipelines.nightly.scan import FileSummary, ScanTask, read_keys
from pipelines.nightly.snapshot import Snapshot
from pipelines.storage import Storage, retrying

_log = logging.getLogger(__name__)
_KEY_ROWS_AT_ONCE = 3_000_000  # x 44 bytes x a few copies: under 1 GB
StagedIds = Callable[[int], pl.DataFrame | None]


@dataclass(slots=True)
class PlanCounts:
    """Rows by what happens to them. rows_in is the sum of those that follow up to `deferred`."""

    rows_in: int = 0
    extract: int = 0  # staged ones included
    unchanged: int = 0
    keyless: int = 0
    duplicates: int = 0
    unreadable: int = 0  # rows of unusable files and row groups, as far as known
    bad_lines: int = 0
    deferred: int = 0  # left for another run by --limit
    staged: int = 0  # of extract: done by an earlier attempt of this run
    vanished: int = 0
    unreadable_files: int = 0
    unreadable_row_groups: int = 0
    files: int = 0
    files_scanned: int = 0
    bytes_scanned: int = 0
    bytes_to_read: int = 0

    def is_balanced(self) -> bool:
        """Whether every row is accounted for exactly once."""
        parts = (self.extract, self.unchanged, self.keyless, self.duplicates, self.unreadable)
        return self.rows_in == sum(parts) + self.bad_lines + self.deferred


@dataclass(slots=True)
class Plan:
    """A stored plan; `place` is its folder."""

    generation: int
    files: list[PlannedFile]
    num_buckets: int
    counts: PlanCounts
    last_order: int | None = None  # rows after it were deferred
    is_complete: bool = True  # every listed byte was readable and no row was deferred
    num_waves: int = 0
    place: Storage | None = None
    rows: RowMap = field(init=False)

    def __post_init__(self) -> None:
        self.rows = RowMap(self.files)

    def accepted(self, bucket: int) -> pl.DataFrame:
        """id, hash and order of the rows that this run must publish in a bucket."""
        frame = self._frame(f"accepted-{bucket:05d}.arrow")
        if self.last_order is None:
            return frame
        return frame.filter(pl.col("order") <= self.last_order)

    def vanished(self, bucket: int) -> pl.DataFrame:
        """Ids to mark as vanished; none when the listing was not complete."""
        frame = self._frame(f"vanished-{bucket:05d}.arrow")
        return frame if self.is_complete else frame.clear()

    def quarantine(self) -> pa.Table:
        """All quarantine entries (ENTRY_SCHEMA)."""
        place = self._folder().join("quarantine.parquet")
        return pq.read_table(place.path, filesystem=place.arrow).cast(ENTRY_SCHEMA)

    def wave(self, wave: int) -> np.ndarray:
        """Sorted numbers of the rows that a wave extracts."""
        place = self._folder().join("work.arrow")
        with place.arrow.open_input_file(place.path) as stream:
            return pa.ipc.open_file(stream).get_batch(wave).column(0).to_numpy()

    def touched(self) -> list[int]:
        """Buckets in which the plan changes something."""
        found = []
        for name in self._folder().names():
            kind, _, number = name.removesuffix(".arrow").partition("-")
            if kind == "accepted" or (kind == "vanished" and self.is_complete):
                found.append(int(number))
        return sorted(set(found))

    def drop(self) -> None:
        """Make the stored plan incomplete, so that it is not used again."""
        self._folder().join("plan.json").delete()

    def _frame(self, name: str) -> pl.DataFrame:
        place = self._folder().join(name)
        try:
            data = retrying(place.read_bytes)
        except FileNotFoundError:
            return pl.DataFrame(
                schema=dict.fromkeys(("id_hi", "id_lo", "hash_hi", "hash_lo"), pl.UInt64)
                | {"order": pl.Int64}
            )
        return pl.read_ipc(io.BytesIO(data))

    def _folder(self) -> Storage:
        assert self.place is not None, "a plan that was only estimated has no folder"
        return self.place


class PlanBuilder:
    """Compares scanned files with the table; keeps what `save` or an estimate needs."""

    def __init__(
        self,
        files: Sequence[PlannedFile],
        tasks: Sequence[ScanTask],
        snapshot: Snapshot,
        rules: ChangeRules,
    ) -> None:
        self.rows = RowMap(files)
        self._files = list(files)
        self._tasks = tasks
        self._snapshot = snapshot
        self._rules = rules
        self.counts = _count_files(files)
        self._group_is_read = np.zeros(len(self.rows.group_bytes), bool)

    def estimate(self, limit: int | None) -> Plan:
        """Counts only; nothing is written and no row number is kept."""
        for _, changes in self._all_changes(lambda _: None):
            self._count(changes)
            self._mark_groups(changes.extract["order"].to_numpy())
        if limit is not None:
            self.counts.deferred = max(0, self.counts.extract - limit)
            self.counts.extract -= self.counts.deferred
        return self._plan()

    def save(self, place: Storage, *, generation: int, options: "SaveOptions") -> Plan:
        """Store the plan below `place`; `plan.json` comes last."""
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
            for table in self._keyless():
                entries.add(table)
        folder.join("quarantine.parquet").write_bytes(entries.content())
        plan = self._plan_work(folder, orders, staged_orders, options)
        plan.generation = generation
        crash_point("before_plan_saved")
        write_json(folder.join("plan.json"), _to_json(plan))
        crash_point("after_plan_saved")
        return plan

    def _plan_work(
        self,
        folder: Storage,
        orders: list[np.ndarray],
        staged_orders: list[np.ndarray],
        options: "SaveOptions",
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
        plan.num_waves = _write_work(folder.join("work.arrow"), work, options.wave_rows)
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
        """Buckets in turn, read from the key files a few at a time."""
        num_buckets = self._snapshot.num_buckets
        at_once = max(1, num_buckets * _KEY_ROWS_AT_ONCE // max(1, self.rows.num_rows))
        offsets = [self.rows.file_start(i) for i in range(len(self._files))]
        for start in range(0, num_buckets, at_once):
            buckets = range(start, min(start + at_once, num_buckets))
            parts = self._read_keys(buckets)
            for i, bucket in enumerate(buckets):
                keys = keys_frame([part[i] for part in parts], offsets)
                known = read_known(self._snapshot.bucket(bucket), self._rules)
                yield bucket, bucket_changes(keys, known, staged(bucket))

    def _keyless(self) -> Iterator[pa.Table]:
        last = self._snapshot.num_buckets
        for i, (planned, task) in enumerate(zip(self._files, self._tasks, strict=True)):
            if planned.summary.num_keyless:
                (records,) = read_keys(task.keys(), range(last, last + 1))
                yield keyless_table(records, self.rows.file_start(i), self.rows)

    def _read_keys(self, batches: range) -> list[list[np.ndarray]]:
        with ThreadPoolExecutor(8) as pool:
            call = lambda task: retrying(lambda: read_keys(task.keys(), batches))  # noqa: E731
            return list(pool.map(call, self._tasks))

    def _count(self, changes: BucketChanges) -> None:
        self.counts.extract += len(changes.extract)
        self.counts.staged += int(changes.extract["is_staged"].sum())
        self.counts.unchanged += changes.num_unchanged
        self.counts.duplicates += len(changes.losers)
        self.counts.vanished += len(changes.vanished)

    def _mark_groups(self, orders: np.ndarray) -> None:
        self._group_is_read[self.rows.groups_of(orders)] = True


@dataclass(frozen=True, slots=True)
class SaveOptions:
    """`staged(bucket)` gives the ids and hashes that earlier waves of the run extracted."""

    staged: StagedIds
    wave_rows: int
    limit: int | None = None


def load_newest_plan(place: Storage) -> Plan | None:
    """The last complete plan of a run."""
    for name in reversed([name for name in place.names() if name.startswith("plan-")]):
        found = read_json(place.join(name, "plan.json"))
        if found is not None:
            plan = _from_json(found)
            plan.place = place.join(name)
            return plan
    return None


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
        counts.rows_in += summary.num_rows + len(summary.bad_lines)
        counts.bad_lines += len(summary.bad_lines)
        if summary.problem is not None:
            counts.unreadable_files += 1
            counts.unreadable += summary.num_rows
            continue
        counts.keyless += summary.num_keyless
        counts.unreadable_row_groups += len(summary.bad_row_groups)
        counts.unreadable += sum(summary.row_groups[i][0] for i in summary.bad_row_groups)
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


def _write_work(place: Storage, orders: np.ndarray, wave_rows: int) -> int:
    """One batch per wave; returns the number of waves."""
    schema = pa.schema([("order", pa.int64())])
    sink = pa.BufferOutputStream()
    num_waves = 0
    with pa.ipc.new_file(sink, schema) as writer:
        for start in range(0, len(orders), wave_rows):
            wave = pa.array(orders[start : start + wave_rows])
            writer.write_batch(pa.record_batch([wave], schema=schema))
            num_waves += 1
    retrying(lambda: place.write_bytes(sink.getvalue().to_pybytes()))
    return num_waves


def _to_json(plan: Plan) -> Mapping[str, Any]:
    return {
        "generation": plan.generation,
        "num_buckets": plan.num_buckets,
        "num_waves": plan.num_waves,
        "last_order": plan.last_order,
        "is_complete": plan.is_complete,
        "counts": asdict(plan.counts),
        "files": [{"file": asdict(p.file), "summary": asdict(p.summary)} for p in plan.files],
    }


def _from_json(found: Mapping[str, Any]) -> Plan:
    files = []
    for item in found["files"]:
        partitions = tuple((name, value) for name, value in item["file"].pop("partitions"))
        file = InputFile(**item["file"], partitions=partitions)
        summary = item["summary"]
        summary["row_groups"] = [tuple(group) for group in summary["row_groups"]]
        summary["bad_row_groups"] = {int(k): v for k, v in summary["bad_row_groups"].items()}
        files.append(PlannedFile(file, FileSummary(**summary)))
    names = ("generation", "num_buckets", "num_waves", "last_order", "is_complete")
    counts = PlanCounts(**found["counts"])
    return Plan(files=files, counts=counts, **{name: found[name] for name in names})
