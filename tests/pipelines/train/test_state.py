import pytest
import torch

from pipelines.train.extractor.start import extractor_config
from pipelines.train.extractor.state import TrainPlace
from pipelines.train.state import PLACE, load_state, restore_schedule, save_state, state_of
from ulsdram_core.batch import collate
from ulsdram_core.demo import DemoConfig, generate
from ulsdram_core.encoders.tokenizer import build_tokenizer
from ulsdram_core.errors import CheckpointError
from ulsdram_core.fit.averaging import WeightMean
from ulsdram_core.fit.examples import ExampleBuilder
from ulsdram_core.fit.losses import ExtractionLoss
from ulsdram_core.fit.step import TrainStep
from ulsdram_core.labels import LabelSet
from ulsdram_core.parts import assemble
from ulsdram_core.text import TextProcessor

NUM_STEPS = 8


@pytest.fixture(scope="module")
def run(small_recipe):
    """Build a fresh step and its batches; the same every time."""
    products = [p.to_product() for p in generate(DemoConfig(num_products=24, picture_size=32))]
    tokenizer = build_tokenizer([product.texts["title"] for product in products], 300)
    labels = LabelSet.from_products(products)
    config = extractor_config(small_recipe)
    builder = ExampleBuilder(TextProcessor(tokenizer, config.text), labels, config.image)
    examples = list(builder(products))
    batches = [collate(examples[i::4], picture_size=32) for i in range(4)]

    def build():
        torch.manual_seed(0)
        parts = assemble(config, labels, tokenizer)
        optimizer, schedule = small_recipe.fit.optim.build(parts.model, NUM_STEPS)
        loss = ExtractionLoss(small_recipe.fit.loss, small_recipe.range)
        return TrainStep(parts.model.train(), loss, optimizer, schedule, clip=1.0)

    def losses(step, first, last):
        found = []
        for number in range(first, last):
            torch.manual_seed(number)
            found.append(step([batches[number % 4]]).loss)
        return found

    return build, losses


def test_a_restored_run_repeats_the_unbroken_one(run, tmp_path):
    build, losses = run
    unbroken = losses(build(), 0, NUM_STEPS)
    before = build()
    losses(before, 0, 5)
    best = state_of(before.model)
    save_state(
        tmp_path,
        model=before.model,
        best=best,
        optimizer=before.optimizer,
        place=TrainPlace(epoch=2, epoch_step=1, step=5),
    )
    after = build()
    place, restored = load_state(tmp_path, TrainPlace, model=after.model, optimizer=after.optimizer)
    restore_schedule(after.schedule, after.optimizer, step=place.step)
    assert (place.epoch, place.epoch_step, place.step) == (2, 1, 5)
    assert all(torch.equal(best[name], restored[name]) for name in best)
    assert losses(after, 5, NUM_STEPS) == pytest.approx(unbroken[5:], abs=1e-6)


def test_a_restored_mean_is_the_unbroken_one(run, tmp_path):
    build, losses = run
    step = build()
    mean = WeightMean(step.model)
    for number in range(3):
        losses(step, number, number + 1)
        mean.update(number + 1)
    parts = {"model": step.model, "optimizer": step.optimizer, "mean": mean}
    save_state(tmp_path, **parts, best=state_of(step.model), place=TrainPlace(step=3))
    after = build()
    restored = WeightMean(after.model)
    load_state(
        tmp_path,
        TrainPlace,
        model=after.model,
        optimizer=after.optimizer,
        mean=restored,
    )
    for name, value in mean.state_dict().items():
        assert torch.equal(restored.state_dict()[name], value)


def test_no_checkpoint_file_is_a_pickle(run, tmp_path):
    step = run[0]()
    model = step.model
    save_state(
        tmp_path, model=model, best=state_of(model), optimizer=step.optimizer, place=TrainPlace()
    )
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json"}


def test_a_damaged_checkpoint_is_named(run, tmp_path):
    step = run[0]()
    (tmp_path / PLACE).write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError, match="cannot be restored"):
        load_state(tmp_path, TrainPlace, model=step.model, optimizer=step.optimizer)
