"""Publishing: touched buckets are rewritten, then one commit per table makes them visible.

Rewriting costs the bytes of every touched bucket (the report states the write amplification).
Appending would be cheaper to write, but then a plain scan would show superseded rows: the reader's
view, one row per product, is worth it.
"""

import json
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, RemoveAction

from pipelines.lake.snapshot import BucketFiles, Snapshot, StoredFile
from pipelines.lake.storage import Storage, retrying
from pipelines.lake.tables import EXTRACTIONS, QUARANTINE, create_table, id_hashes, open_table
from pipelines.nightly.gate import COUNTED, RunStatistics
from pipelines.nightly.plan.chunks import Range
from pipelines.nightly.plan.plan import Plan
from pipelines.nightly.table.lock import APP_ID, FencedError
from pipelines.nightly.work.staging import Parts, key_frame
from ulsdram_core.schema import Status

_ID = ["id_hi", "id_lo"]
_MAX_FILE_ROWS = 1_000_000


@dataclass(frozen=True, slots=True)
class RewriteTask:
    """One bucket to rewrite: the old files, what was staged, and the plan's word on both."""

    old: BucketFiles
    run_id: str
    plan: Plan | None = None
    staged: pa.Table | None = None  # rows of this bucket, the newest last
    erased: pl.DataFrame | None = None  # ids to leave out


@dataclass(frozen=True, slots=True)
class Rewritten:
    """New files of a bucket in place of the old ones."""

    bucket: int
    old: tuple[StoredFile, ...]
    new: tuple[StoredFile, ...] = ()
    new_rows: tuple[int, ...] = ()
    rows_changed: int = 0
    rows_vanished: int = 0
    rows_erased: int = 0


@dataclass(frozen=True, slots=True)
class RangeTask:
    """Touched buckets of one range, and the files that hold what was staged for them."""

    buckets: Range
    touched: tuple[BucketFiles, ...]
    run_id: str
    plan: Plan
    staged: Parts


def range_statistics(task: RangeTask) -> RunStatistics:
    """Return counts over the staged rows of a range that the plan accepts."""
    columns = ["product_id", "bucket", "input_hash", *COUNTED]
    statistics = RunStatistics()
    for old, rows in _staged_by_bucket(task, columns):
        statistics.add(accepted_rows(task.plan, rows, old.bucket))
    return statistics


def rewrite_range(task: RangeTask) -> list[Rewritten]:
    """Write the new files of a range's buckets; nobody sees them before the commit."""
    return [
        rewrite_bucket(RewriteTask(old, task.run_id, task.plan, staged=rows))
        for old, rows in _staged_by_bucket(task)
    ]


def _staged_by_bucket(
    task: RangeTask, columns: Sequence[str] | None = None
) -> Iterator[tuple[BucketFiles, pa.Table]]:
    """Yield each touched bucket with its staged rows; every staged byte is read once."""
    rows = task.staged.read(task.buckets, columns)
    buckets = rows["bucket"].to_numpy()
    rows = rows.take(pa.array(np.argsort(buckets, kind="stable")))
    buckets = np.sort(buckets)
    for old in task.touched:
        start, end = np.searchsorted(buckets, (old.bucket, old.bucket + 1))
        yield old, rows.slice(start, end - start)


def accepted_rows(plan: Plan, rows: pa.Table, bucket: int) -> pa.Table:
    """Return a bucket's staged rows that the plan accepts: right id, right content, each once."""
    keys = key_frame(rows).with_row_index("position")
    wanted = plan.accepted(bucket).select(*_ID, "hash_hi", "hash_lo")
    found = keys.join(wanted, on=[*_ID, "hash_hi", "hash_lo"], how="semi", maintain_order="left")
    newest = found.unique(_ID, keep="last", maintain_order=True)
    return rows.take(pa.array(newest["position"].to_numpy()))


def rewrite_bucket(task: RewriteTask) -> Rewritten:
    """Write the bucket's new files; nobody sees them before the commit."""
    return retrying(lambda: _rewrite(task))


def _rewrite(task: RewriteTask) -> Rewritten:
    old = task.old.read()
    ids = pl.DataFrame(dict(zip(_ID, id_hashes(old["product_id"].to_pylist()).T, strict=True)))
    fresh, vanished = task.old.schema.empty_table(), ids.clear()
    if task.plan is not None and task.staged is not None:
        fresh = accepted_rows(task.plan, task.staged, task.old.bucket).drop_columns("bucket")
        vanished = task.plan.vanished(task.old.bucket)
    fresh_ids = key_frame(fresh).select(_ID)
    erased = ids.clear() if task.erased is None else task.erased
    is_kept = ~(_is_in(ids, fresh_ids) | _is_in(ids, erased))
    is_gone = _is_in(ids, vanished) & is_kept
    kept = _mark_vanished(old, is_gone, task.run_id).filter(pa.array(is_kept))
    rows = pa.concat_tables([kept, fresh]).sort_by("product_id")
    assert rows.num_rows == len(set(rows["product_id"].to_pylist())), task.old.bucket
    files, counts = _write_files(task.old, rows, task.run_id)
    return Rewritten(
        bucket=task.old.bucket,
        old=task.old.files,
        new=files,
        new_rows=counts,
        rows_changed=fresh.num_rows,
        rows_vanished=int(is_gone.sum()),
        rows_erased=int(_is_in(ids, erased).sum()),
    )


def _is_in(ids: pl.DataFrame, others: pl.DataFrame) -> np.ndarray:
    marks = others.select(_ID).unique().with_columns(found=pl.lit(True))
    joined = ids.join(marks, on=_ID, how="left", maintain_order="left")
    return joined["found"].fill_null(False).to_numpy()


def _mark_vanished(rows: pa.Table, is_gone: np.ndarray, run_id: str) -> pa.Table:
    """Return the same rows with status vanished where told; what was extracted stays readable."""
    if not is_gone.any():
        return rows
    frame = pl.DataFrame(pl.from_arrow(rows)).with_columns(
        pl.when(pl.Series(is_gone)).then(pl.lit(value)).otherwise(pl.col(name)).alias(name)
        for name, value in (("status", Status.VANISHED.value), ("reason", None), ("run_id", run_id))
    )
    return frame.to_arrow().cast(rows.schema)


def _write_files(
    bucket: BucketFiles, rows: pa.Table, run_id: str
) -> tuple[tuple[StoredFile, ...], tuple[int, ...]]:
    files, counts = [], []
    for start in range(0, rows.num_rows, _MAX_FILE_ROWS):
        part = rows.slice(start, _MAX_FILE_ROWS)
        path = f"bucket={bucket.bucket}/part-{run_id}-{uuid.uuid4().hex}.parquet"
        files.append(StoredFile(path, _write_file(bucket.table.join(path), part)))
        counts.append(part.num_rows)
    return tuple(files), tuple(counts)


def _write_file(place: Storage, rows: pa.Table) -> int:
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd", row_group_size=100_000)
    content = sink.getvalue().to_pybytes()
    place.write_bytes(content)
    return len(content)


@dataclass(slots=True)
class Publisher:
    """Commits of one owner of the table; every commit carries the owner's epoch."""

    output: Storage
    epoch: int
    run_id: str
    num_buckets: int
    vectors: tuple[str, ...] = ()
    versions: dict[str, int] = field(default_factory=dict)

    def fence(self) -> None:
        """Leave the epoch in both tables, so that whoever owned them before cannot commit."""
        for name in (EXTRACTIONS, QUARANTINE):
            self._commit(self.open(name), [], name)

    def open(self, name: str) -> DeltaTable:
        """Return the newest version of a table, created if need be; refused to a fenced owner."""
        delta = create_table(self.output, name, num_buckets=self.num_buckets, vectors=self.vectors)
        self._check_epoch(delta)
        return delta

    def has_published(self) -> bool:
        """Return whether an earlier attempt of this run has committed its extractions."""
        delta = self.open(EXTRACTIONS)
        self.versions[EXTRACTIONS] = delta.version()
        return delta.transaction_version(self._run_app()) is not None

    def commit_extractions(self, snapshot: Snapshot, buckets: Iterable[Rewritten]) -> None:
        """Replace the old files of all buckets by the new ones, in the version that was read."""
        delta = snapshot.delta or self.open(EXTRACTIONS)
        self._check_epoch(delta)
        actions: list[AddAction | RemoveAction] = []
        for item in buckets:
            values = {"bucket": str(item.bucket)}
            actions += [_remove(file, values) for file in item.old]
            actions += [
                _add(file, values, rows) for file, rows in zip(item.new, item.new_rows, strict=True)
            ]
        self._commit(delta, actions, EXTRACTIONS, is_run=True)

    def commit_quarantine(self, rows: pa.Table) -> None:
        """Replace the whole quarantine table, unless it holds these entries already."""
        delta = self.open(QUARANTINE)
        self.versions[QUARANTINE] = delta.version()
        found = delta.get_add_actions(flatten=True)
        paths = found["path"].to_pylist()
        sizes = found["size_bytes"].to_pylist()
        table = self.output.join(QUARANTINE)
        if _same_entries(_read_files(table, paths), rows):
            return
        actions: list[AddAction | RemoveAction] = [
            _remove(StoredFile(path, size), {}) for path, size in zip(paths, sizes, strict=True)
        ]
        if rows.num_rows:
            path = f"part-{self.run_id}-{uuid.uuid4().hex}.parquet"
            size = retrying(lambda: _write_file(table.join(path), rows))
            actions.append(_add(StoredFile(path, size), {}, rows.num_rows))
        self._commit(delta, actions, QUARANTINE)

    def _commit(
        self,
        delta: DeltaTable,
        actions: Sequence[AddAction | RemoveAction],
        name: str,
        *,
        is_run: bool = False,
    ) -> None:
        transactions = [Transaction(APP_ID, self.epoch)]
        if is_run:
            transactions.append(Transaction(self._run_app(), 1))
        commit_id = uuid.uuid4().hex
        properties = CommitProperties(
            custom_metadata={"run_id": self.run_id, "commit_id": commit_id},
            app_transactions=transactions,
        )
        try:
            delta.create_write_transaction(
                list(actions),
                "append",
                delta.schema(),
                partition_by=["bucket"] if name == EXTRACTIONS else None,
                commit_properties=properties,
            )
        except CommitFailedError as error:
            if self._has_commit(name, commit_id):  # only the answer was lost
                delta.update_incremental()
                self.versions[name] = delta.version()
                return
            raise FencedError(
                f"somebody else changed {delta.table_uri} meanwhile ({error}); nothing of this "
                "commit is visible: run again"
            ) from error
        delta.update_incremental()
        self.versions[name] = delta.version()

    def _has_commit(self, name: str, commit_id: str) -> bool:
        delta = open_table(self.output, name)
        assert delta is not None
        return any(entry.get("commit_id") == commit_id for entry in delta.history(10))

    def _check_epoch(self, delta: DeltaTable) -> None:
        """In the very version that a commit replaces; a commit in between makes ours fail."""
        newest = delta.transaction_version(APP_ID)
        if newest is not None and newest > self.epoch:
            raise FencedError(
                f"epoch {newest} has written {delta.table_uri}; this run owned epoch "
                f"{self.epoch} and publishes nothing"
            )

    def _run_app(self) -> str:
        return f"{APP_ID}/run/{self.run_id}"


def read_table(output: Storage, name: str) -> pa.Table | None:
    """Return all rows of an unpartitioned table below `output`; None when there are none."""
    delta = open_table(output, name)
    if delta is None:
        return None
    paths = delta.get_add_actions(flatten=True)["path"].to_pylist()
    return _read_files(output.join(name), paths)


def _add(file: StoredFile, values: dict[str, str], rows: int) -> AddAction:
    # no minima and maxima: they would keep product ids in the log after an erasure
    stats = json.dumps({"numRecords": rows})
    return AddAction(file.path, file.size, values, int(time.time() * 1000), True, stats)


def _remove(file: StoredFile, values: dict[str, str]) -> RemoveAction:
    now = int(time.time() * 1000)
    return RemoveAction(file.path, True, now, file.size, values)


def _read_files(table: Storage, paths: Sequence[str]) -> pa.Table | None:
    tables = []
    for path in paths:
        place = table.join(path)
        with place.arrow.open_input_file(place.path) as stream:
            tables.append(pq.ParquetFile(stream).read())
    return pa.concat_tables(tables) if tables else None


def _same_entries(old: pa.Table | None, new: pa.Table) -> bool:
    if old is None or old.num_rows != new.num_rows:
        return old is None and new.num_rows == 0
    names = ["file", "row_group", "row", "num_rows", "product_id", "reason"]
    order = [(name, "ascending") for name in names[:3]]
    return bool(old.select(names).sort_by(order).equals(new.select(names).sort_by(order)))
