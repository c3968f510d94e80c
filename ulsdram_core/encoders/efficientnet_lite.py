"""EfficientNet-Lite0 without its classifier, laid out as in its TensorFlow original."""

# M pictures, C channels, H x W pixels

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

# kernel, stride of the first block, expansion, output channels, number of blocks
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding: the odd pixel goes right and below."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        pads: list[int] = []
        for axis in (1, 0):  # F.pad wants the last axis first
            length, stride = input.shape[axis + 2], self.stride[axis]
            steps = math.ceil(length / stride) - 1
            total = max(steps * stride + self.kernel_size[axis] - length, 0)
            pads += [total // 2, total - total // 2]
        padded = F.pad(input, pads) if any(pads) else input
        return super()._conv_forward(padded, weight, bias)


class ConvUnit(nn.Sequential):
    """Convolution, batch norm and, unless `linear`, a rectifier capped at six."""

    def __init__(
        self, inputs: int, outputs: int, *, kernel: int = 1, stride: int = 1, groups: int = 1,
        linear: bool = False,
    ) -> None:  # fmt: skip
        layers: list[nn.Module] = [
            SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False),
            nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01),
        ]
        super().__init__(*layers, *([] if linear else [nn.ReLU6(inplace=True)]))


class InvertedResidual(nn.Module):
    """Expand, convolve each channel alone, project; added to the input where shapes allow."""

    def __init__(
        self, inputs: int, outputs: int, *, kernel: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        hidden = inputs * expansion
        expand = [ConvUnit(inputs, hidden)] if expansion != 1 else []
        self.layers = nn.Sequential(
            *expand,
            ConvUnit(hidden, hidden, kernel=kernel, stride=stride, groups=hidden),
            ConvUnit(hidden, outputs, linear=True),
        )
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, x_MCHW: Tensor) -> Tensor:
        out_MCHW = self.layers(x_MCHW)
        return x_MCHW + out_MCHW if self.is_residual else out_MCHW


def efficientnet_lite0_blocks() -> list[nn.Module]:
    """Return the network as blocks to apply one after another: [M,3,H,W] -> [M,1280,H/32,W/32].

    The parameters come in the order of the published state dict, so it loads by order.
    """
    blocks: list[nn.Module] = [ConvUnit(3, 32, kernel=3, stride=2)]
    inputs = 32
    for kernel, first_stride, expansion, outputs, count in _STAGES:
        for index in range(count):
            stride = first_stride if index == 0 else 1
            block = InvertedResidual(
                inputs, outputs, kernel=kernel, stride=stride, expansion=expansion
            )
            blocks.append(block)
            inputs = outputs
    return [*blocks, ConvUnit(inputs, 1280)]
