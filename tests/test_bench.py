"""The speed benchmark: its peers are fair, its figures mean what their names say."""

import pytest
import torch
from speed.agreement import agreement, compare
from speed.catalogue import listings
from speed.fitted import TINY, gold_found, make
from speed.gpu import FORMATS, Load, measure, new_section
from speed.ray_output import steady_rate
from speed.released import ReleasedPipeline
from speed.training import adam, batches_of, take_turns
from speed.workbench import Subject

from ulsdram_core.extractor import Extractor


@pytest.fixture(scope="module")
def parts():
    torch.set_num_threads(1)
    return make(TINY)


@pytest.fixture(scope="module")
def products():
    return listings(24, size=TINY.picture_size, seed=5)


def test_heads_on_random_encoders_find_values(parts):
    seen = listings(16, size=TINY.picture_size, seed=3)
    assert gold_found(Extractor(parts, device="cpu"), seen) > 0.3


def test_the_plain_pipeline_gives_the_same_values(parts, products):
    ours = Extractor(parts, device="cpu", precision="fp32").extract(products)
    found = agreement(products, ours, ReleasedPipeline(parts).extract_with_confidence(products))
    assert found.num_spans > 20
    assert found.equal == 1.0
    assert found.confidence < 1e-4


def test_the_gpu_section_leaves_the_shared_model_as_it_was(parts, products):
    subject = Subject("tiny", parts, products[:6])
    before = subject.extractor.extract(subject.products)
    settings = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    section = new_section()
    load = Load(device="cpu", repeats=2, peak_size=64, rounds=1)
    measure(section, subject, FORMATS, load)
    assert [row[1] for row in section.rows[1:]] == ["fp32", "tf32"]
    assert section.figures["tiny, fp32"]["equal_spans"] == 1.0
    assert section.figures["tiny, fp32"]["confidence_difference"] < 1e-5
    assert subject.extractor.extract(subject.products) == before
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == settings


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_section_on_a_gpu(parts, products):
    subject = Subject("tiny", parts, products[:6])
    section = new_section()
    measure(section, subject, FORMATS, Load(repeats=2, peak_size=512, rounds=1))
    figures = section.figures["tiny, fp32"]
    assert figures["equal_spans"] == 1.0
    assert 0 < figures["busy"] <= 1
    assert next(parts.model.parameters()).device.type == "cpu"


@pytest.mark.parametrize("late", [0.001, 0.1, 0.5])
@pytest.mark.parametrize("steps", [2, 10])
def test_rates_do_not_depend_on_the_number_of_batches(steps, late):
    # Two workers, `late` apart, do 16 rows a second each.
    batches = [step + late * worker for step in range(steps) for worker in (0, 1)]
    stamps = [moment for moment in batches for _ in range(16)]
    assert steady_rate(stamps, 2) == pytest.approx(32, rel=0.01)
    assert steady_rate(stamps[:16], 2) is None


def test_spans_that_only_one_system_found_are_not_equal():
    ours = {("1", "color", "title", 0, 3): 0.9, ("1", "brand", "title", 4, 9): 0.8}
    theirs = {("1", "color", "title", 0, 3): 0.85, ("1", "brand", "title", 4, 8): 0.8}
    found = compare(ours, theirs)
    assert found.equal == pytest.approx(1 / 3)
    assert found.confidence == pytest.approx(0.05)
    assert not found.is_close
    assert compare(ours, ours).is_close


def test_both_training_steps_follow_one_loss_curve(parts):
    batches = batches_of(parts, 4, 2) * 4
    steps = take_turns(parts, adam(1e-3), batches, precision="fp32")
    assert steps.losses["ours"][-1] < steps.losses["ours"][0]
    assert steps.largest_gap < 1e-3
