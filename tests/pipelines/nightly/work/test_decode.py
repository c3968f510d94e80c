"""The decode stage by itself."""

from dataclasses import replace

import numpy as np
import pytest
from shop_catalogue import picture, product, products, write_file

from pipelines.lake.inputs import list_inputs
from pipelines.lake.pictures import PictureAddressConfig
from pipelines.lake.storage import Storage
from pipelines.lake.tables import Columns
from pipelines.nightly.plan.chunks import ChunkConfig, WorkList
from pipelines.nightly.plan.planner import _write_work
from pipelines.nightly.plan.rows import FileReader, RowSettings
from pipelines.nightly.plan.scan import FileSummary, PlannedFile, RowMap
from pipelines.nightly.work.decode import DecodeSettings, decode_range
from pipelines.nightly.work.model import ModelFacts
from pipelines.nightly.work.ray_executor import pack, unpack
from ulsdram_core.image import ImageConfig, decode_picture
from ulsdram_core.reasons import Reason

IMAGE = ImageConfig(size=16)
SETTINGS = DecodeSettings(
    RowSettings(Columns(), ("title", "description"), uses_pictures=True),
    ModelFacts("m", ("title", "description"), IMAGE),
    ChunkConfig(batch_rows=3),
    PictureAddressConfig().build(),
)


@pytest.fixture
def path(tmp_path):
    rows = [product(i, image=picture(30), description=None) for i in range(8)]
    rows[6]["image"] = b"broken"
    return write_file(tmp_path / "a.parquet", rows, group=8)


@pytest.fixture
def work(tmp_path, path) -> WorkList:
    (file,) = list_inputs([str(path)], {})
    rows = RowMap([PlannedFile(file, FileSummary(row_groups=[(8, 1000)]))])
    _write_work(Storage.of(tmp_path / "work.arrow"), np.array([1, 2, 4, 6, 7]))
    return WorkList(Storage.of(tmp_path), rows, [Storage.of(path)], 5)


def test_chosen_rows_in_batches(work):
    batches = list(decode_range(work, (0, 5), SETTINGS))
    assert [(batch.start, batch.end) for batch in batches] == [(0, 3), (3, 5)]
    rows = [row for batch in batches for row in batch.rows]
    assert [row.product_id for row in rows] == [f"p{i:06d}" for i in (1, 2, 4, 6, 7)]
    assert rows[0].texts == {"title": product(1)["title"]}
    assert (rows[0].pictures[0] == decode_picture(picture(30), IMAGE)).all()
    assert [row.reason for row in rows] == [None, None, None, Reason.UNDECODABLE_PICTURE, None]
    assert sum(batch.account.bytes_read for batch in batches) > 0


def test_a_batch_ends_when_its_pixels_are_many(work):
    chunks = ChunkConfig(batch_bytes=1)
    settings = replace(SETTINGS, chunks=chunks)
    sizes = [batch.end - batch.start for batch in decode_range(work, (0, 5), settings)]
    assert sizes == [1, 1, 1, 2]  # the broken picture has no pixels


def test_equal_pictures_are_decoded_once_and_stay_one_array_on_the_way(work):
    first, _ = decode_range(work, (0, 5), SETTINGS)
    travelled = unpack(pack(first))
    for batch in (first, travelled):
        assert len({id(row.pictures[0]) for row in batch.rows}) == 1
    assert (travelled.rows[0].pictures[0] == first.rows[0].pictures[0]).all()


@pytest.mark.parametrize("spoil", ["delete", "shrink", "break"])
def test_a_file_that_changed_is_told_from_a_bad_row(work, path, spoil):
    if spoil == "delete":
        path.unlink()
    elif spoil == "break":
        path.write_bytes(b"PAR1 no more")
    else:
        write_file(path, [product(1)])
    (batch,) = decode_range(work, (0, 5), SETTINGS)
    assert (batch.start, batch.end, batch.rows) == (0, 5, [])
    assert batch.changed


def test_a_large_row_group_is_read_once_and_by_the_piece(tmp_path, monkeypatch):
    path = write_file(tmp_path / "b.parquet", products(2000), group=2000)
    (file,) = list_inputs([str(path)], {})
    rows = RowMap([PlannedFile(file, FileSummary(row_groups=[(2000, 10**6)]))])
    _write_work(Storage.of(tmp_path / "work.arrow"), np.arange(0, 2000, 2))
    work = WorkList(Storage.of(tmp_path), rows, [Storage.of(path)], 1000)
    opened = []
    take = FileReader.take
    monkeypatch.setattr(
        FileReader,
        "take",
        lambda self, group, rows: opened.append(group) or take(self, group, rows),
    )
    (chunk,) = work.chunks([(0, 1000)], ChunkConfig(rows=100))
    batches = decode_range(work, chunk, SETTINGS)
    assert next(batches).end == 3
    assert sum(batch.account.bytes_read for batch in batches) == 0  # all counted in the first
    assert opened == [0]
