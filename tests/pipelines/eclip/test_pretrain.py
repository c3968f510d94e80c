import json

import pytest
from small_run import SMALL_PRETRAINING as SMALL

from pipelines.demo_tables import write_splits
from pipelines.eclip.pretrain import PretrainRequest, pretrain, starting_encoders
from pipelines.eclip.recipe import ECLIP, load_eclip_recipe
from pipelines.eclip.table import open_recipe_pairs, pairs_of_rows
from pipelines.evaluate import DecodePictures
from pipelines.labelled import TableError
from pipelines.recipe import recipe_names
from pipelines.storage import Storage
from ulsdram_core.demo import DemoConfig
from ulsdram_core.eclip.embedder import Embedder
from ulsdram_core.eclip.pairs import catalog_number, collate_pairs
from ulsdram_core.eclip.parts import load_eclip
from ulsdram_core.eclip.pretraining import build_step
from ulsdram_core.eclip.streams import MultiStream
from ulsdram_core.text import TextProcessor


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    config = DemoConfig(num_products=120, picture_size=32, duplicates=0.4)
    write_splits(config, Storage.of(folder))
    return folder


@pytest.mark.parametrize("name", recipe_names(ECLIP))
def test_every_recipe_is_built_and_stepped_once(name, data):
    recipe = load_eclip_recipe(name, ["image.size=64", "run.vocab_size=400"])
    request = PretrainRequest(recipe, Storage.of(data), Storage.of("unused"), random_init=True)
    table = open_recipe_pairs(request.data, "train", recipe)
    parts = starting_encoders(request, table)
    rows = DecodePictures(table.picture_columns, recipe.image)(
        table.scan().head(6).collect().to_arrow()
    )
    text = TextProcessor(parts.tokenizer, parts.config.text)
    pairs = [
        pair
        for pair in pairs_of_rows(rows, table, text, size=64, catalog_column="catalog_id")
        if pair is not None
    ]
    config = recipe.pretrain
    step = build_step(
        parts.model.train(), config, MultiStream(parts.model, config.targets), total_pairs=40
    )
    found = step([collate_pairs(p, picture_size=64) for p in (pairs[:2], pairs[2:])], pairs_seen=0)
    assert found.num_pairs == len(pairs)
    assert found.loss > 0


def test_rows_become_pairs_with_their_catalog(data):
    recipe = load_eclip_recipe("eclip_tiny", SMALL)
    request = PretrainRequest(recipe, Storage.of(data), Storage.of("unused"))
    table = open_recipe_pairs(request.data, "train", recipe)
    assert "gold" not in table.names
    frame = table.scan().select(table.names).collect()
    rows = DecodePictures(table.picture_columns, recipe.image)(frame.to_arrow())
    parts = starting_encoders(request, table)
    text = TextProcessor(parts.tokenizer, parts.config.text)
    pairs = pairs_of_rows(rows, table, text, size=32, catalog_column="catalog_id")
    assert len(pairs) == table.num_rows
    for pair, row in zip(pairs, frame.iter_rows(named=True), strict=True):
        assert (pair is None) == (row["image"] is None)
        if pair is not None:
            assert pair.catalog == catalog_number(row["catalog_id"], row["product_id"])


def test_a_table_without_pictures_is_named(data, tmp_path):
    import polars as pl

    (tmp_path / "train").mkdir()
    frame = pl.read_parquet(data / "train" / "part-00000.parquet").drop("image")
    frame.write_parquet(tmp_path / "train" / "a.parquet")
    recipe = load_eclip_recipe("eclip_tiny")
    with pytest.raises(TableError, match=r"columns\.image"):
        open_recipe_pairs(Storage.of(tmp_path), "train", recipe)
    with pytest.raises(TableError, match=r"prepare\.py pairs"):
        open_recipe_pairs(Storage.of(tmp_path), "valid", recipe)


def test_a_recipe_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="kind"):
        load_eclip_recipe("tiny")
    with pytest.raises(ValueError, match=r"pipelines/eclip/recipe\.py"):
        load_eclip_recipe("eclip_tiny", ["pretrain.epoch=1"])
    with pytest.raises(ValueError, match="one of: eclip_small, eclip_tiny"):
        load_eclip_recipe("nope")


@pytest.fixture(scope="module")
def trained(ray_cluster, data, tmp_path_factory):  # noqa: ARG001
    output = Storage.of(tmp_path_factory.mktemp("run"))
    recipe = load_eclip_recipe("eclip_tiny", SMALL)
    request = PretrainRequest(recipe, Storage.of(data), output)
    return request, pretrain(request)


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_leaves_a_model_a_log_and_events(trained):
    request, summary = trained
    assert {"model", "checkpoints", "metrics.jsonl", "tensorboard"} <= set(request.output.names())
    entries = [
        json.loads(line) for line in request.output.join("metrics.jsonl").read_bytes().splitlines()
    ]
    steps = [entry for entry in entries if entry["kind"] == "step"]
    assert [entry["step"] for entry in steps] == list(range(1, summary["steps"] + 1))
    assert len([entry for entry in entries if entry["kind"] == "epoch"]) == 4
    assert steps[0]["batch_pairs"] > 16
    parts = load_eclip(request.output.join("model").path)
    assert parts.model_id() == summary["model_id"]
    assert parts.config.is_aligned
    assert summary["model_id"] in parts.card
    assert "reconstruction" in parts.card
    assert Embedder(parts).embed([]).text.shape == (0, 64)
    assert pretrain(request)["already_trained"]


@pytest.mark.ray
@pytest.mark.slow
def test_two_workers_and_another_start(trained, data, tmp_path):
    request, _ = trained
    again = PretrainRequest(
        load_eclip_recipe("eclip_tiny", [*SMALL, "pretrain.epochs=1"]),
        Storage.of(data), Storage.of(tmp_path), num_workers=2,
        init_from=request.output.join("model"),
    )  # fmt: skip
    summary = pretrain(again)
    assert summary["workers"] == 2
    assert summary["batch_pairs"] >= 64
