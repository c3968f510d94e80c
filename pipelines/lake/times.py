"""Times: when a row was last updated, as one number, and durations for people.

Of rows with one id the largest number is the newest; numbers order times with times and integers
(epochs, version counters) with integers.
"""

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

NO_TIME = int(np.iinfo(np.int64).min)

# ISO 8601; a date alone is its midnight, a time without a zone is UTC
_ISO = (
    r"^\s*(?P<date>\d{4}-\d{2}-\d{2})"
    r"(?:[ T](?P<hour>[01]\d|2[0-3])"
    r"(?::?(?P<minute>[0-5]\d)(?::?(?P<second>[0-5]\d)(?:[.,](?P<fraction>\d{1,9})\d*)?)?)?"
    r"\s?(?:Z|UTC|(?P<sign>[+-])(?P<zone_hour>\d{2}):?(?P<zone_minute>\d{2})?)?)?\s*$"
)
_ZONE = r":\d{2}(?:\.\d+)?(?:Z|[+-]\d{2}(?::?\d{2})?)$"
_TICKS = {"ms": 10**3, "us": 10**6, "ns": 10**9}  # per second
_NEAR_SECONDS = 9_100_000_000  # 288 years
_FAR_SECONDS = 10**17
_EXACT_INTEGERS = 2**62


def update_order(column: pl.Series) -> pl.Series:
    """Return Int64 that grows with the time or integer in a cell; NO_TIME for all that is neither.

    Every cell by itself: what its neighbours hold does not matter.
    """
    kind = column.dtype
    if isinstance(kind, pl.Binary):
        column, kind = _as_texts(column), pl.String()
    if isinstance(kind, pl.String | pl.Categorical | pl.Enum):
        number = _order_texts(column.cast(pl.String))
    elif isinstance(kind, pl.Date):
        number = _order_ticks(column.cast(pl.Datetime("ms")), "ms")
    elif isinstance(kind, pl.Datetime):
        number = _order_ticks(column, kind.time_unit)
    elif kind.is_integer():
        number = _order_integers(column)
    else:
        number = pl.repeat(None, len(column), dtype=pl.Int64, eager=True)
    return number.fill_null(NO_TIME)


def _order_ticks(times: pl.Series, unit: str) -> pl.Series:
    ticks, per_second = times.to_physical(), _TICKS[unit]
    seconds = ticks // per_second
    return _order_seconds(seconds, (ticks - seconds * per_second) * (10**9 // per_second))


def _order_seconds(seconds: pl.Series, nanoseconds: pl.Series) -> pl.Series:
    """Return nanoseconds since 1970 for three centuries either way; further off, whole seconds.

    Nanoseconds alone would not reach the year 9999, which stands for "never" in many tables.
    """
    near = seconds.clip(-_NEAR_SECONDS, _NEAR_SECONDS)
    far = (seconds - near).clip(-_FAR_SECONDS, _FAR_SECONDS)
    is_near = (near.abs() < _NEAR_SECONDS).cast(pl.Int64)
    return near * 10**9 + far + nanoseconds * is_near


def _order_integers(integers: pl.Series) -> pl.Series:
    """Return the integer itself; from 2**62 on four share one number, as uint64 outgrows int64."""
    wide = integers.cast(pl.Int128)
    exact = wide.clip(upper_bound=_EXACT_INTEGERS)
    return (exact + (wide - exact) // 4).cast(pl.Int64)


def _order_texts(texts: pl.Series) -> pl.Series:
    """Return one parse of the column where all cells are alike: 10 times faster than by cell."""
    cells = texts.to_frame("text").select(pl.when(pl.col("text") != "").then("text")).to_series()
    is_zoned = cells.str.contains(_ZONE)
    if is_zoned.all() or not is_zoned.any():
        zone = "UTC" if is_zoned.any() else None
        try:
            times = pc.cast(cells.to_arrow().cast(pa.string()), pa.timestamp("ns", zone))
            return _order_ticks(pl.Series(times), "ns")
        except pa.ArrowInvalid:
            pass  # a cell is no time, or too far off for nanoseconds
    return _parse_by_cell(cells)


def _parse_by_cell(texts: pl.Series) -> pl.Series:
    parts = texts.str.extract_groups(_ISO).struct.unnest()
    days = parts["date"].str.to_date("%Y-%m-%d", strict=False).to_physical().cast(pl.Int64)

    def number(name: str) -> pl.Series:
        return parts[name].cast(pl.Int64).fill_null(0)

    zone = (number("zone_hour") * 60 + number("zone_minute")) * 60
    is_west = (parts["sign"] == "-").fill_null(False).cast(pl.Int64)
    seconds = (days * 24 + number("hour")) * 3600 + number("minute") * 60 + number("second")
    fraction = parts["fraction"].str.pad_end(9, "0").cast(pl.Int64).fill_null(0)
    return _order_seconds(seconds - zone * (1 - 2 * is_west), fraction)


def _as_texts(column: pl.Series) -> pl.Series:
    """Return bytes as text; those that are none stay unreadable."""
    try:
        return column.cast(pl.String)
    except pl.exceptions.ComputeError:  # one bad cell fails the whole column
        cells = (None if cell is None else cell.decode(errors="replace") for cell in column)
        return pl.Series(cells, dtype=pl.String)


def as_duration(seconds: float) -> str:
    """Return seconds for people: "42 s", "12 min", "3.4 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
