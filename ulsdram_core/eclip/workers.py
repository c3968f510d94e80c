"""What the workers of a distributed run tell each other; alone, everything is the identity."""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Gathered:
    """The rows of all workers, in rank order; this worker's are `start`..`end`-1."""

    values: Tensor
    start: int
    end: int


@dataclass(frozen=True)
class Workers:
    """The workers that share a batch; more than one needs an initialised process group."""

    rank: int = 0
    world: int = 1

    def gather(self, rows: Tensor) -> Gathered:
        """Collect [n, ...] rows of every worker; workers may bring different numbers of them."""
        if self.world == 1:
            return Gathered(rows, 0, len(rows))
        counts = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(self.world)]
        dist.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
        sizes = [int(count) for count in counts]
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        values = torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])
        start = sum(sizes[: self.rank])
        return Gathered(values, start, start + sizes[self.rank])

    def sum(self, tensor: Tensor) -> Tensor:
        """Add up in place over all workers."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def sum_gradients(self, parameters: list[torch.nn.Parameter]) -> None:
        """Add up gradients over all workers in one message; a missing one counts as zero."""
        if self.world == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = self.sum(torch.cat([gradient.flatten() for gradient in gradients]))
        pieces = flat.split([gradient.numel() for gradient in gradients])
        for gradient, piece in zip(gradients, pieces, strict=True):
            gradient.copy_(piece.view(gradient.shape))
