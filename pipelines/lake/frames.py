"""Lazy polars frames and what their errors mean."""

import polars as pl

from pipelines.lake.errors import QueryError

_MISTAKES = (
    pl.exceptions.ColumnNotFoundError,
    pl.exceptions.InvalidOperationError,
    pl.exceptions.SchemaError,
    pl.exceptions.SQLInterfaceError,
    pl.exceptions.SQLSyntaxError,
    FileNotFoundError,
)


def collect(frame: pl.LazyFrame) -> pl.DataFrame:
    """Return the answer in memory; what the query or the data got wrong is one clear line."""
    try:
        return frame.collect(engine="streaming")
    except _MISTAKES as error:
        raise QueryError(_explain(error)) from error


def _explain(error: Exception) -> str:
    line = str(error).splitlines()[0]
    if isinstance(error, FileNotFoundError):
        return f"found a file gone ({line}): a vacuum removed it, expected a newer --at or --since"
    return f"found a query that does not fit the table: {line}"
