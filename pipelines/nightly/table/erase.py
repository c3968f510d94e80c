"""Removing products for good: from the tables, from staged work and, with vacuum, from history."""

from collections.abc import Sequence
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.lake.snapshot import Snapshot
from pipelines.lake.storage import Storage
from pipelines.lake.tables import EXTRACTIONS, QUARANTINE, RUNS, id_hashes, open_table
from pipelines.nightly.runs import abandon_open_run, new_run_id
from pipelines.nightly.table.lock import LockConfig, lock_table
from pipelines.nightly.table.maintenance import vacuum
from pipelines.nightly.table.publish import Publisher, RewriteTask, read_table, rewrite_bucket


def read_ids(place: Storage) -> list[str]:
    """Product ids of a text file, one a line."""
    try:
        text = place.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise ValueError(f"found no file at {place.uri}, expected ids, one a line") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{place.uri} is not UTF-8 text; write one product id a line") from error
    ids = [line.strip() for line in text.splitlines() if line.strip()]
    if not ids:
        raise ValueError(f"{place.uri} names no product id; write one a line")
    return ids


def erase(
    output: Storage, ids: Sequence[str], *, is_vacuumed: bool, config: LockConfig
) -> dict[str, Any]:
    """Remove the products; an open run is abandoned because its staging may hold them.

    The inputs are not touched: a product that is still there comes back with the next night.
    """
    if open_table(output, EXTRACTIONS) is None:
        raise ValueError(f"found no table at {output.uri}; name the --output of earlier runs")
    run_id = f"erase-{new_run_id()}"
    runs = output.join(RUNS)
    lock = lock_table(output, run_id, config)
    try:
        abandoned = abandon_open_run(runs)
        snapshot = Snapshot.newest(output, num_buckets=1)
        publisher = Publisher(output, lock.epoch, run_id, snapshot.num_buckets)
        if lock.took_over:
            publisher.fence()
            snapshot = Snapshot.newest(output, num_buckets=1)
        num_erased = _erase_extractions(snapshot, publisher, ids)
        num_entries = _erase_quarantine(output, publisher, ids)
        deleted = vacuum(output, hours=0) if is_vacuumed else 0
    finally:
        lock.release()
    return {
        "state": "erased",
        "run_id": run_id,
        "products_asked": len(set(ids)),
        "products_erased": num_erased,
        "quarantine_entries_erased": num_entries,
        "files_vacuumed": deleted,
        "abandoned_run": abandoned,
    }


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
