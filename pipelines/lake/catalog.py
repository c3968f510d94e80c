"""The products table as the analysis reads it: category, specs and texts by product id.

The files are those that the nightly job lists; of rows with one id the same one counts.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.lake.errors import QueryError
from pipelines.lake.inputs import InputFile, list_inputs
from pipelines.lake.storage import Storage
from pipelines.lake.tables import Columns
from pipelines.lake.times import NO_TIME, update_order

SPECS = pl.List(pl.Struct({"attribute": pl.String, "value": pl.String}))

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Catalog:
    """A products table: Parquet or CSV (a file or a folder), or Delta."""

    storage: Storage
    columns: Columns = field(default_factory=Columns)

    def categories(self) -> pl.LazyFrame:
        """Return `product_id, category`; one row per product."""
        return self._read({"category": (self.columns.category, pl.String)})

    def specs(self) -> pl.LazyFrame:
        """Return `product_id, specs`; a product without any has an empty list."""
        frame = self._read({"specs": (self.columns.specs, SPECS)})
        return frame.with_columns(pl.col("specs").fill_null([]))

    def texts(self, product_ids: Iterable[str]) -> pl.LazyFrame:
        """Return `product_id` and one column per text source, of the products named."""
        sources = self.columns.sources.items()
        wanted = pl.Series(list(product_ids), dtype=pl.String)
        return self._read({source: (name, pl.String) for source, name in sources}, only=wanted)

    def _read(
        self,
        wanted: dict[str, tuple[str | None, pl.DataType | type[pl.DataType]]],
        only: pl.Series | None = None,
    ) -> pl.LazyFrame:
        """Return chosen columns by name; of duplicate ids the newest row, else the first."""
        asked = {"product_id": (self.columns.product_id, pl.String), **wanted}
        parts = scan_products(self.storage)
        for name, (column, _) in asked.items():
            if name != "description" and not any(column in part.schema for part in parts):
                raise QueryError(
                    f"found no column {column!r} ({name}) in {self.storage.uri}, "
                    f"expected one of {sorted(parts[0].schema.names())}; map it with --column"
                )
        chosen = [
            part.rows.select(
                *(
                    read_column(c, part.schema, kind).alias(name)
                    for name, (c, kind) in asked.items()
                ),
                read_order(self.columns.updated_at, part.schema).alias("_order"),
            )
            for part in parts
        ]
        frame = pl.concat(chosen).filter(pl.col("product_id").is_not_null())
        if only is not None:
            frame = frame.filter(pl.col("product_id").is_in(only.implode()))
        if any(self.columns.updated_at in part.schema for part in parts):
            return newest(frame).drop("_order")
        return frame.filter(pl.col("product_id").is_first_distinct()).drop("_order")


def newest(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Return, of rows with the same id, the one with the highest `_order`, else the first."""
    # Decided on flat columns: `unique` on a frame with lists took 1.6 GB more for 1 M products.
    numbered = frame.with_row_index("_row")
    winners = (
        numbered.select("product_id", "_order", "_row")
        .sort("_order", "_row", descending=[True, False])
        .filter(pl.col("product_id").is_first_distinct())
    )
    return numbered.join(winners.select("_row"), on="_row", how="semi").drop("_row")


def read_column(
    column: str | None, schema: pl.Schema, kind: pl.DataType | type[pl.DataType]
) -> pl.Expr:
    """Return a column as the type asked for; null where missing, JSON where CSV holds text."""
    if column is None or column not in schema:
        return pl.lit(None, dtype=kind)
    found = schema[column]
    if found == pl.String and isinstance(kind, pl.List):
        return pl.col(column).str.json_decode(kind)
    return pl.col(column).cast(kind)


def read_order(column: str | None, schema: pl.Schema) -> pl.Expr:
    """Return what tells the newest of rows with one id, as in the nightly job."""
    if column is None or column not in schema:
        return pl.lit(NO_TIME, dtype=pl.Int64)
    return pl.col(column).map_batches(update_order, return_dtype=pl.Int64, is_elementwise=True)


class ProductFiles(NamedTuple):
    """Neighbouring files of one folder with the same columns, those of its path included."""

    rows: pl.LazyFrame
    schema: pl.Schema
    folder: str


def scan_products(storage: Storage) -> list[ProductFiles]:
    """Return the table's files in the order in which the nightly job reads them."""
    try:
        files = list_inputs([storage.uri], storage.options)
    except ValueError as error:
        raise QueryError(str(error)) from error
    described = [(file, _describe(storage, file)) for file in files]
    readable = [(file, kind) for file, kind in described if kind is not None]
    if not readable:
        raise QueryError(
            f"found no readable Parquet or CSV file at {storage.uri}; check --products"
        )
    groups = groupby(readable, key=lambda item: (item[0].folder, item[0].partitions, item[1]))
    return [_scan(storage, [file for file, _ in group]) for _, group in groups]


def _describe(storage: Storage, file: InputFile) -> pa.Schema | str | None:
    """Return what files must share to be scanned together; None: the file cannot be read."""
    return file.uri if file.is_csv else _footer_schema(Storage(file.uri, storage.options))


def _scan(storage: Storage, files: list[InputFile]) -> ProductFiles:
    options = storage.polars_options or None
    uris = [file.uri for file in files]
    if files[0].is_csv:
        rows = pl.scan_csv(uris, infer_schema=False, storage_options=options, glob=False)
    else:
        rows = pl.scan_parquet(uris, storage_options=options, glob=False, hive_partitioning=False)
    known = rows.collect_schema()
    from_path = {
        name: pl.lit(value, dtype=pl.String)
        for name, value in files[0].partitions
        if name not in known
    }
    rows = rows.with_columns(**from_path)
    return ProductFiles(rows, rows.collect_schema(), files[0].folder)


def _footer_schema(file: Storage) -> pa.Schema | None:
    """Return the schema in a file's footer; None, with a warning, when it cannot be read."""
    try:
        return pq.read_schema(file.path, filesystem=file.arrow).remove_metadata()
    except (pa.ArrowInvalid, OSError) as error:
        _log.warning("left out unreadable file %s: %s", file.uri, str(error).splitlines()[0])
        return None


def parse_columns(pairs: Iterable[str]) -> Columns:
    """Return `NAME=COLUMN` strings of a command line; an unknown name is a text source."""
    named: dict[str, str] = {}
    sources = dict(Columns().sources)
    for pair in pairs:
        name, separator, column = pair.partition("=")
        if not separator or not name or not column:
            raise QueryError(f"found --column {pair!r}, expected NAME=COLUMN")
        (named if name in Columns.model_fields else sources)[name] = column
    return Columns.model_validate({**named, "sources": sources})
