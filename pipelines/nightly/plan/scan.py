"""The keys of one input file: id, content hash and age of every row, kept for later nights.

The result is an Arrow file named by the fingerprint of what was read. Batch b holds the rows of
bucket b sorted by position, one last batch holds rows without a usable id (`hash_hi` = index into
KEYLESS_REASONS), and the schema's metadata holds the FileSummary.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import pyarrow as pa

from pipelines.command.secrets import redact
from pipelines.lake.csv import copy_csv
from pipelines.lake.inputs import InputFile
from pipelines.lake.storage import Storage, retrying
from pipelines.lake.tables import id_hashes
from pipelines.nightly.plan.rows import FileReader, RawKeys, RowSettings, is_corruption
from ulsdram_core.reasons import Reason

KEYS, CSV_COPIES = "_keys", "_csv"
KEYLESS_REASONS = (Reason.NULL_ID, Reason.INVALID_TEXT, Reason.WRONG_TYPE)
KEY_DTYPE = np.dtype(
    [
        ("id_hi", "<u8"),
        ("id_lo", "<u8"),
        ("hash_hi", "<u8"),
        ("hash_lo", "<u8"),
        ("updated_at", "<i8"),
        ("row", "<u4"),  # position in the file, rows of unreadable row groups included
    ]
)
KEY_NAMES = tuple(KEY_DTYPE.names or ())
KEY_SCHEMA = pa.schema([(name, pa.from_numpy_dtype(KEY_DTYPE[name])) for name in KEY_NAMES])
_SUMMARY_KEY = b"ulsdram.summary"
_LAYOUT = "2"  # of what a scan keeps and what it means


@dataclass(frozen=True, slots=True)
class ScanTask:
    """One file to scan into `runs` (the folder `_runs`)."""

    runs: Storage
    file: InputFile
    settings: RowSettings
    num_buckets: int

    def name(self) -> str:
        """Same name, same result."""
        return self.file.fingerprint(self.settings.signature(), str(self.num_buckets), _LAYOUT)

    def keys(self) -> Storage:
        """Where the keys are kept."""
        return self.runs.join(KEYS, f"{self.name()}.arrow")

    def data(self) -> Storage:
        """The Parquet file to read rows from: the input itself, or the copy of a CSV file."""
        if self.file.is_csv:
            return self.runs.join(CSV_COPIES, f"{self.name()}.parquet")
        return Storage.of(self.file.uri, self.settings.options)


@dataclass(frozen=True, slots=True)
class FileSummary:
    """What a scan found. `row_groups`: (rows, stored bytes) each; `problem` spoils the file."""

    row_groups: list[tuple[int, int]] = field(default_factory=list)
    bad_row_groups: dict[int, str] = field(default_factory=dict)
    bad_lines: list[int] = field(default_factory=list)
    num_keyless: int = 0
    bytes_read: int = 0
    columns: list[str] = field(default_factory=list)
    problem: str | None = None
    detail: str = ""

    @property
    def num_rows(self) -> int:
        """Rows by the footer, unreadable row groups included."""
        return sum(rows for rows, _ in self.row_groups)

    def to_json(self) -> str:
        """As kept in the key file."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str | bytes) -> "FileSummary":
        """The inverse of `to_json`."""
        found = json.loads(text)
        found["row_groups"] = [(rows, size) for rows, size in found["row_groups"]]
        found["bad_row_groups"] = {int(k): v for k, v in found["bad_row_groups"].items()}
        return FileSummary(**found)


def scan_file(task: ScanTask) -> FileSummary:
    """Read what is new of one file and keep its keys; a file that cannot be parsed is a summary."""
    return retrying(lambda: _scan(task))


def read_summary(task: ScanTask) -> FileSummary | None:
    """The summary of an earlier scan of this very content; None: scan it."""
    try:
        with task.keys().arrow.open_input_file(task.keys().path) as stream:
            schema = pa.ipc.open_file(stream).schema
    except FileNotFoundError:
        return None
    return FileSummary.from_json(schema.metadata[_SUMMARY_KEY])


def read_keys(keys: Storage, batches: range) -> list[np.ndarray]:
    """The chosen batches of a key file as structured arrays (KEY_DTYPE)."""
    with keys.arrow.open_input_file(keys.path) as stream:
        reader = pa.ipc.open_file(stream)
        return [_as_records(reader.get_batch(i)) for i in batches]


def _scan(task: ScanTask) -> FileSummary:
    try:
        summary, records = _scan_parquet(task)
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        if not is_corruption(error):
            raise
        summary, records = _spoiled(Reason.UNREADABLE_FILE, str(error)), _no_records()
    _write_keys(task, summary, records)
    return summary


def _scan_parquet(task: ScanTask) -> tuple[FileSummary, np.ndarray]:
    bad_lines: tuple[int, ...] = ()
    if task.file.is_csv:
        source = Storage.of(task.file.uri, task.settings.options)
        wanted = (*task.settings.key_columns(), *task.settings.content_columns())
        bad_lines = copy_csv(source, task.data(), wanted).bad_lines
    with FileReader(task.data(), task.file, task.settings) as reader:
        groups = _row_groups(reader)
        problem = reader.key_problem()
        if problem is not None:
            return _keyless_file(reader, problem, groups), _no_records()
        return _scan_row_groups(reader, groups, bad_lines)


def _scan_row_groups(
    reader: FileReader, groups: list[tuple[int, int]], bad_lines: tuple[int, ...]
) -> tuple[FileSummary, np.ndarray]:
    records, bad, first_row, bytes_read = [_no_records()], {}, 0, 0
    for i, (num_rows, _) in enumerate(groups):
        try:
            is_key_only = reader.is_key_only(i)
            bytes_read += reader.stored_bytes(i, is_key_only=is_key_only)
            records += _group_records(reader.keys(i, is_key_only=is_key_only), first_row)
        except (OSError, pa.ArrowException) as error:
            if not is_corruption(error):
                raise
            bad[i] = redact(str(error))[:500]
        first_row += num_rows
    found = np.concatenate(records)
    summary = FileSummary(
        row_groups=groups,
        bad_row_groups=bad,
        bad_lines=list(bad_lines),
        num_keyless=int((found["id_lo"] == 0).sum()),
        bytes_read=bytes_read,
        columns=reader.schema.names,
    )
    return summary, found


def _group_records(batches: Iterator[RawKeys], first_row: int) -> list[np.ndarray]:
    """Records of one whole row group; nothing of it counts when its last page is broken."""
    records = []
    for raw in batches:
        records.append(_records(raw, first_row))
        first_row += len(raw.ids)
    return records


def _records(keys: RawKeys, first_row: int) -> np.ndarray:
    num_rows = len(keys.ids)
    records = np.zeros(num_rows, KEY_DTYPE)
    problems = {i: problem for i, key in enumerate(keys.ids) if (problem := _id_problem(key))}
    records["id_hi"], records["id_lo"] = id_hashes(key or b"" for key in keys.ids).T
    records["hash_hi"], records["hash_lo"] = keys.hashes.T
    records["updated_at"] = keys.updated_at
    records["row"] = np.arange(first_row, first_row + num_rows)
    for i, problem in problems.items():
        records["id_hi"][i] = records["id_lo"][i] = 0
        records["hash_hi"][i] = KEYLESS_REASONS.index(problem)
    return records


def _id_problem(product_id: bytes | None) -> Reason | None:
    if product_id is None or not product_id.strip():
        return Reason.NULL_ID
    try:
        product_id.decode()
    except UnicodeDecodeError:
        return Reason.INVALID_TEXT
    return None


def _row_groups(reader: FileReader) -> list[tuple[int, int]]:
    metadata = reader.parquet.metadata
    return [
        (metadata.row_group(i).num_rows, reader.stored_bytes(i, is_key_only=False))
        for i in range(metadata.num_row_groups)
    ]


def _keyless_file(
    reader: FileReader, problem: Reason, groups: list[tuple[int, int]]
) -> FileSummary:
    return FileSummary(
        row_groups=groups,
        columns=reader.schema.names,
        problem=problem.value,
        detail="no key column of a usable type; found " + _shorten(reader.schema.names),
    )


def _spoiled(problem: Reason, detail: str) -> FileSummary:
    return FileSummary(problem=problem.value, detail=redact(detail)[:500])


def _shorten(names: list[str]) -> str:
    return ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")


def _no_records() -> np.ndarray:
    return np.zeros(0, KEY_DTYPE)


def _write_keys(task: ScanTask, summary: FileSummary, records: np.ndarray) -> None:
    buckets = (records["id_hi"] % task.num_buckets).astype(np.int64)
    buckets[records["id_lo"] == 0] = task.num_buckets
    records = records[np.argsort(buckets, kind="stable")]
    ends = np.cumsum(np.bincount(buckets, minlength=task.num_buckets + 1))
    schema = KEY_SCHEMA.with_metadata({_SUMMARY_KEY: summary.to_json()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        for start, end in zip([0, *ends[:-1]], ends, strict=True):
            part = records[start:end]
            arrays = [pa.array(np.ascontiguousarray(part[name])) for name in KEY_NAMES]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
    task.keys().write_bytes(sink.getvalue().to_pybytes())


def _as_records(batch: pa.RecordBatch) -> np.ndarray:
    records = np.empty(batch.num_rows, KEY_DTYPE)
    for i, name in enumerate(KEY_NAMES):
        records[name] = batch.column(i).to_numpy()
    return records


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
        """Number of the file's first row."""
        return int(self.group_start[self._first_group[file]])

    def groups_of(self, orders: np.ndarray) -> np.ndarray:
        """[N] global row-group numbers of row numbers."""
        return np.searchsorted(self.group_start, orders, side="right") - 1

    def group_index(self, group: int) -> int:
        """Position of a global row group in its own file."""
        return int(group - self._first_group[self.group_file[group]])

    def locate(self, orders: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """[N] file, row group in the file, and row in the row group."""
        groups = self.groups_of(orders)
        files = self.group_file[groups]
        return files, groups - self._first_group[files], orders - self.group_start[groups]
