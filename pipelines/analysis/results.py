"""A result table opened for questions: every answer is a lazy frame."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl
import pyarrow as pa
from deltalake import DeltaTable

from pipelines.analysis import changes, queries, specs
from pipelines.lake.catalog import Catalog
from pipelines.lake.errors import QueryError
from pipelines.lake.history import Commit, Moment, commits_of, find_commit, matching_commit
from pipelines.lake.storage import Storage
from pipelines.lake.tables import EXTRACTIONS, QUARANTINE, QUARANTINE_SCHEMA, Columns, open_table
from pipelines.normalization.normalizer import Normalizer

_log = logging.getLogger(__name__)
# polars' table functions (read_csv, read_parquet, ...) open any file or address, at once. Looked
# for in the bare text: whoever reads it otherwise than polars does could be deceived.
_READS_FILES = re.compile(r"(?<![a-z0-9])(?:read|scan)_[a-z]\w*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ResultTable:
    """The folder T (`extractions/`, `quarantine/`) as it is now or was at a moment."""

    storage: Storage
    commit: Commit
    catalog: Catalog | None = None
    normalizer: Normalizer | None = field(default=None, repr=False)
    """Normalizes anew instead of taking what the table holds."""
    attributes: tuple[str, ...] = ()
    """Values of other attributes are left aside; () keeps all."""
    categories: tuple[str, ...] = ()
    """Products of other categories are left aside; () keeps all."""

    def at(self, moment: Moment) -> "ResultTable":
        """Return the same table at another version, run id or time."""
        return replace(self, commit=find_commit(self._commits(), moment))

    def extractions(self) -> pl.LazyFrame:
        """Return one row per product, as in the table."""
        place = self.storage.join(EXTRACTIONS)
        frame = pl.scan_delta(
            place.delta_uri,
            version=self.commit.version,
            storage_options=place.polars_options or None,
        )
        if self.categories:
            wanted = (
                self._catalog().categories().filter(pl.col("category").is_in(list(self.categories)))
            )
            frame = frame.join(wanted, on="product_id", how="semi")
        if self.attributes:
            kept = pl.element().struct.field("attribute").is_in(list(self.attributes))
            frame = frame.with_columns(pl.col("values").list.eval(pl.element().filter(kept)))
        return frame

    def quarantine(self) -> pl.LazyFrame:
        """Return one row per rejected input row, row group or file, as in the table."""
        delta = open_table(self.storage, QUARANTINE)
        commit = matching_commit(commits_of(delta), self.commit) if delta else None
        if commit is None:
            return pl.from_arrow(pa.Table.from_pylist([], QUARANTINE_SCHEMA)).lazy()  # type: ignore[union-attr]
        place = self.storage.join(QUARANTINE)
        return pl.scan_delta(
            place.delta_uri, version=commit.version, storage_options=place.polars_options or None
        )

    def runs(self) -> pl.LazyFrame:
        """Return `version, committed_at, run_id, operation` of the history, newest first."""
        rows = [
            (commit.version, commit.committed_at, commit.run_id, commit.operation)
            for commit in reversed(self._commits())
        ]
        schema: dict[str, pl.DataType | type[pl.DataType]] = {
            "version": pl.Int64,
            "committed_at": pl.Datetime("ms", "UTC"),
            "run_id": pl.String,
            "operation": pl.String,
        }
        return pl.LazyFrame(rows, schema=schema, orient="row")

    def long(self) -> pl.LazyFrame:
        """Return one row per value of the products that have not vanished."""
        return queries.long_form(self.extractions(), normalizer=self.normalizer)

    def summary(self) -> pl.LazyFrame:
        """Return how many products and values have each status."""
        return queries.summary(self.extractions())

    def coverage(self, *, by_category: bool = False) -> pl.LazyFrame:
        """Return the share of products with each attribute, by category if asked."""
        return queries.coverage(
            self.extractions(),
            normalizer=self.normalizer,
            categories=self._categories(by_category),
        )

    def top_values(self, *, limit: int = 20) -> pl.LazyFrame:
        """Return the most frequent values of each attribute."""
        return queries.top_values(self.long(), limit=limit)

    def new_values(self, since: Moment) -> pl.LazyFrame:
        """Return values that the table had nowhere at an earlier moment."""
        return new_values(self.at(since), self)

    def histogram(self, *, bins: int = 10) -> pl.LazyFrame:
        """Return the confidences of each attribute in equal bins."""
        return queries.histogram(self.long(), bins=bins)

    def low_confidence(self, *, threshold: float = 0.5, limit: int | None = 100) -> pl.LazyFrame:
        """Return the least certain values."""
        return queries.low_confidence(self.long(), threshold=threshold, limit=limit)

    def conflicts(
        self, *, single_valued: tuple[str, ...] | None = None, max_multiple: float = 0.1
    ) -> pl.LazyFrame:
        """Return products with several values of a single-valued attribute."""
        return queries.conflicts(
            queries.live(self.extractions()),
            normalizer=self.normalizer,
            single_valued=single_valued,
            max_multiple=max_multiple,
        )

    def spec_conflicts(self, *, limit: int | None = None) -> pl.LazyFrame:
        """Return values that contradict the specs of the products table."""
        return specs.spec_conflicts(
            self.extractions(),
            self._catalog().specs(),
            normalizer=self.normalizer or Normalizer.load(),
            limit=limit,
        )

    def fill_gain(self, *, by_category: bool = False) -> pl.LazyFrame:
        """Return what extraction adds to the fill rate that specs have."""
        gain = specs.fill_gain(
            self.extractions(), self._catalog().specs(), categories=self._categories(by_category)
        )
        if self.attributes:
            gain = gain.filter(pl.col("attribute").is_in(list(self.attributes)))
        return gain

    def reasons(self) -> pl.LazyFrame:
        """Return the degraded and quarantined rows of both tables by reason."""
        return queries.reasons(self.extractions(), self.quarantine())

    def drift(self, since: Moment) -> pl.LazyFrame:
        """Return how each attribute moved since an earlier moment."""
        return drift(self.at(since), self)

    def sql(self, statement: str) -> pl.LazyFrame:
        """Answer a polars SQL query on `extractions`, `values`, `quarantine` and `categories`.

        It reads no other table; its statements change nothing.
        """
        frames = {
            "extractions": self.extractions(),
            "values": self.long(),
            "quarantine": self.quarantine(),
        }
        if self.catalog is not None:
            frames["categories"] = self.catalog.categories()
        reads = _READS_FILES.search(statement)
        if reads is not None:
            raise QueryError(
                f"found {reads.group()} in the query, expected nothing that reads files; the "
                f"tables are {sorted(frames)}"
            )
        try:
            return pl.SQLContext(frames).execute(statement, eager=False)
        except pl.exceptions.PolarsError as error:
            raise QueryError(
                f"found a query that cannot be read ({error}); the tables are {sorted(frames)}"
            ) from error

    def _categories(self, wanted: bool) -> pl.LazyFrame | None:
        return self._catalog().categories() if wanted else None

    def _catalog(self) -> Catalog:
        if self.catalog is None:
            raise QueryError("found no products table, which this query joins; name it: --products")
        return self.catalog

    def _commits(self) -> list[Commit]:
        return commits_of(_open_extractions(self.storage))


def table(
    uri: str | Path,
    *,
    at: Moment | None = None,
    products: str | Path | None = None,
    columns: Columns | None = None,
    mapping: str | Path | None = None,
    options: Mapping[str, str] | None = None,
) -> ResultTable:
    """Open the result table at a URI, at its newest version or at a moment.

    `products` is needed for categories and specs; with `mapping` (a rules file) values are
    normalized anew; `options` are storage options.
    """
    storage = Storage.of(uri, options)
    commits = commits_of(_open_extractions(storage))
    catalog = None
    if products is not None:
        catalog = Catalog(Storage.of(products, options), columns or Columns())
    return ResultTable(
        storage=storage,
        commit=commits[-1] if at is None else find_commit(commits, at),
        catalog=catalog,
        normalizer=None if mapping is None else Normalizer.load(mapping),
    )


def new_values(before: ResultTable, after: ResultTable) -> pl.LazyFrame:
    """Return values of one table that another, or the same at another moment, does not have."""
    return changes.new_values(before.long(), after.long())


def drift(before: ResultTable, after: ResultTable) -> pl.LazyFrame:
    """Return how each attribute differs between two tables, or one table at two moments."""
    return changes.drift(
        before.extractions(),
        after.extractions(),
        values_before=before.long(),
        values_after=after.long(),
    )


def _open_extractions(storage: Storage) -> DeltaTable:
    delta = open_table(storage, EXTRACTIONS)
    if delta is None:
        raise QueryError(
            f"found no table at {storage.join(EXTRACTIONS).uri}; "
            "give the folder that extract_catalog.py wrote with --output"
        )
    return delta
