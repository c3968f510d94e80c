"""The products table as the analysis reads it: category, specs and texts by product id."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.analysis.errors import QueryError
from pipelines.storage import Storage
from pipelines.tables import Columns

SPECS = pl.List(pl.Struct({"attribute": pl.String, "value": pl.String}))

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Catalog:
    """A products table: Parquet or CSV (a file or a folder), or Delta."""

    storage: Storage
    columns: Columns = field(default_factory=Columns)

    def categories(self) -> pl.LazyFrame:
        """`product_id, category`; one row per product."""
        return self._read({"category": (self.columns.category, pl.String)})

    def specs(self) -> pl.LazyFrame:
        """`product_id, specs`; a product without any has an empty list."""
        frame = self._read({"specs": (self.columns.specs, SPECS)})
        return frame.with_columns(pl.col("specs").fill_null([]))

    def texts(self, product_ids: Iterable[str]) -> pl.LazyFrame:
        """`product_id` and one column per text source, of the products named."""
        sources = self.columns.sources.items()
        wanted = pl.Series(list(product_ids), dtype=pl.String)
        return self._read({source: (name, pl.String) for source, name in sources}, only=wanted)

    def _read(
        self,
        wanted: dict[str, tuple[str | None, pl.DataType | type[pl.DataType]]],
        only: pl.Series | None = None,
    ) -> pl.LazyFrame:
        """Chosen columns under their own names; of duplicate ids the newest row, else the first."""
        asked = {"product_id": (self.columns.product_id, pl.String), **wanted}
        asked["_updated_at"] = (self.columns.updated_at, pl.Datetime("us", "UTC"))
        parts = scan_products(self.storage)
        schemas = [part.collect_schema() for part in parts]
        for name, (column, _) in {"product_id": asked["product_id"], **wanted}.items():
            if name != "description" and not any(column in schema for schema in schemas):
                raise QueryError(
                    f"found no column {column!r} ({name}) in {self.storage.uri}, "
                    f"expected one of {sorted(schemas[0].names())}; map it with --column"
                )
        chosen = [
            part.select(
                read_column(column, schema, kind).alias(name)
                for name, (column, kind) in asked.items()
            )
            for part, schema in zip(parts, schemas, strict=True)
        ]
        frame = pl.concat(chosen).filter(pl.col("product_id").is_not_null())
        if only is not None:
            frame = frame.filter(pl.col("product_id").is_in(only.implode()))
        if any(self.columns.updated_at in schema for schema in schemas):
            return _newest(frame).drop("_updated_at")
        return frame.filter(pl.col("product_id").is_first_distinct()).drop("_updated_at")


def _newest(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Of rows with the same id the newest, else the first."""
    # Decided on flat columns: `unique` on a frame with lists took 1.6 GB more for 1 M products.
    numbered = frame.with_row_index("_row")
    winners = (
        numbered.select("product_id", "_updated_at", "_row")
        .sort("_updated_at", "_row", descending=[True, False], nulls_last=True)
        .filter(pl.col("product_id").is_first_distinct())
    )
    return numbered.join(winners.select("_row"), on="_row", how="semi").drop("_row")


def read_column(
    column: str | None, schema: pl.Schema, kind: pl.DataType | type[pl.DataType]
) -> pl.Expr:
    """A column as the type asked for; null where it is missing, JSON where CSV holds it as text."""
    if column is None or column not in schema:
        return pl.lit(None, dtype=kind)
    found = schema[column]
    if found == pl.String and isinstance(kind, pl.List):
        return pl.col(column).str.json_decode(kind)
    if found == pl.String and isinstance(kind, pl.Datetime):
        return pl.col(column).str.to_datetime(time_unit="us", time_zone="UTC", strict=False)
    if isinstance(found, pl.Datetime) and isinstance(kind, pl.Datetime) and not found.time_zone:
        return pl.col(column).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return pl.col(column).cast(kind)


def scan_products(storage: Storage) -> list[pl.LazyFrame]:
    """One frame per stretch of files with the same schema, in the order of the paths."""
    options = storage.polars_options or None
    if "_delta_log" in storage.names():
        return [pl.scan_delta(storage.uri, storage_options=options)]
    files = _files(storage)
    csv = [file.uri for file in files if file.name.lower().endswith((".csv", ".csv.gz"))]
    if csv:
        return [pl.scan_csv(uri, infer_schema=False, storage_options=options) for uri in csv]
    schemas = [(file.uri, _footer_schema(file)) for file in files]
    readable = [(uri, schema) for uri, schema in schemas if schema is not None]
    if not readable:
        raise QueryError(
            f"found no readable Parquet or CSV file at {storage.uri}; check --products"
        )
    return [
        pl.scan_parquet([uri for uri, _ in group], storage_options=options, glob=False)
        for _, group in groupby(readable, key=lambda item: item[1])
    ]


def _files(storage: Storage) -> list[Storage]:
    if not storage.exists():
        raise QueryError(
            f"found nothing at {storage.uri}, expected a products table; check the URI"
        )
    if not storage.is_folder():
        return [storage]
    found = [storage.sibling(path) for path in sorted(storage.fs.find(storage.path))]
    endings = (".parquet", ".csv", ".csv.gz")
    return [
        file
        for file in found
        if file.name.lower().endswith(endings) and not file.name.startswith(("_", "."))
    ]


def _footer_schema(file: Storage) -> pa.Schema | None:
    """The schema in a file's footer; None, with a warning, when it cannot be read."""
    try:
        return pq.read_schema(file.path, filesystem=file.arrow).remove_metadata()
    except (pa.ArrowInvalid, OSError) as error:
        _log.warning("left out unreadable file %s: %s", file.uri, str(error).splitlines()[0])
        return None


def parse_columns(pairs: Iterable[str]) -> Columns:
    """`NAME=COLUMN` strings of a command line; an unknown name is a text source."""
    named: dict[str, str] = {}
    sources = dict(Columns().sources)
    for pair in pairs:
        name, separator, column = pair.partition("=")
        if not separator or not name or not column:
            raise QueryError(f"found --column {pair!r}, expected NAME=COLUMN")
        (named if name in Columns.model_fields else sources)[name] = column
    return Columns.model_validate({**named, "sources": sources})
