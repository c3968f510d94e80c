"""The decode stage by itself."""

import pickle

import numpy as np
import pytest
from shop_catalogue import picture, product, write_file

from pipelines.lake.inputs import list_inputs
from pipelines.lake.pictures import PictureAddressConfig
from pipelines.lake.storage import Storage
from pipelines.lake.tables import Columns
from pipelines.nightly.plan.chunks import Chunk, ChunkConfig, Part
from pipelines.nightly.plan.rows import RowSettings
from pipelines.nightly.work.decode import (
    DecodeSettings,
    InputChangedError,
    decode_chunk,
    num_batches,
)
from pipelines.nightly.work.model import ModelFacts
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
def chunk(tmp_path) -> Chunk:
    rows = [product(i, image=picture(30), description=None) for i in range(8)]
    rows[6]["image"] = b"broken"
    path = write_file(tmp_path / "a.parquet", rows, group=8)
    (file,) = list_inputs([str(path)], {})
    part = Part(file, Storage.of(path), 0, np.array([1, 2, 4, 6, 7]), first=1)
    return Chunk(0, (part,))


def test_chosen_rows_in_batches(chunk):
    batches = decode_chunk(chunk, SETTINGS)
    assert num_batches(chunk, SETTINGS) == len(batches) == 2
    rows = [row for batch in batches for row in batch.rows]
    assert [row.product_id for row in rows] == [f"p{i:06d}" for i in (1, 2, 4, 6, 7)]
    assert rows[0].texts == {"title": product(1)["title"]}
    assert (rows[0].pictures[0] == decode_picture(picture(30), IMAGE)).all()
    assert [row.reason for row in rows] == [None, None, None, Reason.UNDECODABLE_PICTURE, None]
    assert sum(batch.bytes_read for batch in batches) > 0


def test_equal_pictures_are_decoded_once_and_stay_one_array_on_the_way(chunk):
    first, _ = decode_chunk(chunk, SETTINGS)
    travelled = pickle.loads(pickle.dumps(first, protocol=5))
    for batch in (first, travelled):
        assert len({id(row.pictures[0]) for row in batch.rows}) == 1


@pytest.mark.parametrize("spoil", ["delete", "shrink", "break"])
def test_a_file_that_changed_is_told_from_a_bad_row(chunk, spoil):
    path = Storage.of(chunk.parts[0].file.uri)
    if spoil == "delete":
        path.delete()
    elif spoil == "break":
        path.write_bytes(b"PAR1 no more")
    else:
        from pathlib import Path

        write_file(Path(path.path), [product(1)])
    with pytest.raises(InputChangedError):
        decode_chunk(chunk, SETTINGS)
