"""What all runs share: rows, tokens, pixels and fixed features, made once."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from pipelines.benchmark.paper import pictures as pictures_module
from pipelines.benchmark.paper.data import BenchmarkData, highest_regions, without_attributes
from pipelines.benchmark.paper.pictures import PictureStore, decode_store, open_store
from pipelines.benchmark.paper.plan import plan_run
from pipelines.benchmark.paper.source import thinned
from ulsdram_core.fit.examples import ExampleBuilder
from ulsdram_core.image import ImageConfig, decode_picture
from ulsdram_core.text import TextProcessor

IMAGE = ImageConfig(size=32)


def plan_of(data, name, **changes):
    return plan_run(data.source.config, name, seed=0, **changes)


def test_the_split_is_thinned_evenly():
    assert list(thinned(10, 4)) == [0, 2, 5, 7]
    assert list(thinned(3, 4)) == [0, 1, 2]
    assert list(thinned(3, None)) == [0, 1, 2]


def test_limits_keep_rows_of_the_whole_table(source_of, tmp_path):
    whole = BenchmarkData(source_of(), tmp_path)
    part = BenchmarkData(source_of("settings.test_limit=3", limit=6), tmp_path)
    ids = [product.product_id for product in whole.train]
    assert [product.product_id for product in part.train] == ids[::4]
    assert len(part.test) == 3
    assert part.key != whole.key


def test_gold_is_of_the_texts_that_are_read(data):
    assert {span.source for product in data.train for span in product.gold} == {"title"}


def test_categories_know_the_attributes_of_training_products(data):
    found = data.category_attributes
    for product in data.train:
        assert set(product.gold_attributes()) <= found[product.category]


def test_examples_equal_those_of_the_builder(data):
    plan = plan_of(data, "uls_vl")
    tokenizer, labels = data.tokenizer(plan.extractor.model.text_encoder), data.labels()
    found = data.examples(plan, tokenizer, labels)
    builder = ExampleBuilder(TextProcessor(tokenizer, plan.extractor.text), labels, IMAGE)
    wanted = list(builder(data.source.read("train", with_pictures=True)))
    assert len(found) == len(wanted) >= 24
    for one, other in zip(found, wanted, strict=True):
        assert one.gold == other.gold
        assert one.window.piece_ids.tolist() == other.window.piece_ids.tolist()
        assert len(one.pictures) == len(other.pictures)
        assert all(map(np.array_equal, one.pictures, other.pictures))
    text_only = data.examples(plan_of(data, "uls_l"), tokenizer, labels)
    assert not any(example.pictures for example in text_only)
    assert text_only[0].window is found[0].window, "tokenised once"


def test_pictures_are_decoded_once_for_all_processes(data, monkeypatch):
    plan = plan_of(data, "uls_vl")
    first = data.store(plan, "train")
    monkeypatch.setattr(pictures_module, "decode_picture", None)
    again = BenchmarkData(data.source, data.cache).store(plan, "train")
    assert again.of_product == first.of_product
    assert all(map(np.array_equal, again.arrays, first.arrays))


def test_equal_pictures_are_one_and_broken_ones_are_left_out(tmp_path, source_of):
    products = source_of().read("train", with_pictures=True)
    one, other = (p.pictures[0] for p in products[:2])
    rows = [[one], [], [b"no picture", other, one]]
    store = decode_store(tmp_path / "x.npy", rows, IMAGE)
    assert store.of_product == ((0,), (), (1, 0))
    assert store.of(2)[1] is store.of(0)[0], "the same object, so that a batch holds it once"
    assert np.array_equal(store.of(0)[0], decode_picture(one, IMAGE))


def test_no_pictures_at_all_is_a_store_too(tmp_path):
    store = decode_store(tmp_path / "x.npy", [[], [b"broken"]], IMAGE)
    assert store.of_product == ((), ())
    assert open_store(tmp_path / "x.npy") == store
    assert open_store(tmp_path / "y.npy") is None


@torch.no_grad()
def test_fixed_encoders_give_their_regions_from_the_store(data):
    plan = plan_of(data, "m_jave_bert")
    pixels, regions = data.store(plan_of(data, "uls_vl"), "test"), data.store(plan, "test")
    assert regions.of_product == pixels.of_product
    encoder = data.fixed_encoder(plan)
    for pixel, region in zip(pixels.arrays, regions.arrays, strict=True):
        wanted = encoder(torch.from_numpy(np.array(pixel)).permute(2, 0, 1)[None])[0]
        assert_close(torch.from_numpy(np.array(region)).float(), wanted, rtol=2e-3, atol=2e-3)
    assert data.store(plan_of(data, "uls_l"), "test") is None


def test_a_product_is_asked_with_the_highest_of_its_mean_regions():
    arrays = (np.array([[1.0, 4.0], [3.0, 0.0]]), np.array([[5.0, 1.0], [1.0, 1.0]]))
    store = PictureStore(arrays, ((0, 1), ()))
    assert highest_regions(store, 0, 4).tolist() == [3.0, 2.0]
    assert highest_regions(store, 0, 1).tolist() == [2.0, 2.0]
    assert highest_regions(store, 1, 4) is None


def test_held_out_attributes_leave_no_gold(data):
    hidden = without_attributes(data.train, ["color"])
    assert "color" not in {span.attribute for p in hidden for span in p.gold}
    assert "color" not in data.labels(["color"]).attributes
    assert "color" in data.labels().attributes


def test_unlabelled_texts_are_all_training_texts_unless_given(source_of, prepared):
    texts = source_of(limit=4).unlabelled_texts()
    assert len(texts) == 24, "more than the systems are trained on"
    assert all(product.gold is None and not product.pictures for product in texts)
    given = source_of(unlabelled=str(prepared / "test")).unlabelled_texts()
    assert len(given) == 8
    assert len(source_of("settings.unlabelled_limit=5").unlabelled_texts()) == 5
    with pytest.raises(ValueError, match="expected 1 or more"):
        source_of(limit=0).check()


def test_missing_data_is_named(source_of, tmp_path):
    with pytest.raises(ValueError, match="found no Parquet files"):
        source_of(data=str(tmp_path)).check()


def test_the_demo_needs_no_files(config_of, source_of, tmp_path):
    source = source_of("settings.demo_products=40", data="demo", limit=10)
    source.check()
    data = BenchmarkData(source, tmp_path)
    assert len(data.train) == 10
    assert data.test
    assert not {p.product_id for p in data.train} & {p.product_id for p in data.test}
    assert len(source.unlabelled_texts()) == 40
    changed = replace(source, config=config_of("settings.demo_products=41"))
    assert changed.key() != source.key()
