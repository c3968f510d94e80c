import pytest
import torch
from torch import nn

from ulsdram_core.fit.averaging import ETA, WeightMean


@pytest.fixture
def model():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    net[0].bias.requires_grad_(False)
    return net


def walk(model, mean, first, last):
    """Move every trained weight at random, step by step; returns what they were."""
    path = []
    for step in range(first, last + 1):
        torch.manual_seed(step)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter))
        mean.update(step)
        path.append(model[0].weight.detach().clone())
    return path


def test_late_steps_weigh_more(model):
    mean = WeightMean(model)
    path = walk(model, mean, 1, 50)
    # Rising factorials t (t+1) (t+2) are the exact form of t**3.
    weights = torch.tensor([t * (t + 1) * (t + 2) for t in range(1, 51)], dtype=torch.float64)
    assert ETA == 3
    expected = sum(w * p for w, p in zip(weights / weights.sum(), path, strict=True))
    found = mean.state_dict()["0.weight"]
    torch.testing.assert_close(found, expected.float(), rtol=0, atol=1e-5)


def test_the_model_has_them_only_within(model):
    mean = WeightMean(model)
    walk(model, mean, 1, 5)
    own = {name: p.clone() for name, p in model.state_dict().items()}
    means = mean.state_dict()
    assert "0.bias" not in means
    with mean.applied():
        assert torch.equal(model[0].weight, means["0.weight"])
    assert all(torch.equal(p, own[name]) for name, p in model.state_dict().items())
    mean.copy_to_model()
    assert torch.equal(model[0].weight, means["0.weight"])
    assert torch.equal(model[0].bias, own["0.bias"])


def test_a_restored_mean_goes_on_the_same(model):
    mean = WeightMean(model)
    walk(model, mean, 1, 5)
    kept = mean.state_dict()
    other = WeightMean(model)
    other.load_state_dict(kept)
    start = {name: p.clone() for name, p in model.state_dict().items()}
    walk(model, mean, 6, 9)
    model.load_state_dict(start)
    walk(model, other, 6, 9)
    for name, value in mean.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
    with pytest.raises(ValueError, match="belong to another model"):
        mean.load_state_dict({"0.weight": kept["0.weight"]})
