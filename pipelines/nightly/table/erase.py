"""Removing products for good: from the tables, from staged work and, with vacuum, from history."""

import json
from collections.abc import Sequence
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from pipelines.errors import RunFailedError
from pipelines.lake.documents import read_json, write_json
from pipelines.lake.snapshot import Snapshot
from pipelines.lake.storage import Storage
from pipelines.lake.tables import (
    EXTRACTIONS,
    QUARANTINE,
    RUNS,
    bucket_of,
    id_digest,
    id_hashes,
    open_table,
)
from pipelines.nightly.crash import crash_point
from pipelines.nightly.plan.feed import FEED
from pipelines.nightly.plan.keys import KEYS
from pipelines.nightly.plan.scan import CSV_COPIES
from pipelines.nightly.runs import abandon_open_run, new_run_id, sweep
from pipelines.nightly.table.lock import LockConfig, TableLock, lock_table
from pipelines.nightly.table.maintenance import drop_temporaries, vacuum
from pipelines.nightly.table.publish import Publisher, RewriteTask, read_table, rewrite_bucket

PENDING = "erase.json"  # until the next night, so that the same command may be repeated


def read_ids(place: Storage) -> list[str]:
    """Read product ids: one a line, exactly as they stand; in a .jsonl file JSON strings."""
    try:
        text = place.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise ValueError(f"found no file at {place.uri}, expected ids, one a line") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{place.uri} is not UTF-8 text; write one product id a line") from error
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    is_json = place.uri.lower().endswith((".jsonl", ".ndjson"))
    ids = [_json_id(line, place) if is_json else line for line in lines if line.strip()]
    if not ids:
        raise ValueError(f"{place.uri} names no product id; write one a line")
    return ids


def _json_id(line: str, place: Storage) -> str:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{place.uri} has a line that is not JSON: {error}") from error
    if isinstance(found, bool) or not isinstance(found, str | int):
        raise ValueError(f"{place.uri} has a line {line[:40]!r}, expected a product id as a string")
    return str(found)


def erase(
    output: Storage,
    ids: Sequence[str],
    *,
    is_vacuumed: bool,
    config: LockConfig,
    is_missing_allowed: bool = False,
) -> dict[str, Any]:
    """Remove the products; open and orphaned runs are abandoned: their staging may hold them.

    The inputs are not touched: a product that is still there comes back with the next night. An id
    that neither table holds is a failure, after the others were erased.
    """
    if open_table(output, EXTRACTIONS) is None:
        raise ValueError(f"found no table at {output.uri}; name the --output of earlier runs")
    run_id = f"erase-{new_run_id()}"
    lock = lock_table(output, run_id, config)
    try:
        summary = _erase(output, lock, run_id, ids)
        crash_point("after_erase")
        summary["files_vacuumed"] = _forget(output) if is_vacuumed else 0
    finally:
        lock.release()
    missing = summary.pop("missing")
    summary["products_missing"] = len(missing)
    if missing and not is_missing_allowed:
        raise RunFailedError(
            f"{len(missing)} of {len(set(ids))} products are in neither table: "
            f"{', '.join(map(repr, missing[:10]))}{', ...' if len(missing) > 10 else ''}; check "
            "the ids (they must be exact), or say --allow-missing",
            summary=summary,
        )
    return summary


def _erase(output: Storage, lock: TableLock, run_id: str, ids: Sequence[str]) -> dict[str, Any]:
    runs = output.join(RUNS)
    abandoned = abandon_open_run(runs)
    sweep(runs, keep_days=None, is_open_kept=False)
    snapshot = Snapshot.newest(output, num_buckets=1)
    publisher = Publisher(output, lock.epoch, run_id, snapshot.num_buckets)
    if lock.took_over:
        publisher.fence()
        snapshot = Snapshot.newest(output, num_buckets=1)
    found = _present(output, snapshot, ids) | _pending(runs, ids)
    # digests, so that an attempt that is cut short after its commit knows that they were there
    marks = sorted(id_digest(product_id).hex() for product_id in found)
    write_json(runs.join(PENDING), {"erased": marks})
    crash_point("before_erase")
    num_erased = _erase_extractions(snapshot, publisher, ids)
    crash_point("during_erase")
    num_entries = _erase_quarantine(output, publisher, ids)
    return {
        "state": "erased",
        "run_id": run_id,
        "products_asked": len(set(ids)),
        "products_erased": num_erased,
        "quarantine_entries_erased": num_entries,
        "abandoned_run": abandoned,
        "missing": sorted(set(ids) - found),
    }


def _present(output: Storage, snapshot: Snapshot, ids: Sequence[str]) -> set[str]:
    """Return the ids that one of the tables holds."""
    wanted = pa.array(sorted(set(ids)), pa.string())
    buckets = {bucket_of(product_id, snapshot.num_buckets) for product_id in ids}
    columns = [snapshot.bucket(b).read(["product_id"])["product_id"] for b in sorted(buckets)]
    entries = read_table(output, QUARANTINE)
    if entries is not None:
        columns.append(entries["product_id"])
    return {
        product_id
        for column in columns
        for product_id in column.filter(pc.is_in(column, value_set=wanted)).to_pylist()
    }


def _pending(runs: Storage, ids: Sequence[str]) -> set[str]:
    """Return the ids that an erasure which was cut short had found."""
    marks = set((read_json(runs.join(PENDING)) or {}).get("erased", ()))
    return {product_id for product_id in ids if id_digest(product_id).hex() in marks}


def _forget(output: Storage) -> int:
    """Remove what was superseded: files, copies of inputs, entries of the log; files deleted."""
    deleted = vacuum(output, hours=0)
    crash_point("during_forget")
    for folder in (KEYS, CSV_COPIES, FEED):
        output.join(RUNS, folder).delete()
    drop_temporaries(output)
    for name in (EXTRACTIONS, QUARANTINE):
        delta = open_table(output, name)
        if delta is not None:
            _shorten_log(output.join(name), delta)
    return deleted


def _shorten_log(place: Storage, delta: DeltaTable) -> None:
    """Leave the log from a new checkpoint on: older entries hold smallest and largest ids."""
    newest = delta.version()
    delta.create_checkpoint()
    crash_point("after_checkpoint")
    log = place.join("_delta_log")
    for name in log.names():
        version = name.partition(".")[0]
        if version.isdigit() and int(version) < newest:
            log.join(name).delete()


def _erase_extractions(snapshot: Snapshot, publisher: Publisher, ids: Sequence[str]) -> int:
    halves = id_hashes(sorted(set(ids)))
    frame = pl.DataFrame({"id_hi": halves[:, 0], "id_lo": halves[:, 1]})
    buckets = sorted(set((halves[:, 0] % snapshot.num_buckets).tolist()))
    rewritten = [
        rewrite_bucket(RewriteTask(snapshot.bucket(int(b)), publisher.run_id, erased=frame))
        for b in buckets
    ]
    touched = [item for item in rewritten if item.rows_erased]
    if touched:
        publisher.commit_extractions(snapshot, touched)
    return sum(item.rows_erased for item in touched)


def _erase_quarantine(output: Storage, publisher: Publisher, ids: Sequence[str]) -> int:
    entries = read_table(output, QUARANTINE)
    if entries is None:
        return 0
    is_erased = pc.is_in(entries["product_id"], value_set=pa.array(sorted(set(ids))))
    kept = entries.filter(pc.invert(is_erased))
    if kept.num_rows < entries.num_rows:
        publisher.commit_quarantine(kept)
    return entries.num_rows - kept.num_rows
