"""Products, pictures included, out of a products table: a few by id, or batch by batch.

For explaining, comparing and showing; the nightly job has a reader of its own for whole files.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from pipelines.lake.catalog import (
    SPECS,
    ProductFiles,
    newest,
    read_column,
    read_order,
    scan_products,
)
from pipelines.lake.errors import QueryError
from pipelines.lake.frames import collect
from pipelines.lake.pictures import PictureAddressConfig
from pipelines.lake.storage import Storage
from pipelines.lake.tables import Columns
from ulsdram_core.errors import PictureError
from ulsdram_core.schema import GoldSpan, Product

GOLD_FIELDS = {
    "attribute": pl.String,
    "value": pl.String,
    "start": pl.Int32,
    "end": pl.Int32,
    "source": pl.String,
}
GOLD_SPANS = pl.List(pl.Struct(GOLD_FIELDS))
Kind = pl.DataType | type[pl.DataType]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ProductReader:
    """A products table (Parquet, CSV or Delta) read product by product."""

    storage: Storage
    columns: Columns = field(default_factory=Columns)
    pictures: PictureAddressConfig = field(default_factory=PictureAddressConfig)

    def find(self, product_ids: Sequence[str]) -> dict[str, Product]:
        """Return the products with these ids; those that the table lacks are left out."""
        wanted = pl.Series(list(product_ids), dtype=pl.String).implode()
        frames = [frame.filter(pl.col("product_id").is_in(wanted)) for frame in self._frames()]
        return {product.product_id: product for product in self._products(frames)}

    def batches(self, *, limit: int | None = None, size: int = 256) -> Iterator[list[Product]]:
        """Yield products in table order, a few at a time; of rows with one id only the first."""
        seen: set[str] = set()
        for frame in self._frames():
            offset = 0
            while limit is None or len(seen) < limit:
                rows = collect(frame.slice(offset, size))
                offset += size
                if not rows.height:
                    break
                fresh = [
                    row
                    for row in rows.unique("product_id", keep="first", maintain_order=True).rows(
                        named=True
                    )
                    if row["product_id"] is not None and row["product_id"] not in seen
                ]
                if limit is not None:
                    fresh = fresh[: limit - len(seen)]
                seen.update(row["product_id"] for row in fresh)
                yield [self._product(row) for row in fresh]

    def gold(self) -> pl.LazyFrame | None:
        """Return `product_id, category, gold` of labelled products; None if there is no gold."""
        frames = []
        for rows, schema, _ in self._parts():
            if self.columns.gold in schema:
                wanted: dict[str, tuple[str | None, Kind]] = {
                    "product_id": (self.columns.product_id, pl.String),
                    "category": (self.columns.category, pl.String),
                }
                chosen = [read_column(c, schema, k).alias(name) for name, (c, k) in wanted.items()]
                gold = _read_gold(self.columns.gold, schema).alias("gold")
                order = read_order(self.columns.updated_at, schema).alias("_order")
                frames.append(rows.select(*chosen, gold, order))
        if not frames:
            return None
        labelled = pl.concat(frames).filter(pl.col("gold").is_not_null())
        return newest(labelled).drop("_order")

    def _parts(self) -> list[ProductFiles]:
        parts = scan_products(self.storage)
        for _, schema, _ in parts:
            if self.columns.product_id not in schema:
                raise QueryError(
                    f"found no column {self.columns.product_id!r} in {self.storage.uri}, expected "
                    f"one of {sorted(schema.names())}; map it with --column product_id=NAME"
                )
        return parts

    def _frames(self) -> list[pl.LazyFrame]:
        """Return every part with the columns under their own names; pictures stay as they are."""
        columns = self.columns
        flat: dict[str, tuple[str | None, Kind]] = {
            "product_id": (columns.product_id, pl.String),
            **{f"text:{name}": (column, pl.String) for name, column in columns.sources.items()},
            "category": (columns.category, pl.String),
            "specs": (columns.specs, SPECS),
        }
        frames = []
        for rows, schema, folder in self._parts():
            chosen = [read_column(c, schema, kind).alias(name) for name, (c, kind) in flat.items()]
            chosen.append(_read_gold(columns.gold, schema).alias("gold"))
            chosen.append(read_order(columns.updated_at, schema).alias("order"))
            chosen.append(pl.lit(folder).alias("folder"))
            chosen += [
                pl.col(name).alias(f"picture:{name}")
                for name in columns.pictures()
                if name in schema
            ]
            frames.append(rows.select(chosen))
        return frames

    def _products(self, frames: Sequence[pl.LazyFrame]) -> list[Product]:
        """Return the rows as products; of rows with one id the newest, else the first."""
        winners: dict[str, dict[str, Any]] = {}
        for frame in frames:
            for row in collect(frame).iter_rows(named=True):
                known = winners.get(row["product_id"])
                if known is None or row["order"] > known["order"]:
                    winners[row["product_id"]] = row
        return [self._product(row) for row in winners.values()]

    def _product(self, row: Mapping[str, Any]) -> Product:
        texts = {
            source: row[f"text:{source}"]
            for source in self.columns.sources
            if row[f"text:{source}"] is not None
        }
        gold = None if row["gold"] is None else tuple(_gold_spans(row["gold"]))
        specs = tuple(
            (spec["attribute"], spec["value"])
            for spec in row["specs"] or ()
            if spec and spec["attribute"] and spec["value"]
        )
        return Product(row["product_id"], texts, self._pictures(row), row["category"], gold, specs)

    def _pictures(self, row: Mapping[str, Any]) -> tuple[bytes, ...]:
        found: list[bytes] = []
        for name in self.columns.pictures():
            cell = row.get(f"picture:{name}")
            items = cell if isinstance(cell, list) else [cell]
            for item in items:
                if isinstance(item, bytes):
                    found.append(item)
                elif isinstance(item, str) and name == self.columns.image_uri:
                    found += self._fetch(item, row["folder"])
        return tuple(found)

    def _fetch(self, uri: str, folder: str) -> list[bytes]:
        options = self.storage.options
        reader = self.pictures.build([self.storage.uri], options)
        try:
            return [reader.read(uri, Storage.of(folder, options))]
        except PictureError as error:
            _log.warning("a picture is left out: %s", error)
            return []


def _read_gold(column: str | None, schema: pl.Schema) -> pl.Expr:
    """Return the gold column with all its fields: a table may leave `source` out."""
    found = schema.get(column or "")
    if not isinstance(found, pl.List) or not isinstance(found.inner, pl.Struct):
        return read_column(column, schema, GOLD_SPANS)
    given = {field.name for field in found.inner.fields}
    fields = [
        (pl.element().struct.field(name) if name in given else pl.lit(None)).cast(kind).alias(name)
        for name, kind in GOLD_FIELDS.items()
    ]
    return pl.col(column or "").list.eval(pl.struct(fields))


def _gold_spans(cell: Sequence[Mapping[str, Any] | None]) -> list[GoldSpan]:
    """Return the spans that can be read; others are for prepare to complain about."""
    spans = []
    for span in cell:
        if span is None or None in (span["attribute"], span["start"], span["end"]):
            continue
        if 0 <= span["start"] < span["end"]:
            name, value, source = span["attribute"], span["value"] or "", span["source"] or "title"
            spans.append(GoldSpan(name, value, span["start"], span["end"], source))
    return spans
