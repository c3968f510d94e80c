"""Putting rows in a new order without holding them all: cut by bucket, then joined in order.

Cutting streams row groups into pieces. A piece holds one record batch per bucket in Arrow's file
format, so that joining a bucket reads its own batches and nothing else. Rows that are left out are
noted while cutting. Either side holds about one output file in memory.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.lake.storage import Storage, retrying
from pipelines.prepare.pairs.scan import READ_ROWS, GroupTask
from pipelines.prepare.writing import RowGroupWriter, put_table

CATALOG = "catalog_id"
REJECTED = pa.schema([("product_id", pa.string()), ("split", pa.string()), ("reason", pa.string())])
VERDICT = pa.schema(
    [
        ("reason", pa.string()),
        (CATALOG, pa.string()),
        ("split", pa.string()),
        ("bucket", pa.int32()),
        ("place", pa.int64()),
    ]
)
_BUCKET, _PLACE = "__bucket", "__place"
_ROW_GROUP_BYTES = 48_000_000


@dataclass(frozen=True, slots=True)
class CutTask:
    """Consecutive row groups with the verdict over their rows (a stored table VERDICT)."""

    groups: tuple[GroupTask, ...] = field(repr=False)
    verdict: Storage
    pieces: Storage
    """Folder of this task's pieces."""
    num_buckets: int
    piece_bytes: int
    schema: pa.Schema = field(repr=False)
    """Of the output."""

    @property
    def rejected(self) -> Storage:
        """Where the rows that are left out go."""
        return self.pieces.join("rejected.parquet")


@dataclass(frozen=True, slots=True)
class Cut:
    """What cutting made: pieces, and counts of the rows left out for the report."""

    pieces: tuple[Storage, ...]
    counts: Counter[str]


@dataclass(frozen=True, slots=True)
class JoinTask:
    """One bucket, which becomes one output file."""

    bucket: int
    folder: Storage
    path: str
    """Split and file in `folder`."""
    pieces: tuple[Storage, ...] = field(repr=False)
    schema: pa.Schema = field(repr=False)


def cut_rows(task: CutTask) -> Cut:
    """Store the pieces of the clean rows, and note the others."""
    return retrying(lambda: _cut(task))


def _cut(task: CutTask) -> Cut:
    task.pieces.make_folder()
    pieces: list[Storage] = []
    rejected = [REJECTED.empty_table()]
    waiting: list[pa.Table] = []
    for rows, verdict in _judged(task):
        is_kept = pc.greater_equal(verdict["bucket"], 0)
        rejected.append(_rejected(rows, verdict, task).filter(pc.invert(is_kept)))
        waiting.append(_marked(rows, verdict, task.schema).filter(is_kept))
        if sum(table.nbytes for table in waiting) >= task.piece_bytes:
            pieces.append(_store_piece(waiting, len(pieces), task))
            waiting = []
    if any(table.num_rows for table in waiting):
        pieces.append(_store_piece(waiting, len(pieces), task))
    left_out = pa.concat_tables(rejected)
    put_table(left_out, task.rejected)
    return Cut(tuple(pieces), Counter(f"reason {r}" for r in left_out["reason"].to_pylist()))


def _judged(task: CutTask) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yield some rows at a time, with the verdict over them."""
    verdict, start = read_table(task.verdict), 0
    for group in task.groups:
        for rows in group.batches():
            yield rows, verdict.slice(start, rows.num_rows)
            start += rows.num_rows
    assert start == verdict.num_rows, f"{start} rows were read, {verdict.num_rows} were judged"


def _rejected(rows: pa.Table, verdict: pa.Table, task: CutTask) -> pa.Table:
    ids = rows[task.groups[0].settings.columns.product_id].to_pylist()
    texts = pa.array([None if i is None else str(i) for i in ids], pa.string())
    return pa.table([texts, verdict["split"], verdict["reason"]], schema=REJECTED)


def _marked(rows: pa.Table, verdict: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return rows in the output's columns, with bucket and place at the end."""
    if CATALOG in rows.column_names:
        rows = rows.drop_columns([CATALOG])
    rows = rows.append_column(CATALOG, verdict[CATALOG])
    columns = [
        rows[name].cast(kind) if name in rows.column_names else pa.nulls(len(rows), kind)
        for name, kind in zip(schema.names, schema.types, strict=True)
    ]
    table = pa.table(columns, schema=schema)
    return table.append_column(_BUCKET, verdict["bucket"]).append_column(_PLACE, verdict["place"])


def _store_piece(tables: Sequence[pa.Table], number: int, task: CutTask) -> Storage:
    # Taking from one chunk; from many, every take would copy them all.
    rows = pa.concat_tables(tables).combine_chunks()
    buckets = rows[_BUCKET].to_numpy()
    order = np.argsort(buckets, kind="stable")
    ends = np.searchsorted(buckets[order], np.arange(task.num_buckets), side="right")
    place = task.pieces.join(f"{number:04d}.arrow")
    with (
        place.arrow.open_output_stream(place.path) as stream,
        pa.ipc.new_file(stream, rows.schema) as writer,
    ):
        for chosen in np.split(order, ends[:-1]):
            # An empty batch keeps the place of a bucket that has no rows here.
            batches = rows.take(chosen).to_batches()
            assert len(batches) <= 1, "a piece is too large for one batch"
            writer.write_batch(batches[0] if batches else _empty(rows.schema))
    return place


def _empty(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], kind) for kind in schema.types], schema=schema)


def join_rows(task: JoinTask) -> Counter[str]:
    """Write the rows of a bucket in order; returns their number for the report."""
    split = task.path.split("/")[0]
    return Counter({f"split {split}": retrying(lambda: _join(task))})


def _join(task: JoinTask) -> int:
    found = []
    for piece in task.pieces:
        with piece.arrow.open_input_file(piece.path) as stream:
            found.append(pa.ipc.open_file(stream).get_batch(task.bucket))
    rows = pa.Table.from_batches(found).combine_chunks()
    del found
    output = task.folder.join(task.path)
    order = np.argsort(rows[_PLACE].to_numpy())
    rows = rows.drop_columns([_BUCKET, _PLACE])
    with RowGroupWriter(output, task.schema, row_group_bytes=_ROW_GROUP_BYTES) as writer:
        for start in range(0, len(order), READ_ROWS):
            writer.write(rows.take(order[start : start + READ_ROWS]))
    return rows.num_rows


def read_table(place: Storage) -> pa.Table:
    """Return a small stored table."""
    with place.arrow.open_input_file(place.path) as stream:
        return pq.read_table(stream)
