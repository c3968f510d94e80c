"""Region features of pictures, and the two places where a fusion brings them to the text.

Axes: B windows, L pieces, S sequence, M pictures, R regions, V region features, H hidden.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class PictureRegions:
    """Region features of every (picture, window) pair; a window may have none or several."""

    regions_MRV: Tensor
    window_M: Tensor
    """[M] the window each picture belongs to."""
    num_windows: int

    def mean_over_pictures(self, values: Tensor) -> Tensor:
        """Average [M, ...] values over each window's pictures; zeros for windows without."""
        total = values.new_zeros(self.num_windows, *values.shape[1:])
        total = total.index_add(0, self.window_M, values)
        counts = torch.bincount(self.window_M, minlength=self.num_windows).clamp(min=1)
        return total / counts.to(values.dtype).view(-1, *[1] * (values.dim() - 1))


class Fusion(nn.Module):
    """No fusion: both places leave the text as it is (ULS-L)."""

    def early(self, text_BLH: Tensor, mask_BL: Tensor, pictures: PictureRegions) -> Tensor:
        """Return the encoder's input [B, S, H]; the text's pieces come first."""
        del mask_BL, pictures
        return text_BLH

    def sequence_mask(self, mask_BL: Tensor, pictures: PictureRegions) -> Tensor:
        """Return the mask [B, S] of what `early` returns."""
        del pictures
        return mask_BL

    def late(self, encoded_BLH: Tensor, mask_BL: Tensor, pictures: PictureRegions) -> Tensor:
        """Return the encoded text, changed by the pictures, [B, L, H]."""
        del mask_BL, pictures
        return encoded_BLH
