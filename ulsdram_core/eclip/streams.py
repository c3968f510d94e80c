"""A large batch as several streams, one after another: the exact gradient in the memory of one.

Every stream is run without a graph and leaves its embeddings; the loss of all of them gives each
embedding its gradient; every stream is run again, with the same dropout, and back-propagates it.
The price is one more forward pass. Batch norms must be frozen, for their statistics would depend
on how the batch is cut.

Axes: N pairs of the whole batch, E embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ulsdram_core.eclip.contrast import backward_contrast
from ulsdram_core.eclip.dual_encoder import DualEncoder, PairVectors
from ulsdram_core.eclip.pairs import PairBatch
from ulsdram_core.eclip.targets import TargetConfig
from ulsdram_core.eclip.workers import Workers
from ulsdram_core.precision import Precision, autocast


@dataclass(frozen=True)
class BatchLoss:
    """Loss per pair over all workers, and how many pairs there were."""

    loss: float
    num_pairs: int


@dataclass(frozen=True)
class _Chance:
    """The state of the random numbers on the CPU and on the device."""

    cpu: Tensor
    device: Tensor | None

    @staticmethod
    def now(device: torch.device) -> "_Chance":
        on_gpu = device.type == "cuda"
        return _Chance(torch.get_rng_state(), torch.cuda.get_rng_state(device) if on_gpu else None)

    def restore(self, device: torch.device) -> None:
        torch.set_rng_state(self.cpu)
        if self.device is not None:
            torch.cuda.set_rng_state(self.device, device)


class MultiStream:
    """Adds the gradient of one whole batch to a model's parameters."""

    def __init__(
        self,
        model: DualEncoder,
        targets: TargetConfig,
        *,
        precision: Precision = "fp32",
        workers: Workers | None = None,
    ) -> None:
        self.model = model
        self.targets = targets
        self.precision = precision
        self.workers = workers or Workers()

    def backward(self, streams: Sequence[PairBatch]) -> BatchLoss:
        """Back-propagate the loss of all streams of all workers; `streams` are this worker's.

        Gradients are summed over the workers, so that every worker ends with the same ones.
        A worker may come with no stream at all.
        """
        is_cut = len(streams) > 1 or self.workers.world > 1
        if is_cut and (live := _live_norms(self.model)):
            raise _norms_error(live[0], len(streams), self.workers.world)
        device = self.model.log_scale.device
        # A single stream keeps its graph: running it twice would buy nothing.
        is_single = len(streams) == 1
        chances: list[_Chance] = []
        vectors: list[PairVectors] = []
        for stream in streams:
            chances.append(_Chance.now(device))
            with torch.set_grad_enabled(is_single):
                vectors.append(self._forward(stream))
        result, text_grad, picture_grad = self._contrast(streams, vectors)
        sizes = [len(stream.catalog_B) for stream in streams]
        slices = zip(text_grad.split(sizes), picture_grad.split(sizes), strict=True)
        for place, gradients in enumerate(slices):
            again = vectors[place]
            if not is_single:
                chances[place].restore(device)
                again = self._forward(streams[place])
            torch.autograd.backward([again.text_BE, again.picture_BE], list(gradients))
        self.workers.sum_gradients([p for p in self.model.parameters() if p.requires_grad])
        return result

    def _forward(self, stream: PairBatch) -> PairVectors:
        with autocast(self.model.log_scale.device, self.precision):
            return self.model(stream.batch)

    def _contrast(
        self, streams: Sequence[PairBatch], vectors: Sequence[PairVectors]
    ) -> tuple[BatchLoss, Tensor, Tensor]:
        """Return the loss of this worker's rows and the whole loss's gradient by its embeddings."""
        empty = torch.zeros(0, self.model.config.dim, device=self.model.log_scale.device)
        none = torch.zeros(0, dtype=torch.long, device=empty.device)
        texts = self.workers.gather(torch.cat([empty, *(v.text_BE.detach() for v in vectors)]))
        pictures = self.workers.gather(
            torch.cat([empty, *(v.picture_BE.detach() for v in vectors)])
        )
        catalogs = self.workers.gather(torch.cat([none, *(s.catalog_B for s in streams)]))
        text_NE = texts.values.requires_grad_()
        picture_NE = pictures.values.requires_grad_()
        loss = backward_contrast(
            text_NE,
            picture_NE,
            catalogs.values,
            self.model.scale(),
            targets=self.targets,
            rows=(texts.start, texts.end),
        )
        own = slice(texts.start, texts.end)
        gradients = [self.workers.sum(_gradient(t))[own] for t in (text_NE, picture_NE)]
        total = self.workers.sum(torch.tensor(loss, dtype=torch.float64, device=empty.device))
        return BatchLoss(float(total), len(text_NE)), gradients[0], gradients[1]


def check_norms(model: DualEncoder, *, num_streams: int, num_workers: int) -> None:
    """Refuse, before training starts, batch norms that would be live where a batch is ever cut."""
    was_training = model.training
    live = _live_norms(model.train())
    model.train(was_training)
    if live and (num_streams > 1 or num_workers > 1):
        raise _norms_error(live[0], num_streams, num_workers)


def _live_norms(model: DualEncoder) -> list[str]:
    modules = model.named_modules()
    return [name for name, m in modules if isinstance(m, _BatchNorm) and m.training]


def _norms_error(name: str, num_streams: int, num_workers: int) -> ValueError:
    return ValueError(
        f"{name} is a batch norm with live statistics, expected frozen ones where a batch may be "
        f"cut ({num_streams} streams, {num_workers} workers); set "
        "model.image_encoder.freeze_batch_norm=true, or train with one worker and "
        "pretrain.growth.max_streams=1"
    )


def _gradient(tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
