"""Of the training job, what needs no cluster: what makes a run another one, calibrated limits."""

import math

import pytest

from pipelines.lake.storage import Storage
from pipelines.train.extractor.job import TrainRequest, run_fingerprints, value_limits
from pipelines.train.extractor.recipe import CalibrationConfig
from ulsdram_core.calibration import ThresholdChoice
from ulsdram_core.fit.fitting import FitConfig
from ulsdram_core.labels import LabelSet
from ulsdram_core.parts import Thresholds


@pytest.fixture
def model(tmp_path):
    """A model directory as far as listings show it."""
    place = Storage.of(tmp_path / "model")
    for name in ("config.json", "model.safetensors", "metrics.json", "README.md"):
        place.join(name).write_bytes(b"first")
    return place


def fingerprint(recipe, **starts):
    nowhere = Storage.of("/nowhere")
    return run_fingerprints(TrainRequest(recipe, nowhere, nowhere, **starts), {})[1]


@pytest.mark.parametrize("start", ["init_from", "init_encoders"])
def test_other_weights_at_the_same_place_make_another_run(small_recipe, model, start):
    known = fingerprint(small_recipe, **{start: model})
    assert fingerprint(small_recipe, **{start: model}) == known != fingerprint(small_recipe)
    model.join("metrics.json").write_bytes(b"noted later")
    assert fingerprint(small_recipe, **{start: model}) == known
    model.join("model.safetensors").write_bytes(b"other")
    assert fingerprint(small_recipe, **{start: model}) != known


def test_another_calibration_is_the_same_training(small_recipe):
    nowhere = Storage.of("/nowhere")
    chosen = small_recipe.model_copy(
        update={"calibration": CalibrationConfig(target_precision=0.9)}
    )
    longer = small_recipe.model_copy(update={"fit": FitConfig(epochs=9)})
    (known, whole), (same, other), (trained, _) = (
        run_fingerprints(TrainRequest(recipe, nowhere, nowhere), {})
        for recipe in (small_recipe, chosen, longer)
    )
    assert known == same != trained
    assert whole != other


def test_what_a_model_is_used_for_makes_another_run(small_recipe, model):
    assert fingerprint(small_recipe, init_from=model) != fingerprint(
        small_recipe, init_encoders=model
    )


@pytest.mark.parametrize("uri", ["{}/corrections.csv", "memory://{}/corrections.csv"])
def test_other_corrections_at_the_same_place_make_another_run(small_recipe, tmp_path, uri):
    table = Storage.of(uri.format(tmp_path))
    found = []
    for content in (b"one", b"two", b"one"):
        table.write_bytes(content)
        found.append(fingerprint(small_recipe, corrections=table))
    assert found[0] == found[2] != found[1]
    assert fingerprint(small_recipe) not in found


def test_an_attribute_that_no_threshold_helps_or_validation_never_saw_is_off():
    choices = {
        "color": ThresholdChoice(0.75, precision=0.9, recall=0.5, num_kept=9),
        "size": ThresholdChoice(1.0, precision=1.0, recall=0.1, num_kept=2),
        "type": None,
    }
    limits = value_limits(choices, LabelSet(attributes=("color", "size", "type", "rare")))
    assert limits == {"color": 0.75, "size": math.nextafter(1, 0), "type": 1.0, "rare": 1.0}
    thresholds = Thresholds.model_validate_json(Thresholds(value=limits).model_dump_json())
    assert [thresholds.keeps(name, 1.0) for name in limits] == [True, True, False, False]
    assert not thresholds.keeps("size", 0.9999999)
