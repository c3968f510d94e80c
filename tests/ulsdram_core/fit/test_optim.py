import pytest
import torch

from ulsdram_core.fit.optim import OptimConfig


@pytest.fixture
def model(parts_of):
    return parts_of("tir").model


def rates(optimizer, model):
    """Learning rate and decay of every parameter, by name."""
    by_id = {
        id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]
    }
    return {name: by_id.get(id(p)) for name, p in model.named_parameters()}


def build(model, **changes):
    config = OptimConfig(**{"warmup": 0.0, "schedule": "constant"} | changes)
    return config.build(model, 10)


def test_the_paper_has_two_rates(model):
    optimizer, _ = build(model, image_rate=5e-5, text_rate=1e-4)
    for name, (rate, _) in rates(optimizer, model).items():
        assert rate == (5e-5 if name.startswith("image_encoder.") else 1e-4), name


def test_the_task_may_have_a_third_rate(model):
    optimizer, _ = build(model, task_rate=1e-3)
    found = {name.partition(".")[0]: rate for name, (rate, _) in rates(optimizer, model).items()}
    assert found["text_encoder"] == 1e-4
    assert found["image_encoder"] == 5e-5
    assert found["fusion"] == found["head"] == found["policy"] == found["tagger"] == 1e-3


def test_only_matrices_decay_and_only_under_adamw(model):
    optimizer, _ = build(model, weight_decay=0.1)
    assert isinstance(optimizer, torch.optim.AdamW)
    shapes = dict(model.named_parameters())
    for name, (_, decay) in rates(optimizer, model).items():
        assert decay == (0.1 if shapes[name].dim() > 1 else 0.0), name
    optimizer, _ = build(model, weight_decay=0.1, kind="adam")
    assert {decay for _, decay in rates(optimizer, model).values()} == {0.0}


def test_fixed_encoders_are_left_out(parts_of):
    model = parts_of("tir", model={"unified": False}).model
    optimizer, _ = build(model)
    for name, found in rates(optimizer, model).items():
        assert (found is None) == name.startswith(("image_encoder.", "text_encoder.")), name


def factors(num_steps, **changes):
    config = OptimConfig(**changes)
    return [config.factor(step, num_steps) for step in range(num_steps)]


def test_linear_schedule_warms_up_and_decays():
    found = factors(100, warmup=0.1, schedule="linear")
    assert found[:10] == sorted(found[:10])
    assert 0 < found[0] < 0.1
    assert max(found) == found[10] == 1.0
    assert found[10:] == sorted(found[10:], reverse=True)
    assert 0 < found[-1] < 0.02


def test_cosine_and_constant_schedules():
    cosine = factors(101, warmup=0.0, schedule="cosine")
    assert cosine[0] == 1.0
    assert cosine[50] == pytest.approx(0.5, abs=0.02)
    assert factors(5, warmup=0.0, schedule="constant") == [1.0] * 5


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_rates_never_turn_negative_beyond_the_end(schedule):
    config = OptimConfig(schedule=schedule)
    assert all(config.factor(step, 10) >= 0 for step in range(30))


def test_schedule_moves_the_optimizer(model):
    optimizer, schedule = OptimConfig(warmup=0.5, text_rate=1e-3).build(model, 10)
    before = optimizer.param_groups[-1]["lr"]
    optimizer.step()
    schedule.step()
    assert optimizer.param_groups[-1]["lr"] > before
