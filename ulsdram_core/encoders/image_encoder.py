"""Picture encoders: any torchvision classifier without its head, or one of two of our own."""

# M pictures, C channels, H x W pixels, h x w grid of regions, R = h * w regions, D region width

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ulsdram_core.encoders.folded_norm import fold_norms
from ulsdram_core.encoders.image_backbone import build_backbone, known_architectures
from ulsdram_core.errors import UlsdramError
from ulsdram_core.frozen import Frozen

Triple = tuple[float, float, float]

_IMAGENET: tuple[Triple, Triple] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF: tuple[Triple, Triple] = ((0.5,) * 3, (0.5,) * 3)
# Bytes of one layer's output that a CPU's last cache keeps until the next layer reads it.
_CACHED_BYTES = 10 * 2**20
# Multiplications per number written from which a block is bound by arithmetic, not by memory.
_BUSY = 32
# What the published weights of each architecture were trained with, where not ImageNet's own.
_NORMALISATION = {
    "efficientnet_lite0": ((127 / 255,) * 3, (128 / 255,) * 3),
    "efficientnet_v2_l": _HALF,
    "googlenet": _HALF,
    "inception_v3": _HALF,
}


class ImageEncoderConfig(Frozen):
    """Which picture encoder, with which weights, and how it is trained."""

    architecture: str = "resnet152"
    """A torchvision classification model, `efficientnet_lite0`, or `tiny` (trains from scratch)."""
    weights: str = "none"
    """none, enum:ResNet152_Weights.IMAGENET1K_V2, file:/path, or package:name/path/inside."""
    width: int = Field(default=32, ge=1)
    """Channels of the first layer of `tiny` (the last has four times as many); else unused."""
    freeze_batch_norm: bool = True
    """Batch norms keep their statistics in training, and pretrained ones their scales and shifts.

    Untrained ones learn scales and shifts; their statistics are calibrated once, when built.
    """
    channels_last: bool = True
    """Pixels of a channel lie apart in memory, which most convolutions prefer."""
    gradient_checkpointing: bool = False
    """Blocks are recomputed in the backward pass: less memory, about a third more time.

    Layers that stand alone, as all do in alexnet, vgg and squeezenet's entrance, are not.
    """
    mean: Triple | None = None
    """Mean of red, green and blue in 0..1; by default that of the architecture's weights."""
    std: Triple | None = None
    """Deviation of red, green and blue in 0..1; by default that of the architecture's weights."""

    @field_validator("architecture")
    @classmethod
    def _known_architecture(cls, name: str) -> str:
        if name not in (known := known_architectures()):
            raise ValueError(f"found architecture {name!r}, expected one of {', '.join(known)}")
        return name

    @field_validator("weights")
    @classmethod
    def _known_scheme(cls, spec: str) -> str:
        if spec != "none" and spec.partition(":")[0] not in ("enum", "file", "package"):
            raise ValueError(f"found weights {spec!r}, expected none, enum:, file: or package:")
        return spec

    @model_validator(mode="after")
    def _positive_std(self) -> Self:
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"found std {self.std}, expected three numbers above zero")
        return self

    def build(self, *, size: int = 224, random_init: bool = False) -> ImageEncoder:
        """Return the encoder for pictures of `size` pixels a side.

        `random_init` ignores `weights`: nothing is looked up or fetched. Under
        `torch.device("meta")` nothing is initialised at all, ready for a checkpoint.
        """
        weights = "none" if random_init else self.weights
        blocks = build_backbone(self.architecture, size=size, width=self.width, weights=weights)
        encoder = ImageEncoder(blocks, self, size)
        if self.freeze_batch_norm and weights == "none":
            encoder.calibrate_batch_norm(size)
        return encoder


class ImageEncoder(nn.Module):
    """Turns pictures into regions; normalisation is inside, so decoded pixels go in.

    `region_dim` is D. Frozen batch norms stay in evaluation mode under `train()`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, blocks: nn.Sequential, config: ImageEncoderConfig, size: int) -> None:
        super().__init__()
        default_mean, default_std = _NORMALISATION.get(config.architecture, _IMAGENET)
        self.config = config
        self.blocks = fold_norms(blocks)
        self.register_buffer("mean", _channels(config.mean or default_mean))
        self.register_buffer("std", _channels(config.std or default_std))
        if config.channels_last:
            self.to(memory_format=torch.channels_last)
        self._grids: dict[int, tuple[int, int]] = {}
        self._costs: dict[int, list[_BlockCost]] = {}
        self.region_dim = self._probe(size)[0]
        for norm in self._frozen_norms():
            norm.eval().requires_grad_(config.weights == "none")

    def forward(self, pictures_MCHW: Tensor) -> Tensor:
        """Return regions [M,R,D], row by row, of pictures [M,3,S,S], uint8 or float in 0..255.

        No pictures give no regions without running the network.
        """
        if pictures_MCHW.dim() != 4 or pictures_MCHW.shape[1] != 3:
            raise ValueError(f"found pictures {tuple(pictures_MCHW.shape)}, expected [M, 3, S, S]")
        if not len(pictures_MCHW):
            height, width = self.grid(pictures_MCHW.shape[-1])
            return self.mean.new_zeros(0, height * width, self.region_dim)
        x_MCHW = (pictures_MCHW.to(self.mean.dtype) - self.mean) / self.std
        if self.config.channels_last:
            x_MCHW = x_MCHW.contiguous(memory_format=torch.channels_last)
        return self._run(x_MCHW).flatten(2).mT

    def grid(self, size: int) -> tuple[int, int]:
        """Return rows and columns of regions for pictures of `size` pixels a side."""
        if size not in self._grids:
            self._probe(size)
        return self._grids[size]

    def train(self, mode: bool = True) -> Self:
        """Set training mode, in which frozen batch norms stay in evaluation mode."""
        super().train(mode)
        for norm in self._frozen_norms():
            norm.eval()
        return self

    @torch.no_grad()
    def calibrate_batch_norm(self, size: int) -> None:
        """Set the statistics of untrained batch norms from random blobs.

        Frozen at their initial values they leave signals of 1e6 (resnet152) or 1e-14
        (efficientnet_b0); afterwards between about 0.1 and 100 for every family.
        """
        norms = [module for module in self.modules() if isinstance(module, _BatchNorm)]
        if not norms or self.mean.is_meta:
            return
        generator = torch.Generator("cpu").manual_seed(0)
        coarse = torch.randn(max(2, 512 // size), 3, 5, 5, generator=generator, device="cpu")
        # Smooth blobs vary between pictures and places; white noise looks alike everywhere.
        blobs = nn.functional.interpolate(coarse, (size, size), mode="bilinear")
        momenta = [norm.momentum for norm in norms]
        was_training = self.training
        self.eval()
        for norm in norms:
            norm.train()
            norm.momentum = 1.0
        self.blocks(blobs.to(self.mean))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            # Channels that hardly vary on blobs would blow up whatever does vary in pictures.
            if norm.running_var is not None:
                norm.running_var.clamp_(min=norm.running_var.mean())
        self.train(was_training)

    def _run(self, x_MCHW: Tensor) -> Tensor:
        if not torch.is_grad_enabled() and x_MCHW.device.type == "cpu":
            return self._run_in_cache(x_MCHW)
        if not (self.config.gradient_checkpointing and self.training and torch.is_grad_enabled()):
            return self.blocks(x_MCHW)
        for block in self.blocks:
            # A lone rectifier may work in place and would overwrite what is to be recomputed from.
            is_alone = next(block.children(), None) is None
            x_MCHW = block(x_MCHW) if is_alone else checkpoint(block, x_MCHW, use_reentrant=False)
        return x_MCHW

    def _run_in_cache(self, x_MCHW: Tensor) -> Tensor:
        """Apply blocks bound by memory to as many pictures at once as stay in a CPU's cache.

        MobileNetV2 on 32 pictures of 224 px, 2 cores: 1.5 times faster.
        """
        size = x_MCHW.shape[-1]
        self.grid(size)
        for block, cost in zip(self.blocks, self._costs[size], strict=True):
            count = cost.pictures_in_cache(x_MCHW.element_size())
            if count is None or count >= len(x_MCHW):
                x_MCHW = block(x_MCHW)
            else:
                x_MCHW = torch.cat([block(part) for part in x_MCHW.split(count)])
        return x_MCHW

    def _frozen_norms(self) -> list[_BatchNorm]:
        if not self.config.freeze_batch_norm:
            return []
        return [module for module in self.modules() if isinstance(module, _BatchNorm)]

    def _probe(self, size: int) -> tuple[int, int, int]:
        """Return D, h and w from shapes alone; nothing is computed.

        Also notes what each block costs.
        """
        tensors = {**dict(self.blocks.named_parameters()), **dict(self.blocks.named_buffers())}
        shapes = {name: torch.empty_like(t, device="meta") for name, t in tensors.items()}
        picture = torch.empty(2, 3, size, size, device="meta")
        try:
            with torch.no_grad(), _counted(self.blocks) as costs:
                out = torch.func.functional_call(self.blocks, shapes, (picture,))
        except (RuntimeError, ValueError, AssertionError) as error:
            raise UlsdramError(
                f"{self.config.architecture} cannot take pictures of {size} pixels a side "
                f"({str(error).strip().partition(chr(10))[0]}); choose another size, such as 224"
            ) from error
        _, dim, height, width = out.shape
        self._grids[size] = (height, width)
        self._costs[size] = costs
        return dim, height, width


@dataclass
class _BlockCost:
    """What one block does to one picture, as far as its layers' outputs tell."""

    largest: int = 1
    """Numbers in the largest output."""
    numbers: int = 0
    multiplications: int = 0

    def add(self, layer: nn.Module, _: object, out: object) -> None:
        """Count a layer's output; a forward hook."""
        if not isinstance(out, Tensor):
            return
        numbers = out[0].numel()
        self.largest = max(self.largest, numbers)
        self.numbers += numbers
        weight = getattr(layer, "weight", None)
        if isinstance(weight, Tensor) and weight.dim() > 1:
            self.multiplications += numbers * weight[0].numel()

    def pictures_in_cache(self, bytes_per_number: int) -> int | None:
        """Return how many pictures at once keep the block in cache; None: that would not pay."""
        if self.multiplications > _BUSY * self.numbers:
            return None
        return max(1, _CACHED_BYTES // (self.largest * bytes_per_number))


@contextmanager
def _counted(blocks: nn.Sequential) -> Iterator[list[_BlockCost]]:
    """Count, while it is open, what each block does."""
    costs = [_BlockCost() for _ in blocks]
    hooks = [
        layer.register_forward_hook(cost.add)
        for cost, block in zip(costs, blocks, strict=True)
        for layer in block.modules()
    ]
    try:
        yield costs
    finally:
        for hook in hooks:
            hook.remove()


def _channels(values: Triple) -> Tensor:
    return torch.tensor(values).mul(255).view(3, 1, 1)
