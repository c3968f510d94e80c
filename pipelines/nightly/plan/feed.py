"""A night over the change feed of its input: only changed rows are read, the rest is known.

The feed is used when nothing about it is unclear: one Delta input with a feed, last night saw all
of it and every row of it is in the table, nobody else has changed the table since, and for every
id the feed and the table agree on whether it was there. Else everything is compared.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.lake.delta.change_feed import (
    FEED_COLUMNS,
    ChangeReader,
    FeedPoint,
    FeedUnclearError,
    RowWriter,
)
from pipelines.lake.inputs import InputFile, describe_file, with_hidden
from pipelines.lake.storage import Storage
from pipelines.lake.tables import id_hashes
from pipelines.lake.uris import without_secrets
from pipelines.nightly.plan.changes import ID, BucketChanges, bucket_changes
from pipelines.nightly.plan.rows import RowSettings, as_binary
from pipelines.nightly.plan.scan import PlannedFile

FEED = "_feed"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FeedTask:
    """Changes to fetch into `runs`: from what last night saw to what is there now."""

    runs: Storage
    since: FeedPoint
    until: FeedPoint
    settings: RowSettings


@dataclass(frozen=True, slots=True)
class Feed:
    """What changed. `file` holds the rows as they are now (None: no row came or changed).

    touched: id, `is_there` now, `was_there` when the last night ended.
    """

    file: InputFile | None
    touched: pl.DataFrame
    num_rows: int  # of the whole input now

    def bucket(self, bucket: int, num_buckets: int) -> pl.DataFrame:
        """Return the touched ids of one bucket."""
        return self.touched.filter(pl.col("id_hi") % num_buckets == bucket)


def usable_since(
    record: Mapping[str, Any] | None, now: FeedPoint, settings: RowSettings, table_run: str | None
) -> FeedPoint | None:
    """Return where to begin; None when last night cannot be built upon."""
    if record is None or record["signature"] != settings.signature():
        return None
    since = FeedPoint(**{name: record[name] for name in ("uri", "version", "identity", "num_rows")})
    is_same = (since.uri, since.identity) == (without_secrets(now.uri), now.identity)
    is_same &= record["table_run"] == table_run and since.version <= now.version
    return since if is_same else None


def fetch_feed(task: FeedTask) -> Feed | None:
    """Write the changed rows to a file; None: everything has to be compared."""
    try:
        return _fetch(task)
    except FeedUnclearError as error:
        _log.info("the change feed is not used: %s", error)
        return None


def _fetch(task: FeedTask) -> Feed:
    settings, uri = task.settings, task.until.uri
    place = Storage.of(uri, settings.options)
    columns = (*settings.key_columns(), *settings.content_columns())
    reader = ChangeReader(place, task.since.version, task.until.version, columns)
    reader.check()
    if settings.columns.product_id not in reader.columns:
        raise FeedUnclearError("the ids are in no column of the table")
    if settings.uses_pictures and settings.columns.image_uri in reader.columns:
        raise FeedUnclearError("addresses of pictures are relative to the table's files")
    name = f"{task.since.version}-{task.until.version}-{task.until.identity}.parquet"
    target = task.runs.join(FEED, name)
    events = [_EVENTS]
    with RowWriter(target) as writer:
        for batch in reader.batches():
            events.append(_write_changes(batch, writer, settings.columns.product_id))
    net = _net_changes(pl.concat(events))
    kept = net.filter(pl.col("is_there"))["position"].to_numpy()
    hidden = np.setdiff1d(np.arange(writer.num_rows), kept)
    file = with_hidden(describe_file(target), hidden) if writer.num_rows else None
    return Feed(file, net.drop("position"), task.until.num_rows)


_EVENTS = pl.DataFrame(
    schema=dict.fromkeys(ID, pl.UInt64)
    | {"version": pl.Int64, "sign": pl.Int64, "position": pl.Int64}
)


def _write_changes(batch: pa.RecordBatch, writer: RowWriter, key: str) -> pl.DataFrame:
    """Return one event per changed row; rows that are or were there after it go to the file."""
    kinds = batch.column(FEED_COLUMNS[0]).cast(pa.string())
    is_new = pc.is_in(kinds, pa.array(["insert", "update_postimage"]))
    first = writer.num_rows
    writer.add(batch.drop_columns(list(FEED_COLUMNS)).filter(is_new))
    found = as_binary(batch.column(key), allow_integers=True)
    if found is None or found.null_count:
        raise FeedUnclearError("a changed row has no usable id")
    ids = id_hashes(found.to_pylist())
    mask = is_new.to_numpy(zero_copy_only=False)
    return pl.DataFrame(
        {
            **dict(zip(ID, ids.T, strict=True)),
            "version": batch.column(FEED_COLUMNS[1]).cast(pa.int64()).to_numpy(),
            "sign": np.where(mask, 1, -1),
            "position": np.where(mask, first + np.cumsum(mask) - 1, -1),
        }
    )


def _net_changes(events: pl.DataFrame) -> pl.DataFrame:
    """Return per id: is it there now, was it there before, and which row of the file holds it."""
    is_last = pl.col("version") == pl.col("version").max()
    net = events.group_by(ID).agg(
        change=pl.col("sign").sum(),
        num_last=(is_last & (pl.col("sign") > 0)).sum().cast(pl.Int64),
        position=pl.col("position").filter(is_last).max(),
    )
    before = pl.col("num_last") - pl.col("change")
    if not net.select((pl.col("num_last").is_between(0, 1) & before.is_between(0, 1)).all()).item():
        raise FeedUnclearError("an id is there more than once")
    return net.select(*ID, "position", is_there=pl.col("num_last") == 1, was_there=before == 1)


def check_feed_rows(files: Sequence[PlannedFile]) -> None:
    """Refuse changed rows that would have to be named in the quarantine table by their files."""
    for planned in files:
        if planned.summary.is_spoiled or planned.summary.num_keyless:
            raise FeedUnclearError("a changed row has no usable id, or cannot be read")


class FeedCheck:
    """Compares buckets by the feed and makes sure that feed and table fit together."""

    def __init__(self, feed: Feed, num_buckets: int) -> None:
        self._feed = feed
        self._num_buckets = num_buckets
        self._rows_there = 0

    def changes(
        self, bucket: int, keys: pl.DataFrame, known: pl.DataFrame, staged: pl.DataFrame | None
    ) -> tuple[BucketChanges, int]:
        """Return the changes of a bucket, and how many rows of it the feed does not name."""
        touched = self._feed.bucket(bucket, self._num_buckets)
        there = known.filter(~pl.col("is_vanished"))
        both = touched.join(there.select(*ID, found=pl.lit(True)), on=ID, how="left")
        if (both["was_there"] != both["found"].fill_null(False)).any():
            raise FeedUnclearError("feed and table differ on which ids were there")
        others = there.join(touched, on=ID, how="anti")
        if not others["is_current"].all():
            raise FeedUnclearError("rows that did not change have to be extracted again")
        self._rows_there += len(others) + int(touched["is_there"].sum())
        mine = known.join(touched, on=ID, how="semi")
        return bucket_changes(keys, mine, staged), len(others)

    def check_total(self) -> None:
        """After the last bucket."""
        if self._rows_there != self._feed.num_rows:
            raise FeedUnclearError(
                f"found {self._rows_there} rows by the feed, {self._feed.num_rows} in the input"
            )
