"""Going back: both tables as they were at an earlier version, as one more commit on top.

Nothing is extracted and no file is written but the quarantine's: the files of the old version are
named again, so it works for as long as vacuum has left them.
"""

from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

import polars as pl
import pyarrow as pa
from deltalake import DeltaTable

from pipelines.lake.documents import write_json
from pipelines.lake.history import Commit, commits_of, find_commit, matching_commit
from pipelines.lake.snapshot import Snapshot, StoredFile
from pipelines.lake.storage import Storage
from pipelines.lake.tables import EXTRACTIONS, QUARANTINE, QUARANTINE_SCHEMA, RUNS, open_table
from pipelines.nightly.gate import GateConfig
from pipelines.nightly.runs import LAST, PUBLISHED, RunFolder, abandon_open_run, new_run_id
from pipelines.nightly.summary import for_next_night
from pipelines.nightly.table.lock import LockConfig, lock_table
from pipelines.nightly.table.publish import Publisher, Rewritten

_ERASE = "erase-"
_FILE = ["bucket", "path", "size"]


def rollback(output: Storage, moment: str, *, config: LockConfig) -> dict[str, Any]:
    """Make the tables what `T@moment` shows; an open run is abandoned, for its plan no longer fits.

    `moment` is a version number, a run id or an ISO time. The next night compares the inputs with
    the old rows and extracts again what differs.
    """
    if open_table(output, EXTRACTIONS) is None:
        raise ValueError(f"found no table at {output.uri}; name the --output of earlier runs")
    run_id = f"rollback-{new_run_id()}"
    runs = output.join(RUNS)
    lock = lock_table(output, run_id, config)
    try:
        snapshot = Snapshot.newest(output, num_buckets=1)
        publisher = Publisher(output, lock.epoch, run_id, snapshot.num_buckets)
        if lock.took_over:
            publisher.fence()
            snapshot = Snapshot.newest(output, num_buckets=1)
        assert snapshot.delta is not None
        commits = commits_of(snapshot.delta)
        target = find_commit(commits, moment)
        _refuse_erased(commits, target)
        changes = _changes(output, snapshot.delta, target)
        entries = _old_quarantine(output, target)  # before the first commit: both tables or none
        abandoned = abandon_open_run(runs)
        if changes:
            publisher.commit_extractions(snapshot, changes)
        publisher.commit_quarantine(entries)
        _restore_last(runs, [commit for commit in commits if commit.version <= target.version])
    finally:
        lock.release()
    return {
        "state": "rolled back",
        "run_id": run_id,
        "from_version": commits[-1].version,
        "to_version": target.version,
        "to_run": target.run_id,
        "table_version": publisher.versions.get(EXTRACTIONS, commits[-1].version),
        "buckets_changed": len(changes),
        "files_restored": sum(len(change.new) for change in changes),
        "abandoned_run": abandoned,
    }


def _refuse_erased(commits: Sequence[Commit], target: Commit) -> None:
    """Refuse an old version that would bring erased products back."""
    later = [
        c for c in commits if c.version > target.version and (c.run_id or "").startswith(_ERASE)
    ]
    if later:
        raise ValueError(
            f"products were erased in version {later[-1].version}, after version {target.version}; "
            "roll back to a version since then, or extract from the inputs again (--full)"
        )


def _changes(output: Storage, newest: DeltaTable, target: Commit) -> list[Rewritten]:
    """Return by bucket: files to drop, files of the old version to name again."""
    place = output.join(EXTRACTIONS)
    then = DeltaTable(
        place.delta_uri, version=target.version, storage_options=place.delta_options or None
    )
    now_files, old_files = _files(newest), _files(then)
    dropped = now_files.join(old_files, on="path", how="anti")
    restored = old_files.join(now_files, on="path", how="anti")
    _check_present(place, restored["path"].to_list(), target)
    buckets = sorted({*dropped["bucket"].to_list(), *restored["bucket"].to_list()})
    return [_change(bucket, dropped, restored) for bucket in buckets]


def _change(bucket: int, dropped: pl.DataFrame, restored: pl.DataFrame) -> Rewritten:
    old = dropped.filter(pl.col("bucket") == bucket)
    new = restored.filter(pl.col("bucket") == bucket)
    return Rewritten(
        bucket=bucket,
        old=tuple(StoredFile(path, size) for _, path, size in old.select(_FILE).iter_rows()),
        new=tuple(StoredFile(path, size) for _, path, size in new.select(_FILE).iter_rows()),
        new_rows=tuple(new["rows"].to_list()),
    )


def _files(delta: DeltaTable) -> pl.DataFrame:
    """Return `bucket, path, size, rows` of the active files."""
    actions = delta.get_add_actions(flatten=True)
    schema = {"bucket": pl.Int64, "path": pl.String, "size": pl.Int64, "rows": pl.Int64}
    if "partition.bucket" not in actions.schema.names:
        return pl.DataFrame(schema=schema)
    names = ("partition.bucket", "path", "size_bytes", "num_records")
    columns = (actions[name].to_pylist() for name in names)
    frame = pl.DataFrame(dict(zip(schema, columns, strict=True)), schema=schema)
    return frame.with_columns(pl.col("path").map_elements(unquote, pl.String))


def _check_present(place: Storage, paths: Sequence[str], target: Commit) -> None:
    if not paths:
        return
    root = place.path.rstrip("/")
    present = {str(path).removeprefix(f"{root}/") for path in place.fs.find(place.path)}
    missing = [path for path in paths if path not in present]
    if missing:
        raise ValueError(
            f"found {len(missing)} of {len(paths)} files of version {target.version} deleted by "
            "vacuum, expected all; choose a newer version, or extract from the inputs again"
        )


def _old_quarantine(output: Storage, target: Commit) -> pa.Table:
    delta = open_table(output, QUARANTINE)
    commit = matching_commit(commits_of(delta), target) if delta else None
    if commit is None:
        return QUARANTINE_SCHEMA.empty_table()
    place = output.join(QUARANTINE)
    then = DeltaTable(
        place.delta_uri, version=commit.version, storage_options=place.delta_options or None
    )
    paths = [unquote(path) for path in then.get_add_actions(flatten=True)["path"].to_pylist()]
    _check_present(place, paths, commit)
    rows = pl.scan_delta(
        place.delta_uri, version=commit.version, storage_options=place.polars_options or None
    )
    return rows.collect().to_arrow().cast(QUARANTINE_SCHEMA)


def _restore_last(runs: Storage, commits: Sequence[Commit]) -> None:
    """Write what the next gate compares with: the newest run that the old version holds."""
    last: dict[str, Any] | None = None
    for commit in commits:  # in turn: the rates of a run of few rows are those of the one before
        summary = RunFolder(runs.join(commit.run_id)).read(PUBLISHED) if commit.run_id else None
        if summary is not None:
            last = for_next_night(summary, last, GateConfig())
    if last is None:
        runs.join(LAST).delete()
    else:
        write_json(runs.join(LAST), last)
