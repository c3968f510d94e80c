"""Answers written out: a terminal table, or CSV, Parquet and JSON that appear whole or not at all.

CSV is for spreadsheets: cells that one would run as a formula are made inert. Parquet and JSON
hold the values as they are.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import polars as pl

from pipelines.analysis.spreadsheet import neutralized
from pipelines.lake.errors import QueryError
from pipelines.lake.frames import _MISTAKES, _explain, collect
from pipelines.lake.storage import Storage

FORMATS = ("table", "csv", "parquet", "json")


def format_of(out: str | None, chosen: str | None) -> str:
    """Return the format asked for, else that of the file's ending, else a terminal table."""
    ending = "" if out is None else Path(out).suffix.lstrip(".").lower()
    name = chosen or ("table" if out is None else ending)
    if name not in FORMATS:
        raise QueryError(f"found format {name!r}, expected one of {', '.join(FORMATS)}")
    if name == "table" and out is not None:
        raise QueryError("found --out with the terminal table, expected csv, parquet or json")
    if name == "parquet" and out is None:
        raise QueryError("found parquet without a file, expected one; name it with --out")
    return name


def render(frame: pl.LazyFrame, *, rows: int = 50, width: int | None = None) -> str:
    """Return the first rows as a text table, which says when there are more."""
    found = collect(frame.head(rows + 1))
    shown = found.head(rows).with_columns(
        # a title may hold escape sequences, which a terminal would obey
        pl.col(pl.String).str.replace_all(r"[\p{Cc}\p{Cf}]", "?")
    )
    columns = shutil.get_terminal_size((120, 40)).columns if width is None else width
    with pl.Config(
        tbl_rows=-1, tbl_cols=-1, tbl_width_chars=columns, fmt_str_lengths=60,
        tbl_hide_column_data_types=True, tbl_hide_dataframe_shape=True, float_precision=4,
        tbl_formatting="ASCII_MARKDOWN", fmt_table_cell_list_len=5,
    ):  # fmt: skip
        text = str(shown)
    more = f"\n... and more; --rows {rows} shows the first {rows}" if found.height > rows else ""
    return f"{text}{more}"


def write(frame: pl.LazyFrame, *, out: Storage | None, kind: str) -> int:
    """Stream the answer to a file (to stdout without one); returns the number of rows."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ulsdram-")))
        part = folder / f"answer.{kind}"
        if out is not None and out.is_local:  # beside the target, so that it can be renamed onto it
            part = Path(out.path).with_name(f".{out.name}.{os.getpid()}.tmp")
            part.parent.mkdir(parents=True, exist_ok=True)
            stack.callback(part.unlink, missing_ok=True)
        try:
            num_rows = _SINKS[kind](frame, part)
        except _MISTAKES as error:
            raise QueryError(_explain(error)) from error
        _deliver(part, out)
    return num_rows


def _deliver(part: Path, out: Storage | None) -> None:
    if out is None:
        with part.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.flush()
    elif out.is_local:
        part.replace(out.path)
    else:
        out.fs.put_file(str(part), out.path)


def _sink_csv(frame: pl.LazyFrame, path: Path) -> int:
    nested = [name for name, kind in frame.collect_schema().items() if kind.is_nested()]
    if nested:
        raise QueryError(
            f"found nested columns {', '.join(nested)}, which CSV cannot hold; "
            "choose parquet or json, or --query long"
        )
    with path.open("wb") as file:
        neutralized(frame).sink_csv(file)
    return int(pl.scan_csv(path, infer_schema=False).select(pl.len()).collect().item())


def _sink_parquet(frame: pl.LazyFrame, path: Path) -> int:
    with path.open("wb") as file:
        frame.sink_parquet(file)
    return int(pl.scan_parquet(path).select(pl.len()).collect().item())


def _sink_json(frame: pl.LazyFrame, path: Path) -> int:
    """Write one array of objects, one object a line, without ever holding it whole."""
    num_rows = 0
    with tempfile.TemporaryFile() as lines, path.open("wb") as file:
        frame.sink_ndjson(lines)
        lines.seek(0)
        file.write(b"[")
        for line in lines:
            file.write((b"\n" if num_rows == 0 else b",\n") + line.rstrip(b"\n"))
            num_rows += 1
        file.write(b"\n]\n")
    return num_rows


_SINKS: Mapping[str, Callable[[pl.LazyFrame, Path], int]] = {
    "csv": _sink_csv,
    "parquet": _sink_parquet,
    "json": _sink_json,
}
