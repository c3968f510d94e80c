"""The change data feed of a Delta table: where it stands, and what it says happened since.

Whatever is unclear is a FeedUnclearError: the caller compares everything instead.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from pipelines.lake.delta.inputs import open_input
from pipelines.lake.digests import digest
from pipelines.lake.source import without_views
from pipelines.lake.storage import Storage

FEED_COLUMNS = ("_change_type", "_commit_version")
_IS_ON = "delta.enableChangeDataFeed"
# operations after which the feed tells all that happened to rows
_TOLD = frozenset(
    {
        "DELETE",
        "MERGE",
        "OPTIMIZE",
        "STREAMING UPDATE",
        "TRUNCATE",
        "UPDATE",
        "VACUUM END",
        "VACUUM START",
        "WRITE",
    }
)


class FeedUnclearError(RuntimeError):
    """The feed does not say for sure what changed."""


@dataclass(frozen=True, slots=True)
class FeedPoint:
    """A version of a table with a feed; `identity` changes with the table or its columns."""

    uri: str
    version: int
    identity: str
    num_rows: int


def feed_point(place: Storage) -> FeedPoint | None:
    """Return where the table stands now; None when there is no table or no feed of it."""
    if not place.join("_delta_log").exists():
        return None
    delta = open_input(place)
    metadata = delta.metadata()
    if str(metadata.configuration.get(_IS_ON)).lower() != "true":
        return None
    counts = delta.get_add_actions(flatten=True)["num_records"].to_pylist()
    if None in counts or (delta.protocol().reader_features or ()):
        return None  # deletion vectors, perhaps: rows are not what the files' counts say
    columns = (str(metadata.id), delta.schema().to_json())
    identity = digest([text.encode() for text in columns]).hex()
    return FeedPoint(place.uri, delta.version(), identity, sum(counts))


class ChangeReader:
    """The changes after one point up to another."""

    def __init__(self, place: Storage, since: int, until: int, columns: Sequence[str]) -> None:
        self._delta = DeltaTable(
            place.delta_uri, version=until, storage_options=place.delta_options or None
        )
        self._range = range(since + 1, until + 1)
        known = [field.name for field in self._delta.schema().fields]
        self.columns = [*(name for name in columns if name in known), *FEED_COLUMNS]

    def check(self) -> None:
        """Refuse a range of which the log or the feed does not tell everything."""
        if not set(self.columns).isdisjoint(self._delta.metadata().partition_columns):
            raise FeedUnclearError("the folders' names hold columns that are read as text there")
        entries = {int(e["version"]): str(e.get("operation")) for e in self._delta.history()}
        missing = [version for version in self._range if version not in entries]
        odd = sorted({entries[v] for v in self._range if v in entries} - _TOLD)
        if missing or odd:
            raise FeedUnclearError(f"versions {missing[:3]} are not told, operations {odd}")

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield changed rows with FEED_COLUMNS; text as plain strings."""
        if not self._range:
            return
        try:
            found = self._delta.load_cdf(
                starting_version=self._range[0],
                ending_version=self._range[-1],
                columns=self.columns,
            )
            for batch in pa.RecordBatchReader.from_stream(found):
                yield without_views(batch)
        except (DeltaError, OSError) as error:  # vacuumed, or written while the feed was off
            raise FeedUnclearError(str(error)) from error


class RowWriter:
    """Rows of the feed as one Parquet file, written as they come."""

    def __init__(self, place: Storage) -> None:
        place.sibling(place.path.rpartition("/")[0]).make_folder()
        self._stream = place.arrow.open_output_stream(place.path)
        self._writer: pq.ParquetWriter | None = None
        self.num_rows = 0

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()
        self._stream.close()

    def add(self, rows: pa.RecordBatch) -> None:
        """Append rows; the first ones decide the columns."""
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._stream, rows.schema)
        self._writer.write_batch(rows)
        self.num_rows += rows.num_rows
