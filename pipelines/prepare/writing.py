"""Parquet files with row groups of an even size, written batch by batch."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.lake.storage import Storage, retrying


class RowGroupWriter:
    """Collects tables and writes row groups of about `row_group_bytes` bytes in memory.

    The rest at the end joins the last row group when it is less than a third of one, so that no
    reader meets a crumb; row groups then hold between 1/3 and 4/3 of the size asked for.
    """

    def __init__(self, place: Storage, schema: pa.Schema, *, row_group_bytes: int) -> None:
        place.sibling(place.fs._parent(place.path)).make_folder()
        self._writer = pq.ParquetWriter(
            place.path, schema, filesystem=place.arrow, compression="zstd"
        )
        self._schema = schema
        self._size = row_group_bytes
        self._waiting: list[pa.Table] = []
        self._num_waiting_bytes = 0
        self.num_rows = 0
        self.num_bytes = 0

    def write(self, table: pa.Table) -> None:
        """Take rows of the writer's schema."""
        self._waiting.append(table)
        # Slices count what they show, not the buffers that they share.
        self._num_waiting_bytes += table.nbytes
        self.num_rows += table.num_rows
        self.num_bytes += table.nbytes
        while self._num_waiting_bytes >= self._size * 4 / 3:
            self._write_group(self._take(self._size))

    def close(self) -> None:
        """Write what is left; a file without rows still tells its schema."""
        if self._waiting:
            self._write_group(self._take(self._num_waiting_bytes))
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._writer.close()

    def _take(self, num_bytes: int) -> pa.Table:
        """Return the first rows of about this size (at least one row)."""
        table = pa.concat_tables(self._waiting)
        share = min(1.0, num_bytes / max(self._num_waiting_bytes, 1))
        num_rows = max(1, round(table.num_rows * share))
        rest = table.slice(num_rows)
        self._waiting = [rest] if rest.num_rows else []
        self._num_waiting_bytes = rest.nbytes if rest.num_rows else 0
        return table.slice(0, num_rows)

    def _write_group(self, table: pa.Table) -> None:
        self._writer.write_table(table, row_group_size=max(table.num_rows, 1))


def put_table(rows: pa.Table, place: Storage) -> None:
    """Store a small table whole."""
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd")
    retrying(lambda: place.write_bytes(sink.getvalue().to_pybytes()))
