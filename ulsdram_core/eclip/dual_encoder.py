"""The dual encoder: texts and pictures as unit vectors of one space, without a fusion.

Axes: B pairs, L pieces, H hidden, K distinct pictures, M (picture, pair) links, R regions,
V region features, E embedding.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ulsdram_core.batch import Batch
from ulsdram_core.encoders.image_encoder import ImageEncoder, ImageEncoderConfig
from ulsdram_core.encoders.text_encoder import TextEncoder, TextEncoderConfig
from ulsdram_core.frozen import Frozen
from ulsdram_core.method.regions import PictureRegions
from ulsdram_core.precision import full_precision


class DualEncoderConfig(Frozen):
    """The two encoders and what brings their features into one space."""

    text_encoder: TextEncoderConfig = Field(
        default_factory=TextEncoderConfig, description="the text encoder"
    )
    image_encoder: ImageEncoderConfig = Field(
        default_factory=lambda: ImageEncoderConfig(architecture="tiny"),
        description="the image encoder",
    )
    pooling: Literal["mean", "first"] = Field(
        "mean", description="a text's feature: the mean of its pieces, or its first piece ([CLS])"
    )
    dim: int = Field(256, ge=2, description="length of an embedding")
    head: Literal["linear", "mlp"] = Field("linear", description="features to embedding")
    temperature: float = Field(0.07, gt=0, description="temperature at the start; it is learned")
    max_scale: float = Field(100.0, gt=1, description="most that similarities are multiplied by")

    def build(
        self, vocab_size: int, *, picture_size: int = 224, random_init: bool = False
    ) -> "DualEncoder":
        """Build the model; `random_init` ignores every pretrained weight."""
        text_encoder = self.text_encoder.build(vocab_size, random_init=random_init)
        if not isinstance(text_encoder, TextEncoder):
            raise ValueError(
                f"model.text_encoder.name is {self.text_encoder.name!r}, expected a BERT-family "
                "encoder; choose a checkpoint or tiny"
            )
        image_encoder = self.image_encoder.build(size=picture_size, random_init=random_init)
        return DualEncoder(self, text_encoder, image_encoder)


@dataclass(frozen=True)
class PairVectors:
    """What a batch of pairs looks like to the model; embeddings are unit vectors in fp32."""

    text_BE: Tensor
    picture_BE: Tensor


class DualEncoder(nn.Module):
    """Two encoders, two heads and one temperature."""

    def __init__(
        self, config: DualEncoderConfig, text_encoder: TextEncoder, image_encoder: ImageEncoder
    ) -> None:
        super().__init__()
        self.config = config
        self.text_encoder = text_encoder
        self.image_encoder = image_encoder
        self.text_head = _head(config, text_encoder.hidden)
        self.image_head = _head(config, image_encoder.region_dim)
        start = min(1 / config.temperature, config.max_scale)
        self.log_scale = nn.Parameter(torch.tensor(math.log(start)))

    def forward(self, batch: Batch) -> PairVectors:
        """Embed a batch; a text with several pictures meets their mean."""
        texts, pictures = self.text_features(batch), self.picture_features(batch)
        return PairVectors(self.project_texts(texts), self.project_pictures(pictures))

    def text_features(self, batch: Batch) -> Tensor:
        """Return [B, H] what the text encoder makes of each text, before the head."""
        embedded = self.text_encoder.embed(batch.piece_ids_BL, batch.piece_types_BL)
        last_BLH, _ = self.text_encoder(embedded, batch.piece_mask_BL)
        if self.config.pooling == "first":
            return last_BLH[:, 0]
        mask_BL1 = batch.piece_mask_BL[..., None].to(last_BLH.dtype)
        return (last_BLH * mask_BL1).sum(1) / mask_BL1.sum(1).clamp(min=1)

    def picture_features(self, batch: Batch) -> Tensor:
        """Return [B, V] the mean over the regions of each pair's pictures; zeros without any."""
        features_KV = self.image_encoder(batch.pictures_K3SS).mean(1)
        links = PictureRegions(features_KV[batch.picture_M], batch.window_M, batch.num_windows)
        return links.mean_over_pictures(features_KV[batch.picture_M])

    def project_texts(self, features_BH: Tensor) -> Tensor:
        """Project text features to embeddings [B, E]."""
        return _unit(self.text_head(features_BH))

    def project_pictures(self, features_BV: Tensor) -> Tensor:
        """Project picture features to embeddings [B, E]."""
        return _unit(self.image_head(features_BV))

    def scale(self) -> Tensor:
        """Return what similarities are multiplied by: the inverse of the temperature."""
        return self.log_scale.exp()

    @torch.no_grad()
    def clip_scale(self) -> None:
        """Keep the temperature from vanishing; called after every step."""
        self.log_scale.clamp_(max=math.log(self.config.max_scale))


def _head(config: DualEncoderConfig, width: int) -> nn.Module:
    if config.head == "linear":
        return nn.Linear(width, config.dim, bias=False)
    return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, config.dim))


def _unit(vectors: Tensor) -> Tensor:
    with full_precision(vectors.device):
        return F.normalize(vectors.float(), dim=-1)
