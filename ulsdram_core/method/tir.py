"""Text-guided information range minimisation (TIR), equations 2 to 5 of the paper.

Axes: B windows, L pieces, W words, M pictures, R regions, D inner size of the attention,
H hidden, V region features.
"""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ulsdram_core.frozen import Frozen
from ulsdram_core.method.regions import Fusion, PictureRegions


class TirConfig(Frozen):
    """Settings of TIR; the defaults are the paper's form."""

    dim: int = Field(200, ge=1, description="inner size D' of both attentions")
    attention: Literal["linear", "softmax"] = Field(
        "linear", description="linear: the paper's Eq. 2, without softmax; softmax: ablation"
    )
    init_std: float = Field(
        0.01, gt=0, description="standard deviation of the query, key and value weights"
    )
    pooled: bool = Field(False, description="also add the pooled picture to every encoded piece")


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, kind: str) -> Tensor:
    """Return attention of Eq. 2 over the last two axes; masked positions give nothing.

    mask: [..., K] over keys, True where a key counts; None where all do.
    """
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    if kind == "softmax":
        if mask is not None:
            scores = scores.masked_fill(~mask[..., None, :], float("-inf"))
        scores = torch.softmax(scores.float(), dim=-1).to(value.dtype)
    elif mask is not None:
        value = value * mask[..., None]
    return scores @ value


class TirFusion(Fusion):
    """Adds to each text embedding what it selects in the text and in the pictures.

    The released code adds a bias in the last projection; the paper's Eq. 5 has none, but a bias
    here is one shared offset before the encoder's first layer and costs nothing: kept.
    """

    def __init__(self, config: TirConfig, hidden: int, region_dim: int) -> None:
        super().__init__()
        self.config = config
        self.text_query = nn.Linear(hidden, config.dim, bias=False)
        self.text_key = nn.Linear(hidden, config.dim, bias=False)
        self.text_value = nn.Linear(hidden, config.dim, bias=False)
        self.region_query = nn.Linear(hidden, config.dim, bias=False)
        self.region_key = nn.Linear(region_dim, config.dim, bias=False)
        self.region_value = nn.Linear(region_dim, config.dim, bias=False)
        self.out = nn.Linear(config.dim, hidden)
        self.pooled = nn.Linear(region_dim, hidden) if config.pooled else None
        for layer in (self.text_query, self.text_key, self.text_value):
            nn.init.normal_(layer.weight, std=config.init_std)
        for layer in (self.region_query, self.region_key, self.region_value):
            nn.init.normal_(layer.weight, std=config.init_std)

    def early(self, text_BLH: Tensor, mask_BL: Tensor, pictures: PictureRegions) -> Tensor:
        """Return E_m of Eq. 5; several pictures contribute their mean."""
        mixed_BLD = attend(
            self.text_query(text_BLH),
            self.text_key(text_BLH),
            self.text_value(text_BLH),
            mask_BL,
            self.config.attention,
        )
        cross_MLD = attend(
            self.region_query(text_BLH)[pictures.window_M],
            self.region_key(pictures.regions_MRV),
            self.region_value(pictures.regions_MRV),
            None,
            self.config.attention,
        )
        mixed_BLD = mixed_BLD + pictures.mean_over_pictures(cross_MLD)
        return text_BLH + self.out(mixed_BLD)

    def late(self, encoded_BLH: Tensor, mask_BL: Tensor, pictures: PictureRegions) -> Tensor:
        """Add the pooled picture when the recipe asks for it."""
        del mask_BL
        if self.pooled is None:
            return encoded_BLH
        pooled_MV = pictures.regions_MRV.mean(1)
        pooled_BH = pictures.mean_over_pictures(self.pooled(pooled_MV))
        return encoded_BLH + pooled_BH[:, None]

    def match(self, words_WH: Tensor, regions_MRV: Tensor) -> Tensor:
        """Return how well each picture matches each word [M, W]: a smooth maximum over regions."""
        query_WD, key_MRD = self.region_query(words_WH), self.region_key(regions_MRV)
        scores_MWR = query_WD @ key_MRD.mT / math.sqrt(self.config.dim)
        return torch.logsumexp(scores_MWR.float(), -1) - math.log(scores_MWR.shape[-1])

    def region_scores(self, text_BLH: Tensor, pictures: PictureRegions) -> Tensor:
        """Return the weights [M, L, R] with which pieces select regions (Fig. 6 and 7)."""
        key_MRD = self.region_key(pictures.regions_MRV)
        query_MLD = self.region_query(text_BLH)[pictures.window_M]
        scores_MLR = query_MLD @ key_MRD.mT / math.sqrt(self.config.dim)
        return torch.softmax(scores_MLR, -1) if self.config.attention == "softmax" else scores_MLR
