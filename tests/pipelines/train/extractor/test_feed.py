import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pipelines.labelled.label_config import LabelConfig
from pipelines.labelled.pixels import DecodePictures
from pipelines.labelled.table import learn_labels, open_labelled
from pipelines.lake.storage import Storage
from pipelines.train.extractor.feed import Feed, FeedConfig
from ulsdram_core.encoders.tokenizer import build_tokenizer
from ulsdram_core.fit.hiding import Hiding
from ulsdram_core.text import TextProcessor


@pytest.fixture(scope="module")
def table(demo_data, small_recipe):
    return open_labelled(
        Storage.of(demo_data),
        "train",
        columns=small_recipe.columns,
        sources=small_recipe.text.sources,
        uses_pictures=True,
    )


@pytest.fixture(scope="module")
def rows(table, small_recipe):
    found = pa.concat_tables(pq.read_table(path) for path in table.files)
    return DecodePictures(table.picture_columns, small_recipe.image)(found)


@pytest.fixture(scope="module")
def feed(table, rows, small_recipe):
    tokenizer = build_tokenizer(rows["title"].to_pylist(), 300)
    config = FeedConfig(
        batch_products=4,
        pool_batches=3,
        accumulate=2,
        hide=Hiding.of(0.3, 0.2, tokenizer),
        picture_size=32,
        seed=5,
        rank=0,
    )
    labels = learn_labels(table, LabelConfig())
    return Feed(config, table, TextProcessor(tokenizer, small_recipe.text), labels)


def pools(rows, feed):
    size = feed.config.pool_products
    return [rows.slice(start, size) for start in range(0, rows.num_rows, size)]


def flat(steps):
    return [
        (batch.piece_ids_BL, batch.window_M, batch.pictures_K3SS, batch.gold.tags_GU)
        for batches in steps
        for batch in batches
    ]


def equal(first, second):
    return len(first) == len(second) and all(
        torch.equal(a, b)
        for x, y in zip(first, second, strict=True)
        for a, b in zip(x, y, strict=True)
    )


def test_an_epoch_holds_every_product_once(rows, feed):
    steps = list(feed.steps(pools(rows, feed), epoch=1, skip=0))
    assert sum(batch.num_windows for batches in steps for batch in batches) == rows.num_rows
    assert len(steps) == feed.config.num_steps(rows.num_rows)


def test_the_same_epoch_is_the_same_and_another_differs(rows, feed):
    first = flat(feed.steps(pools(rows, feed), epoch=1, skip=0))
    assert equal(first, flat(feed.steps(pools(rows, feed), epoch=1, skip=0)))
    assert not equal(first, flat(feed.steps(pools(rows, feed), epoch=2, skip=0)))


@pytest.mark.parametrize("skip", [1, 3, 4, 7])
def test_skipping_gives_the_rest_of_the_epoch(rows, feed, skip):
    steps = list(feed.steps(pools(rows, feed), epoch=1, skip=0))
    rest = list(feed.steps(pools(rows, feed), epoch=1, skip=skip))
    assert equal(flat(steps[skip:]), flat(rest))
