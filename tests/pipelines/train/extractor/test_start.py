"""What a run starts from is checked before anything is trained."""

import shlex

import polars as pl
import pytest

from pipelines.labelled.corrections import COLUMNS, read_corrections
from pipelines.labelled.table import TableError, open_labelled
from pipelines.lake.storage import Storage
from pipelines.train.extractor.recipe import load_recipe
from pipelines.train.extractor.start import check_output, starting_model
from ulsdram_core.checkpoint import save_model
from ulsdram_core.errors import CheckpointError
from ulsdram_core.labels import SINGLE_SUPPORT


def opened(data, recipe, **options):
    return open_labelled(
        Storage.of(data),
        "train",
        columns=recipe.columns,
        sources=recipe.text.sources,
        uses_pictures=recipe.image is not None,
        **options,
    )


@pytest.fixture(scope="module")
def model(demo_data, small_recipe, tmp_path_factory):
    """A model directory built by the small recipe."""
    folder = tmp_path_factory.mktemp("start") / "model"
    save_model(starting_model(small_recipe, opened(demo_data, small_recipe)), folder)
    return Storage.of(folder)


TEXT_ONLY = [
    "image=null", "model.image_encoder=null", "model.fusion.kind=none",
    "fit.loss.alignment_weight=0",
]  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["image.size=48"], r"image.size = 32 \(recipe: 48\).*--set image.size=32"),
        (["text.max_pieces=64"], "--set text.max_pieces=128"),
        (["model.text_encoder.hidden=48"], "--set model.text_encoder.hidden=32"),
        (TEXT_ONLY, r"image = \{size = 32.*--set 'image=\{size = 32"),
    ],
)
def test_a_recipe_of_another_build_is_refused(
    model, demo_data, small_overrides, overrides, message
):
    recipe = load_recipe("tiny", [*small_overrides, *overrides])
    with pytest.raises(ValueError, match=message):
        starting_model(recipe, opened(demo_data, recipe), init_from=model)


def test_what_the_refusal_names_makes_the_recipe_fit(model, demo_data, small_overrides):
    recipe = load_recipe("tiny", [*small_overrides, *TEXT_ONLY])
    with pytest.raises(ValueError, match="--set") as refused:
        starting_model(recipe, opened(demo_data, recipe), init_from=model)

    words = shlex.split(str(refused.value).split("keep the model's with ")[1].split(", or")[0])
    named = [word for word in words if word != "--set"]
    recipe = load_recipe("tiny", [*small_overrides, *TEXT_ONLY, *named])
    assert starting_model(recipe, opened(demo_data, recipe), init_from=model).config.image


def test_range_and_scope_come_from_the_recipe(model, demo_data, small_overrides):
    changes = ["range.threshold=0.2", "labels.scope_to_category=true"]
    recipe = load_recipe("tiny", [*small_overrides, *changes])
    parts = starting_model(recipe, opened(demo_data, recipe), init_from=model)
    assert parts.config.range.threshold == 0.2
    assert parts.config.scope_to_category
    assert parts.labels.category_attributes


def test_attributes_with_one_value_are_learned_anew(demo_data, small_overrides, tmp_path):
    frame = pl.read_parquet(demo_data / "train")
    (tmp_path / "train").mkdir()
    many_times = pl.concat([frame.head(20)] * SINGLE_SUPPORT)
    many_times.write_parquet(tmp_path / "train" / "0.parquet")
    plain = load_recipe("tiny", small_overrides)
    recipe = load_recipe("tiny", [*small_overrides, "labels.learn_single=true"])
    known = starting_model(recipe, opened(demo_data, recipe))
    assert known.labels.single == ()  # too few products to tell
    unseen = known.labels.attributes[-1]
    known.labels = known.labels.model_copy(update={"single": (unseen,)})
    save_model(known, tmp_path / "model")
    told = {"init_from": Storage.of(tmp_path / "model")}
    table = opened(tmp_path, recipe)
    learned = starting_model(recipe, table).labels
    assert "brand" in learned.single
    assert unseen not in learned
    warm = starting_model(recipe, table, **told).labels
    assert set(warm.single) == {*learned.single, unseen}
    assert starting_model(plain, table, **told).labels.single == ()


def test_corrections_reach_the_label_set(demo_data, small_recipe, tmp_path):
    frame = pl.read_parquet(demo_data / "train")
    product_id, title = frame.select("product_id", "title").row(0)
    row = f"{product_id},finish,{title.split()[0]},yes,"
    (tmp_path / "c.csv").write_text(f"{','.join(COLUMNS)}\n{row}\n", encoding="utf-8")
    corrections = read_corrections(Storage.of(tmp_path / "c.csv"))
    parts = starting_model(small_recipe, opened(demo_data, small_recipe, corrections=corrections))
    assert "finish" in parts.labels


def test_scope_needs_a_category(demo_data, small_overrides, tmp_path):
    (tmp_path / "train").mkdir()
    frame = pl.read_parquet(demo_data / "train").drop("category")
    frame.write_parquet(tmp_path / "train" / "0.parquet")
    recipe = load_recipe("tiny", [*small_overrides, "labels.scope_to_category=true"])
    with pytest.raises(TableError, match="no column 'category'; name it with --set"):
        starting_model(recipe, opened(tmp_path, recipe))


def test_an_unknown_encoder_is_one_line(demo_data, small_overrides, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    recipe = load_recipe("tiny", [*small_overrides, "model.text_encoder.name=/no/such/encoder"])
    with pytest.raises(CheckpointError, match="found no tokenizer '/no/such/encoder'"):
        starting_model(recipe, opened(demo_data, recipe))


def test_an_output_that_cannot_hold_the_model_is_refused(tmp_path):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for name in ("file", "file/below"):
        with pytest.raises(ValueError, match="file is a file, expected a folder"):
            check_output(Storage.of(tmp_path / name))
    (tmp_path / "run" / "model").mkdir(parents=True)
    check_output(Storage.of(tmp_path / "run"))
    (tmp_path / "run" / "model" / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(CheckpointError, match="holds files but no model"):
        check_output(Storage.of(tmp_path / "run"))
