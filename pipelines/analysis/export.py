"""A plain-Parquet snapshot of the extractions table, for tools that do not read Delta tables.

`U/v<version>-<id>/wide/*.parquet` has a row per product and a column per attribute,
`U/v<version>-<id>/long/*.parquet` a row per value, clustered by attribute. The snapshot appears at
once: `U/latest.json` (and, on a local disk, the link `U/latest`) is replaced when all is written.
"""

import json
import os
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from pipelines.lake.kinds import SNAPSHOTS, check_apart, claim
from pipelines.lake.snapshot import Snapshot
from pipelines.lake.storage import Storage, retrying
from pipelines.lake.tables import EXTRACTIONS, open_table
from ulsdram_core.frozen import Frozen
from ulsdram_core.schema import Status

LATEST = "latest"
_NAME = re.compile(r"v\d{8}-[0-9a-f]{8}")
_GROUP_ROWS = 50_000
_FIXED = ("product_id", "status", "reason", "model_id", "run_id", "extracted_at")
_VALUE_COLUMNS = (
    "attribute",
    "value",
    "normalized",
    "confidence",
    "source",
    "start",
    "end",
    "product_id",
    "status",
)


class ExportConfig(Frozen):
    """What a snapshot holds and how many are kept."""

    keep: int = Field(2, ge=1, description="Snapshots kept, the new one included.")
    include_vanished: bool = Field(False, description="Export products that vanished as well.")
    min_confidence: float = Field(0.0, ge=0, le=1, description="Leave out values below it.")


@dataclass(frozen=True, slots=True)
class _Part:
    frame: pl.DataFrame
    values: pl.DataFrame


def export(table: Storage, target: Storage, config: ExportConfig) -> dict[str, object]:
    """Write a snapshot of the newest version of `table` below `target` and point at it."""
    if open_table(table, EXTRACTIONS) is None:
        raise ValueError(f"found no extractions table at {table.uri}; run extract_catalog first")
    check_apart(table, target, read="--table")
    claim(target, SNAPSHOTS)
    snapshot = Snapshot.newest(table, num_buckets=1)
    assert snapshot.delta is not None
    version = snapshot.delta.version()
    folder = target.join(f"v{version:08d}-{uuid.uuid4().hex[:8]}")
    names = column_names(_attributes(snapshot, config))
    num_products, num_values = 0, 0
    for bucket in range(snapshot.num_buckets):
        part = _read(snapshot, bucket, config)
        name = f"part-{bucket:05d}.parquet"
        _put(folder.join("wide", name), _wide(part, names))
        _put(folder.join("long", name), _long(part))
        num_products += len(part.frame)
        num_values += len(part.values)
    _point_at(target, folder, version=version)
    _drop_old(target, folder.name, config.keep)
    return {
        "state": "exported",
        "table_version": version,
        "products": num_products,
        "values": num_values,
        "attributes": len(names),
        "snapshot": folder.uri,
    }


def column_names(attributes: Sequence[str]) -> dict[str, str]:
    """Return attribute -> column of the wide snapshot; a name that is taken gets a suffix."""
    taken = set(_FIXED)
    names = {}
    for attribute in sorted(attributes):
        name = attribute
        while name in taken:
            name += "_value"
        taken.add(name)
        names[attribute] = name
    return names


def _attributes(snapshot: Snapshot, config: ExportConfig) -> list[str]:
    found: set[str] = set()
    for bucket in range(snapshot.num_buckets):
        found.update(_read(snapshot, bucket, config).values["attribute"].unique().to_list())
    return sorted(found)


def _read(snapshot: Snapshot, bucket: int, config: ExportConfig) -> _Part:
    """Return one bucket: its products, and their values one a row."""
    rows = pl.DataFrame(pl.from_arrow(snapshot.bucket(bucket).read()))
    if not config.include_vanished:
        rows = rows.filter(pl.col("status") != Status.VANISHED.value)
    values = rows.select("product_id", "status", "values").explode("values")
    values = values.drop_nulls("values").unnest("values")
    return _Part(rows, values.filter(pl.col("confidence") >= config.min_confidence))


def _wide(part: _Part, names: Mapping[str, str]) -> pl.DataFrame:
    """Return a row per product; an attribute's distinct values as a list, null without any."""
    texts = part.values.select("product_id", "attribute", text=pl.coalesce("normalized", "value"))
    lists = texts.group_by("product_id", "attribute", maintain_order=True).agg(
        pl.col("text").unique(maintain_order=True)
    )
    pivoted = lists.pivot(on="attribute", index="product_id", values="text").rename(
        dict(names), strict=False
    )
    missing = [name for name in names.values() if name not in pivoted.columns]
    pivoted = pivoted.with_columns(
        pl.lit(None, dtype=pl.List(pl.String)).alias(name) for name in missing
    )
    joined = part.frame.select(_FIXED).join(
        pivoted, on="product_id", how="left", maintain_order="left"
    )
    return joined.select(*_FIXED, *names.values())


def _long(part: _Part) -> pl.DataFrame:
    """Return a row per value, sorted so that readers of one attribute skip the rest."""
    return part.values.select(_VALUE_COLUMNS).sort("attribute", "product_id", "source", "start")


def _put(place: Storage, frame: pl.DataFrame) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(frame.to_arrow(), sink, compression="zstd", row_group_size=_GROUP_ROWS)
    retrying(lambda: place.write_bytes(sink.getvalue().to_pybytes()))


def _point_at(target: Storage, folder: Storage, *, version: int) -> None:
    """Make the snapshot the newest one, in one step."""
    content = {"snapshot": folder.name, "table_version": version}
    if target.is_local:
        link = Path(target.path) / LATEST
        temporary = link.with_name(f".{LATEST}.{uuid.uuid4().hex}.tmp")
        temporary.symlink_to(folder.name, target_is_directory=True)
        os.replace(temporary, link)
    retrying(lambda: target.join(f"{LATEST}.json").write_bytes(json.dumps(content).encode()))


def _drop_old(target: Storage, newest: str, keep: int) -> None:
    """Remove all but the last snapshots, strays of exports that were cut short among them."""
    others = [name for name in target.names() if _NAME.fullmatch(name) and name != newest]
    for name in others[: max(0, len(others) - keep + 1)]:
        target.join(name).delete()
