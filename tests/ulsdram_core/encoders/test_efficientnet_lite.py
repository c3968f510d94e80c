"""EfficientNet-Lite0 pads as TensorFlow does and takes the published state dict in order."""

import pytest
import torch
from torch import nn

from ulsdram_core.encoders.efficientnet_lite import SameConv2d, efficientnet_lite0_blocks


@pytest.mark.parametrize("length", [1, 5, 8, 9])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_same_padding_against_its_definition(kernel, stride, length):
    torch.manual_seed(0)
    convolution = SameConv2d(1, 1, kernel, stride, bias=False)
    signal = torch.randn(length, length)
    out = convolution(signal[None, None])[0, 0]
    num_out = -(-length // stride)
    assert out.shape == (num_out, num_out)
    before = max((num_out - 1) * stride + kernel - length, 0) // 2
    for row in range(num_out):
        for column in range(num_out):
            total = 0.0
            for i in range(kernel):
                for j in range(kernel):
                    y, x = row * stride + i - before, column * stride + j - before
                    if 0 <= y < length and 0 <= x < length:
                        total += convolution.weight[0, 0, i, j] * signal[y, x]
            assert torch.isclose(out[row, column], torch.as_tensor(total), atol=1e-5)


def test_layout_of_the_published_network():
    blocks = nn.Sequential(*efficientnet_lite0_blocks())
    shapes = [tuple(p.shape) for p in blocks.parameters() if p.ndim == 4]
    assert len(shapes) == 1 + 2 + 15 * 3 + 1
    assert shapes[:3] == [(32, 3, 3, 3), (32, 1, 3, 3), (16, 32, 1, 1)]
    assert shapes[-1] == (1280, 320, 1, 1)
    assert sum(p.numel() for p in blocks.parameters()) == 3_371_008  # 4,652,008 with its classifier
    assert all(m.eps == 1e-3 for m in blocks.modules() if isinstance(m, nn.BatchNorm2d))
