"""Which texts and pictures of a batch belong together: one label row per pair.

Axes: R rows of this worker, N pairs of the whole batch.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from ulsdram_core.frozen import Frozen


class TargetConfig(Frozen):
    """What counts as a match."""

    kind: Literal["catalog", "identity", "masked", "mixed"] = Field(
        "catalog",
        description="catalog: all listings of one product, in equal parts; identity: only the own "
        "one (CLIP); masked: the own one, other listings of the product are left out of the row; "
        "mixed: identity_share of identity, the rest catalog",
    )
    identity_share: float = Field(
        0.5, ge=0, le=1, description="share of the own listing on its own, for mixed"
    )

    def rows(self, catalog_N: Tensor, start: int, end: int) -> "TargetRows":
        """Return label rows of pairs start..end-1; those with equal numbers are one product."""
        is_same_RN = catalog_N[start:end, None] == catalog_N[None, :]
        own_RN = torch.zeros_like(is_same_RN)
        places = torch.arange(end - start, device=catalog_N.device)
        own_RN[places, places + start] = True
        identity_RN = own_RN.float()
        if self.kind == "identity":
            return TargetRows(identity_RN)
        if self.kind == "masked":
            return TargetRows(identity_RN, is_same_RN & ~own_RN)
        soft_RN = is_same_RN.float()
        soft_RN /= soft_RN.sum(1, keepdim=True)
        if self.kind == "mixed":
            soft_RN.lerp_(identity_RN, self.identity_share)
        return TargetRows(soft_RN)


@dataclass(frozen=True)
class TargetRows:
    """Label rows; each sums to one."""

    weight_RN: Tensor
    ignored_RN: Tensor | None = None
    """True where a pair is neither match nor mismatch."""
