"""The numbers of a report: gathered from the tables and from what the runs left behind."""

import logging
from dataclasses import dataclass
from typing import Any

import polars as pl

from pipelines.analysis.queries import live
from pipelines.analysis.results import ResultTable
from pipelines.evaluate.quality import Quality, measure_quality
from pipelines.lake.documents import read_json
from pipelines.lake.errors import QueryError
from pipelines.lake.frames import collect
from pipelines.lake.history import Moment
from pipelines.lake.products import ProductReader
from pipelines.lake.tables import RUNS
from pipelines.lake.uris import without_secrets

MAX_RUNS = 12
NEW_VALUES = 15

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CatalogNumbers:
    """Everything that the page says in numbers."""

    table: str
    version: int
    committed_at: str
    run_id: str | None
    models: list[str]
    summary: pl.DataFrame
    num_live: int
    num_filled: int
    mean_confidence: float | None
    coverage: pl.DataFrame
    histogram: list[int]
    reasons: pl.DataFrame
    since: str | None
    drift: pl.DataFrame | None
    new_values: pl.DataFrame | None
    runs: list[dict[str, Any]]
    quality: Quality | None


def gather_numbers(
    table: ResultTable, reader: ProductReader | None, *, since: Moment | None = None
) -> CatalogNumbers:
    """Read a table; drift is against `since`, else against the run before."""
    extractions, values = table.extractions(), table.long()
    totals = collect(_totals(extractions)).row(0, named=True)
    earlier = _earlier(table, since)
    drift, new_values = _changes(table, earlier)
    return CatalogNumbers(
        table=without_secrets(table.storage.uri),
        version=table.commit.version,
        committed_at=table.commit.committed_at.strftime("%Y-%m-%d %H:%M UTC"),
        run_id=table.commit.run_id,
        models=totals["models"],
        summary=collect(table.summary()),
        num_live=totals["products"],
        num_filled=totals["filled"],
        mean_confidence=collect(values.select(pl.col("confidence").mean())).item(),
        coverage=collect(table.coverage()).sort("coverage", "attribute", descending=[True, False]),
        histogram=_histogram(values),
        reasons=collect(table.reasons()),
        since=None if earlier is None or drift is None else _name(earlier),
        drift=drift,
        new_values=new_values,
        runs=read_runs(table),
        quality=_quality(extractions, values, reader),
    )


def read_runs(table: ResultTable) -> list[dict[str, Any]]:
    """Return the newest runs' reports, newest first; runs that left none are left out."""
    runs = table.storage.join(RUNS)
    committed = collect(table.runs())["run_id"].drop_nulls().to_list()
    # Failed runs commit nothing; ids sort by time unless somebody named them.
    # Beside the runs' folders stand the job's own: `_lock`, `_keys`, ... and `last.json`.
    names = [name for name in runs.names() if name[:1] != "_" and not name.endswith(".json")]
    others = sorted(names, reverse=True)
    reports = []
    for name in dict.fromkeys([*committed[:MAX_RUNS], *others[:MAX_RUNS]]):
        report = read_json(runs.join(name, "report.json"))
        if report is not None:
            opened = read_json(runs.join(name, "run.json")) or {}
            reports.append({**report, "opened_at": opened.get("opened_at", "")})
    reports.sort(key=lambda report: report["opened_at"], reverse=True)
    return reports[:MAX_RUNS]


def _totals(extractions: pl.LazyFrame) -> pl.LazyFrame:
    return live(extractions).select(
        products=pl.len(),
        filled=(pl.col("values").list.len() > 0).sum(),
        models=pl.col("model_id").drop_nulls().unique().sort().implode(),
    )


def _histogram(values: pl.LazyFrame, *, bins: int = 10) -> list[int]:
    number = (pl.col("confidence").cast(pl.Float64) * bins).floor().clip(0, bins - 1)
    counts = collect(
        values.filter(pl.col("confidence").is_finite())
        .group_by(bin=number.cast(pl.Int64))
        .agg(pl.len())
    )
    found = dict(counts.iter_rows())
    return [found.get(place, 0) for place in range(bins)]


def _earlier(table: ResultTable, since: Moment | None) -> ResultTable | None:
    """Return the table at the moment asked for, else as the run before left it, if there is one."""
    if since is not None:
        return table.at(since)
    history = collect(table.runs()).filter(
        (pl.col("version") < table.commit.version)
        & pl.col("run_id").is_not_null()
        & (pl.col("run_id") != (table.commit.run_id or ""))
    )
    return table.at(int(history["version"][0])) if history.height else None


def _changes(
    table: ResultTable, earlier: ResultTable | None
) -> tuple[pl.DataFrame | None, pl.DataFrame | None]:
    if earlier is None:
        return None, None
    try:
        drift = collect(table.drift(earlier.commit.version))
        return drift, collect(table.new_values(earlier.commit.version).head(NEW_VALUES))
    except QueryError as error:  # vacuumed: the page says what is still there
        _log.warning("no drift: %s", error)
        return None, None


def _name(table: ResultTable) -> str:
    return (
        f"run {table.commit.run_id}" if table.commit.run_id else f"version {table.commit.version}"
    )


def _quality(
    extractions: pl.LazyFrame, values: pl.LazyFrame, reader: ProductReader | None
) -> Quality | None:
    gold = reader.gold() if reader is not None else None
    return None if gold is None else measure_quality(extractions, values, gold)
