import pytest
import torch

from pipelines.command.recipes import dump_recipe, recipe_names
from pipelines.train.extractor.recipe import load_recipe
from pipelines.train.extractor.start import extractor_config
from ulsdram_core.batch import collate
from ulsdram_core.demo import DemoConfig, generate
from ulsdram_core.encoders.tokenizer import build_tokenizer
from ulsdram_core.fit.examples import ExampleBuilder
from ulsdram_core.fit.losses import ExtractionLoss
from ulsdram_core.fit.step import TrainStep
from ulsdram_core.labels import LabelSet
from ulsdram_core.parts import assemble
from ulsdram_core.text import TextProcessor


@pytest.fixture(scope="module")
def products():
    return [product.to_product() for product in generate(DemoConfig(num_products=4))]


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_built_and_stepped_once(name, products):
    has_picture = load_recipe(name).image is not None
    recipe = load_recipe(name, ["image.size=64"] if has_picture else [])
    torch.manual_seed(0)
    labels = LabelSet.from_products(products)
    tokenizer = build_tokenizer(
        [text for product in products for text in product.texts.values()], 300
    )
    config = extractor_config(recipe)
    parts = assemble(config, labels, tokenizer, random_init=True)
    builder = ExampleBuilder(TextProcessor(tokenizer, config.text), labels, config.image)
    batch = collate(list(builder(products[:2])), picture_size=64)
    optimizer, schedule = recipe.fit.optim.build(parts.model, 10)
    step = TrainStep(
        parts.model.train(),
        ExtractionLoss(recipe.fit.loss, recipe.range),
        optimizer,
        schedule,
        clip=recipe.fit.optim.clip,
    )
    result = step([batch])
    assert result.loss > 0
    assert result.gradient_norm > 0


@pytest.mark.parametrize("name", recipe_names())
def test_a_dumped_recipe_reads_back_equal(name, tmp_path):
    recipe = load_recipe(name)
    path = tmp_path / "resolved.toml"
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(str(path)) == recipe


def test_overrides_reach_nested_values():
    overrides = ["fit.optim.text_rate=0.5", "model.policy.kind=bert", "run.patience=null"]
    recipe = load_recipe("mae_paper", overrides)
    assert recipe.fit.optim.text_rate == 0.5
    assert recipe.model.policy.kind == "bert"
    assert recipe.run.patience is None


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("no_such", [], "found no recipe 'no_such', expected a .toml file or one of: .*mae_paper"),
        ("tiny", ["fit.epoch=3"], "unknown key fit.epoch; did you mean fit.epochs"),
        ("tiny", ["fit.epochs=0"], "fit.epochs is 0, expected greater than or equal to 1"),
        ("tiny", ["fit.epochs"], "expected key=value"),
        ("tiny", ["fit.epochs.x=3"], "epochs is a value, not a section"),
        ("tiny", ["model.head=none"], "expected head 'paper' or 'released'"),
        ("tiny", ["model.fusion.kind=concat"], "trains TIR, found model.fusion.kind 'concat'"),
    ],
)
def test_a_wrong_recipe_is_named(name, overrides, message):
    with pytest.raises(ValueError, match=message):
        load_recipe(name, overrides)


def test_a_broken_file_is_named(tmp_path):
    path = tmp_path / "broken.toml"
    path.write_text("[model", encoding="utf-8")
    with pytest.raises(ValueError, match="is not TOML"):
        load_recipe(str(path))


@pytest.mark.parametrize("other", ["choose_threshold=true", "target_precision=0.9"])
def test_one_rule_settles_what_is_extracted(other):
    overrides = ["calibration.choose_confidence=true", f"calibration.{other}"]
    with pytest.raises(ValueError, match="expected one rule for what is extracted; keep one"):
        load_recipe("tiny", overrides)
