"""Pre-training in one process on pairs held in memory; the cluster's loop shares its parts."""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from ulsdram_core.eclip.dual_encoder import DualEncoder
from ulsdram_core.eclip.growth import Growth, GrowthConfig
from ulsdram_core.eclip.pairs import Pair, PairBatch, draw_streams, order_pairs
from ulsdram_core.eclip.parts import EclipParts
from ulsdram_core.eclip.streams import BatchLoss, MultiStream, check_norms
from ulsdram_core.eclip.targets import TargetConfig
from ulsdram_core.eclip.validation import validate_pairs
from ulsdram_core.fit.optim import OptimConfig
from ulsdram_core.precision import PrecisionChoice, choose_precision
from ulsdram_core.seeding import generator_of, seed_of

log = logging.getLogger(__name__)


class PretrainConfig(BaseModel):
    """How long and in what batches to pre-train."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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


@dataclass(frozen=True)
class PretrainEpoch:
    """One finished epoch of `pretrain`."""

    number: int
    loss: float
    streams: int
    """Streams per batch at its end."""
    valid: dict[str, float] = field(default_factory=dict)


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
        if not math.isfinite(norm):
            raise FloatingPointError(
                f"the gradient's norm is {norm}, so the step is not taken; lower the learning "
                "rates or lengthen the warm-up"
            )
        factor = self.config.factor(pairs_seen + found.num_pairs // 2, self.total_pairs)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        self.optimizer.step()
        self.model.clip_scale()
        return found


def build_step(
    model: DualEncoder, config: PretrainConfig, streams: MultiStream, *, total_pairs: int
) -> PretrainStep:
    """A step with a fresh optimiser; norms, biases and the temperature do not decay."""
    return PretrainStep(model, streams, config.optim.optimizer(model), config.optim, total_pairs)


def batches_of(
    pairs: Sequence[Pair], config: PretrainConfig, *, epoch: int, growth: Growth, start: int = 0
) -> Iterator[list[Pair]]:
    """The epoch's batches from place `start` of its order on; the last one may be smaller."""
    order = order_pairs(
        [pair.catalog for pair in pairs],
        generator_of(config.seed, "order", epoch),
        group=config.group,
    )
    size = config.stream_pairs * growth.streams
    for place in range(start, len(order), size):
        yield [pairs[i] for i in order[place : place + size]]


def pretrain(
    parts: EclipParts,
    pairs: Sequence[Pair],
    config: PretrainConfig,
    *,
    valid: Sequence[Pair] = (),
    device: str | torch.device = "cpu",
) -> Iterator[PretrainEpoch]:
    """Train `parts.model` in place, yielding after every epoch; leaves it in evaluation mode."""
    if len(pairs) < 2:
        raise ValueError(f"found {len(pairs)} pairs, expected at least two; check the data")
    device = torch.device(device)
    model = parts.model.to(device)
    check_norms(model, num_streams=config.growth.max_streams, num_workers=1)
    precision = choose_precision(config.precision, device)
    streams = MultiStream(model, config.targets, precision=precision)
    step = build_step(model, config, streams, total_pairs=config.epochs * len(pairs))
    parts.config = parts.config.model_copy(update={"is_aligned": True})
    run = _Course(parts, config, step, list(valid[: config.valid_pairs]), config.growth.start())
    for number in range(1, config.epochs + 1):
        yield run.epoch(number, pairs)


@dataclass
class _Course:
    """Where an in-process run stands."""

    parts: EclipParts
    config: PretrainConfig
    step: PretrainStep
    valid: list[Pair]
    growth: Growth
    pairs_seen: int = 0

    def epoch(self, number: int, pairs: Sequence[Pair]) -> PretrainEpoch:
        total, figures, start = 0.0, dict[str, float](), 0
        for part in range(1, self.config.validations + 1):
            end = len(pairs) * part // self.config.validations
            loss, start = self._train(number, pairs, start, end)
            total += loss
            figures = self._validate()
        loss = total / len(pairs)
        log.info("epoch %d: loss %.4f, %d streams", number, loss, self.growth.streams)
        return PretrainEpoch(number, loss, self.growth.streams, figures)

    def _train(self, number: int, pairs: Sequence[Pair], start: int, end: int) -> tuple[float, int]:
        """Train from place `start` until at least `end`; returns summed loss and the place."""
        model = self.parts.model.train()
        device = model.log_scale.device
        size = self.parts.config.image.size
        total = 0.0
        batches = batches_of(pairs, self.config, epoch=number, growth=self.growth, start=start)
        for batch in batches:
            torch.manual_seed(seed_of(self.config.seed, "chance", number, start))
            streams = draw_streams(
                batch,
                stream_pairs=self.config.stream_pairs,
                picture_size=size,
                seed=seed_of(self.config.seed, "draw", number, start),
            )
            found = self.step([s.to(device) for s in streams], pairs_seen=self.pairs_seen)
            self.pairs_seen += len(batch)
            total += found.loss * len(batch)
            start += len(batch)
            if start >= end:
                break
        model.eval()
        return total, start

    def _validate(self) -> dict[str, float]:
        if not self.valid:
            return {}
        figures = validate_pairs(
            self.parts.model,
            self.valid,
            self.config.targets,
            stream_pairs=self.config.stream_pairs,
            picture_size=self.parts.config.image.size,
            precision=self.step.streams.precision,
        )
        self.growth = self.config.growth.after(self.growth, figures["loss"])
        return figures
