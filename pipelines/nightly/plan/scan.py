"""Scanning one input file: the id, content hash and age of every row, and what cannot be read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.command.secrets import redact
from pipelines.errors import RunFailedError
from pipelines.lake.csv import bad_records, csv_as_parquet
from pipelines.lake.inputs import InputFile
from pipelines.lake.source import InputChangedError, Source, SpoiledError
from pipelines.lake.storage import Storage, is_transient, retrying
from pipelines.lake.tables import id_hashes
from pipelines.nightly.plan.rows import FileReader, RawKeys, RowSettings
from ulsdram_core.reasons import Reason

CSV_COPIES = "_csv"
KEYLESS_REASONS = (Reason.NULL_ID, Reason.INVALID_TEXT, Reason.WRONG_TYPE)
KEY_DTYPE = np.dtype(
    [
        ("id_hi", "<u8"),
        ("id_lo", "<u8"),
        ("hash_hi", "<u8"),
        ("hash_lo", "<u8"),
        ("updated_at", "<i8"),
        ("row", "<u4"),  # position in the file, rows of unreadable row groups included
        ("slot", "<u4"),  # of the file among those of a pack of the key table
    ]
)
_LAYOUT = "4"  # of what a scan keeps and what it means


@dataclass(frozen=True, slots=True)
class ScanTask:
    """One file to scan into `runs` (the folder `_runs`)."""

    runs: Storage
    file: InputFile
    settings: RowSettings
    num_buckets: int

    def name(self) -> str:
        """Return a name: same name, same result."""
        return self.file.fingerprint(self.settings.signature(), str(self.num_buckets), _LAYOUT)

    def data(self) -> Storage:
        """Return the Parquet file to read rows from: the input or the copy of a CSV file."""
        if self.file.is_csv:
            return self.runs.join(CSV_COPIES, f"{self.name()}.parquet")
        return Storage.of(self.file.uri, self.settings.options)


@dataclass(frozen=True, slots=True)
class FileSummary:
    """What a scan found. `row_groups`: (rows, stored bytes) each; `problem` spoils the file.

    `hidden`: how many rows of a row group the input's table has deleted.
    """

    row_groups: list[tuple[int, int]] = field(default_factory=list)
    bad_row_groups: dict[int, str] = field(default_factory=dict)
    bad_lines: list[int] = field(default_factory=list)
    hidden: dict[int, int] = field(default_factory=dict)
    num_keyless: int = 0
    bytes_read: int = 0
    columns: list[str] = field(default_factory=list)
    problem: str | None = None
    detail: str = ""

    @property
    def is_spoiled(self) -> bool:
        """Whether something of the file could not be read."""
        return self.problem is not None or bool(self.bad_row_groups)

    @property
    def num_rows(self) -> int:
        """Rows by the footer, unreadable row groups included."""
        return sum(rows for rows, _ in self.row_groups)

    @property
    def num_visible(self) -> int:
        """Rows by the footer without the deleted ones."""
        return self.num_rows - sum(self.hidden.values())

    def visible_in(self, row_group: int) -> int:
        """Return the same of one row group."""
        return self.row_groups[row_group][0] - self.hidden.get(row_group, 0)

    @staticmethod
    def of(found: dict[str, Any]) -> "FileSummary":
        """Build it from its fields as JSON holds them."""
        found["row_groups"] = [(rows, size) for rows, size in found["row_groups"]]
        for name in ("bad_row_groups", "hidden"):
            found[name] = {int(k): v for k, v in found[name].items()}
        return FileSummary(**found)


@dataclass(frozen=True, slots=True)
class FileKeys:
    """A scanned file; `name` is that of its task."""

    name: str
    summary: FileSummary
    records: np.ndarray  # KEY_DTYPE; `id_lo` 0: no usable id, `hash_hi` indexes KEYLESS_REASONS


def scan_file(task: ScanTask) -> FileKeys:
    """Return the keys of a file; one that cannot be parsed is a summary without any.

    InputChangedError: the file is not the one that was listed. Whatever the storage does wrong,
    time after time, fails the run: a file must not count as spoiled because nobody may read it.
    """
    try:
        return retrying(lambda: _scan(task))
    except Exception as error:
        if not isinstance(error, OSError | MemoryError) and not is_transient(error):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RunFailedError(
            f"could not read {task.file.uri}: {reason}; nothing was published, mend it and run "
            "again, or take the file out of the input"
        ) from error


def _scan(task: ScanTask) -> FileKeys:
    try:
        summary, records = _scan_parquet(task)
    except SpoiledError as error:
        summary, records = _spoiled(str(error)), no_records()
    except FileNotFoundError as error:
        raise InputChangedError(f"{task.file.uri} is gone") from error
    return FileKeys(task.name(), summary, records)


def _scan_parquet(task: ScanTask) -> tuple[FileSummary, np.ndarray]:
    if task.file.problem:
        return _spoiled(task.file.problem), no_records()
    bad_lines = _copy_csv(task) if task.file.is_csv else ()
    with FileReader(task.data(), task.file, task.settings) as reader:
        with reader.parsing():
            groups = _row_groups(reader)
            problem = reader.key_problem()
        if problem is None:
            found = _scan_row_groups(reader, groups, bad_lines)
        else:
            found = _unusable(reader, groups, bad_lines), no_records()
        reader.check_unchanged()
    return _without_hidden(*found, task.file.hidden_rows()) if task.file.hidden else found


def _without_hidden(
    summary: FileSummary, records: np.ndarray, hidden: np.ndarray
) -> tuple[FileSummary, np.ndarray]:
    """Leave out the rows that the input's table has deleted."""
    ends = np.cumsum([rows for rows, _ in summary.row_groups])
    groups, counts = np.unique(np.searchsorted(ends, hidden, side="right"), return_counts=True)
    records = records[~np.isin(records["row"], hidden)]
    num_keyless = int((records["id_lo"] == 0).sum())
    by_group = dict(zip(groups.tolist(), counts.tolist(), strict=True))
    return replace(summary, hidden=by_group, num_keyless=num_keyless), records


def _copy_csv(task: ScanTask) -> tuple[int, ...]:
    """Make the Parquet copy that rows are read from; the numbers of the lines that are no rows."""
    settings, target = task.settings, task.data()
    wanted = (*settings.key_columns(), *settings.content_columns())
    with Source(task.file, settings.options) as source:
        stream = pa.PythonFile(source, mode="r")
        if task.file.uri.lower().endswith("gz"):
            stream = pa.CompressedInputStream(stream, "gzip")
        if not target.exists():
            with source.parsing():
                content = csv_as_parquet(stream, wanted)
            source.check_unchanged()
            target.write_bytes(content)
    return bad_records(target)


def _scan_row_groups(
    reader: FileReader, groups: list[tuple[int, int]], bad_lines: tuple[int, ...]
) -> tuple[FileSummary, np.ndarray]:
    records, bad, first_row, bytes_read = [no_records()], {}, 0, 0
    for i, (num_rows, _) in enumerate(groups):
        try:
            is_key_only = reader.is_key_only(i)
            keys = reader.keys(i, is_key_only=is_key_only)
            found = _group_records(keys, first_row, num_rows)
            bytes_read += reader.stored_bytes(i, is_key_only=is_key_only)
            groups[i] = num_rows, reader.stored_bytes(i, is_key_only=False)
            records += found
        except SpoiledError as error:
            bad[i] = redact(str(error))[:500]
        first_row += num_rows
    every = np.concatenate(records)
    summary = FileSummary(
        row_groups=groups,
        bad_row_groups=bad,
        bad_lines=list(bad_lines),
        num_keyless=int((every["id_lo"] == 0).sum()),
        bytes_read=bytes_read,
        columns=reader.schema.names,
    )
    return summary, every


def _group_records(batches: Iterator[RawKeys], first_row: int, num_rows: int) -> list[np.ndarray]:
    """Return records of one whole row group; nothing of it counts when its last page is broken."""
    records, row = [], first_row
    for raw in batches:
        records.append(_records(raw, row))
        row += len(raw.ids)
    if row - first_row != num_rows:
        raise SpoiledError(f"holds {row - first_row} rows, {num_rows} by the footer")
    return records


def _records(keys: RawKeys, first_row: int) -> np.ndarray:
    num_rows = len(keys.ids)
    records = np.zeros(num_rows, KEY_DTYPE)
    records["id_hi"], records["id_lo"] = id_hashes(keys.ids.fill_null(b"").to_pylist()).T
    records["hash_hi"], records["hash_lo"] = keys.hashes.T
    records["updated_at"] = keys.updated_at
    records["row"] = np.arange(first_row, first_row + num_rows)
    for reason, is_wrong in _id_problems(keys.ids):
        records["id_hi"][is_wrong] = records["id_lo"][is_wrong] = 0
        records["hash_hi"][is_wrong] = KEYLESS_REASONS.index(reason)
    return records


def _id_problems(ids: pa.Array) -> Iterator[tuple[Reason, np.ndarray]]:
    """Yield which ids cannot be used, and why."""
    try:
        texts = ids.cast(pa.large_string())
    except pa.ArrowInvalid:
        values = ids.to_pylist()
        is_invalid = np.array([value is not None and not _is_utf8(value) for value in values])
        yield Reason.INVALID_TEXT, is_invalid
        texts = pc.if_else(pa.array(is_invalid), b"x", ids).cast(pa.large_string())
    is_blank = pc.or_(pc.ascii_is_space(texts), pc.equal(pc.binary_length(texts), 0))
    yield Reason.NULL_ID, is_blank.fill_null(True).to_numpy(zero_copy_only=False)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _row_groups(reader: FileReader) -> list[tuple[int, int]]:
    """Return the rows of every row group; its bytes are known once it could be read."""
    metadata = reader.parquet.metadata
    return [(metadata.row_group(i).num_rows, 0) for i in range(metadata.num_row_groups)]


def _unusable(
    reader: FileReader, groups: list[tuple[int, int]], bad_lines: tuple[int, ...]
) -> FileSummary:
    reason, detail = reader.key_problem() or (Reason.WRONG_TYPE, "")
    return FileSummary(
        row_groups=groups,
        bad_lines=list(bad_lines),
        columns=reader.schema.names,
        problem=reason.value,
        detail=detail,
    )


def _spoiled(detail: str) -> FileSummary:
    return FileSummary(problem=Reason.UNREADABLE_FILE.value, detail=redact(detail)[:500])


def no_records() -> np.ndarray:
    """Return the records of a file without any."""
    return np.zeros(0, KEY_DTYPE)


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A listed file and what its scan found."""

    file: InputFile
    summary: FileSummary


class RowMap:
    """Numbers rows by (file, row group, row); unreadable row groups keep their numbers."""

    def __init__(self, files: Sequence[PlannedFile]) -> None:
        self.files = files
        counts = [len(planned.summary.row_groups) for planned in files]
        groups = [group for planned in files for group in planned.summary.row_groups]
        sizes = np.array([rows for rows, _ in groups], np.int64)
        self.group_bytes = np.array([size for _, size in groups], np.int64)
        self.group_start = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.group_file = np.repeat(np.arange(len(files)), counts)
        self._first_group = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    @property
    def num_rows(self) -> int:
        """Rows of all files, by their footers."""
        return int(self.group_start[-1])

    def file_start(self, file: int) -> int:
        """Return number of the file's first row."""
        return int(self.group_start[self._first_group[file]])

    def groups_of(self, orders: np.ndarray) -> np.ndarray:
        """Return [N] global row-group numbers of row numbers."""
        return np.searchsorted(self.group_start, orders, side="right") - 1

    def group_index(self, group: int) -> int:
        """Return position of a global row group in its own file."""
        return int(group - self._first_group[self.group_file[group]])

    def locate(self, orders: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return [N] file, row group in the file, and row in the row group."""
        groups = self.groups_of(orders)
        files = self.group_file[groups]
        return files, groups - self._first_group[files], orders - self.group_start[groups]
