"""Positions: every input row has one number, from which file, row group and row follow."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.lake.inputs import InputFile
from pipelines.nightly.plan.scan import FileSummary


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
