import numpy as np
import pytest

from pipelines.benchmark.eclip import vectors
from pipelines.benchmark.eclip.finetune import usable_pairs
from pipelines.benchmark.eclip.tasks import System
from pipelines.demo.tables import write_splits
from pipelines.lake.storage import Storage
from pipelines.lake.tables import Columns
from pipelines.train.eclip.job import PretrainRequest, starting_encoders
from pipelines.train.eclip.recipe import load_eclip_recipe
from pipelines.train.eclip.table import open_pairs
from ulsdram_core.demo import DemoConfig
from ulsdram_core.eclip.embedder import Embedder
from ulsdram_core.image import decode_picture, decode_usable


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    data = Storage.of(tmp_path_factory.mktemp("data"))
    write_splits(DemoConfig(num_products=40, picture_size=32, missing_pictures=0.2), data)
    return open_pairs(data, "train", columns=Columns(), sources=("title",))


@pytest.fixture(scope="module")
def system(table):
    small = ["image.size=32", "model.text_encoder.hidden=32", "model.image_encoder.width=8"]
    recipe = load_eclip_recipe("eclip_tiny", [*small, "run.vocab_size=400"])
    request = PretrainRequest(recipe, table.place, table.place)
    return System("tiny", Embedder(starting_encoders(request, table)), {})


def test_the_rows_asked_for_are_decoded_and_no_others(table, system, monkeypatch):
    decoded = []

    def count(pictures, config):
        decoded.extend(pictures)
        return decode_usable(pictures, config)

    monkeypatch.setattr(vectors, "decode_usable", count)
    rows = table.scan().collect()
    wanted = [20, 3, 4, 11]
    found = usable_pairs(system, table, wanted)
    assert list(found) == [row for row in sorted(wanted) if rows["image"][row] is not None]
    assert len(decoded) == len(found)
    for row, pair in found.items():
        pixels = decode_picture(rows["image"][row], system.embedder.parts.config.image)
        assert np.array_equal(pair.pictures[0], pixels)


def test_rows_of_which_none_can_be_used_are_named(table, system):
    images = table.scan().collect()["image"]
    with pytest.raises(ValueError, match="none of 1 rows"):
        usable_pairs(system, table, [images.is_null().arg_true()[0]])
