"""Rows of one shard as dictionaries: a row group, lines of JSON, or a CSV file."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.lake.csv import csv_names, read_csv
from pipelines.prepare.config import PrepareConfig
from pipelines.prepare.lines import open_lines, read_lines
from pipelines.prepare.rows import Problem, RowError
from pipelines.prepare.shards import PACKED, RawFile, Shard, is_csv, is_parquet
from ulsdram_core.reasons import Reason

Row = dict[str, Any]
_ROWS_AT_ONCE = 256
_BROKEN = (OSError, EOFError, zlib.error, pa.ArrowException)


def read_rows(
    shard: Shard, config: PrepareConfig, names: Sequence[str]
) -> Iterator[tuple[int, Row | Problem | None]]:
    """Yield (number from 1, row) with the columns `names`, if the file has them; None: blank."""
    found: Iterator[tuple[int, Row | Problem | None]]
    if is_parquet(shard.file.path):
        found = _parquet_rows(shard, config, names)
    elif is_csv(shard.file.path):
        found = _csv_rows(shard, config, names)
    else:
        found = _json_rows(shard, config)
    given = dict(shard.file.partitions)
    for number, row in found:
        yield number, {**given, **row} if isinstance(row, dict) else row


def first_keys(file: RawFile, config: PrepareConfig, *, num_rows: int) -> list[str]:
    """Return the columns that the first rows of a text file have; none where it cannot be read."""
    try:
        with open_text(file, config) as stream:
            if is_csv(file.path):
                return csv_names(stream)
            return _first_keys(stream, config, num_rows)
    except _BROKEN:
        return []


def open_text(file: RawFile, config: PrepareConfig) -> IO[bytes]:
    """Return the bytes of a file of text, unpacked."""
    stream = open_lines(config.place(config.input), file.path)
    packed = file.path.lower().endswith(PACKED)
    return gzip.GzipFile(fileobj=stream) if packed else stream  # type: ignore[return-value]


def parse_json_line(line: bytes | None, *, max_bytes: int) -> Row | None:
    """Return the object on a line, None for a blank line; RowError for anything else."""
    if line is None:
        raise RowError("line_too_long", f"more than {max_bytes} bytes")
    if not line.strip(b" \t\r\n\xef\xbb\xbf"):
        return None
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise RowError(Reason.INVALID_TEXT, "not UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise RowError("malformed_json", str(error)) from error
    if not isinstance(row, dict):
        raise RowError(Reason.WRONG_TYPE, f"line is a {type(row).__name__}, expected an object")
    return row


def _parquet_rows(
    shard: Shard, config: PrepareConfig, names: Sequence[str]
) -> Iterator[tuple[int, Row | Problem]]:
    filesystem = config.place(config.input).arrow
    number, total = 0, 0
    try:
        with pq.ParquetFile(shard.file.path, filesystem=filesystem) as file:
            total = file.metadata.row_group(shard.start).num_rows
            present = [name for name in names if name in file.schema_arrow.names]
            batches = file.iter_batches(
                batch_size=_ROWS_AT_ONCE, row_groups=[shard.start], columns=present
            )
            for batch in batches:
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        detail = f"row group {shard.start}: {error}"
        yield number, Problem(number, Reason.UNREADABLE_ROW_GROUP, detail, total - number)


def _json_rows(shard: Shard, config: PrepareConfig) -> Iterator[tuple[int, Row | Problem | None]]:
    limit, number = config.max_line_bytes, 0
    try:
        with open_text(shard.file, config) as file:
            lines = read_lines(file, start=shard.start, end=shard.end, max_bytes=limit)
            for number, line in lines:
                try:
                    yield number, parse_json_line(line, max_bytes=limit)
                except RowError as error:
                    yield number, Problem(number, error.reason, str(error))
    except _BROKEN as error:
        yield number, Problem(number, Reason.UNREADABLE_FILE, str(error), num_rows=0)


def _csv_rows(
    shard: Shard, config: PrepareConfig, names: Sequence[str]
) -> Iterator[tuple[int, Row | Problem]]:
    """Yield rows numbered as they stand in the file, the header being 1; values are text."""
    number = 1
    try:
        with open_text(shard.file, config) as stream:
            for part in read_csv(stream, names, max_row_bytes=config.max_line_bytes):
                rows = zip(part.numbers, part.rows.to_pylist(), strict=True)
                found = [(number, _decoded(row, number)) for number, row in rows]
                found += [(number, _uneven(number)) for number in part.bad]
                for number, row in sorted(found, key=itemgetter(0)):
                    yield number, row
    except _BROKEN as error:
        yield number, Problem(number, Reason.UNREADABLE_FILE, str(error), num_rows=0)


def _decoded(row: dict[str, bytes | None], number: int) -> Row | Problem:
    try:
        return {name: None if value is None else value.decode() for name, value in row.items()}
    except UnicodeDecodeError:
        return Problem(number, Reason.INVALID_TEXT, "not UTF-8")


def _uneven(number: int) -> Problem:
    return Problem(
        number, "wrong_columns", "has a broken quote, or more or fewer values than the header"
    )


def _first_keys(stream: IO[bytes], config: PrepareConfig, num_rows: int) -> list[str]:
    keys: dict[str, None] = {}
    for _ in range(num_rows):
        line = stream.readline(config.max_line_bytes)
        if not line:
            break
        try:
            keys |= dict.fromkeys(parse_json_line(line, max_bytes=config.max_line_bytes) or ())
        except RowError:
            continue
    return list(keys)
