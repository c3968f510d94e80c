"""What training hides at random, so that products that lack it are nothing new.

Axes: B windows, L pieces, U units, M (picture, window) links.
"""

from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedTokenizerFast

from ulsdram_core.batch import Batch


@dataclass(frozen=True)
class Hiding:
    """Hides shares of a batch's pictures and units."""

    pictures: float = 0.0
    units: float = 0.0
    blank: int = 0
    """The piece that takes the place of every piece of a hidden unit."""
    special: tuple[int, ...] = ()
    """Pieces that belong to no unit."""

    @classmethod
    def of(cls, pictures: float, units: float, tokenizer: PreTrainedTokenizerFast) -> "Hiding":
        """Hide units behind the tokenizer's mask, or its unknown piece where it has none."""
        blank = tokenizer.mask_token_id
        if blank is None:
            blank = tokenizer.unk_token_id
        return cls(pictures, units, int(blank or 0), tuple(tokenizer.all_special_ids))

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch with what `generator` draws hidden; gold stays."""
        if self.pictures and len(batch.picture_M):
            drawn_M = torch.rand(len(batch.picture_M), generator=generator)
            batch = batch.without_pictures(drawn_M < self.pictures)
        if self.units and batch.unit_mask_BU.any():
            batch = self._without_units(batch, generator)
        return batch

    def _without_units(self, batch: Batch, generator: torch.Generator) -> Batch:
        windows, pieces = batch.piece_ids_BL.shape
        mask_BU, unit_piece_BU = batch.unit_mask_BU, batch.unit_piece_BU
        hidden_BU = torch.rand(mask_BU.shape, generator=generator) < self.units
        # A unit reaches from its first piece to the next unit's.
        starts_BL = torch.zeros(windows, pieces + 1, dtype=torch.long)
        starts_BL.scatter_(1, torch.where(mask_BU, unit_piece_BU, pieces), 1)
        unit_BL = starts_BL[:, :pieces].cumsum(1) - 1
        is_special_BL = torch.isin(batch.piece_ids_BL, torch.tensor(self.special))
        hidden_BL = hidden_BU.gather(1, unit_BL.clamp(min=0)) & (unit_BL >= 0) & ~is_special_BL
        ids_BL = torch.where(hidden_BL, self.blank, batch.piece_ids_BL)
        return replace(batch, piece_ids_BL=ids_BL)
