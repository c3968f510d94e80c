"""The training loss: tag negative log-likelihood of the pairs plus attribute cross-entropy.

The loss is returned as a sum with its count. Gradients of sums are added over accumulation steps
and workers and divided once by the global count, so that N workers equal one.

Axes: B windows, C attributes, N pairs, U units.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ulsdram_core.batch import Batch
from ulsdram_core.fit.alignment import alignment
from ulsdram_core.frozen import Frozen
from ulsdram_core.method.model import ModelOutput
from ulsdram_core.method.tagger import Tagger
from ulsdram_core.method.tir import TirFusion
from ulsdram_core.pairs import Pairs, RangeConfig, training_pairs


class LossConfig(Frozen):
    """Weights of the loss."""

    attribute_weight: float = Field(
        1.0,
        ge=0,
        description="weight of a window's attribute cross-entropy (sum over attributes)"
        " beside the tag loss of one pair",
    )
    tag_weight: float = Field(1.0, ge=0, description="weight of the tag loss; 0 trains the head")
    agreement_weight: float = Field(
        0.0,
        ge=0,
        description="weight of the divergence between attribute scores and tags (M-JAVE: 0.5); "
        "for a head without a policy",
    )
    alignment_weight: float = Field(
        0.0,
        ge=0,
        description="weight of matching a picture with the words of its values; for TIR with "
        "linear attention",
    )
    alignment_scale: float = Field(8.0, gt=0, description="sharpness of that match")


def disagreement(output: ModelOutput) -> Tensor:
    """Return the sum over windows and attributes of p log(p / q).

    p is an attribute's score; q is what the tags say of it: the mean of its B and its I
    probability, each at the unit where it is highest.
    """
    if output.logits_BC is None or output.pairs is not None:
        raise ValueError(
            "loss.agreement_weight compares a head with one tagger over all attributes, found no "
            "head or a policy; set it to 0"
        )
    probs_BUT = torch.softmax(output.emissions_NUT.float(), dim=-1)
    probs_BUT = probs_BUT * output.mask_NU[..., None]
    tags_BC2 = probs_BUT.amax(1)[:, 1:].unflatten(1, (-1, 2))
    q_BC = tags_BC2.mean(-1).clamp(min=1e-6)
    p_BC = torch.sigmoid(output.logits_BC.float()).clamp(min=1e-6)
    return (p_BC * (p_BC / q_BC).log()).sum()


@dataclass(frozen=True)
class Loss:
    """Sums over a batch; divide `total` by the global `num_terms`."""

    total: Tensor
    num_terms: int
    """Pairs plus windows: one term per tagged pair, one per window's range. Counting windows too
    keeps the divisor additive and above zero where no window has a value."""
    tag: float
    """Sum of the pairs' tag losses, for logs."""
    attribute: float
    """Sum of the windows' attribute losses, for logs."""


class ExtractionLoss:
    """Runs a model on a labelled batch and sums its losses."""

    def __init__(self, config: LossConfig, range_config: RangeConfig) -> None:
        self.config = config
        self.range = range_config

    def __call__(self, model: torch.nn.Module, batch: Batch) -> Loss:
        """Return the loss of one batch; `model` may be wrapped for data parallelism."""
        gold = batch.gold
        assert gold is not None, "a training batch carries gold"
        assert batch.class_tags_BU is not None
        chosen: list[Tensor] = []

        def choose(logits_BC: Tensor) -> Pairs:
            pairs, tags = training_pairs(logits_BC, gold, self.range)
            chosen.append(tags)
            return pairs

        output: ModelOutput = model(batch, choose)
        tags_NU = chosen[0] if chosen else batch.class_tags_BU
        tagger: Tagger = getattr(model, "module", model).tagger  # type: ignore[assignment]
        tag = tagger.nll(output.emissions_NUT, tags_NU, output.mask_NU).sum()
        attribute = self._attribute(output, batch)
        total = self.config.tag_weight * tag + self.config.attribute_weight * attribute
        if self.config.agreement_weight:
            total = total + self.config.agreement_weight * disagreement(output)
        if self.config.alignment_weight:
            total = total + self.config.alignment_weight * self._alignment(model, output, batch)
        num_terms = len(tags_NU) + batch.num_windows
        return Loss(total, num_terms, float(tag.detach()), float(attribute.detach()))

    def _alignment(self, model: torch.nn.Module, output: ModelOutput, batch: Batch) -> Tensor:
        fusion = getattr(model, "module", model).fusion
        if not isinstance(fusion, TirFusion):
            raise ValueError(
                "loss.alignment_weight trains TIR's match of words and regions, found "
                f"{type(fusion).__name__}; set it to 0 or fusion.kind to 'tir'"
            )
        return alignment(fusion, output, batch, scale=self.config.alignment_scale)

    @staticmethod
    def _attribute(output: ModelOutput, batch: Batch) -> Tensor:
        logits_BC = output.logits_BC
        if logits_BC is None:
            return output.emissions_NUT.new_zeros(())
        assert batch.gold is not None
        gold_BC = batch.gold.multi_hot(*logits_BC.shape).to(torch.float32)
        return F.binary_cross_entropy_with_logits(logits_BC.float(), gold_BC, reduction="sum")
