"""A text encoder without attention: piece embeddings and a BiLSTM, as RNN systems have it.

Axes: B windows, L pieces, E embedding width, H hidden (both directions together).
"""

import torch
from torch import Tensor, nn

from ulsdram_core.encoders.bilstm import BiLstm
from ulsdram_core.encoders.pair_projection import PairProjection


def final_states(states_BLH: Tensor, mask_BL: Tensor) -> Tensor:
    """Return [forward state of the last piece ; backward state of the first piece], [B, H]."""
    half = states_BLH.shape[-1] // 2
    last_B = mask_BL.sum(1).clamp(min=1) - 1
    rows = torch.arange(len(states_BLH), device=states_BLH.device)
    return torch.cat([states_BLH[rows, last_B, :half], states_BLH[:, 0, half:]], dim=-1)


class StackedBiLstm(nn.Module):
    """One BiLSTM over encoded pieces; half of the outputs per direction."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        if hidden % 2:
            raise ValueError(f"hidden is {hidden}, expected an even size: half per direction")
        self.lstm = BiLstm(width, hidden // 2)

    def forward(self, x_BLE: Tensor, mask_BL: Tensor) -> Tensor:
        """Return states [B, L, H]; zeros at padding."""
        gates_BLG = nn.functional.linear(x_BLE, self.lstm.weight_input, self.lstm.bias)
        return self.lstm(PairProjection.of(gates_BLG), mask_BL.sum(1)).to(x_BLE.dtype)


class RecurrentEncoder(nn.Module):
    """Piece embeddings read by a BiLSTM; has the interface of `TextEncoder`."""

    num_piece_types = 1
    max_pieces = 2**20  # it has no positions to run out of

    def __init__(
        self, vocab_size: int, width: int, hidden: int, *, layers: int = 1, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(vocab_size, width)
        self.dropout = nn.Dropout(dropout)
        sizes = [width, *[hidden] * (layers - 1)]
        self.layers = nn.ModuleList(StackedBiLstm(size, hidden) for size in sizes)
        self.hidden = hidden

    @property
    def vocab_size(self) -> int:
        """Number of pieces that have an embedding."""
        return self.embeddings.num_embeddings

    def embed(self, piece_ids_BL: Tensor, piece_types_BL: Tensor) -> Tensor:
        """Return piece embeddings [B, L, E]; types are not told apart."""
        del piece_types_BL
        return self.embeddings(piece_ids_BL)

    def forward(self, embedded_BLE: Tensor, mask_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last layer's states twice: an RNN has no layer before worth reading."""
        states = self.dropout(embedded_BLE)
        for layer in self.layers:
            states = self.dropout(layer(states, mask_BL))
        return states, states

    def sentence(self, states_BLH: Tensor, mask_BL: Tensor) -> Tensor:
        """Return each text's vector: what both directions know at their ends, [B, H]."""
        return final_states(states_BLH, mask_BL)
