"""The work of a plan, cut into chunks: what one decode task reads.

Planned rows are named by their position in the plan's sorted work list; a chunk is a range of
positions that begins and ends between row groups, so that every row group is read by one task.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pipelines.lake.inputs import InputFile
from pipelines.lake.storage import Storage
from pipelines.nightly.plan.plan import WORK_ROWS, Plan, read_work
from pipelines.nightly.plan.scan import RowMap

Range = tuple[int, int]  # half-open positions in the work list


class ChunkConfig(BaseModel):
    """How much one task reads and how much one model call gets."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int = Field(
        2048, ge=1, description="Rows after which a chunk ends at the next row group's border."
    )
    row_groups: int = Field(32, ge=1, description="Most row groups that one decode task opens.")
    bytes: int = Field(
        256_000_000, ge=1, description="Stored bytes of row groups after which a chunk ends."
    )
    batch_rows: int = Field(
        512, ge=1, description="Rows of one model call; long and short texts sort well in 512."
    )
    batch_bytes: int = Field(
        128_000_000, ge=1, description="Bytes of pixels after which a model call is full."
    )
    part_rows: int = Field(
        4096, ge=1, description="Rows of one staged file; what is not written yet is redone."
    )


@dataclass(frozen=True, slots=True)
class Part:
    """Chosen rows of one row group. `data` is the Parquet file to read (`file` may be a CSV)."""

    file: InputFile
    data: Storage
    row_group: int
    rows: np.ndarray  # positions in the row group, ascending


@dataclass(frozen=True, slots=True)
class WorkList:
    """A plan's rows to extract, in order; picklable, and small but for the list of row groups."""

    place: Storage
    rows: RowMap
    data: Sequence[Storage]  # where the rows of each input file are read
    size: int

    @staticmethod
    def of(plan: Plan, data: Sequence[Storage]) -> "WorkList":
        """Return the work of a stored plan."""
        assert plan.place is not None, "a plan that was only estimated has no work"
        return WorkList(plan.place, plan.rows, data, plan.counts.extract - plan.counts.staged)

    def parts(self, start: int, end: int) -> Iterator[Part]:
        """Yield the rows of a range, row group by row group."""
        orders = read_work(self.place, start, end)
        groups = self.rows.groups_of(orders)
        borders = np.flatnonzero(np.diff(groups)) + 1
        for chosen in np.split(orders, borders) if len(orders) else ():
            group = int(self.rows.groups_of(chosen[:1])[0])
            file = int(self.rows.group_file[group])
            yield Part(
                file=self.rows.files[file].file,
                data=self.data[file],
                row_group=self.rows.group_index(group),
                rows=chosen - self.rows.group_start[group],
            )

    def chunks(self, ranges: Iterable[Range], config: ChunkConfig) -> Iterator[Range]:
        """Yield the ranges cut at borders of row groups."""
        for begin, limit in ranges:
            start, groups, num_bytes = begin, 0, 0
            for end, stored in self._borders(begin, limit):
                groups, num_bytes = groups + 1, num_bytes + stored
                is_full = end - start >= config.rows or groups >= config.row_groups
                if is_full or num_bytes >= config.bytes or end == limit:
                    yield start, end
                    start, groups, num_bytes = end, 0, 0

    def _borders(self, begin: int, limit: int) -> Iterator[tuple[int, int]]:
        """Yield where each row group of a range ends, with its stored bytes."""
        last = -1
        for start in range(begin, limit, WORK_ROWS):
            groups = self.rows.groups_of(
                read_work(self.place, start, min(limit, start + WORK_ROWS))
            )
            if last >= 0 and groups[0] != last:
                yield start, int(self.rows.group_bytes[last])
            for border in np.flatnonzero(np.diff(groups)):
                yield start + int(border) + 1, int(self.rows.group_bytes[groups[border]])
            last = int(groups[-1])
        if last >= 0:
            yield limit, int(self.rows.group_bytes[last])


def without(size: int, done: Iterable[Range]) -> list[Range]:
    """Return the ranges of [0, size) that `done` leaves open."""
    left, position = [], 0
    for start, end in sorted(done):
        if start > position:
            left.append((position, start))
        position = max(position, end)
    return [*left, (position, size)] if position < size else left


def pieces(whole: Range, size: int) -> list[Range]:
    """Return a range in pieces of at most `size`."""
    start, end = whole
    return [(i, min(i + size, end)) for i in range(start, end, size)]
