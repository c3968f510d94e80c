"""JAVE and M-JAVE: attributes and values predicted together, each informing the other.

x: encoded pieces, g: the text's vector, v_k: regions, v': their mean, C: number of attributes.
h = (Q K' / sqrt D) V on x + sigmoid(w1 x + w2 v' + b) (Q K' / sqrt D) V on the regions
p = sigmoid(W (W3 sum x + W4 sum h + W5 g))
features = W8 x + W9 h + W10 p + (attention * r) V with r_k = sigmoid(w6 p + w7 v_k)
W and the tags' softmax are the model's head and tagger. Without pictures it is JAVE.

Axes: B windows, L pieces, M (picture, window) links, R regions, V region features, H hidden,
D inner size, C attributes.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ulsdram_core.frozen import Frozen
from ulsdram_core.method.reader import (
    AlignedReader,
    BiLstmReader,
    OpenTagReader,
    Reader,
    Reading,
    SlotGateReader,
)
from ulsdram_core.method.regions import PictureRegions


@dataclass(frozen=True)
class JaveReading(Reading):
    """The text's part of the features, and what the regions add once the range is known."""

    pictures: PictureRegions
    scores_MLR: Tensor
    values_MRD: Tensor


class JaveReader(Reader):
    """Cross-modal attention before the head, region gate and attribute scores after it."""

    def __init__(self, hidden: int, region_dim: int, num_attributes: int, dim: int) -> None:
        super().__init__(dim, dim)
        self.scale = 1 / math.sqrt(dim)
        self.text_qkv = nn.Linear(hidden, 3 * dim, bias=False)
        self.sentence_text = nn.Linear(hidden, dim)
        self.sentence_mixed = nn.Linear(dim, dim, bias=False)
        self.sentence_own = nn.Linear(hidden, dim, bias=False)
        self.tag_text = nn.Linear(hidden, dim)
        self.tag_mixed = nn.Linear(dim, dim, bias=False)
        self.tag_range = nn.Linear(num_attributes, dim, bias=False)
        self.sees = region_dim > 0
        if self.sees:
            self.region_query = nn.Linear(hidden, dim, bias=False)
            self.region_key = nn.Linear(region_dim, dim, bias=False)
            self.region_value = nn.Linear(region_dim, dim, bias=False)
            self.gate_text = nn.Linear(hidden, 1)
            self.gate_picture = nn.Linear(region_dim, 1, bias=False)
            self.gate_range = nn.Linear(num_attributes, 1, bias=False)
            self.gate_region = nn.Linear(region_dim, 1)

    def forward(
        self, encoded_BLH: Tensor, mask_BL: Tensor, sentence_BH: Tensor, pictures: PictureRegions
    ) -> JaveReading:
        """Mix text and pictures; the head scores attributes from the sums over the text."""
        query, key, value = self.text_qkv(encoded_BLH).chunk(3, dim=-1)
        mask_BL1 = mask_BL[..., None]
        mixed_BLD = (query @ key.mT * self.scale) @ (value * mask_BL1)
        scores_MLR, values_MRD = self._attend(encoded_BLH, pictures)
        if self.sees:
            cross_MLD = self.gate(encoded_BLH, pictures) * (scores_MLR @ values_MRD)
            mixed_BLD = mixed_BLD + pictures.mean_over_pictures(cross_MLD)
        sentence_BD = (
            self.sentence_text((encoded_BLH * mask_BL1).sum(1))
            + self.sentence_mixed((mixed_BLD * mask_BL1).sum(1))
            + self.sentence_own(sentence_BH)
        )
        features = self.tag_text(encoded_BLH) + self.tag_mixed(mixed_BLD)
        return JaveReading(features, sentence_BD, pictures, scores_MLR, values_MRD)

    def condition(self, reading: Reading, logits_BC: Tensor | None) -> Tensor:
        """Add the attribute scores and the regions that they let through."""
        assert isinstance(reading, JaveReading)
        assert logits_BC is not None, "ModelConfig gives this reader a head"
        score_BC = torch.sigmoid(logits_BC).to(reading.pieces_BLF.dtype)
        features = reading.pieces_BLF + self.tag_range(score_BC)[:, None]
        if not self.sees:
            return features
        pictures = reading.pictures
        by_range_M1 = self.gate_range(score_BC)[pictures.window_M]
        by_region_MR = self.gate_region(pictures.regions_MRV)[..., 0]
        gate_MR = torch.sigmoid(by_range_M1 + by_region_MR)
        shown_MLD = (reading.scores_MLR * gate_MR[:, None]) @ reading.values_MRD
        return features + pictures.mean_over_pictures(shown_MLD)

    def gate(self, encoded_BLH: Tensor, pictures: PictureRegions) -> Tensor:
        """Return how much of its picture each piece takes, [M, L, 1]."""
        pooled_MV = pictures.regions_MRV.mean(1)
        text_ML1 = self.gate_text(encoded_BLH)[pictures.window_M]
        return torch.sigmoid(text_ML1 + self.gate_picture(pooled_MV)[:, None])

    def region_scores(self, encoded_BLH: Tensor, pictures: PictureRegions) -> Tensor:
        """Return the gated weights [M, L, R] with which pieces select regions."""
        return self.gate(encoded_BLH, pictures) * self._attend(encoded_BLH, pictures)[0]

    def _attend(self, encoded_BLH: Tensor, pictures: PictureRegions) -> tuple[Tensor, Tensor]:
        """Return scores [M, L, R] and values [M, R, D]; empty without pictures."""
        if not self.sees:
            empty = encoded_BLH.new_zeros(0, encoded_BLH.shape[1], 0)
            return empty, encoded_BLH.new_zeros(0, 0, self.width)
        regions_MRV = pictures.regions_MRV.to(encoded_BLH.dtype)
        query_MLD = self.region_query(encoded_BLH)[pictures.window_M]
        scores_MLR = query_MLD @ self.region_key(regions_MRV).mT * self.scale
        return scores_MLR, self.region_value(regions_MRV)


class ReaderConfig(Frozen):
    """What stands between encoder and tagger."""

    kind: Literal["none", "bilstm", "opentag", "aligned", "slot_gate", "jave"] = Field(
        "none",
        description="bilstm: SUOpenTag; opentag: sigmoid attention; aligned: Attn-BiRNN; "
        "slot_gate: Slot-Gated; jave: JAVE, with an image encoder M-JAVE",
    )
    dim: int = Field(64, ge=1, description="inner size of the attention (M-JAVE: 200)")

    def build(self, hidden: int, region_dim: int, num_attributes: int) -> Reader:
        """Build for encoders of these sizes; `region_dim` is 0 without an image encoder."""
        if self.kind == "bilstm":
            return BiLstmReader(hidden)
        if self.kind == "opentag":
            return OpenTagReader(hidden, self.dim)
        if self.kind == "aligned":
            return AlignedReader(hidden, self.dim)
        if self.kind == "slot_gate":
            return SlotGateReader(hidden, self.dim)
        if self.kind == "jave":
            return JaveReader(hidden, region_dim, num_attributes, self.dim)
        return Reader(hidden)
