"""Tiny catalogues for the nightly tests: drawn pictures, seeded titles, files with row groups."""

import io
import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipelines.lake.storage import Storage
from pipelines.lake.tables import EXTRACTIONS, QUARANTINE

SCHEMA = pa.schema(
    [
        ("product_id", pa.string()),
        ("title", pa.string()),
        ("description", pa.string()),
        ("image", pa.binary()),
        ("category", pa.string()),
        ("updated_at", pa.timestamp("us", tz="UTC")),
        ("price", pa.float64()),
    ]
)
COMPARED = ("product_id", "bucket", "status", "reason", "values", "range", "input_hash", "model_id")
Row = dict[str, Any]


@lru_cache
def picture(color: int, *, kind: str = "JPEG", mode: str = "RGB") -> bytes:
    """A one-coloured picture of 24 x 24 px."""
    sink = io.BytesIO()
    Image.new("RGB", (24, 24), (color, 255 - color, 99)).convert(mode).save(sink, kind)
    return sink.getvalue()


def product(number: int, **changes: Any) -> Row:
    """Row number `number`; the same number gives the same row."""
    dice = random.Random(number)
    words = [dice.choice(w) for w in (("red", "blue", "green"), ("cotton", "wool"), ("small",))]
    row = {
        "product_id": f"p{number:06d}",
        "title": f"{' '.join(words)} shirt {number}",
        "description": None if number % 3 else f"made of {words[1]}",
        "image": picture(number % 7 * 30),
        "category": "shirts",
        "updated_at": None,
        "price": float(number),
    }
    return row | changes


def products(count: int, *, start: int = 0) -> list[Row]:
    """Rows start .. start + count."""
    return [product(number) for number in range(start, start + count)]


def write_file(path: Path, rows: Sequence[Row], *, group: int = 20, schema: Any = SCHEMA) -> Path:
    """A Parquet file with row groups of `group` rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(list(rows), schema=schema)
    pq.write_table(table, path, row_group_size=group)
    return path


def write_files(folder: Path, rows: Sequence[Row], *, files: int = 3, group: int = 20) -> Path:
    """Rows over several files of a folder."""
    size = -(-len(rows) // files)
    for i in range(files):
        write_file(folder / f"part-{i:03d}.parquet", rows[i * size : (i + 1) * size], group=group)
    return folder


def upload(folder: Path, target: Storage) -> None:
    """Copy a local folder's files to some storage."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            target.join(str(path.relative_to(folder))).write_bytes(path.read_bytes())


def extractions(output: Storage) -> pl.DataFrame:
    """The published table as a reader sees it, sorted."""
    place = output.join(EXTRACTIONS)
    frame = pl.scan_delta(place.uri, storage_options=place.polars_options or None).collect()
    assert frame["product_id"].is_unique().all()
    return frame.sort("product_id")


def quarantine(output: Storage) -> pl.DataFrame:
    """The quarantine table, sorted by its key."""
    place = output.join(QUARANTINE)
    frame = pl.scan_delta(place.uri, storage_options=place.polars_options or None).collect()
    return frame.sort("file", "row_group", "row")


def content(output: Storage) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Both tables without what differs between two runs over the same input."""
    left = quarantine(output).drop("run_id", "quarantined_at")
    return extractions(output).select(COMPARED), left


def assert_same_tables(
    found: Storage, expected: Storage, *, rename: Callable | None = None
) -> None:
    """Equal but for run ids and times; `rename` maps file names of the quarantine table."""
    for one, other in zip(content(found), content(expected), strict=True):
        if rename is not None and "file" in one.columns:
            one = one.with_columns(pl.col("file").map_elements(rename, pl.String))
            other = other.with_columns(pl.col("file").map_elements(rename, pl.String))
        assert one.equals(other), (one, other)
