"""CSV files with a header line: every record is a row or a counted bad one, none is swallowed.

Records are cut strictly: a quote opens at the start of a value, and what closes it is followed by
a comma or the line's end. A line that opens one otherwise is bad by itself; the lines after it are
read as if it were not there.
"""

import io
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import IO, cast

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from pipelines.lake.storage import Storage

_BAD_RECORDS_KEY = b"ulsdram.bad_lines"
_MAX_ROW_BYTES = 16_000_000
_ROWS_AT_ONCE, _BYTES_AT_ONCE = 10_000, 8_000_000
_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\x00": "UTF-16 or UTF-32"}
_INSIDE = rb'(?:[^"]++|"")*+'
_FIELD = rb'(?:"' + _INSIDE + rb'"|[^",\r\n][^,\r\n]*+|)'
_WHOLE = {  # by whether a quote is open before the line
    False: re.compile(_FIELD + rb"(?:," + _FIELD + rb")*+"),
    True: re.compile(_INSIDE + rb'"(?:,' + _FIELD + rb")*+"),
}
_OPEN = {
    False: re.compile(rb"(?:" + _FIELD + rb',)*+"' + _INSIDE),
    True: re.compile(_INSIDE + rb'(?:"(?:,' + _FIELD + rb'(?=,))*+,"' + _INSIDE + rb")?"),
}


class CsvError(pa.ArrowInvalid):
    """A file that cannot be read as CSV; counts wherever what Arrow calls invalid does."""


@dataclass(frozen=True, slots=True)
class CsvRows:
    """Some rows as bytes, and the numbers of all records: the header is 1, blank lines are none."""

    rows: pa.Table
    numbers: list[int]
    bad: list[int]


def csv_as_parquet(stream: IO[bytes], names: Iterable[str]) -> bytes:
    """Return the columns `names` of a CSV file as Parquet, which knows its `bad_records`."""
    sink, bad = io.BytesIO(), list[int]()
    parts = read_csv(stream, tuple(names))
    first = next(parts)
    with pq.ParquetWriter(sink, first.rows.schema) as writer:
        for part in chain([first], parts):
            writer.write_table(part.rows)
            bad += part.bad
        writer.add_key_value_metadata({_BAD_RECORDS_KEY: " ".join(map(str, bad)).encode()})
    return sink.getvalue()


def bad_records(copy: Storage) -> tuple[int, ...]:
    """Return the numbers of the records that are no rows of what `csv_as_parquet` made."""
    metadata = pq.read_metadata(copy.path, filesystem=copy.arrow).metadata or {}
    return tuple(map(int, metadata.get(_BAD_RECORDS_KEY, b"").split()))


def read_csv(
    stream: IO[bytes], names: Sequence[str], *, max_row_bytes: int = _MAX_ROW_BYTES
) -> Iterator[CsvRows]:
    """Yield the columns `names`, as far as the file has them, at least once; CsvError."""
    lines = _Lines(stream, max_row_bytes)
    header = _header(lines)
    found = _column_names(header)
    wanted = [name for name in found if name in names]
    number, waiting, size = 1, dict[int, bytes](), 0
    bad: list[int] = []
    for record in _records(lines, len(found), max_row_bytes):
        number += 1
        if record is None:
            bad.append(number)
            continue
        waiting[number] = record
        size += len(record)
        if len(waiting) == _ROWS_AT_ONCE or size > _BYTES_AT_ONCE:
            yield _parsed(waiting, bad, found, wanted)
            waiting, size, bad = {}, 0, []
    yield _parsed(waiting, bad, found, wanted)


def csv_names(stream: IO[bytes]) -> list[str]:
    """Return the names in the header line; CsvError."""
    return _column_names(_header(_Lines(stream, _MAX_ROW_BYTES)))


class _Lines:
    """Physical lines, None for one that is too long; lines can be put back."""

    def __init__(self, stream: IO[bytes], max_bytes: int) -> None:
        self._stream = io.BufferedReader(cast(io.RawIOBase, stream), 1 << 20)
        self._max = max_bytes
        self._back: deque[bytes] = deque()

    def next(self) -> bytes | None:
        """Return the next line, empty at the end."""
        if self._back:
            return self._back.popleft()
        line = self._stream.readline(self._max + 1)
        if len(line) <= self._max:
            return line
        while line and not line.endswith(b"\n"):
            line = self._stream.readline(1 << 20)
        return None

    def put_back(self, lines: Sequence[bytes]) -> None:
        """Give lines again, in this order."""
        self._back.extendleft(reversed(lines))


def _header(lines: _Lines) -> bytes:
    line = lines.next()
    while line is not None and line and not line.strip(b"\r\n"):
        line = lines.next()
    if not line:
        raise CsvError("has no header line, expected the names of the columns")
    for mark, encoding in _MARKS.items():
        if line.startswith(mark) or (mark == b"\x00" and mark in line):
            raise CsvError(f"is {encoding}, expected UTF-8; convert the file")
    line = line.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n")
    if b"\r" in line:
        raise CsvError("ends its lines with carriage returns alone; convert the file")
    if not _WHOLE[False].fullmatch(line):
        raise CsvError("has a broken quote in its header line")
    return line


def _column_names(header: bytes) -> list[str]:
    values = _values(header)
    try:
        names = [
            value[1:-1].replace(b'""', b'"').decode() if value[:1] == b'"' else value.decode()
            for value in values
        ]
    except UnicodeDecodeError as error:
        raise CsvError("is not UTF-8 in its header line; convert the file") from error
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise CsvError(f"names column {twice[0]!r} more than once; rename one")
    return names


def _values(record: bytes) -> list[bytes]:
    """Return the values of a whole record as they are written."""
    return re.findall(rb"(?:\A|,)(" + _FIELD + rb")", record)


def _records(lines: _Lines, num_columns: int, max_bytes: int) -> Iterator[bytes | None]:
    """Yield whole records; None for a line that neither is one nor begins one."""
    while (line := lines.next()) != b"":
        if line is None:
            yield None
        elif line.strip(b"\r\n"):
            yield _record(line, lines, num_columns, max_bytes)


def _record(line: bytes, lines: _Lines, num_columns: int, max_bytes: int) -> bytes | None:
    """Return the record that begins with a line, or None when that line is bad by itself."""
    held, size, is_open = [line], len(line), False
    while not _WHOLE[is_open].fullmatch(line.rstrip(b"\r\n")):
        more = lines.next() if _OPEN[is_open].fullmatch(line) and size <= max_bytes else None
        if not more:
            lines.put_back(held[1:])
            return None
        held.append(more)
        line, size, is_open = more, size + len(more), True
    record = b"".join(held)
    if len(held) > 1 and len(_values(record.rstrip(b"\r\n"))) != num_columns:
        lines.put_back(held[1:])  # a stray quote, most likely: the lines after it are whole
        return None
    return record


def _parsed(
    records: dict[int, bytes], bad: Sequence[int], found: Sequence[str], wanted: Sequence[str]
) -> CsvRows:
    """Return records as rows; those with more or fewer values than the header are bad."""
    numbers, uneven = list(records), list[int]()

    def skip(row: pacsv.InvalidRow) -> str:
        uneven.append(numbers[row.number - 1])
        return "skip"

    schema = pa.schema([(name, pa.binary()) for name in wanted])
    if not records:
        return CsvRows(schema.empty_table(), [], list(bad))
    rows = _read_records(records, found, wanted, skip)
    if rows is None or (wanted and rows.num_rows + len(uneven) != len(records)):
        return _parsed(*_without_uneven(records, bad, len(found)), found, wanted)
    left_out = set(uneven)
    good = [number for number in numbers if number not in left_out]
    return CsvRows(rows.select(list(wanted)).cast(schema), good, sorted((*bad, *uneven)))


def _without_uneven(
    records: dict[int, bytes], bad: Sequence[int], num_columns: int
) -> tuple[dict[int, bytes], list[int]]:
    """Leave out records of another number of values: Arrow does not tell those that are no text."""
    even, odd = dict[int, bytes](), list[int]()
    for number, record in records.items():
        if len(_values(record.rstrip(b"\r\n"))) == num_columns:
            even[number] = record
        else:
            odd.append(number)
    if not odd:
        raise CsvError(f"gave fewer rows than its {len(records)} records")
    return even, sorted((*bad, *odd))


def _read_records(
    records: dict[int, bytes],
    found: Sequence[str],
    wanted: Sequence[str],
    skip: Callable[[pacsv.InvalidRow], str],
) -> pa.Table | None:
    """Return records as Arrow reads them; None where an uneven one is no text, which it refuses."""
    data = b"".join(one if one.endswith(b"\n") else one + b"\n" for one in records.values())
    try:
        return pacsv.read_csv(
            pa.BufferReader(data),
            # line numbers are only known to a single-threaded reader
            read_options=pacsv.ReadOptions(
                use_threads=False, column_names=list(found), block_size=len(data) + 1
            ),
            parse_options=pacsv.ParseOptions(
                invalid_row_handler=skip, newlines_in_values=True, ignore_empty_lines=False
            ),
            # every column as bytes: types and UTF-8 are judged row by row later
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(found, pa.binary()),
                include_columns=list(wanted),
                check_utf8=False,
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
    except pa.ArrowInvalid:
        return None
