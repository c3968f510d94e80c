"""Parts of a labelled table that are scored on their own: `name=expression`, one bit a row.

Slices are settled over the whole table before anything is scored: an expression may compare a row
with all others, and a wrong one is refused before a cluster starts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import ray.data

from pipelines.evaluate.expressions import parse_expression
from pipelines.labelled.table import LabelledTable, TableError
from pipelines.lake.storage import Storage

ROW = "row_number"
READ_ROWS = 1024

Members = Mapping[str, np.ndarray]
"""Slice name -> one bit a row of the table, packed as by `np.packbits`."""


def parse_slices(pairs: Sequence[str]) -> dict[str, pl.Expr]:
    """Read `name=expression` pairs; an expression is over the table's columns."""
    slices: dict[str, pl.Expr] = {}
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator or not name.strip():
            raise ValueError(
                f"--slice {pair!r}: expected name=expression, such as "
                '\'shoes=col("category") == "Shoes"\''
            )
        try:
            slices[name.strip()] = parse_expression(text)
        except ValueError as error:
            raise ValueError(f"--slice {pair!r} cannot be read: {error}") from error
    return slices


def find_members(slices: Mapping[str, pl.Expr], table: LabelledTable) -> Members:
    """Return which rows of the table each slice holds; a null is outside."""
    return {name: np.packbits(_inside(name, slices[name], table)) for name in slices}


def _inside(name: str, expression: pl.Expr, table: LabelledTable) -> np.ndarray:
    rows = table.scan()
    known = rows.collect_schema().names()
    for column in sorted(set(expression.meta.root_names()) - set(known)):
        raise TableError(f"slice {name!r} reads column {column!r}, expected one of {known}")
    try:
        chosen = rows.select(expression)
        kinds = chosen.collect_schema()
        if len(kinds) != 1 or kinds.dtypes()[0] != pl.Boolean:
            found = ", ".join(f"{column}: {kind}" for column, kind in kinds.items())
            raise TableError(f"slice {name!r} gives {found or 'nothing'}, expected one boolean")
        inside = chosen.collect(engine="streaming").to_series()
    except pl.exceptions.PolarsError as error:
        line = str(error).strip().partition("\n")[0]
        raise TableError(f"slice {name!r} cannot be computed: {line}") from error
    if len(inside) != table.num_rows:
        raise TableError(
            f"slice {name!r} gives {len(inside)} values for {table.num_rows} rows, expected one "
            'for each row, such as col("price") > 10'
        )
    return inside.fill_null(value=False).to_numpy()


def is_member(packed: np.ndarray, rows: np.ndarray) -> list[bool]:
    """Whether each of these rows is in a slice."""
    found: list[bool] = ((packed[rows >> 3] >> (7 - (rows & 7))) & 1).astype(bool).tolist()
    return found


def numbered_dataset(table: LabelledTable) -> ray.data.Dataset:
    """Stream the table with the number of each row, counted over its files in order."""
    groups, first_row = [], 0
    for name in table.files:
        footer = pq.read_metadata(table.place.sibling(name).path, filesystem=table.place.arrow)
        for number in range(footer.num_row_groups):
            groups.append({"file": name, "group": number, "first_row": first_row})
            first_row += footer.row_group(number).num_rows
    dataset = ray.data.from_items(groups, override_num_blocks=len(groups))
    read = ReadGroups(table.place, table.names)
    return dataset.map_batches(read, batch_format="pyarrow", batch_size=1, num_cpus=0.5)


@dataclass(frozen=True)
class ReadGroups:
    """Ray Data stage: places of row groups -> their rows, each with its number."""

    place: Storage
    columns: tuple[str, ...]

    def __call__(self, groups: pa.Table) -> Iterator[pa.Table]:
        for group in groups.to_pylist():
            path = self.place.sibling(group["file"]).path
            first_row = group["first_row"]
            with pq.ParquetFile(path, filesystem=self.place.arrow, pre_buffer=True) as file:
                for batch in file.iter_batches(
                    READ_ROWS, row_groups=[group["group"]], columns=list(self.columns)
                ):
                    numbers = pa.array(np.arange(first_row, first_row + batch.num_rows))
                    first_row += batch.num_rows
                    yield pa.Table.from_batches([batch]).append_column(ROW, numbers)
