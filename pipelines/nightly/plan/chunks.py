"""Chunks: the rows that one decode task reads, and how a failing chunk is taken apart."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pipelines.lake.inputs import InputFile
from pipelines.lake.storage import Storage
from pipelines.nightly.plan.scan import RowMap


class ChunkConfig(BaseModel):
    """How much one task reads at once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int = Field(512, ge=1, description="Most rows that one decode task reads.")
    row_groups: int = Field(32, ge=1, description="Most row groups that one decode task opens.")
    bytes: int = Field(
        256_000_000, ge=1, description="Stored bytes of row groups after which a chunk ends."
    )
    batch_rows: int = Field(64, ge=1, description="Rows handed to a model worker at once.")


@dataclass(frozen=True, slots=True)
class Part:
    """Chosen rows of one row group. `data` is the Parquet file to read (`file` may be a CSV)."""

    file: InputFile
    data: Storage
    row_group: int
    rows: np.ndarray  # positions in the row group, ascending
    first: int  # number of the first chosen row among all input rows

    def take(self, start: int, end: int) -> "Part":
        """A slice of the chosen rows."""
        first = self.first + int(self.rows[start] - self.rows[0])
        return Part(self.file, self.data, self.row_group, self.rows[start:end], first)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows of one wave; the name is the same on every night and in every attempt."""

    wave: int
    parts: tuple[Part, ...]

    def __len__(self) -> int:
        return sum(len(part.rows) for part in self.parts)

    @property
    def name(self) -> str:
        """Where the rows begin and how many they are."""
        return f"{self.parts[0].first}-{len(self)}"

    def slices(self, size: int) -> list["Chunk"]:
        """The rows in pieces of `size`, in order."""
        return [self._slice(start, start + size) for start in range(0, len(self), size)]

    def _slice(self, start: int, end: int) -> "Chunk":
        parts, position = [], 0
        for part in self.parts:
            low, high = max(start - position, 0), min(end - position, len(part.rows))
            if low < high:
                parts.append(part.take(low, high))
            position += len(part.rows)
        return Chunk(self.wave, tuple(parts))


def cut_wave(
    wave: int, orders: np.ndarray, rows: RowMap, *, data: Sequence[Storage], config: ChunkConfig
) -> Iterator[Chunk]:
    """A wave's rows as chunks; `data[i]` is where the rows of input file i are read."""
    parts: list[Part] = []
    size, num_bytes = 0, 0
    for part, stored in _parts(orders, rows, data, config.rows):
        is_full = size + len(part.rows) > config.rows or len(parts) >= config.row_groups
        if parts and (is_full or num_bytes >= config.bytes):
            yield Chunk(wave, tuple(parts))
            parts, size, num_bytes = [], 0, 0
        parts.append(part)
        size += len(part.rows)
        num_bytes += stored
    if parts:
        yield Chunk(wave, tuple(parts))


def _parts(
    orders: np.ndarray, rows: RowMap, data: Sequence[Storage], most: int
) -> Iterator[tuple[Part, int]]:
    """Runs of rows in one row group, at most `most` long, with the row group's stored bytes."""
    groups = rows.groups_of(orders)
    borders = np.flatnonzero(np.diff(groups)) + 1
    for chosen in np.split(orders, borders) if len(orders) else ():
        group = int(rows.groups_of(chosen[:1])[0])
        file = int(rows.group_file[group])
        positions = chosen - rows.group_start[group]
        for start in range(0, len(chosen), most):
            part = Part(
                file=rows.files[file].file,
                data=data[file],
                row_group=rows.group_index(group),
                rows=positions[start : start + most],
                first=int(chosen[start]),
            )
            yield part, int(rows.group_bytes[group])
