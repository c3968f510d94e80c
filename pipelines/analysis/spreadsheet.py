"""CSV cells that a spreadsheet would run as a formula, made inert and given back.

A dangerous cell gets a leading apostrophe, which spreadsheets take as "this is text". A cell that
begins with an apostrophe gets one too, so that `restore` is the exact inverse; it also leaves
alone what a spreadsheet has already stripped.
"""

import re

import polars as pl

# full-width twins of = + - @ count as well: some spreadsheets fold them
_DANGEROUS = "^(?:'|[\t\r\n]|[ \t\r\n\u00a0\u3000]*[-=+@\uff1d\uff0b\uff0d\uff20])"
_PATTERN = re.compile(_DANGEROUS)


def is_dangerous(cell: str) -> bool:
    """Return whether a spreadsheet may take the text for a formula (or for one made inert)."""
    return _PATTERN.match(cell) is not None


def neutralize(cell: str) -> str:
    """Return the text as a cell that no spreadsheet runs."""
    return f"'{cell}" if is_dangerous(cell) else cell


def restore(cell: str) -> str:
    """Return the text that `neutralize` was given."""
    return cell[1:] if cell.startswith("'") and is_dangerous(cell[1:]) else cell


def neutralized(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Return every text column made inert."""
    names = [name for name, kind in frame.collect_schema().items() if kind == pl.String]
    return frame.with_columns(
        pl.when(pl.col(name).str.contains(_DANGEROUS))
        .then(pl.lit("'") + pl.col(name))
        .otherwise(pl.col(name))
        .alias(name)
        for name in names
    )
