"""Labelled products tables: checked once, read by Ray Data, turned into products."""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import ray.data

from pipelines.labelled.columns import (
    TableError,
    encoded_pictures,
    picture_columns,
    require_gold,
    require_named,
    specs_columns,
    texts_of,
)
from pipelines.labelled.corrections import Corrections, CorrectionTally
from pipelines.labelled.label_config import LabelConfig
from pipelines.lake.storage import Storage
from pipelines.lake.tables import Columns
from ulsdram_core.labels import LabelSet
from ulsdram_core.schema import GoldSpan, Product

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelledTable:
    """The Parquet files of one split, with the columns that training and evaluation read."""

    place: Storage
    files: tuple[str, ...]
    num_rows: int
    columns: Columns
    sources: tuple[str, ...]
    names: tuple[str, ...]
    """Columns to read, in order."""
    picture_columns: tuple[str, ...] = ()
    corrections: Corrections = field(default_factory=Corrections)

    def dataset(self) -> ray.data.Dataset:
        """Stream the rows; a row group is the unit of parallel reading."""
        paths = [self.place.sibling(name).path for name in self.files]
        dataset = ray.data.read_parquet(paths, filesystem=self.place.arrow)
        return dataset.select_columns(list(self.names))

    def scan(self) -> pl.LazyFrame:
        """Return the rows as a lazy frame, pictures included."""
        return pl.scan_parquet(
            [self.place.sibling(name).uri for name in self.files],
            storage_options=self.place.polars_options,
        )

    def batches(self, rows: int) -> Iterator[pa.Table]:
        """Yield the rows in order, at most `rows` at a time."""
        for name in self.files:
            path = self.place.sibling(name).path
            with pq.ParquetFile(path, filesystem=self.place.arrow) as file:
                for batch in file.iter_batches(rows, columns=list(self.names)):
                    yield pa.Table.from_batches([batch])

    @property
    def text_columns(self) -> list[str]:
        """Columns of the texts that the model reads, in encoding order."""
        return [self.columns.sources.get(source, source) for source in self.sources]

    def first_texts(self, num_rows: int = 200_000) -> list[str]:
        """Return the texts of the first rows, for a tokenizer to learn its pieces from."""
        texts = self.scan().select(self.text_columns).head(num_rows).collect(engine="streaming")
        return [text for column in texts.get_columns() for text in column.drop_nulls()]

    def products(self, table: pa.Table) -> list[Product]:
        """Turn rows into products with encoded pictures."""
        return [
            product
            for product, _ in labelled_rows(table, self.columns, self.sources, self.corrections)
        ]


def _check_complete(data: Storage) -> None:
    """Refuse a folder that prepare was filling when it was cut short."""
    try:
        report = json.loads(data.join("report.json").read_bytes())
    except (OSError, ValueError):
        return
    if isinstance(report, dict) and report.get("complete") is False:
        raise TableError(
            f"{data.uri} was not filled to the end, expected a complete prepared folder; "
            "run jobs/prepare.py again"
        )


def open_labelled(
    data: Storage,
    split: str,
    *,
    columns: Columns,
    sources: Sequence[str],
    uses_pictures: bool,
    corrections: Corrections | None = None,
) -> LabelledTable:
    """Check one split of a prepared data folder and return it; TableError says what is missing."""
    place = data.join(split)
    _check_complete(data)
    files = parquet_files(place, wanted="a labelled table; run jobs/prepare.py first")
    schema, num_rows = footers(place, files)
    if not num_rows:
        raise TableError(f"{place.uri} has no rows, expected labelled products")
    texts = text_columns(place, schema, columns, sources)
    require_gold(place, schema, columns)
    require_named(place, schema, columns, "category")
    pictures = picture_columns(place, schema, columns) if uses_pictures else []
    optional = [columns.category] if columns.category in schema.names else []
    optional += specs_columns(place, schema, columns)
    names = [columns.product_id, *texts, *optional, columns.gold, *pictures]
    return LabelledTable(
        place=place,
        files=tuple(files),
        num_rows=num_rows,
        columns=columns,
        sources=tuple(sources),
        names=tuple(name for name in names if name),
        picture_columns=tuple(pictures),
        corrections=corrections or Corrections(),
    )


def parquet_files(place: Storage, *, wanted: str) -> list[str]:
    """Return paths of all Parquet files below a folder, sorted; TableError where there are none."""
    files = [name for name in place.files() if name.endswith(".parquet")]
    if not files:
        raise TableError(f"found no Parquet files in {place.uri}, expected {wanted}")
    return files


def footers(place: Storage, files: Sequence[str]) -> tuple[pa.Schema, int]:
    """Return schema and rows of all files.

    Every footer is read: a later file with other columns must not lose them silently.
    """
    schema: pa.Schema | None = None
    num_rows = 0
    for name in files:
        path = place.sibling(name).path
        try:
            footer = pq.read_metadata(path, filesystem=place.arrow)
        except (OSError, pa.ArrowException) as error:
            raise TableError(f"{path} is not a readable Parquet file: {error}") from error
        found = footer.schema.to_arrow_schema().remove_metadata()
        if schema is not None and found.names != schema.names:
            raise TableError(
                f"{path} has columns {found.names}, expected {schema.names} as in the first file"
            )
        schema = schema or found
        num_rows += footer.num_rows
    assert schema is not None
    return schema, num_rows


def text_columns(
    place: Storage, schema: pa.Schema, columns: Columns, sources: Sequence[str]
) -> list[str]:
    """Return columns of the texts; TableError where one is missing or holds something else."""
    names = [columns.sources.get(source, source) for source in sources]
    wanted = [columns.product_id, *names]
    missing = [name for name in wanted if name not in schema.names]
    if missing:
        raise TableError(
            f"{place.uri} has no column {missing[0]!r}, expected one of {schema.names}; "
            "name the columns with --set columns... or --column"
        )
    for name in wanted:
        kind = schema.field(name).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise TableError(f"{place.uri}: column {name!r} is {kind}, expected string")
    return names


def learn_labels(table: LabelledTable, config: LabelConfig) -> LabelSet:
    """Return the attributes of the table's gold as corrected, most frequent first.

    Read without pictures.
    """
    return LabelSet.from_products(
        _bare_products(table, table.scan()),
        min_count=config.min_count,
        with_categories=config.scope_to_category,
        with_single=config.learn_single,
    )


def _bare_products(table: LabelledTable, rows: pl.LazyFrame) -> Iterator[Product]:
    """Yield products without pictures; only those that corrections name have texts."""
    corrected = _is_corrected(table)
    names = [name for name in table.names if name not in table.picture_columns]
    texts = [pl.when(corrected).then(pl.col(name)).alias(name) for name in table.text_columns]
    found = rows.select(names).with_columns(texts).collect(engine="streaming").to_arrow()
    for product, _ in labelled_rows(found, table.columns, table.sources, table.corrections):
        yield product


def _is_corrected(table: LabelledTable) -> pl.Expr:
    ids = pl.Series(list(table.corrections.by_product), dtype=pl.String).implode()
    return pl.col(table.columns.product_id).is_in(ids)


def gold_attributes(table: LabelledTable) -> list[str]:
    """Return the attributes that occur in the table's gold, sorted."""
    name = pl.col(table.columns.gold or "").explode().struct.field("attribute")
    names = table.scan().select(name.drop_nulls().unique().sort().alias("attribute"))
    return [str(found) for found in names.collect(engine="streaming")["attribute"]]


def correction_counts(tables: Iterable[LabelledTable]) -> dict[str, Any]:
    """Return what became of the corrections that all these tables were given."""
    tally: CorrectionTally | None = None
    for table in tables:
        tally = tally or CorrectionTally(table.corrections)
        names = [name for name in table.names if name not in table.picture_columns]
        rows = table.scan().select(names).filter(_is_corrected(table))
        found = rows.collect(engine="streaming").to_arrow()
        for product, _ in labelled_rows(found, table.columns, table.sources, Corrections()):
            tally.add(product.product_id, product.texts, product.gold or ())
    return tally.compute() if tally else {}


def _category(row: Mapping[str, Any], columns: Columns) -> str | None:
    value = row.get(columns.category or "")
    return None if value is None else str(value)


def check_texts(table: LabelledTable) -> None:
    """Refuse rows that no model can be trained or scored on, before a cluster waits for them."""
    texts = [pl.col(name).fill_null("") for name in table.text_columns]
    empty = pl.all_horizontal(~text.str.contains(r"\S") for text in texts)
    gold = pl.col(table.columns.gold or "")
    counts = (
        table.scan()
        .select(
            empty=empty.sum(),
            unlabelled=gold.is_null().sum(),
            broken=gold.list.eval(_is_broken(pl.element())).list.any().sum(),
        )
        .collect(engine="streaming")
        .row(0, named=True)
    )
    problems = [f"{count} rows with {what}" for what, count in counts.items() if count]
    if problems:
        raise TableError(
            f"{table.place.uri} holds {' and '.join(problems)} (empty: no text; unlabelled: null "
            "gold; broken: a span that lacks a field or does not start before its end), expected "
            "text and gold in every row; run jobs/prepare.py"
        )


def _is_broken(span: pl.Expr) -> pl.Expr:
    """Whether a gold span lacks something, or is nowhere in its text."""
    names = ("attribute", "value", "start", "end")
    lacking = [span.struct.field(name).is_null() for name in names]
    start, end = span.struct.field("start"), span.struct.field("end")
    return pl.any_horizontal(*lacking, start < 0, start >= end)


def warn_of_unread_gold(table: LabelledTable) -> None:
    """Say so where gold stands in texts that the model is not given: it can only miss that."""
    counts = _gold_by_source(table)
    unread = {source: count for source, count in counts.items() if source not in table.sources}
    if unread:
        _log.warning(
            "%s: %d of %d gold values stand in %s, which text.sources (%s) leaves unread, and "
            "count as missed; train with --set text.sources='%s'",
            table.place.uri,
            sum(unread.values()),
            sum(counts.values()),
            ", ".join(unread),
            ", ".join(table.sources),
            json.dumps([*table.sources, *unread]),
        )


def warn_of_no_pictures(table: LabelledTable) -> None:
    """Say so where a model that sees pictures is given a table without any."""
    if not any(_has_values(table, name) for name in table.picture_columns):
        _log.warning(
            "%s holds no pictures in %s: the model sees texts only; name the column with "
            "columns.image, or embed pictures with jobs/prepare.py tagged",
            table.place.uri,
            ", ".join(table.picture_columns or table.columns.pictures()),
        )


def _has_values(table: LabelledTable, column: str) -> bool:
    """Whether the footers know of a value that is not null; true where they do not say."""
    for name in table.files:
        footer = pq.read_metadata(table.place.sibling(name).path, filesystem=table.place.arrow)
        for group in range(footer.num_row_groups):
            for number in range(footer.num_columns):
                chunk = footer.row_group(group).column(number)
                if chunk.path_in_schema.split(".")[0] != column:
                    continue
                known = chunk.statistics
                if known is None or not known.has_null_count:
                    return True
                if chunk.num_values > known.null_count:
                    return True
    return False


def _gold_by_source(table: LabelledTable) -> dict[str, int]:
    gold = table.columns.gold or ""
    spans = table.scan().select(pl.col(gold).explode().alias("span")).drop_nulls()
    kind = spans.collect_schema()["span"]
    named = isinstance(kind, pl.Struct) and "source" in {field.name for field in kind.fields}
    source = pl.col("span").struct.field("source").fill_null("title") if named else pl.lit("title")
    counts = spans.group_by(source).len().sort("len", descending=True).collect(engine="streaming")
    return dict(counts.iter_rows())


def labelled_rows(
    table: pa.Table, columns: Columns, sources: Sequence[str], corrections: Corrections
) -> Iterator[tuple[Product, Mapping[str, Any]]]:
    """Yield the product of every row, its gold as corrected, and the row."""
    for row in table.to_pylist():
        texts = texts_of(row, columns, sources)
        product_id = row[columns.product_id] or ""
        gold = _gold(row.get(columns.gold or ""))
        if corrections:
            gold = corrections.apply(product_id, texts, gold or ()).spans
        pictures = tuple(encoded_pictures(row, columns.pictures()))
        specs = _specs(row.get(columns.specs or ""))
        yield Product(product_id, texts, pictures, _category(row, columns), gold, specs), row


def _specs(cell: Sequence[Mapping[str, Any]] | None) -> tuple[tuple[str, str], ...]:
    """Return the closed values of a row; entries without a name or a value say nothing."""
    pairs = ((spec["attribute"], spec["value"]) for spec in cell or () if spec)
    return tuple((attribute, value) for attribute, value in pairs if attribute and value)


def _gold(cell: Sequence[Mapping[str, Any]] | None) -> tuple[GoldSpan, ...] | None:
    if cell is None:
        return None
    return tuple(
        GoldSpan(
            span["attribute"],
            span["value"],
            span["start"],
            span["end"],
            span.get("source") or "title",
        )
        for span in cell
    )
