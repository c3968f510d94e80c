"""One optimiser step: several micro-batches, any number of workers, one exact gradient."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from ulsdram_core.batch import Batch
from ulsdram_core.fit.losses import ExtractionLoss
from ulsdram_core.precision import Precision, autocast

# Sums numbers over all workers; with one worker, the identity.
Reduce = Callable[[list[float]], list[float]]


@dataclass(frozen=True)
class StepResult:
    """What one step did, over all workers; losses are per term."""

    loss: float
    tag_loss: float
    attribute_loss: float
    gradient_norm: float
    num_terms: float


@dataclass
class TrainStep:
    """Applies the gradient of the summed loss, divided once by the global number of terms.

    `model` may be wrapped in DistributedDataParallel, which averages gradients: `world_size`
    undoes the average.
    """

    model: nn.Module
    loss: ExtractionLoss
    optimizer: torch.optim.Optimizer
    schedule: LambdaLR
    clip: float
    precision: Precision = "fp32"
    world_size: int = 1
    reduce: Reduce = list

    def __call__(self, micro_batches: Sequence[Batch]) -> StepResult:
        """Run one step over `micro_batches`."""
        self.optimizer.zero_grad(set_to_none=True)
        sums = [0.0, 0.0, 0.0, 0.0]
        for place, batch in enumerate(micro_batches):
            last = place == len(micro_batches) - 1
            with self._synchronised(last):
                with autocast(batch.piece_ids_BL.device, self.precision):
                    loss = self.loss(self.model, batch)
                loss.total.backward()
            parts = (float(loss.total.detach()), loss.tag, loss.attribute, loss.num_terms)
            sums = [a + b for a, b in zip(sums, parts, strict=True)]
        total, tag, attribute, terms = self.reduce(sums)
        norm = self._apply(terms)
        return StepResult(total / terms, tag / terms, attribute / terms, norm, terms)

    def _synchronised(self, last: bool) -> AbstractContextManager[None]:
        no_sync = getattr(self.model, "no_sync", None)
        return nullcontext() if last or no_sync is None else no_sync()

    def _apply(self, terms: float) -> float:
        """Divide, clip and apply the summed gradient; return its norm before clipping."""
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        scale = self.world_size / terms
        norm = scale * float(nn.utils.get_total_norm(gradients))
        check_norm(norm)
        # Division and clipping in one pass: on a CPU a step is bound by memory traffic.
        torch._foreach_mul_(gradients, scale * min(1.0, self.clip / max(norm, 1e-12)))
        self.optimizer.step()
        self.schedule.step()
        return norm


def check_norm(norm: float) -> None:
    """Refuse a gradient that would leave no number in any parameter."""
    if not math.isfinite(norm):
        raise FloatingPointError(
            f"the gradient's norm is {norm}, so the step is not taken; lower the learning "
            "rates or lengthen the warm-up"
        )
