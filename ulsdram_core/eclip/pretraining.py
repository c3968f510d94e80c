"""One step of pre-training; the loop over the pairs is the cluster's."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import nn

from ulsdram_core.eclip.dual_encoder import DualEncoder
from ulsdram_core.eclip.growth import GrowthConfig
from ulsdram_core.eclip.pairs import PairBatch
from ulsdram_core.eclip.streams import BatchLoss, MultiStream
from ulsdram_core.eclip.targets import TargetConfig
from ulsdram_core.fit.optim import OptimConfig
from ulsdram_core.fit.step import check_norm
from ulsdram_core.frozen import Frozen
from ulsdram_core.precision import PrecisionChoice


class PretrainConfig(Frozen):
    """How long and in what batches to pre-train."""

    epochs: int = Field(5, ge=1, description="passes over the pairs")
    stream_pairs: int = Field(
        64, ge=1, description="pairs of one stream of one worker: what the memory holds"
    )
    growth: GrowthConfig = Field(
        default_factory=GrowthConfig, description="streams per batch, and when they grow"
    )
    targets: TargetConfig = Field(
        default_factory=TargetConfig, description="which texts and pictures belong together"
    )
    group: int = Field(
        2,
        ge=1,
        description="listings of one product that are put into one batch; 1: as chance has it",
    )
    validations: int = Field(1, ge=1, description="validations per epoch; each may grow the batch")
    valid_pairs: int = Field(2048, ge=2, description="most validation pairs looked at")
    seed: int = Field(0, ge=0, description="seed of initialisation, order and dropout")
    precision: PrecisionChoice = Field("auto", description="auto: bf16 where it is fast")
    optim: OptimConfig = Field(
        default_factory=lambda: OptimConfig(schedule="cosine"), description="optimiser"
    )


@dataclass
class PretrainStep:
    """Applies the gradient of one whole batch; rates follow the pairs seen, not the steps.

    So a growing batch, which takes fewer steps, still ends its schedule where the data ends.
    """

    model: DualEncoder
    streams: MultiStream
    optimizer: torch.optim.Optimizer
    config: OptimConfig
    total_pairs: int

    def __call__(self, streams: Sequence[PairBatch], *, pairs_seen: int) -> BatchLoss:
        """Take one step over `streams` after `pairs_seen` pairs of all workers."""
        self.optimizer.zero_grad(set_to_none=True)
        found = self.streams.backward(streams)
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        norm = float(nn.utils.clip_grad_norm_(parameters, self.config.clip))
        check_norm(norm)
        factor = self.config.factor(pairs_seen + found.num_pairs // 2, self.total_pairs)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        self.optimizer.step()
        self.model.clip_scale()
        return found


def build_step(
    model: DualEncoder, config: PretrainConfig, streams: MultiStream, *, total_pairs: int
) -> PretrainStep:
    """Return a step with a fresh optimiser; norms, biases and the temperature do not decay."""
    return PretrainStep(model, streams, config.optim.optimizer(model), config.optim, total_pairs)
