"""One version of the extractions table as files per bucket, readable bucket by bucket."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable

from pipelines.lake.storage import Storage, retrying
from pipelines.lake.tables import (
    EXTRACTIONS,
    extractions_schema,
    num_buckets_of,
    open_table,
    vector_columns,
)
from ulsdram_core.schema import Status


def stored_schema(vectors: Sequence[str] = ()) -> pa.Schema:
    """Return the columns of a data file: all but the partition's."""
    schema = extractions_schema(vectors)
    return schema.remove(schema.get_field_index("bucket"))


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One active data file: path below the table, bytes."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class BucketFiles:
    """The active files of one bucket."""

    table: Storage
    bucket: int
    files: tuple[StoredFile, ...] = ()
    vectors: tuple[str, ...] = ()

    @property
    def schema(self) -> pa.Schema:
        """Columns of the files."""
        return stored_schema(self.vectors)

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return all rows of the bucket, without the `bucket` column."""
        stored = self.schema
        names = list(columns or stored.names)
        schema = pa.schema([stored.field(name) for name in names])
        tables = [self._read(file, names) for file in self.files]
        return pa.concat_tables([schema.empty_table(), *(t.cast(schema) for t in tables)])

    def _read(self, file: StoredFile, names: list[str]) -> pa.Table:
        place = self.table.join(file.path)

        def read() -> pa.Table:
            with place.arrow.open_input_file(place.path) as stream:
                return pq.ParquetFile(stream).read(names, use_threads=False)

        return retrying(read)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The table at one version; `delta` is None before the first publish."""

    table: Storage
    delta: DeltaTable | None
    num_buckets: int
    _buckets: dict[int, tuple[StoredFile, ...]] = field(default_factory=dict)
    vectors: tuple[str, ...] = ()

    @staticmethod
    def newest(
        output: Storage, *, num_buckets: int, vectors: Sequence[str] | None = None
    ) -> "Snapshot":
        """Open the table in folder `output`; `num_buckets` counts only when there is none yet.

        `vectors` are the columns of vectors that the table must have; None takes what it has.
        """
        table = output.join(EXTRACTIONS)
        delta = open_table(output, EXTRACTIONS)
        if delta is None:
            return Snapshot(table, None, num_buckets, vectors=tuple(vectors or ()))
        found = vector_columns(delta)
        if vectors is not None and tuple(vectors) != found:
            raise ValueError(
                f"found table {table.uri} with columns of vectors {list(found)}, expected "
                f"{list(vectors)}; write to another --output"
            )
        files = _files_by_bucket(delta)
        return Snapshot(table, delta, num_buckets_of(delta), files, found)

    def bucket(self, bucket: int) -> BucketFiles:
        """Return the files of one bucket."""
        return BucketFiles(self.table, bucket, self._buckets.get(bucket, ()), self.vectors)

    def count_shown(self) -> int:
        """Return products that a reader sees, vanished ones aside."""
        statuses = (self.bucket(b).read(["status"])["status"] for b in self._buckets)
        return sum(
            column.length() - (pc.sum(pc.equal(column, Status.VANISHED.value)).as_py() or 0)
            for column in statuses
        )


def _files_by_bucket(delta: DeltaTable) -> dict[int, tuple[StoredFile, ...]]:
    actions = delta.get_add_actions(flatten=True)
    names = actions.schema.names
    if "partition.bucket" not in names:
        return {}
    columns = (actions[name].to_pylist() for name in ("partition.bucket", "path", "size_bytes"))
    buckets: dict[int, tuple[StoredFile, ...]] = {}
    for bucket, path, size in zip(*columns, strict=True):
        buckets[bucket] = (*buckets.get(bucket, ()), StoredFile(unquote(path), size))
    return buckets
