"""The attribute head: one score per attribute from the encoded [CLS] (Eq. 6).

Axes: B windows, H hidden, C attributes.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from ulsdram_core.precision import full_precision

HeadKind = Literal["none", "paper", "released"]


class PaperHead(nn.Module):
    """f W_cls: one linear layer over the last layer's [CLS]."""

    def __init__(self, hidden: int, num_attributes: int) -> None:
        super().__init__()
        self.score = nn.Linear(hidden, num_attributes, bias=False)

    def forward(self, last_BH: Tensor, before_BH: Tensor) -> Tensor:
        """Return logits [B, C]."""
        del before_BH
        with full_precision(last_BH.device):
            return self.score(last_BH.float())


class ReleasedHead(nn.Module):
    """The released code's head: two layers over the [CLS] of the last two encoder layers."""

    def __init__(self, hidden: int, num_attributes: int) -> None:
        super().__init__()
        self.mix = nn.Linear(2 * hidden, hidden)
        self.score = nn.Linear(hidden, num_attributes)

    def forward(self, last_BH: Tensor, before_BH: Tensor) -> Tensor:
        """Return logits [B, C]."""
        both = torch.cat([before_BH, last_BH], dim=-1)
        with full_precision(last_BH.device):  # bf16 scores would be too coarse for thresholds
            return self.score(torch.relu(self.mix(both.float())))


def build_head(kind: HeadKind, hidden: int, num_attributes: int) -> nn.Module | None:
    """Build the head a recipe names; None for `none`."""
    if kind == "none":
        return None
    return (PaperHead if kind == "paper" else ReleasedHead)(hidden, num_attributes)
