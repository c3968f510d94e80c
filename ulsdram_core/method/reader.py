"""What stands between encoder and tagger: a second look at the text, as each older system has it.

Axes: B windows, L pieces, K pieces looked at, H hidden, D inner size, F features of a piece.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ulsdram_core.encoders.recurrent_encoder import StackedBiLstm
from ulsdram_core.method.regions import PictureRegions


@dataclass(frozen=True)
class Reading:
    """What a reader makes of the encoded text."""

    pieces_BLF: Tensor
    sentence_BF: Tensor
    """One vector per window for the attribute head."""


class Reader(nn.Module):
    """No second look: tagger and head read what the encoder gives."""

    def __init__(self, width: int, sentence_width: int | None = None) -> None:
        super().__init__()
        self.width = width
        """Size of a piece's features."""
        self.sentence_width = sentence_width or width

    def forward(
        self, encoded_BLH: Tensor, mask_BL: Tensor, sentence_BH: Tensor, pictures: PictureRegions
    ) -> Reading:
        """Read the encoded text; `sentence_BH` is the encoder's own vector of it."""
        del mask_BL, pictures
        return Reading(encoded_BLH, sentence_BH)

    def condition(self, reading: Reading, logits_BC: Tensor | None) -> Tensor:
        """Return the tagger's features [B, L, F], which may depend on the attribute scores."""
        del logits_BC
        return reading.pieces_BLF


class BiLstmReader(Reader):
    """A BiLSTM over the encoded text (SUOpenTag)."""

    def __init__(self, hidden: int) -> None:
        super().__init__(hidden)
        self.states = StackedBiLstm(hidden, hidden)

    def forward(
        self, encoded_BLH: Tensor, mask_BL: Tensor, sentence_BH: Tensor, pictures: PictureRegions
    ) -> Reading:
        """Return the BiLSTM's states."""
        del pictures
        return Reading(self.states(encoded_BLH, mask_BL), sentence_BH)


class PieceScores(nn.Module):
    """Additive attention scores between pieces: v . act(W x_i + U x_j + b)."""

    def __init__(self, hidden: int, dim: int, activation: nn.Module) -> None:
        super().__init__()
        self.query = nn.Linear(hidden, dim)
        self.key = nn.Linear(hidden, dim, bias=False)
        self.score = nn.Linear(dim, 1)
        self.activation = activation

    def forward(self, query_BLH: Tensor, key_BKH: Tensor) -> Tensor:
        """Return [B, L, K]."""
        inner = self.query(query_BLH)[:, :, None] + self.key(key_BKH)[:, None]
        return self.score(self.activation(inner))[..., 0]


def softmax_mix(scores_BLK: Tensor, values_BKH: Tensor, mask_BK: Tensor) -> Tensor:
    """Return the values' mean, weighted by a softmax over unmasked pieces, [B, L, H]."""
    scores = scores_BLK.float().masked_fill(~mask_BK[:, None], float("-inf"))
    return torch.softmax(scores, dim=-1).to(values_BKH.dtype) @ values_BKH


class OpenTagReader(Reader):
    """OpenTag's attention: l_t = sum_t' sigmoid(w . tanh(W h_t + W' h_t' + b) + b') h_t'."""

    def __init__(self, hidden: int, dim: int) -> None:
        super().__init__(hidden)
        self.scores = PieceScores(hidden, dim, nn.Tanh())

    def forward(
        self, encoded_BLH: Tensor, mask_BL: Tensor, sentence_BH: Tensor, pictures: PictureRegions
    ) -> Reading:
        """Return each piece's weighted sum over the text."""
        del pictures
        weights_BLL = torch.sigmoid(self.scores(encoded_BLH, encoded_BLH)) * mask_BL[:, None]
        return Reading(weights_BLL @ encoded_BLH, sentence_BH)


class AlignedReader(Reader):
    """Attn-BiRNN: each state beside what it attends to; the attributes read an attended mean."""

    def __init__(self, hidden: int, dim: int) -> None:
        super().__init__(2 * hidden, hidden)
        self.scores = PieceScores(hidden, dim, nn.Tanh())
        self.pool = nn.Sequential(nn.Linear(hidden, dim), nn.Tanh(), nn.Linear(dim, 1))

    def forward(
        self, encoded_BLH: Tensor, mask_BL: Tensor, sentence_BH: Tensor, pictures: PictureRegions
    ) -> Reading:
        """Return [h_i ; c_i] and the pooled vector."""
        del sentence_BH, pictures
        context = softmax_mix(self.scores(encoded_BLH, encoded_BLH), encoded_BLH, mask_BL)
        pooled = softmax_mix(self.pool(encoded_BLH).mT, encoded_BLH, mask_BL)
        return Reading(torch.cat([encoded_BLH, context], dim=-1), pooled[:, 0])


class SlotGateReader(Reader):
    """Slot-Gated: g = sum v tanh(c_i + W c_I) decides how much of its context a piece adds.

    Pieces give h_i + g_i c_i, the attributes read s + c_I, where s is the encoder's own vector.
    """

    def __init__(self, hidden: int, dim: int) -> None:
        super().__init__(hidden)
        self.slot_scores = PieceScores(hidden, dim, nn.Sigmoid())
        self.intent_scores = PieceScores(hidden, dim, nn.Sigmoid())
        self.intent = nn.Linear(hidden, hidden, bias=False)
        self.gate = nn.Linear(hidden, 1, bias=False)

    def forward(
        self, encoded_BLH: Tensor, mask_BL: Tensor, sentence_BH: Tensor, pictures: PictureRegions
    ) -> Reading:
        """Return the gated pieces and the intent's vector."""
        del pictures
        slot = softmax_mix(self.slot_scores(encoded_BLH, encoded_BLH), encoded_BLH, mask_BL)
        asked = sentence_BH[:, None]
        intent = softmax_mix(self.intent_scores(asked, encoded_BLH), encoded_BLH, mask_BL)
        gate_BL1 = self.gate(torch.tanh(slot + self.intent(intent)))
        return Reading(encoded_BLH + gate_BL1 * slot, sentence_BH + intent[:, 0])
