"""Training in one process on examples held in memory; the cluster's loop shares its parts."""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import nn
from transformers import PreTrainedTokenizerFast

from ulsdram_core.batch import Example, collate
from ulsdram_core.fit.averaging import WeightMean
from ulsdram_core.fit.hiding import Hiding
from ulsdram_core.fit.losses import ExtractionLoss, LossConfig
from ulsdram_core.fit.optim import OptimConfig
from ulsdram_core.fit.step import StepResult, TrainStep
from ulsdram_core.frozen import Frozen
from ulsdram_core.parts import ModelParts
from ulsdram_core.precision import PrecisionChoice, choose_precision
from ulsdram_core.seeding import generator_of

_log = logging.getLogger(__name__)


class FitConfig(Frozen):
    """How long and in what batches to train."""

    epochs: int = Field(3, ge=1, description="passes over the training products")
    batch_size: int = Field(64, ge=1, description="windows per optimiser step, over all workers")
    picture_dropout: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of pictures hidden in training, so that products "
        "without one are nothing new",
    )
    unit_dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of words hidden in training, so that values never seen are told by "
        "what stands around them",
    )
    average: bool = Field(
        False,
        description="validate and save the running mean of the weights; with optim.schedule = "
        "constant it is better than the last step of a decay where labels are noisy",
    )
    seed: int = Field(0, ge=0, description="seed of initialisation, order and dropout")
    precision: PrecisionChoice = Field("auto", description="auto: bf16 where it is fast")
    optim: OptimConfig = Field(default_factory=OptimConfig, description="optimiser")
    loss: LossConfig = Field(default_factory=LossConfig, description="loss weights")

    def hiding(self, tokenizer: PreTrainedTokenizerFast) -> Hiding:
        """Return what hides pictures and units of texts cut by `tokenizer`."""
        return Hiding.of(self.picture_dropout, self.unit_dropout, tokenizer)

    def weight_mean(self, model: nn.Module) -> WeightMean | None:
        """Return what follows the model's weights, if they are to be averaged."""
        return WeightMean(model) if self.average else None


@dataclass(frozen=True)
class Epoch:
    """One finished epoch of `fit`."""

    number: int
    loss: float


def length_sorted_batches(
    lengths: Sequence[int], batch_size: int, generator: torch.Generator, *, pool: int = 16
) -> Iterator[list[int]]:
    """Yield index batches in random order, each of similar lengths (sorted within pools)."""
    order = torch.randperm(len(lengths), generator=generator).tolist()
    batches = []
    for start in range(0, len(order), pool * batch_size):
        chunk = sorted(order[start : start + pool * batch_size], key=lambda i: lengths[i])
        batches += [chunk[i : i + batch_size] for i in range(0, len(chunk), batch_size)]
    for place in torch.randperm(len(batches), generator=generator).tolist():
        yield batches[place]


def fit(
    parts: ModelParts,
    examples: Sequence[Example],
    config: FitConfig,
    *,
    device: str | torch.device = "cpu",
) -> Iterator[Epoch]:
    """Train `parts.model` in place, yielding after every epoch; leaves it in extraction mode."""
    if not examples:
        raise ValueError("found no examples, expected labelled products with text; check the data")
    device = torch.device(device)
    model = parts.model.to(device)
    num_steps = config.epochs * math.ceil(len(examples) / config.batch_size)
    optimizer, schedule = config.optim.build(model, num_steps)
    step = TrainStep(
        model=model,
        loss=ExtractionLoss(config.loss, parts.config.range),
        optimizer=optimizer,
        schedule=schedule,
        clip=config.optim.clip,
        precision=choose_precision(config.precision, device),
    )
    size = parts.config.image.size if parts.config.image else 1
    hide = config.hiding(parts.tokenizer)
    lengths = [len(example.window.piece_ids) for example in examples]
    mean, num_done = config.weight_mean(model), 0
    for number in range(1, config.epochs + 1):
        model.train()
        results: list[StepResult] = []
        order = generator_of(config.seed, "order", number)
        for place, indices in enumerate(length_sorted_batches(lengths, config.batch_size, order)):
            chance = generator_of(config.seed, "chance", number, place)
            torch.manual_seed(chance.initial_seed())
            batch = collate([examples[i] for i in indices], picture_size=size)
            results.append(step([hide(batch, chance).to(device)]))
            num_done += 1
            if mean is not None:
                mean.update(num_done)
        model.eval()
        loss = sum(r.loss * r.num_terms for r in results) / sum(r.num_terms for r in results)
        _log.info("epoch %d of %d: loss %.4f", number, config.epochs, loss)
        with mean.applied() if mean is not None else nullcontext():
            yield Epoch(number, loss)
    if mean is not None:
        mean.copy_to_model()
