"""A projection of pairs' features in parts that pairs of one window share.

Axes: B windows, U units, N pairs, K outputs, S rows of the second part, V their units (U or 1).
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PairProjection:
    """first + scale * second of every pair's units, put together where it is used."""

    first_BUK: Tensor
    window_N: Tensor
    """Which row of `first_BUK` each pair reads."""
    second_SVK: Tensor | None = None
    row_N: Tensor | None = None
    """Which row of `second_SVK` each pair reads; V = 1 is the same for all its units."""
    scale_NU: Tensor | None = None
    """None: 1."""

    @classmethod
    def of(cls, rows_NUK: Tensor) -> "PairProjection":
        """Wrap a projection that is already put together."""
        return cls(rows_NUK, torch.arange(len(rows_NUK), device=rows_NUK.device))

    def dense(self) -> Tensor:
        """Return the sum, [N, U, K]."""
        first_NUK = self.first_BUK[self.window_N]
        if self.second_SVK is None:
            return first_NUK
        second_NVK = self.second_SVK[self.row_N]
        if self.scale_NU is None:
            return first_NUK + second_NVK
        return torch.addcmul(first_NUK, self.scale_NU[..., None], second_NVK)
