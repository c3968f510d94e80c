"""What a run has extracted before it is published: Parquet files, and receipts that vouch for them.

Workers write a part and return its receipt; the driver logs receipts in small files. A part whose
receipt was not logged does not count, its rows are extracted again. Rows of a part are sorted by
bucket. Many parts are merged, a few at a time, into files with a row group per range of buckets,
so that publishing opens few files and reads each byte once.
"""

import itertools
import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.lake.digests import digest, from_hex
from pipelines.lake.documents import read_json, write_json
from pipelines.lake.storage import Storage, retrying
from pipelines.lake.tables import extractions_schema, id_hashes
from pipelines.nightly.crash import crash_point
from pipelines.nightly.plan.chunks import Range

_KEYS = ["product_id", "input_hash", "model_id"]
_MERGED_ROWS = 500_000
_FEW_PARTS = 4  # are read where they are
_LEAST_RANGES, _RANGE_ROWS = 64, 250_000
_ORDER = [("bucket", "ascending"), ("product_id", "ascending")]


@dataclass(frozen=True, slots=True)
class Account:
    """What rows have cost, and what became of some of them."""

    decode_seconds: float = 0.0
    model_seconds: float = 0.0
    bytes_read: int = 0
    broken_pictures: int = 0
    poison_rows: int = 0

    @property
    def core_seconds(self) -> float:
        """Of decoding and model together."""
        return self.decode_seconds + self.model_seconds

    def __add__(self, other: "Account") -> "Account":
        mine, others = asdict(self), asdict(other)
        return Account(**{name: mine[name] + others[name] for name in mine})


@dataclass(frozen=True, slots=True)
class Receipt:
    """A staged part: which positions of which plan's work its rows are. No path: no rows.

    `changed`: an input is not what the plan saw, so these rows could not be extracted.
    """

    generation: int
    ranges: tuple[Range, ...]
    batches: tuple[tuple[float, float], ...] = ()  # when each was extracted, core seconds it took
    account: Account = field(default_factory=Account)
    path: str = ""
    changed: str = ""

    def __len__(self) -> int:
        return sum(end - start for start, end in self.ranges)

    def to_json(self) -> str:
        """Return it as it travels and as it is logged."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "Receipt":
        """Return the inverse of `to_json`."""
        return Receipt.of(json.loads(text))

    @staticmethod
    def of(found: dict[str, Any]) -> "Receipt":
        """Build it from its JSON document."""
        for name in ("ranges", "batches"):
            found[name] = tuple(tuple(pair) for pair in found[name])
        return Receipt(**found | {"account": Account(**found["account"])})


@dataclass(slots=True)
class Staging:
    """The staging folder of a run and the receipts for what counts in it."""

    place: Storage
    receipts: list[Receipt] = field(default_factory=list)
    vectors: tuple[str, ...] = ()
    log_seconds: float = 2.0
    _known: set[tuple[int, int, int]] = field(default_factory=set)
    _keys: dict[tuple[object, ...], pl.DataFrame] | None = None
    _waiting: list[Receipt] = field(default_factory=list)
    _logged: float = field(default_factory=time.monotonic)

    @staticmethod
    def open(run: Storage, vectors: Sequence[str] = (), *, log_seconds: float = 2.0) -> "Staging":
        """Open it with the receipts of earlier attempts."""
        staging = Staging(run.join("staging"), vectors=tuple(vectors), log_seconds=log_seconds)
        log = staging.place.join("receipts")
        for name in log.names():
            found = read_json(log.join(name))
            assert found is not None
            staging.receipts += [Receipt.of(item) for item in found["receipts"]]
        staging._known = {
            (receipt.generation, *piece) for receipt in staging.receipts for piece in receipt.ranges
        }
        return staging

    @property
    def last_generation(self) -> int:
        """Of the plans that staged anything; -1 if none did."""
        return max((receipt.generation for receipt in self.receipts), default=-1)

    def done(self, generation: int) -> list[Range]:
        """Return the positions of a plan's work that are staged."""
        found = (receipt for receipt in self.receipts if receipt.generation == generation)
        return [piece for receipt in found for piece in receipt.ranges]

    def add(self, receipt: Receipt) -> bool:
        """Count a part unless its rows are staged already, as after a retry of its writer."""
        names = {(receipt.generation, *piece) for piece in receipt.ranges}
        if names & self._known:
            return False
        self.receipts.append(receipt)
        self._known |= names
        self._waiting.append(receipt)
        if time.monotonic() - self._logged >= self.log_seconds:
            self.flush()
        return True

    def flush(self) -> None:
        """Log the receipts that wait for it."""
        self._logged = time.monotonic()
        if not self._waiting:
            return
        place = self.place.join("receipts", f"{uuid.uuid4().hex}.json")
        content = {"receipts": [asdict(receipt) for receipt in self._waiting]}
        retrying(lambda: write_json(place, content))
        self._waiting.clear()

    def parts(self) -> "Parts":
        """Return the files that count, oldest plan first."""
        found = sorted(self.receipts, key=lambda receipt: receipt.generation)
        paths = tuple(receipt.path for receipt in found if receipt.path)
        return Parts(self.place, paths, self.vectors)

    def merged(self, ranges: Sequence[Range], merge: "MergeAll") -> "Parts":
        """Return the same rows in few files, each with a row group per range of buckets."""
        parts = self.parts()
        if len(parts.paths) <= _FEW_PARTS or len(ranges) == 1:
            return parts
        name = digest([repr(ranges).encode(), *(path.encode() for path in parts.paths)]).hex()
        marker = self.place.join(f"merged-{name}.json")
        known = retrying(lambda: read_json(marker))
        if known is None:
            tasks = [
                MergeTask(
                    replace(parts, paths=paths), tuple(ranges), f"merged-{name}-{i:06d}.parquet"
                )
                for i, paths in enumerate(self._merge_groups())
            ]
            merged = list(merge(tasks))
            known = {"paths": sorted(merged)}
            write_json(marker, known)
            crash_point("after_merge")
        return replace(parts, paths=tuple(known["paths"]))

    def _merge_groups(self) -> Iterator[tuple[str, ...]]:
        """Yield parts in the order of `parts`, as many as one task can hold in memory."""
        paths: list[str] = []
        rows = 0
        for receipt in sorted(self.receipts, key=lambda receipt: receipt.generation):
            if paths and rows + len(receipt) > _MERGED_ROWS:
                yield tuple(paths)
                paths, rows = [], 0
            if receipt.path:
                paths.append(receipt.path)
                rows += len(receipt)
        if paths:
            yield tuple(paths)

    def keys(self, bucket: int, *, model_id: str) -> pl.DataFrame | None:
        """Return id and hash of the staged rows of a bucket that this model extracted."""
        if not self.receipts:
            return None
        if self._keys is None:
            rows = self.parts().read(None, [*_KEYS, "bucket"])
            frame = key_frame(rows).with_columns(
                bucket=pl.Series(pl.from_arrow(rows["bucket"])),
                model_id=pl.Series(pl.from_arrow(rows["model_id"])),
            )
            self._keys = frame.partition_by("bucket", as_dict=True)
        found = self._keys.get((bucket,))
        if found is None:
            return None
        return found.filter(pl.col("model_id") == model_id).drop("bucket", "model_id")


@dataclass(frozen=True, slots=True)
class Parts:
    """Staged files, rows by bucket; picklable. Later files hold later extractions."""

    place: Storage
    paths: tuple[str, ...]
    vectors: tuple[str, ...] = ()

    def read(self, buckets: Range | None, columns: Sequence[str] | None = None) -> pa.Table:
        """Return all rows of a range of buckets; None: of all."""
        whole = extractions_schema(self.vectors)
        names = list(columns or whole.names)
        schema = pa.schema([whole.field(name) for name in names])
        tables = (self._read(path, buckets, names).cast(schema) for path in self.paths)
        return pa.concat_tables([schema.empty_table(), *tables])

    def _read(self, path: str, buckets: Range | None, names: list[str]) -> pa.Table:
        place = self.place.join(path)

        def read() -> pa.Table:
            with place.arrow.open_input_file(place.path) as stream:
                parquet = pq.ParquetFile(stream)
                groups = [
                    i
                    for i in range(parquet.num_row_groups)
                    if buckets is None or _overlaps(parquet.metadata.row_group(i), buckets)
                ]
                return parquet.read_row_groups(groups, names, use_threads=False)

        found = retrying(read)
        if buckets is None:
            return found
        start, end = np.searchsorted(found["bucket"].to_numpy(), buckets)
        return found.slice(start, end - start)


@dataclass(frozen=True, slots=True)
class MergeTask:
    """Some parts that become one file with a row group per range of buckets."""

    parts: Parts
    ranges: tuple[Range, ...]
    path: str


MergeAll = Callable[[Sequence[MergeTask]], Iterable[str]]


def merge_parts(task: MergeTask) -> str:
    """Write the merged file; its name is a function of what is in it."""
    # rows of one product keep the order of their parts: the last one counts
    rows = task.parts.read(None)
    order = np.argsort(rows["bucket"].to_numpy(), kind="stable")
    rows = rows.take(pa.array(order))
    buckets = rows["bucket"].to_numpy()
    borders = [tuple(np.searchsorted(buckets, piece)) for piece in task.ranges]
    content = _parquet(rows, [(int(a), int(b)) for a, b in borders])
    retrying(lambda: task.parts.place.join(task.path).write_bytes(content))
    return task.path


def write_part(staging: Storage, rows: pa.Table) -> str:
    """Stage rows under a name of its own, so that a retry overwrites nothing."""
    path = f"part-{uuid.uuid4().hex}.parquet"
    content = _parquet(rows.sort_by(_ORDER), [(0, rows.num_rows)])
    retrying(lambda: staging.join(path).write_bytes(content))
    return path


def bucket_ranges(num_buckets: int, rows: int) -> list[Range]:
    """Return contiguous ranges of buckets, one for each task that publishes."""
    count = min(num_buckets, max(_LEAST_RANGES, -(-rows // _RANGE_ROWS)))
    borders = np.linspace(0, num_buckets, count + 1).astype(int).tolist()
    return list(itertools.pairwise(borders))


def key_frame(rows: pa.Table) -> pl.DataFrame:
    """Return id and hash halves of rows of the extractions table."""
    ids = id_hashes(rows["product_id"].to_pylist())
    hashes = from_hex(rows["input_hash"].to_pylist())
    halves = (*ids.T, *hashes.T)
    return pl.DataFrame(dict(zip(("id_hi", "id_lo", "hash_hi", "hash_lo"), halves, strict=True)))


def _overlaps(group: pq.RowGroupMetaData, buckets: Range) -> bool:
    place = next(i for i in range(group.num_columns) if group.column(i).path_in_schema == "bucket")
    found = group.column(place).statistics
    return bool(found.min < buckets[1] and found.max >= buckets[0])


def _parquet(rows: pa.Table, groups: Iterable[Range]) -> bytes:
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, rows.schema, compression="zstd") as writer:
        for start, end in groups:
            if end > start:
                writer.write_table(rows.slice(start, end - start), row_group_size=end - start)
    return sink.getvalue().to_pybytes()
