"""Finding duplicates among traces: linear time, bounded memory, one independent task per key.

Exact keys (same picture bytes, same given catalogue id) tie equal rows. Perceptual hashes at most
`max_distance` bits apart must agree in some choice of blocks (pigeonhole), so every choice gives a
key under which look-alikes meet; equal long titles are one more key. Rows are spread over buckets
on disk by key, a bucket is sorted in memory, and a row is compared with at most `window` following
rows of its key.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from pipelines.lake.storage import Storage
from ulsdram_core.frozen import Frozen

# Blocks that must agree: three of them leave keys of 64 * 3 / (max_distance + 3) bits.
_AGREEING = 3
# Pictures under one long title contradict beyond this; 1.3 % of random fashion pictures do not.
_TITLE_DISTANCE, _TITLE_COLOUR = 16, 20.0
_BATCH = 100_000
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
EXACT_KINDS = ("picture", "catalog")
KINDS = (*EXACT_KINDS, "title", "look_alike")
_EXACT_ROW = np.dtype([("key", "<u8"), ("rest", "<u8"), ("row", "<i8")])
_NEAR_ROW = np.dtype(
    [("key", "<u8"), ("rest", "<u8"), ("row", "<i8"), ("bits", "<u8"), ("colours", "u1", (48,))]
)


class DuplicateConfig(Frozen):
    """What counts as a duplicate, and what finding it may cost."""

    max_distance: int = Field(
        6, ge=0, le=8, description="differing bits of the perceptual hashes of one picture's copies"
    )
    max_colour: float = Field(
        6.0, ge=0, description="mean difference of 4 x 4 colours (0..255) of copies"
    )
    min_title_overlap: float = Field(
        0.1,
        ge=0,
        le=1,
        description="words in common, of all words, that look-alikes need; plain products of one "
        "kind look alike",
    )
    title_words: int = Field(
        12,
        ge=1,
        description="distinct words from which on equal titles mean one product, if the pictures "
        "do not contradict; shops give a whole series of products one shorter title",
    )
    max_group: int = Field(
        200,
        ge=2,
        description="a larger group keeps only the ties by equal pictures and given catalogue ids: "
        "look-alikes chained up",
    )
    window: int = Field(
        32, ge=1, description="following rows of the same key that a row is compared with"
    )
    bucket_rows: int = Field(
        2_000_000, ge=1, description="rows sorted in memory at once (about 150 bytes each)"
    )


@dataclass(frozen=True, slots=True)
class StoredTraces:
    """Narrow Parquet files of traces (see scan.py); `num_rows` over all of them."""

    files: tuple[Storage, ...]
    num_rows: int

    def batches(self, columns: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
        """Yield columns as arrays, some rows at a time; binary columns as [n, width] uint8."""
        for place in self.files:
            with place.arrow.open_input_file(place.path) as stream:
                for batch in pq.ParquetFile(stream).iter_batches(_BATCH, columns=list(columns)):
                    yield {name: _as_array(batch.column(name)) for name in columns}


def _as_array(column: pa.Array) -> np.ndarray:
    if pa.types.is_fixed_size_binary(column.type):
        width = column.type.byte_width
        flat = np.frombuffer(column.buffers()[1], np.uint8)
        return flat[column.offset * width :][: len(column) * width].reshape(-1, width)
    return np.asarray(column.to_numpy(zero_copy_only=False))


@dataclass(frozen=True, slots=True)
class EdgeTask:
    """One key of all rows: one of KINDS, look-alikes with a mask over the perceptual hash."""

    traces: StoredTraces
    config: DuplicateConfig
    kind: str = "look_alike"
    mask: int = 0


@dataclass(frozen=True, slots=True)
class _Limits:
    """How far two rows of one key may differ."""

    distance: int
    colour: float
    overlap: float

    @staticmethod
    def of(task: EdgeTask) -> "_Limits":
        if task.kind == "title":
            return _Limits(_TITLE_DISTANCE, _TITLE_COLOUR, overlap=1.0)
        config = task.config
        return _Limits(config.max_distance, config.max_colour, config.min_title_overlap)


@dataclass(frozen=True, slots=True)
class Edges:
    """Pairs of rows [E, 2] that are duplicates; what it took, and what the window left out."""

    pairs: np.ndarray
    compared: int = 0
    cut_short: int = 0

    def without(self, is_left_out: np.ndarray) -> "Edges":
        """Return those that touch no row marked in `is_left_out` [N]."""
        kept = ~is_left_out[self.pairs].any(1)
        return Edges(self.pairs[kept], self.compared, self.cut_short)


def edge_tasks(traces: StoredTraces, config: DuplicateConfig) -> list[EdgeTask]:
    """Return a task for every key."""
    whole = [EdgeTask(traces, config, kind) for kind in (*EXACT_KINDS, "title")]
    masks = block_masks(config.max_distance)
    return whole + [EdgeTask(traces, config, mask=mask) for mask in masks]


def block_masks(max_distance: int) -> list[int]:
    """Return masks of 64 bits: numbers at most `max_distance` bits apart agree under some mask."""
    num_blocks = max_distance + _AGREEING
    borders = [64 * i // num_blocks for i in range(num_blocks + 1)]
    blocks = [(1 << end) - (1 << start) for start, end in pairwise(borders)]
    return [sum(chosen) for chosen in combinations(blocks, _AGREEING)]


def find_edges(task: EdgeTask) -> Edges:
    """Return the duplicates that meet under one key."""
    found = [
        _equal_edges(rows)
        if task.kind in EXACT_KINDS
        else _near_edges(rows, _Limits.of(task), task.config.window)
        for rows in _buckets(task)
    ]
    pairs = [np.empty((0, 2), np.int64), *(edges.pairs for edges in found)]
    compared, cut = sum(e.compared for e in found), sum(e.cut_short for e in found)
    return Edges(np.concatenate(pairs), compared, cut)


def _buckets(task: EdgeTask) -> Iterator[np.ndarray]:
    """Yield all keyed rows, those of one key together, at most about `bucket_rows` at a time."""
    num_buckets = -(-task.traces.num_rows // task.config.bucket_rows)
    dtype = _EXACT_ROW if task.kind in EXACT_KINDS else _NEAR_ROW
    if num_buckets <= 1:
        yield np.concatenate([np.empty(0, dtype), *_keyed_rows(task)])
        return
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{i}.bin") for i in range(num_buckets)]
        for rows in _keyed_rows(task):
            buckets = ((rows["key"] * _SPREAD) >> np.uint64(32)) % np.uint64(num_buckets)
            order = np.argsort(buckets, kind="stable")
            ends = np.searchsorted(buckets[order], np.arange(num_buckets), side="right")
            for path, part in zip(paths, np.split(rows[order], ends[:-1]), strict=True):
                with path.open("ab") as file:
                    part.tofile(file)
        for path in paths:
            yield np.fromfile(path, dtype)


def _keyed_rows(task: EdgeTask) -> Iterator[np.ndarray]:
    return _exact_rows(task) if task.kind in EXACT_KINDS else _near_rows(task)


def _exact_rows(task: EdgeTask) -> Iterator[np.ndarray]:
    names = ("row", f"{task.kind}_hi", f"{task.kind}_lo", "is_usable")
    for batch in task.traces.batches(names):
        high, low = batch[names[1]], batch[names[2]]
        is_keyed = ((high | low) != 0) & batch["is_usable"]
        yield _rows(_EXACT_ROW, is_keyed, key=high, rest=low, row=batch["row"])


def _near_rows(task: EdgeTask) -> Iterator[np.ndarray]:
    is_title = task.kind == "title"
    names = ["row", "perceptual", "colours", "title_bits", "is_usable"]
    for batch in task.traces.batches([*names, *(["title_hi", "title_words"] if is_title else [])]):
        hashes = batch["perceptual"]
        # A hash without a single edge is a plain shape; it would tie everything to everything.
        is_keyed = batch["is_usable"] & (hashes != 0)
        if is_title:
            is_keyed &= batch["title_words"] >= task.config.title_words
        yield _rows(
            _NEAR_ROW,
            is_keyed,
            key=batch["title_hi"] if is_title else hashes & np.uint64(task.mask),
            rest=hashes,
            row=batch["row"],
            bits=batch["title_bits"],
            colours=batch["colours"],
        )


def _rows(dtype: np.dtype, chosen: np.ndarray, **columns: np.ndarray) -> np.ndarray:
    rows = np.empty(int(chosen.sum()), dtype)
    for name, values in columns.items():
        rows[name] = values[chosen]
    return rows


def _equal_edges(rows: np.ndarray) -> Edges:
    """Return a chain through the rows of each key."""
    order = np.lexsort((rows["row"], rows["rest"], rows["key"]))
    rows = rows[order]
    is_same = (rows["key"][1:] == rows["key"][:-1]) & (rows["rest"][1:] == rows["rest"][:-1])
    ordered = rows["row"]
    return Edges(np.stack([ordered[:-1][is_same], ordered[1:][is_same]], axis=1))


def _near_edges(rows: np.ndarray, limits: _Limits, window: int) -> Edges:
    order, keys = _by_key(rows, window)
    hashes, bits = rows["rest"][order], rows["bits"][order]
    left = np.arange(len(keys))
    found, compared = [np.empty((0, 2), np.int64)], 0
    for step in range(1, window + 1):
        left = left[left < len(keys) - step]
        left = left[keys[left] == keys[left + step]]
        if not len(left):
            break
        compared += len(left)
        is_near = np.bitwise_count(hashes[left] ^ hashes[left + step]) <= limits.distance
        near = left[is_near]
        for start in range(0, len(near), _BATCH):
            some = near[start : start + _BATCH]
            one, other = order[some], order[some + step]
            gap = np.abs(rows["colours"][one].astype(np.int16) - rows["colours"][other]).mean(1)
            common = np.bitwise_count(bits[some] & bits[some + step])
            every = np.bitwise_count(bits[some] | bits[some + step])
            is_same = (gap <= limits.colour) & (common >= limits.overlap * every)
            found.append(np.stack([rows["row"][one], rows["row"][other]], axis=1)[is_same])
    return Edges(np.concatenate(found), compared, len(left))


def _by_key(rows: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the order that puts rows of one key together, and the sorted keys, shortened.

    Keys share a 64-bit number with the place of their row, as plain numbers sort much faster than
    columns. Keys that fall together so cost a comparison, never an edge.
    """
    place_bits = np.uint64(max(1, len(rows).bit_length()))
    short = (rows["key"] * _SPREAD) >> place_bits
    packed = np.sort((short << place_bits) | np.arange(len(rows), dtype=np.uint64))
    order = (packed & ((np.uint64(1) << place_bits) - np.uint64(1))).astype(np.int64)
    keys = packed >> place_bits
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])[: len(keys)])
    sizes = np.diff(np.append(starts, len(keys)))
    # Where the window leaves pairs out, it should leave out those that look least alike.
    is_long = np.repeat(sizes > window + 1, sizes)
    some = order[is_long]
    order[is_long] = some[np.lexsort((rows["row"][some], rows["rest"][some], keys[is_long]))]
    return order, keys
