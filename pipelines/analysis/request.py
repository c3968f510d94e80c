"""One question as a user words it on the command line: a named query and its options."""

from collections.abc import Callable, Mapping

import polars as pl
from pydantic import Field

from pipelines.analysis.results import ResultTable
from pipelines.lake.errors import QueryError
from ulsdram_core.frozen import Frozen


class Request(Frozen):
    """A query by name, or `sql`; options that a query has no use for are left aside."""

    query: str = "summary"
    """One of QUERIES."""
    sql: str | None = None
    """A polars SQL query instead of a named one."""
    since: str | None = None
    """The earlier version, run id or time that drift and new-values compare with."""
    by_category: bool = False
    """Split coverage and fill-gain by category."""
    threshold: float = Field(0.5, ge=0, le=1.01)
    """low-confidence lists the values below it."""
    bins: int = Field(10, ge=1, le=1000)
    """Bins of the histogram."""
    top: int = Field(20, ge=1)
    """Values per attribute of top-values."""
    limit: int | None = Field(None, ge=0)
    """Rows at most; None means all."""
    single_valued: tuple[str, ...] | None = None
    """Attributes that must have one value; None infers them."""
    max_multiple: float = Field(0.1, ge=0, le=1)
    """Share of products with several values up to which an attribute is taken as single-valued."""

    def earlier(self) -> str:
        """Return `since`, which the query cannot do without."""
        if self.since is None:
            raise QueryError(
                f"found no earlier moment for {self.query}, expected a version, run id or time; "
                "name it with --since (--query runs lists them)"
            )
        return self.since


def answer(table: ResultTable, request: Request) -> pl.LazyFrame:
    """Return the lazy frame that answers a request."""
    if request.sql is None and request.query not in QUERIES:
        raise QueryError(f"found query {request.query!r}, expected one of {', '.join(QUERIES)}")
    frame = table.sql(request.sql) if request.sql else QUERIES[request.query](table, request)
    return frame if request.limit is None else frame.head(request.limit)


QUERIES: Mapping[str, Callable[[ResultTable, Request], pl.LazyFrame]] = {
    "summary": lambda table, _: table.summary(),
    "runs": lambda table, _: table.runs(),
    "long": lambda table, _: table.long(),
    "coverage": lambda table, request: table.coverage(by_category=request.by_category),
    "top-values": lambda table, request: table.top_values(limit=request.top),
    "new-values": lambda table, request: table.new_values(request.earlier()),
    "histogram": lambda table, request: table.histogram(bins=request.bins),
    "low-confidence": lambda table, request: table.low_confidence(
        threshold=request.threshold, limit=request.limit
    ),
    "conflicts": lambda table, request: table.conflicts(
        single_valued=request.single_valued, max_multiple=request.max_multiple
    ),
    "spec-conflicts": lambda table, request: table.spec_conflicts(limit=request.limit),
    "fill-gain": lambda table, request: table.fill_gain(by_category=request.by_category),
    "quarantine": lambda table, _: table.reasons(),
    "drift": lambda table, request: table.drift(request.earlier()),
}
