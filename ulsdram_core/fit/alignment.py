"""Alignment: an extra training term by which TIR learns which words a picture shows.

TIR's linear attention scores how well a word matches a region. The tag loss alone hardly teaches
that match: only texts that name two colours need it, and text predicts the rest. Here every value
of the batch is compared with every picture, so each product teaches it (1,500 steps on drawn
products: values between two colours 88 -> 95 F1; nothing with softmax attention).

Axes: B windows, L pieces, U units, M pictures, R regions, W distinct words of values, H hidden.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ulsdram_core.batch import Batch
from ulsdram_core.method.model import ModelOutput
from ulsdram_core.method.tir import TirFusion


def alignment(fusion: TirFusion, output: ModelOutput, batch: Batch, *, scale: float) -> Tensor:
    """Sum over pictures a two-way cross-entropy between them and the batch's value words.

    A picture's targets are the words of its own product's gold values, evenly; the other words
    and pictures of this batch are what it is told from, so the term depends on the batch's
    composition. `scale` multiplies the matches before the softmax.
    """
    assert output.embedded_BLH is not None
    assert output.pictures is not None
    words = value_words(batch)
    shown_MW = words.shown_BW[output.pictures.window_M]
    if not shown_MW.any():
        return output.emissions_NUT.new_zeros(())
    embedded_WH = output.embedded_BLH[words.window_W, words.piece_W]
    match_MW = scale * fusion.match(embedded_WH, output.pictures.regions_MRV).float()
    both = _cross_entropy(match_MW, shown_MW) + _cross_entropy(match_MW.T, shown_MW.T)
    return len(shown_MW) * both / 2


@dataclass(frozen=True)
class ValueWords:
    """The distinct first pieces of gold units in a batch, and the windows that hold them."""

    window_W: Tensor
    piece_W: Tensor
    """Where each word stands first in the batch."""
    shown_BW: Tensor
    """Whether each window's gold values hold each word."""


def value_words(batch: Batch) -> ValueWords:
    """Collect the words of a labelled batch's gold values."""
    gold = batch.gold
    assert gold is not None, "a training batch carries gold"
    place, unit = (gold.tags_GU > 0).nonzero(as_tuple=True)
    window = gold.window_G[place]
    piece = batch.unit_piece_BU[window, unit]
    ids, word = batch.piece_ids_BL[window, piece].unique(return_inverse=True)
    order = torch.arange(len(word), device=word.device)
    first_W = order.new_full((len(ids),), len(word)).scatter_reduce(0, word, order, "amin")
    shown_BW = torch.zeros(batch.num_windows, len(ids), dtype=torch.bool, device=word.device)
    shown_BW[window, word] = True
    return ValueWords(window[first_W], piece[first_W], shown_BW)


def _cross_entropy(logits_XY: Tensor, target_XY: Tensor) -> Tensor:
    """Average over the rows that have a target, each spread evenly over its row's targets."""
    rows = target_XY.any(1)
    target_XY = target_XY[rows].to(logits_XY.dtype)
    share_XY = target_XY / target_XY.sum(1, keepdim=True)
    return -(F.log_softmax(logits_XY[rows], dim=1) * share_XY).sum(1).mean()
