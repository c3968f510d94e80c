"""Chunks keep to the borders of row groups and cover the work once."""

import numpy as np
import pytest

from pipelines.lake.inputs import InputFile
from pipelines.lake.storage import Storage
from pipelines.nightly.plan import chunks as chunks_module
from pipelines.nightly.plan import plan as plan_module
from pipelines.nightly.plan import planner as planner_module
from pipelines.nightly.plan.chunks import ChunkConfig, Range, WorkList, pieces, without
from pipelines.nightly.plan.planner import _write_work
from pipelines.nightly.plan.scan import FileSummary, PlannedFile, RowMap

FILES = [
    PlannedFile(InputFile("a", 1, "v"), FileSummary(row_groups=[(10, 100), (5, 50)])),
    PlannedFile(InputFile("b", 1, "v"), FileSummary()),
    PlannedFile(InputFile("c", 1, "v"), FileSummary(row_groups=[(7, 70)])),
]
DATA = [Storage.of(f"/{name}") for name in "abc"]


def work_list(folder: Storage, orders: list[int]) -> WorkList:
    _write_work(folder.join("work.arrow"), np.array(orders, np.int64))
    return WorkList(folder, RowMap(FILES), DATA, len(orders))


def located(work: WorkList, chunks: list[Range]) -> list[tuple[str, int, int]]:
    return [
        (part.file.uri, part.row_group, int(row))
        for chunk in chunks
        for part in work.parts(*chunk)
        for row in part.rows
    ]


def test_positions_go_both_ways():
    rows = RowMap(FILES)
    files, groups, positions = rows.locate(np.arange(22))
    found = list(zip(files, groups, positions, strict=True))
    expected = [(0, 0, i) for i in range(10)] + [(0, 1, i) for i in range(5)]
    assert found == expected + [(2, 0, i) for i in range(7)]
    assert [rows.file_start(i) for i in range(3)] == [0, 15, 15]


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        ({"rows": 100}, [14]),
        ({"rows": 9}, [9, 5]),
        ({"rows": 1}, [9, 4, 1]),  # never inside a row group
        ({"rows": 100, "row_groups": 2}, [13, 1]),
        ({"rows": 100, "bytes": 100}, [9, 5]),
    ],
)
def test_chunks_cover_the_work_once(tmp_path, config, sizes):
    orders = [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 20]
    work = work_list(Storage.of(tmp_path), orders)
    chunks = list(work.chunks([(0, work.size)], ChunkConfig(**config)))
    assert [end - start for start, end in chunks] == sizes
    files, groups, positions = RowMap(FILES).locate(np.array(orders))
    names = [FILES[i].file.uri for i in files]
    assert located(work, chunks) == list(zip(names, groups, positions, strict=True))


def test_chunks_of_what_is_left(tmp_path):
    work = work_list(Storage.of(tmp_path), list(range(22)))
    left = without(22, [(4, 6), (12, 20)])
    assert left == [(0, 4), (6, 12), (20, 22)]
    assert list(work.chunks(left, ChunkConfig(rows=1))) == [
        (0, 4), (6, 10), (10, 12), (20, 22)
    ]  # fmt: skip
    assert pieces((6, 12), 4) == [(6, 10), (10, 12)]


def test_work_that_spans_several_batches_of_the_list(tmp_path, monkeypatch):
    for module in (chunks_module, plan_module, planner_module):
        monkeypatch.setattr(module, "WORK_ROWS", 4)
    work = work_list(Storage.of(tmp_path), list(range(22)))
    assert list(work.chunks([(0, 22)], ChunkConfig(rows=1))) == [(0, 10), (10, 15), (15, 22)]
    assert located(work, [(3, 9)]) == [("a", 0, i) for i in range(3, 9)]
