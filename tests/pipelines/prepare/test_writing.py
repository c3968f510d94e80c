from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.lake.storage import Storage
from pipelines.prepare.compaction import plan_files
from pipelines.prepare.staging import Piece
from pipelines.prepare.writing import RowGroupWriter

SCHEMA = pa.schema([("data", pa.binary())])


def write(path, sizes, row_group_bytes):
    with RowGroupWriter(Storage.of(path), SCHEMA, row_group_bytes=row_group_bytes) as writer:
        for number, size in enumerate(sizes):
            writer.write(pa.table({"data": [bytes([number % 256]) * size]}, schema=SCHEMA))
    metadata = pq.read_metadata(path)
    return [metadata.row_group(n) for n in range(metadata.num_row_groups)]


@pytest.mark.parametrize("num_rows", [1, 3, 39, 40, 53, 54, 100, 397])
def test_row_groups_are_of_even_size(tmp_path, num_rows):
    path = tmp_path / "new" / "part.parquet"
    groups = write(path, [1_000] * num_rows, 40_000)
    assert sum(group.num_rows for group in groups) == num_rows
    assert all(group.num_rows <= 54 for group in groups)
    if len(groups) > 1:
        assert all(group.num_rows >= 13 for group in groups)
    data = pq.read_table(path)["data"].to_pylist()
    assert [item[0] for item in data] == [number % 256 for number in range(num_rows)]


def test_rows_larger_than_a_group_stand_alone(tmp_path):
    groups = write(tmp_path / "part.parquet", [100, 90_000, 100, 90_000], 10_000)
    assert sum(group.num_rows for group in groups) == 4
    assert len(groups) >= 2


def test_a_file_without_rows_tells_its_schema(tmp_path):
    assert write(tmp_path / "part.parquet", [], 100) == []
    assert pq.read_schema(tmp_path / "part.parquet").names == ["data"]


def piece(shard, split, num_bytes):
    return Piece(shard=shard, split=split, uri=f"p{shard}", num_rows=1, num_bytes=num_bytes)


def test_files_take_pieces_in_input_order_and_even_sizes():
    pieces = [piece(number, "train", 10) for number in reversed(range(40))]
    files = plan_files([*pieces, piece(3, "test", 5)], file_bytes=100)
    train = [file for file in files if file.split == "train"]
    assert [file.name for file in train] == [f"part-{number:05d}.parquet" for number in range(4)]
    assert [item.shard for file in train for item in file.pieces] == list(range(40))
    assert [file.num_rows for file in train] == [10] * 4


def test_every_split_gets_a_file():
    files = plan_files([piece(0, "train", 10)], file_bytes=100)
    assert [(file.split, file.num_rows) for file in files] == [
        ("train", 1),
        ("valid", 0),
        ("test", 0),
    ]


def test_a_split_of_empty_pieces_is_planned():
    assert plan_files([piece(0, "train", 0)], file_bytes=100)[0].num_rows == 1
