"""Which (window, attribute) pairs are tagged: the attribute range, in training and after (Eq. 7).

Axes: B windows, C attributes, N pairs, G gold pairs, U units.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from ulsdram_core.frozen import Frozen


@dataclass(frozen=True)
class Pairs:
    """The pairs to tag, window by attribute."""

    window_N: Tensor
    attribute_N: Tensor

    def __len__(self) -> int:
        return len(self.window_N)


@dataclass(frozen=True)
class GoldPairs:
    """Gold of a batch, per (window, attribute) that has a value."""

    window_G: Tensor
    attribute_G: Tensor
    tags_GU: Tensor

    def multi_hot(self, num_windows: int, num_attributes: int) -> Tensor:
        """Return the gold range [B, C] as booleans."""
        gold_BC = torch.zeros(
            num_windows, num_attributes, dtype=torch.bool, device=self.window_G.device
        )
        gold_BC[self.window_G, self.attribute_G] = True
        return gold_BC


class RangeConfig(Frozen):
    """How attributes enter the range."""

    threshold: float = Field(
        0.5, ge=0, le=1, description="S_thr: an attribute with a higher score is tagged"
    )
    max_attributes: int = Field(
        64, ge=1, description="most attributes tagged per window when extracting"
    )
    training: Literal["gold_and_wrong", "released"] = Field(
        "gold_and_wrong",
        description="pairs that teach the tagger: gold ones plus wrongly predicted ones, or "
        "the predicted ones alone as in the released code",
    )
    max_wrong: int = Field(
        4, ge=0, description="most wrongly predicted attributes per window that are tagged"
    )
    wrong: Literal["best", "random"] = Field(
        "best",
        description="which absent attributes those are: the highest-scored ones, or random ones "
        "where no head predicts a range",
    )


def above(scores_BC: Tensor, threshold_C: Tensor | float, most: int) -> Tensor:
    """Mark scores above their threshold, at most the `most` highest of each window, [B, C]."""
    chosen_BC = scores_BC > threshold_C
    if most >= scores_BC.shape[1]:
        return chosen_BC
    kept_BC = torch.zeros_like(chosen_BC)
    top = scores_BC.masked_fill(~chosen_BC, float("-inf")).topk(most, dim=1).indices
    kept_BC.scatter_(1, top, value=True)
    return kept_BC & chosen_BC


def as_pairs(chosen_BC: Tensor) -> Pairs:
    """List the marked (window, attribute) pairs, window by window."""
    window_N, attribute_N = chosen_BC.nonzero(as_tuple=True)
    return Pairs(window_N, attribute_N)


def predicted_pairs(
    logits_BC: Tensor,
    threshold_C: Tensor | float,
    *,
    most: int,
    allowed_BC: Tensor | None = None,
) -> Pairs:
    """Return the range that the head predicts, within what the category allows."""
    scores_BC = torch.sigmoid(logits_BC.float())
    if allowed_BC is not None:
        scores_BC = scores_BC * allowed_BC
    return as_pairs(above(scores_BC, threshold_C, most))


def training_pairs(logits_BC: Tensor, gold: GoldPairs, config: RangeConfig) -> tuple[Pairs, Tensor]:
    """Return the pairs that teach the tagger and their tags [N, U].

    Wrongly predicted attributes are capped: an untrained head selects nearly all of them, and
    a step over 2,000 attributes would not fit in memory.
    """
    scores_BC = torch.sigmoid(logits_BC.detach().float())
    gold_BC = gold.multi_hot(*scores_BC.shape)
    absent_BC = scores_BC * ~gold_BC
    if config.wrong == "random":
        absent_BC = torch.rand_like(scores_BC) * (absent_BC > config.threshold)
    limit = config.threshold if config.wrong == "best" else 0.0
    wrong = as_pairs(above(absent_BC, limit, config.max_wrong))
    window_G, attribute_G, tags_GU = gold.window_G, gold.attribute_G, gold.tags_GU
    if config.training == "released":
        found_G = scores_BC[window_G, attribute_G] > config.threshold
        window_G, attribute_G, tags_GU = window_G[found_G], attribute_G[found_G], tags_GU[found_G]
    pairs = Pairs(
        torch.cat([window_G, wrong.window_N]), torch.cat([attribute_G, wrong.attribute_N])
    )
    no_value = tags_GU.new_zeros(len(wrong), tags_GU.shape[1])
    return pairs, torch.cat([tags_GU, no_value])
