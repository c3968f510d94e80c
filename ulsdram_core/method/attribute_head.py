"""The attribute head: one score per attribute from the encoded [CLS] (Eq. 6).

Axes: B windows, H hidden, C attributes.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from ulsdram_core.precision import full_precision

HeadKind = Literal["none", "paper", "linear", "released"]


class LinearHead(nn.Module):
    """One linear layer over the text's vector; without bias it is the paper's f W_cls."""

    def __init__(self, width: int, num_attributes: int, *, bias: bool) -> None:
        super().__init__()
        self.score = nn.Linear(width, num_attributes, bias=bias)

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


def build_head(kind: HeadKind, width: int, num_attributes: int) -> nn.Module | None:
    """Build the head a recipe names, for text vectors of `width` numbers; None for `none`."""
    if kind == "none":
        return None
    if kind == "released":
        return ReleasedHead(width, num_attributes)
    return LinearHead(width, num_attributes, bias=kind == "linear")
