"""The attribute head: one score per attribute from the encoded [CLS] (Eq. 6).

Axes: B windows, H hidden, C attributes.
"""

from typing import Literal

import torch
from torch import Tensor, nn

HeadKind = Literal["none", "paper", "released"]


class PaperHead(nn.Module):
    """f W_cls: one linear layer over the last layer's [CLS]."""

    def __init__(self, hidden: int, num_attributes: int) -> None:
        super().__init__()
        self.score = nn.Linear(hidden, num_attributes, bias=False)

    def forward(self, last_BH: Tensor, before_BH: Tensor) -> Tensor:
        """Return logits [B, C]."""
        del before_BH
        return self.score(last_BH)


class ReleasedHead(nn.Module):
    """The released code's head: two layers over the [CLS] of the last two encoder layers."""

    def __init__(self, hidden: int, num_attributes: int) -> None:
        super().__init__()
        self.mix = nn.Linear(2 * hidden, hidden)
        self.score = nn.Linear(hidden, num_attributes)

    def forward(self, last_BH: Tensor, before_BH: Tensor) -> Tensor:
        """Return logits [B, C]."""
        return self.score(torch.relu(self.mix(torch.cat([before_BH, last_BH], dim=-1))))


def build_head(kind: HeadKind, hidden: int, num_attributes: int) -> nn.Module | None:
    """Build the head a recipe names; None for `none`."""
    if kind == "none":
        return None
    return (PaperHead if kind == "paper" else ReleasedHead)(hidden, num_attributes)
