"""Which rows of one bucket are new or changed, which products vanished, which ids are duplicates.

Works on hashes only, one bucket at a time, so memory follows the bucket and not the catalogue.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from pipelines.lake.digests import from_hex
from pipelines.lake.snapshot import BucketFiles
from pipelines.lake.tables import SCHEMA_VERSION, id_hashes
from ulsdram_core.reasons import NOT_FETCHED
from ulsdram_core.schema import Status

ID = ["id_hi", "id_lo"]
HASH = ["hash_hi", "hash_lo"]
KNOWN_COLUMNS = ("product_id", "input_hash", "model_id", "status", "reason", "schema_version")
_REPLAYED = sorted(NOT_FETCHED)


@dataclass(frozen=True, slots=True)
class ChangeRules:
    """What makes a row that is in the table count as changed, besides its content.

    `recheck_days`: days within which every row is extracted again; its pictures may be others by
    then. `today` is the number of this day.
    """

    model_id: str
    is_full: bool = False
    is_replay: bool = False
    retry_reasons: tuple[str, ...] = ()
    recheck_days: int | None = None
    today: int = 0


@dataclass(frozen=True, slots=True)
class BucketChanges:
    """Rows by what happens to them; `order` is the position among all input rows.

    extract: id, hash, order, is_staged; losers: order, id; vanished: id.
    """

    extract: pl.DataFrame
    losers: pl.DataFrame
    vanished: pl.DataFrame
    num_unchanged: int


def known_frame(bucket: BucketFiles, rules: ChangeRules) -> pl.DataFrame:
    """Return what the table knows of a bucket: id, hash, is_current, is_vanished."""
    times = () if rules.recheck_days is None else ("extracted_at",)
    return known_rows(bucket.read((*KNOWN_COLUMNS, *times)), rules)


def known_rows(rows: pa.Table, rules: ChangeRules) -> pl.DataFrame:
    """Return the same of rows with KNOWN_COLUMNS (to recheck pictures, extracted_at)."""
    ids = id_hashes(rows["product_id"].to_pylist())
    hashes = from_hex(rows["input_hash"].to_pylist())
    state = pl.DataFrame({name: pl.from_arrow(rows[name]) for name in KNOWN_COLUMNS[2:]})
    is_retried = pl.col("reason").is_in(list(rules.retry_reasons))
    if rules.is_replay:
        is_retried |= (pl.col("status") == Status.QUARANTINED) | (pl.col("reason").is_in(_REPLAYED))
    if rules.recheck_days is not None:
        is_retried |= pl.Series(_is_due(rows, ids, rules.recheck_days, rules.today))
    is_current = (
        (pl.col("model_id") == rules.model_id)
        & (pl.col("status") != Status.VANISHED)
        & (pl.col("schema_version") == SCHEMA_VERSION)
        & ~is_retried.fill_null(False)
        & (not rules.is_full)
    )
    flags = state.select(is_current=is_current, is_vanished=pl.col("status") == Status.VANISHED)
    return pl.DataFrame(
        {
            **dict(zip(ID, ids.T, strict=True)),
            **dict(zip(["known_hi", "known_lo"], hashes.T, strict=True)),
        }
    ).hstack(flags)


def _is_due(rows: pa.Table, ids: np.ndarray, days: int, today: int) -> np.ndarray:
    """Return which rows' day has come since they were extracted: each has one in `days`, by its id.

    So that a catalogue extracted in one night is not extracted again in one night.
    """
    times = rows["extracted_at"].to_numpy()
    extracted = times.astype("datetime64[D]").astype(np.int64)
    slots = (ids[:, 1] % np.uint64(days)).astype(np.int64)
    return extracted < today - (today - slots) % days


def bucket_changes(
    keys: pl.DataFrame, known: pl.DataFrame, staged: pl.DataFrame | None
) -> BucketChanges:
    """Compare input keys with the table; `staged` (id, hash) was extracted by this run already."""
    winners, losers = _without_duplicates(keys)
    joined = winners.join(known, on=ID, how="left")
    is_unchanged = (
        pl.col("is_current").fill_null(False)
        & (pl.col("hash_hi") == pl.col("known_hi"))
        & (pl.col("hash_lo") == pl.col("known_lo"))
    )
    extract = joined.filter(~is_unchanged).select(*ID, *HASH, "order")
    vanished = known.filter(~pl.col("is_vanished")).join(winners, on=ID, how="anti").select(ID)
    return BucketChanges(
        extract=_mark_staged(extract, staged),
        losers=losers.select("order", *ID),
        vanished=vanished,
        num_unchanged=len(winners) - len(extract),
    )


def _without_duplicates(keys: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return winners (newest `updated_at`, then first in order) and losers of every id."""
    is_duplicate = keys.select(ID).is_duplicated()
    if not is_duplicate.any():
        return keys, keys.clear()
    several = keys.filter(is_duplicate).sort("updated_at", "order", descending=[True, False])
    is_winner = several.select(pl.struct(ID).is_first_distinct()).to_series()
    winners = pl.concat([keys.filter(~is_duplicate), several.filter(is_winner)])
    return winners, several.filter(~is_winner)


def _mark_staged(extract: pl.DataFrame, staged: pl.DataFrame | None) -> pl.DataFrame:
    if staged is None:
        return extract.with_columns(is_staged=pl.lit(False))
    marks = staged.select(*ID, *HASH).unique().with_columns(is_staged=pl.lit(True))
    marked = extract.join(marks, on=[*ID, *HASH], how="left")
    return marked.with_columns(pl.col("is_staged").fill_null(False))
