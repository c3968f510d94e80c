"""Entries of the quarantine table: what has no usable key (DESIGN: tables).

While a run is under way an entry of a duplicate carries the hash of its id; the id itself is looked
up in the published table, so that planning never holds ids.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pyarrow as pa

from pipelines.command.secrets import redact
from pipelines.lake.snapshot import Snapshot
from pipelines.lake.tables import QUARANTINE_SCHEMA, SCHEMA_VERSION, id_hashes
from pipelines.lake.uris import without_secrets
from pipelines.nightly.plan.scan import KEYLESS_REASONS, PlannedFile, RowMap
from ulsdram_core.reasons import Reason

WHOLE = -1  # a row of WHOLE is a whole row group, a row group of WHOLE a whole file
ENTRY_SCHEMA = pa.schema(
    [QUARANTINE_SCHEMA.field(i) for i in range(4)]
    + [
        QUARANTINE_SCHEMA.field("reason"),
        QUARANTINE_SCHEMA.field("detail"),
        pa.field("id_hi", pa.uint64()),
        pa.field("id_lo", pa.uint64()),
    ]
)


def file_entries(planned: PlannedFile) -> Iterator[dict[str, object]]:
    """Yield entries for an unusable file, its unreadable row groups and its broken CSV lines."""
    file, summary = planned.file, planned.summary
    if summary.problem is not None:
        num_rows = summary.num_visible if summary.row_groups else None
        yield _entry(file.uri, WHOLE, WHOLE, num_rows, summary.problem, summary.detail)
    for group, detail in summary.bad_row_groups.items():
        rows = summary.visible_in(group)
        yield _entry(file.uri, group, WHOLE, rows, Reason.UNREADABLE_ROW_GROUP.value, detail)
    for line in summary.bad_lines:
        detail = "the line has another number of fields than the header"
        yield _entry(file.uri, WHOLE, line, 1, Reason.WRONG_TYPE.value, detail)


def entries_table(entries: Sequence[dict[str, object]]) -> pa.Table:
    """Return entries of `file_entries` as a table."""
    return pa.Table.from_pylist(list(entries), schema=ENTRY_SCHEMA)


def keyless_table(keys: pl.DataFrame, rows: RowMap) -> pa.Table:
    """Return entries for rows without a usable id (the last batches of the key table)."""
    reasons = [KEYLESS_REASONS[code].value for code in keys["hash_hi"]]
    return _rows_table(keys["order"].to_numpy(), reasons, rows)


def losers_table(losers: pl.DataFrame, rows: RowMap) -> pa.Table:
    """Return entries for rows whose id another row has (columns order, id_hi, id_lo)."""
    table = _rows_table(losers["order"].to_numpy(), [Reason.DUPLICATE_ID.value] * len(losers), rows)
    for name in ("id_hi", "id_lo"):
        i = table.schema.get_field_index(name)
        table = table.set_column(i, name, losers[name].to_arrow())
    return table


def published_entries(entries: pa.Table, snapshot: Snapshot, run_id: str) -> pa.Table:
    """Return entries as the quarantine table holds them, with the ids of duplicates looked up."""
    found = pl.DataFrame(pl.from_arrow(entries)).with_row_index("position")
    ids = _look_up_ids(found.filter(pl.col("id_lo").is_not_null()), snapshot)
    rows = found.join(ids, on="position", how="left", maintain_order="left").with_columns(
        run_id=pl.lit(run_id),
        quarantined_at=pl.lit(datetime.now(UTC)),
        schema_version=pl.lit(SCHEMA_VERSION),
    )
    return rows.select(QUARANTINE_SCHEMA.names).to_arrow().cast(QUARANTINE_SCHEMA)


def _look_up_ids(entries: pl.DataFrame, snapshot: Snapshot) -> pl.DataFrame:
    """Return (position, product_id) of entries that carry the hash of an id."""
    frames = [pl.DataFrame(schema={"position": pl.UInt32, "product_id": pl.String})]
    keyed = entries.select(
        "position", "id_hi", "id_lo", bucket=pl.col("id_hi") % snapshot.num_buckets
    )
    for (bucket,), part in keyed.group_by("bucket"):
        rows = snapshot.bucket(int(str(bucket))).read(["product_id"])
        halves = id_hashes(rows["product_id"].to_pylist())
        known = pl.DataFrame(
            {
                "id_hi": halves[:, 0],
                "id_lo": halves[:, 1],
                "product_id": pl.from_arrow(rows["product_id"]),
            }
        )
        joined = part.join(known, on=["id_hi", "id_lo"], how="inner")
        frames.append(joined.select("position", "product_id"))
    return pl.concat(frames)


def _entry(
    file: str, row_group: int, row: int, num_rows: int | None, reason: str, detail: str
) -> dict[str, object]:
    return {
        "file": without_secrets(file),
        "row_group": row_group,
        "row": row,
        "num_rows": num_rows,
        "reason": reason,
        "detail": redact(detail) or None,
    }


def _rows_table(orders: np.ndarray, reasons: list[str], rows: RowMap) -> pa.Table:
    files, groups, positions = rows.locate(orders)
    uris = pa.array([without_secrets(p.file.uri) for p in rows.files], pa.string())
    columns = {
        "file": uris.take(pa.array(files)),
        "row_group": pa.array(groups, pa.int32()),
        "row": pa.array(positions, pa.int64()),
        "num_rows": pa.array(np.ones(len(orders), np.int64)),
        "reason": pa.array(reasons, pa.string()),
        "detail": pa.nulls(len(orders), pa.string()),
        "id_hi": pa.nulls(len(orders), pa.uint64()),
        "id_lo": pa.nulls(len(orders), pa.uint64()),
    }
    return pa.table(columns, schema=ENTRY_SCHEMA)
