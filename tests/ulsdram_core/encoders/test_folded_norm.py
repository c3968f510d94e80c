"""Networks with folded norms are the networks as torchvision has them."""

import copy

import pytest
import torch
from torch import nn

from ulsdram_core.encoders.folded_norm import FoldedBatchNorm2d, fold_norms
from ulsdram_core.encoders.image_backbone import build_backbone

FAMILIES = [
    "tiny", "efficientnet_lite0", "resnet18", "mobilenet_v2", "mobilenet_v3_small", "densenet121",
    "efficientnet_b0", "regnet_y_400mf", "shufflenet_v2_x0_5", "mnasnet0_5", "googlenet",
    "vgg11_bn", "squeezenet1_1", "convnext_tiny",
]  # fmt: skip


def twins(architecture):
    """The same untrained network, plain and folded; norms with statistics of their own."""
    torch.manual_seed(0)
    plain = build_backbone(architecture, size=64, width=8, weights="none")
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                tensor.data.uniform_(0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                tensor.data.normal_(std=0.1)
    folded = fold_norms(copy.deepcopy(plain))
    assert list(folded.state_dict()) == list(plain.state_dict())
    return plain, folded


def pictures(count=2):
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("architecture", FAMILIES)
def test_regions_and_gradients_are_those_of_the_plain_network(architecture):
    plain, folded = (network.eval() for network in twins(architecture))
    norms = [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
    left = [m for m in norms if not isinstance(m, FoldedBatchNorm2d)]
    # DenseNet normalises what several layers gave: those norms have no convolution before them.
    assert len(left) <= (0.6 * len(norms) if architecture == "densenet121" else 0)
    found, expected = folded(pictures()), plain(pictures())
    assert error(found, expected) < 1e-4
    found.square().mean().backward()
    expected.square().mean().backward()
    for one, other in zip(folded.parameters(), plain.parameters(), strict=True):
        scale = max(float(p.grad.norm()) for p in plain.parameters())
        assert float((one.grad - other.grad).norm()) < 1e-3 * scale


def error(found, expected) -> float:
    """Relative, over all numbers."""
    return float(((found - expected).norm() / expected.norm()).detach())


def test_norms_that_train_are_themselves():
    plain, folded = (network.train() for network in twins("mobilenet_v2"))
    assert torch.equal(folded(pictures(4)), plain(pictures(4)))
    for one, other in zip(folded.buffers(), plain.buffers(), strict=True):
        assert torch.equal(one, other)


def test_a_copy_normalises_with_its_own_statistics():
    _, folded = twins("resnet18")
    before = folded.eval()(pictures())
    other = copy.deepcopy(folded)
    for module in other.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.add_(1.0)
    assert not torch.allclose(other(pictures()), before)
    assert torch.equal(folded(pictures()), before)


def test_a_convolution_with_a_bias_keeps_it():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    plain[1].running_mean.normal_()
    folded = fold_norms(copy.deepcopy(plain))
    assert torch.allclose(folded(pictures()), plain(pictures()), atol=1e-6)


def test_a_norm_without_scales_is_left_alone():
    network = fold_norms(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False)))
    assert type(network[1]) is nn.BatchNorm2d
