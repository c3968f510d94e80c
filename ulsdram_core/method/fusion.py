"""Ways to bring pictures to the text: before the text encoder (early) or after it (late).

Axes: B windows, L pieces, S sequence, M pictures, R regions, V region features, H hidden.
"""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ulsdram_core.frozen import Frozen
from ulsdram_core.method.regions import Fusion, PictureRegions
from ulsdram_core.method.tir import TirConfig, TirFusion


class ConcatFusion(Fusion):
    """ULS-VL "vanilla": regions, projected to the text's size, follow the text (VL-BERT style)."""

    def __init__(self, hidden: int, region_dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(region_dim, hidden)
        # Tells regions from text, as VL-BERT's token types do.
        self.region_type = nn.Parameter(torch.zeros(hidden))

    def early(self, text_BLH: Tensor, mask_BL: Tensor, pictures: PictureRegions) -> Tensor:
        """Concatenate text pieces and picture slots."""
        del mask_BL
        slots, place = self._slots(pictures)
        regions_MRH = self.project(pictures.regions_MRV) + self.region_type
        num_regions = regions_MRH.shape[1]
        out_BKRH = regions_MRH.new_zeros(
            pictures.num_windows, slots, num_regions, regions_MRH.shape[2]
        )
        out_BKRH = out_BKRH.index_put((pictures.window_M, place), regions_MRH)
        return torch.cat([text_BLH, out_BKRH.flatten(1, 2).to(text_BLH.dtype)], dim=1)

    def sequence_mask(self, mask_BL: Tensor, pictures: PictureRegions) -> Tensor:
        """Extend the text's mask by the picture slots in use."""
        slots, place = self._slots(pictures)
        used_BK = torch.zeros(pictures.num_windows, slots, dtype=torch.bool, device=mask_BL.device)
        used_BK[pictures.window_M, place] = True
        num_regions = pictures.regions_MRV.shape[1]
        return torch.cat([mask_BL, used_BK.repeat_interleave(num_regions, dim=1)], dim=1)

    def region_scores(
        self, attention_BSS: Tensor, num_pieces: int, pictures: PictureRegions
    ) -> Tensor:
        """Return the part [M, L, R] of an attention map that goes from text to regions."""
        slots, place = self._slots(pictures)
        to_regions_BLKR = attention_BSS[:, :num_pieces, num_pieces:].unflatten(2, (slots, -1))
        return to_regions_BLKR[pictures.window_M, :, place]

    @staticmethod
    def _slots(pictures: PictureRegions) -> tuple[int, Tensor]:
        """Return the number of picture slots per window, and each picture's slot in its window."""
        window = pictures.window_M
        if not len(window):
            return 0, window
        same = window[:, None] == window[None, :]
        place = same.tril(-1).sum(1)
        return int(place.max()) + 1, place


class SelfAttentionFusion(ConcatFusion):
    """ULS-VL "Self-Attn": one more self-attention layer over the concatenated sequence."""

    def __init__(self, hidden: int, region_dim: int, heads: int) -> None:
        super().__init__(hidden, region_dim)
        self.attention = nn.MultiheadAttention(hidden, heads, batch_first=True)
        self.norm = nn.LayerNorm(hidden)

    def early(self, text_BLH: Tensor, mask_BL: Tensor, pictures: PictureRegions) -> Tensor:
        """Concatenate, then attend."""
        sequence_BSH = super().early(text_BLH, mask_BL, pictures)
        mask_BS = self.sequence_mask(mask_BL, pictures)
        mixed, _ = self.attention(
            sequence_BSH, sequence_BSH, sequence_BSH, key_padding_mask=~mask_BS, need_weights=False
        )
        return self.norm(sequence_BSH + mixed)


class GatedFusion(Fusion):
    """M-JAVE's late fusion: gated cross-attention to the regions, after the encoder.

    h = (Q K' / sqrt d) V on the text + sigmoid(w1 x + w2 v' + b) * (Q K' / sqrt d) V on the
    regions, added to the encoded text. v' is the mean region.
    """

    def __init__(self, hidden: int, region_dim: int, dim: int = 200) -> None:
        super().__init__()
        self.scale = 1 / math.sqrt(dim)
        self.text_qkv = nn.Linear(hidden, 3 * dim, bias=False)
        self.region_query = nn.Linear(hidden, dim, bias=False)
        self.region_key = nn.Linear(region_dim, dim, bias=False)
        self.region_value = nn.Linear(region_dim, dim, bias=False)
        self.gate_text = nn.Linear(hidden, 1)
        self.gate_picture = nn.Linear(region_dim, 1, bias=False)
        self.out = nn.Linear(dim, hidden, bias=False)

    def late(self, encoded_BLH: Tensor, mask_BL: Tensor, pictures: PictureRegions) -> Tensor:
        """Add what the text attends to in itself and, through the gate, in its pictures."""
        query, key, value = self.text_qkv(encoded_BLH).chunk(3, dim=-1)
        value = value * mask_BL[..., None]
        mixed_BLD = (query @ key.mT * self.scale) @ value
        value_MRD = self.region_value(pictures.regions_MRV)
        cross_MLD = self.region_scores(encoded_BLH, pictures) @ value_MRD
        mixed_BLD = mixed_BLD + pictures.mean_over_pictures(cross_MLD)
        return encoded_BLH + self.out(mixed_BLD)

    def region_scores(self, encoded_BLH: Tensor, pictures: PictureRegions) -> Tensor:
        """Return the gated weights [M, L, R] with which pieces select regions."""
        window = pictures.window_M
        key_MRD = self.region_key(pictures.regions_MRV)
        scores_MLR = self.region_query(encoded_BLH)[window] @ key_MRD.mT * self.scale
        pooled_MV = pictures.regions_MRV.mean(1)
        gate_ML1 = self.gate_text(encoded_BLH)[window] + self.gate_picture(pooled_MV)[:, None]
        return torch.sigmoid(gate_ML1) * scores_MLR


class FusionConfig(Frozen):
    """Which fusion a model uses."""

    kind: Literal["none", "concat", "self_attention", "tir", "gated"] = Field(
        "tir", description="none: text only; tir: the paper's; gated: M-JAVE's late fusion"
    )
    tir: TirConfig = Field(default_factory=TirConfig, description="settings of kind = tir")
    normalize_regions: bool = Field(
        False,
        description="LayerNorm on region features first; without it a picture encoder's scale "
        "can drown the text, above all one trained from scratch",
    )
    heads: int = Field(4, ge=1, description="heads of the self_attention layer")
    dim: int = Field(200, ge=1, description="inner size of the gated attention")

    def build(self, hidden: int, region_dim: int) -> Fusion:
        """Build for a text encoder and an image encoder of these sizes."""
        if self.kind == "concat":
            return ConcatFusion(hidden, region_dim)
        if self.kind == "self_attention":
            return SelfAttentionFusion(hidden, region_dim, self.heads)
        if self.kind == "gated":
            return GatedFusion(hidden, region_dim, self.dim)
        if self.kind == "tir":
            return TirFusion(self.tir, hidden, region_dim)
        return Fusion()
