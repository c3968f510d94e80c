"""The key table: id, content hash and age of every input row, by bucket, kept for later nights.

It is a folder of packs. A pack is an Arrow file with the keys of several input files: batch b holds
the rows of bucket b, one last batch those without a usable id (`hash_hi` = index into
KEYLESS_REASONS), and the schema's metadata says what the scan found in each of the files, by slot.
Packs never change. Small ones and those with many rows of replaced files are merged into new ones,
so that a night opens one pack per million rows or so, however many inputs there are.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from pipelines.lake.storage import Storage, retrying
from pipelines.nightly.plan.scan import KEY_DTYPE, FileKeys, FileSummary, ScanTask, scan_file

KEYS = "_keys"
_NAMES = tuple(KEY_DTYPE.names or ())
_SCHEMA = pa.schema([(name, pa.from_numpy_dtype(KEY_DTYPE[name])) for name in _NAMES])
_FILES_KEY = b"ulsdram.files"
_READS_AT_ONCE = 8
_FULL = 4_000_000  # rows (x 48 bytes) of a pack that is not merged any more
_FEW = 16  # packs that are not worth merging
_GROUP_FILES, _GROUP_BYTES = 256, 32_000_000


@dataclass(frozen=True, slots=True)
class Pack:
    """One file of the key table and what it holds, by slot."""

    place: Storage
    names: tuple[str, ...]
    summaries: tuple[FileSummary, ...]
    num_rows: tuple[int, ...]

    @property
    def is_spoiled(self) -> bool:
        """Whether a file of it could not be read; what it says is not true for long."""
        return any(summary.is_spoiled for summary in self.summaries)

    def kept_rows(self, names: frozenset[str]) -> int:
        """Return rows of files that are still wanted."""
        pairs = zip(self.names, self.num_rows, strict=True)
        return sum(rows for name, rows in pairs if name in names)


def scan_files(tasks: Sequence[ScanTask]) -> list[FileSummary]:
    """Read some files of one night and keep their keys as one pack."""
    files = [scan_file(task) for task in tasks]
    # a spoiled file is scanned again soon, and whoever was with it is not
    groups = [[file for file in files if not file.summary.is_spoiled]]
    groups += [[file] for file in files if file.summary.is_spoiled]
    for group in groups:
        if group:
            write_pack(tasks[0].runs, group, tasks[0].num_buckets)
    return [file.summary for file in files]


def scan_groups(tasks: Sequence[ScanTask], *, num_cores: int) -> list[list[ScanTask]]:
    """Return files to scan together: few enough to keep all cores busy, small enough for memory."""
    most = max(1, min(_GROUP_FILES, len(tasks) // (4 * num_cores)))
    groups: list[list[ScanTask]] = []
    size = 0
    for task in tasks:
        size += task.file.size
        if not groups or len(groups[-1]) >= most or size > _GROUP_BYTES:
            groups.append([])
            size = task.file.size
        groups[-1].append(task)
    return groups


def write_pack(runs: Storage, files: Sequence[FileKeys], num_buckets: int) -> Storage:
    """Keep the keys of some files; their records are sorted in place of a copy of each.

    Return where: the same files are kept in the same place.
    """
    for slot, file in enumerate(files):
        file.records["slot"] = slot
    records = np.concatenate([np.zeros(0, KEY_DTYPE), *(file.records for file in files)])
    buckets = (records["id_hi"] % num_buckets).astype(np.int16)
    buckets[records["id_lo"] == 0] = num_buckets
    records = records[np.argsort(buckets, kind="stable")]
    ends = np.cumsum(np.bincount(buckets, minlength=num_buckets + 1))
    found = [{"name": f.name, "rows": len(f.records), "summary": asdict(f.summary)} for f in files]
    schema = _SCHEMA.with_metadata({_FILES_KEY: json.dumps(found)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        for start, end in zip([0, *ends[:-1]], ends, strict=True):
            part = records[start:end]
            arrays = [pa.array(np.ascontiguousarray(part[name])) for name in _NAMES]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
    names = "\n".join(file.name for file in files)
    name = hashlib.blake2b(names.encode(), digest_size=16).hexdigest()
    content = sink.getvalue().to_pybytes()
    place = runs.join(KEYS, f"{name}.arrow")
    retrying(lambda: place.write_bytes(content))
    return place


def list_packs(runs: Storage) -> list[Pack]:
    """Return all packs of the key table, the largest first."""
    places = [runs.join(KEYS, name) for name in runs.join(KEYS).names()]
    with ThreadPoolExecutor(_READS_AT_ONCE) as pool:
        packs = list(pool.map(lambda place: retrying(partial(_describe, place)), places))
    return sorted(packs, key=lambda pack: (-sum(pack.num_rows), pack.place.name))


def known_summaries(packs: Iterable[Pack]) -> dict[str, FileSummary]:
    """Return what is known by name; what could not be read is tried again every night."""
    found: dict[str, FileSummary] = {}
    for pack in packs:
        for name, summary in zip(pack.names, pack.summaries, strict=True):
            if not summary.is_spoiled:
                found.setdefault(name, summary)
    return found


@dataclass(frozen=True, slots=True)
class MergeTask:
    """Packs to make one of, without the files that nobody wants any more."""

    runs: Storage
    packs: tuple[Pack, ...]
    names: frozenset[str]
    num_buckets: int


def merge_tasks(
    runs: Storage, packs: Sequence[Pack], names: frozenset[str], *, num_buckets: int
) -> list[MergeTask]:
    """Return the packs better merged: small ones, and those whose files were mostly replaced."""
    loose = [pack for pack in packs if pack.kept_rows(names) < _FULL / 2]
    if len(loose) <= _FEW:
        return []
    groups: list[list[Pack]] = [[]]
    size = 0
    for pack in loose:
        size += pack.kept_rows(names)
        if size > _FULL and groups[-1]:
            groups.append([])
            size = pack.kept_rows(names)
        groups[-1].append(pack)
    several = (tuple(group) for group in groups if len(group) > 1)
    return [MergeTask(runs, group, names, num_buckets) for group in several]


def merge_packs(task: MergeTask) -> None:
    """Write the one pack, then delete those that it is made of."""
    files: dict[str, FileKeys] = {}
    for pack in task.packs:
        with PackReader(pack) as reader:
            records = np.concatenate([reader.records(i) for i in range(task.num_buckets + 1)])
        records = records[np.argsort(records["slot"], kind="stable")]
        ends = np.cumsum(pack.num_rows)
        for name, summary, end, rows in zip(
            pack.names, pack.summaries, ends, pack.num_rows, strict=True
        ):
            if name in task.names and name not in files:
                files[name] = FileKeys(name, summary, records[end - rows : end])
    kept = write_pack(task.runs, list(files.values()), task.num_buckets)
    for pack in task.packs:
        if pack.place.path != kept.path:
            pack.place.delete()


def drop_unused_packs(runs: Storage, names: Iterable[str]) -> None:
    """Remove the packs of which no file is wanted, and those to be made anew."""
    wanted = frozenset(names)
    for pack in list_packs(runs):
        if pack.is_spoiled or wanted.isdisjoint(pack.names):
            pack.place.delete()


class PackReader:
    """An open pack; every batch is read when it is asked for."""

    def __init__(self, pack: Pack) -> None:
        self.pack = pack
        self._stream = pack.place.arrow.open_input_file(pack.place.path)
        self._reader = pa.ipc.open_file(self._stream)

    def __enter__(self) -> "PackReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def batch(self, number: int) -> pa.RecordBatch:
        """Return one bucket, or the rows without a key."""
        return self._reader.get_batch(number)

    def records(self, number: int) -> np.ndarray:
        """Return the same as KEY_DTYPE."""
        batch = self.batch(number)
        records = np.empty(batch.num_rows, KEY_DTYPE)
        for i, name in enumerate(_NAMES):
            records[name] = batch.column(i).to_numpy()
        return records


class KeyTable:
    """The keys of chosen files, bucket by bucket.

    `files`: by name, the summary that the keys must belong to and the file's first row number.
    """

    def __init__(self, packs: Iterable[Pack], files: Mapping[str, tuple[FileSummary, int]]) -> None:
        missing = dict(files)
        self._readers: list[PackReader] = []
        self._starts: list[np.ndarray] = []
        for pack in packs:
            found = []
            for name, summary in zip(pack.names, pack.summaries, strict=True):
                is_it = name in missing and missing[name][0] == summary
                found.append(missing.pop(name)[1] if is_it else -1)
            if max(found, default=-1) >= 0:
                self._readers.append(PackReader(pack))
                self._starts.append(np.array(found, np.int64))
        if missing:
            self.close()
            raise FileNotFoundError(f"found no keys of {len(missing)} files")

    def __enter__(self) -> "KeyTable":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the packs."""
        for reader in self._readers:
            reader.__exit__()

    def buckets(self, numbers: range) -> Iterator[pl.DataFrame]:
        """Yield keys of each bucket with `order`, the row's number among all input rows."""
        with ThreadPoolExecutor(_READS_AT_ONCE) as pool:
            parts = list(pool.map(partial(self._read, numbers=numbers), range(len(self._readers))))
        for i in range(len(numbers)):
            yield pl.concat([_EMPTY, *(part[i] for part in parts)])

    def _read(self, pack: int, numbers: range) -> list[pl.DataFrame]:
        reader, starts = self._readers[pack], self._starts[pack]
        return [_with_order(retrying(partial(reader.batch, number)), starts) for number in numbers]


def _with_order(batch: pa.RecordBatch, starts: np.ndarray) -> pl.DataFrame:
    frame: Any = pl.from_arrow(batch)
    first = starts[frame["slot"].to_numpy()]
    order = pl.Series("order", first + frame["row"].to_numpy())
    frame = frame.drop("slot", "row").with_columns(order)
    return frame if (starts >= 0).all() else frame.filter(pl.Series(first >= 0))


def _describe(place: Storage) -> Pack:
    with place.arrow.open_input_file(place.path) as stream:
        metadata = pa.ipc.open_file(stream).schema.metadata
    files = json.loads(metadata[_FILES_KEY])
    return Pack(
        place,
        tuple(file["name"] for file in files),
        tuple(FileSummary.of(file["summary"]) for file in files),
        tuple(file["rows"] for file in files),
    )


_EMPTY = pl.DataFrame(
    schema={name: pl.Int64 if name == "updated_at" else pl.UInt64 for name in _NAMES[:5]}
    | {"order": pl.Int64}
)
