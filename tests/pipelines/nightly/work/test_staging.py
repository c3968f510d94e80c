"""Receipts and parts: what counts, what is a stray, and how many files publishing opens."""

import itertools

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.lake.storage import Storage
from pipelines.nightly.work import staging as module
from pipelines.nightly.work.extracted import RowStamp, rows_table
from pipelines.nightly.work.staging import (
    Account,
    Receipt,
    Staging,
    bucket_ranges,
    merge_parts,
    write_part,
)
from ulsdram_core.schema import Extraction, Status

BUCKETS = 64


def rows(start: int, end: int) -> pa.Table:
    items = [Extraction(f"p{i:05d}", Status.OK) for i in range(start, end)]
    return rows_table(items, ["0" * 32] * len(items), RowStamp("m", "r", BUCKETS))


def staged(folder, *, parts: int, size: int) -> Staging:
    staging = Staging.open(Storage.of(folder))
    for start in range(0, parts * size, size):
        path = write_part(staging.place, rows(start, start + size))
        receipt = Receipt(0, ((start, start + size),), ((1.5, 2.0),), Account(bytes_read=3), path)
        assert staging.add(receipt)
    staging.flush()
    return staging


def test_receipts_are_found_again_and_count_once(tmp_path):
    first = staged(tmp_path, parts=3, size=10)
    again = Staging.open(Storage.of(tmp_path))
    assert sorted(again.receipts, key=lambda r: r.ranges) == first.receipts
    assert again.done(0) == [piece for receipt in again.receipts for piece in receipt.ranges]
    assert again.done(1) == []
    assert not again.add(Receipt(0, ((10, 20),), path="by a writer that was tried again"))
    assert again.add(Receipt(1, ((10, 20),), path="of another plan"))


def test_a_part_without_a_receipt_does_not_count(tmp_path):
    staging = staged(tmp_path, parts=2, size=10)
    write_part(staging.place, rows(100, 110))
    assert Staging.open(Storage.of(tmp_path)).parts().read(None).num_rows == 20


@pytest.mark.parametrize("parts", [2, 10, 40])
def test_ranges_of_buckets_hold_every_row_once(tmp_path, monkeypatch, parts):
    monkeypatch.setattr(module, "_MERGED_ROWS", 160)
    staging = staged(tmp_path, parts=parts, size=20)
    ranges = bucket_ranges(BUCKETS, parts * 20)
    merged = staging.merged(ranges, lambda tasks: map(merge_parts, tasks))
    assert len(merged.paths) == (parts if parts <= 4 else -(-parts // 8))
    found = [merged.read(piece) for piece in ranges]
    for (low, high), table in zip(ranges, found, strict=True):
        assert all(low <= bucket < high for bucket in table["bucket"].to_pylist())
    ids = sorted(pa.concat_tables(found)["product_id"].to_pylist())
    assert ids == [f"p{i:05d}" for i in range(parts * 20)]


def test_a_merged_file_has_a_row_group_per_range_so_that_each_byte_is_read_once(tmp_path):
    staging = staged(tmp_path, parts=6, size=200)
    ranges = [(0, 16), (16, 32), (32, 64)]
    merged = staging.merged(ranges, lambda tasks: map(merge_parts, tasks))
    (path,) = merged.paths
    assert pq.read_metadata(staging.place.join(path).path).num_row_groups == 3
    assert staging.merged(ranges, lambda _: pytest.fail("merged again")) == merged


@pytest.mark.parametrize(
    ("buckets", "rows", "count"), [(4, 10, 4), (4096, 10, 64), (1024, 10**8, 400)]
)
def test_ranges_cover_the_buckets(buckets, rows, count):
    ranges = bucket_ranges(buckets, rows)
    assert len(ranges) == count
    assert [ranges[0][0], ranges[-1][1]] == [0, buckets]
    assert all(a[1] == b[0] for a, b in itertools.pairwise(ranges))
