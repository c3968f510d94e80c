import json

import pytest
from small_run import SMALL_PRETRAINING as SMALL

from pipelines.command.recipes import recipe_names
from pipelines.demo.tables import write_splits
from pipelines.labelled.pixels import DecodePictures
from pipelines.labelled.table import TableError
from pipelines.lake.storage import Storage
from pipelines.train.eclip.job import PretrainRequest, pretrain, starting_encoders
from pipelines.train.eclip.recipe import ECLIP, load_eclip_recipe
from pipelines.train.eclip.table import open_recipe_pairs, pairs_of_rows
from ulsdram_core.demo import DemoConfig
from ulsdram_core.eclip.embedder import Embedder
from ulsdram_core.eclip.pairs import catalog_number, collate_pairs
from ulsdram_core.eclip.parts import load_eclip, save_eclip
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
    pairs = [pair for pair in pairs_of_rows(rows, table, text, recipe) if pair is not None]
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
    pairs = pairs_of_rows(rows, table, text, recipe)
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
    with pytest.raises(ValueError, match=r"did you mean pretrain\.epochs"):
        load_eclip_recipe("eclip_tiny", ["pretrain.epoch=1"])
    with pytest.raises(ValueError, match="one of: eclip_small, eclip_tiny"):
        load_eclip_recipe("nope")


@pytest.fixture(scope="module")
def start_model(data, tmp_path_factory):
    recipe = load_eclip_recipe("eclip_tiny", SMALL)
    request = PretrainRequest(recipe, Storage.of(data), Storage.of("unused"))
    parts = starting_encoders(request, open_recipe_pairs(request.data, "train", recipe))
    return Storage.of(save_eclip(parts, tmp_path_factory.mktemp("start") / "model"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("image.size=64", r"has image\.size=32, expected image\.size=64.*--set image\.size=32 or"),
        ("model.dim=32", r"has model\.dim=64, expected model\.dim=32"),
        ("model.image_encoder.architecture=resnet18", r'architecture="tiny"'),
    ],
)
def test_a_recipe_that_is_not_the_models_is_refused(data, start_model, override, message):
    """Also by the whole run, before anything starts."""
    recipe = load_eclip_recipe("eclip_tiny", [*SMALL, override])
    request = PretrainRequest(recipe, Storage.of(data), Storage.of("unused"), init_from=start_model)
    with pytest.raises(ValueError, match=message):
        pretrain(request)


def test_a_model_goes_on_with_its_own_recipe(data, start_model):
    overrides = [*SMALL, "pretrain.epochs=7", "model.temperature=0.1"]
    recipe = load_eclip_recipe("eclip_tiny", overrides)
    request = PretrainRequest(recipe, Storage.of(data), Storage.of("unused"), init_from=start_model)
    assert starting_encoders(request, None).config.model.dim == 64


def test_live_batch_norms_are_refused_before_the_run(data):
    live = "model.image_encoder.freeze_batch_norm=false"
    recipe = load_eclip_recipe("eclip_tiny", [*SMALL, live])
    request = PretrainRequest(recipe, Storage.of(data), Storage.of("unused"))
    with pytest.raises(ValueError, match="freeze_batch_norm=true"):
        pretrain(request)


def test_a_table_without_catalogue_ids_is_plain_clip_by_request_only(data, tmp_path):
    import polars as pl

    (tmp_path / "train").mkdir()
    frame = pl.read_parquet(data / "train" / "part-00000.parquet").drop("catalog_id")
    frame.write_parquet(tmp_path / "train" / "a.parquet")
    place = Storage.of(tmp_path)
    for override in ("pretrain.targets.kind=mixed", "catalog_column=null"):
        recipe = load_eclip_recipe("eclip_tiny", [override])
        with pytest.raises(TableError, match=r"prepare\.py pairs.*targets\.kind=identity"):
            open_recipe_pairs(place, "train", recipe)
    plain = load_eclip_recipe("eclip_tiny", ["pretrain.targets.kind=identity"])
    assert open_recipe_pairs(place, "train", plain).num_rows == frame.height
    named = load_eclip_recipe("eclip_tiny", ["catalog_column=product_id"])
    assert open_recipe_pairs(place, "train", named).num_rows == frame.height


def test_a_batch_that_outgrows_the_pool_is_refused():
    with pytest.raises(ValueError, match=r"recipe eclip_tiny: a worker's batch may grow to 256"):
        load_eclip_recipe("eclip_tiny", ["run.pool_pairs=255"])
    load_eclip_recipe("eclip_tiny", ["run.pool_pairs=256"])


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
