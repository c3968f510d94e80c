"""A bidirectional LSTM over ragged rows whose input projection is made by the caller.

Axes: N rows, U units, H hidden size per direction, G = 4H gates of one direction, R rows of a table
of gates, T places: all valid units of all rows in both directions, step by step; within a step the
forward direction comes first.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ulsdram_core.encoders.pair_projection import PairProjection
from ulsdram_core.encoders.recurrence import Places, Recurrence


@dataclass(frozen=True)
class RaggedOrder:
    """Step by step order of the valid units of right-padded rows, longest row first."""

    sizes: list[int]
    """Number of rows still active at each step."""
    row_T: Tensor
    unit_T: Tensor
    """At step s forward reads a row's unit s, backward the unit as far from the row's end."""
    direction_T: Tensor
    """0 forward, 1 backward."""

    @classmethod
    def of(cls, lengths_N: Tensor, num_units: int) -> "RaggedOrder":
        """Order rows of the given lengths, each at most `num_units`."""
        order = torch.argsort(lengths_N, descending=True, stable=True)
        sorted_lengths = lengths_N[order]
        steps = torch.arange(num_units, device=lengths_N.device)
        active_UN = steps[:, None] < sorted_lengths[None, :]
        both_U2N = active_UN[:, None].expand(-1, 2, -1)
        step_T, direction_T, place_T = both_U2N.nonzero(as_tuple=True)
        unit_T = torch.where(direction_T == 0, step_T, sorted_lengths[place_T] - 1 - step_T)
        sizes = active_UN.sum(1).tolist()
        return cls([n for n in sizes if n], order[place_T], unit_T, direction_T)

    def places(self, row_N: Tensor, num_units: int) -> Tensor:
        """Return where each place reads a table [row, unit, direction] with `num_units` units."""
        unit_T = self.unit_T.clamp(max=num_units - 1)
        return (row_N[self.row_T] * num_units + unit_T) * 2 + self.direction_T


class BiLstm(nn.Module):
    """LSTM in both directions; `forward` takes gate pre-activations, not inputs.

    The projection W x is left to the caller because pairs of one product share most of it
    (see `PairFeatures.projection`). Same gate order and initialisation as `nn.LSTM`.
    """

    def __init__(self, input_size: int, hidden: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(hidden)
        self.hidden = hidden
        self.weight_input = nn.Parameter(torch.empty(8 * hidden, input_size))
        self.weight_hidden = nn.Parameter(torch.empty(2, 4 * hidden, hidden))
        self.bias = nn.Parameter(torch.empty(8 * hidden))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, gates: PairProjection, lengths_N: Tensor) -> Tensor:
        """Return [N, U, 2H] hidden states; zeros at padded units.

        gates: pre-activations of the forward then the backward direction, 8H numbers a unit.
        """
        num_rows, num_units = len(lengths_N), gates.first_BUK.shape[1]
        order = RaggedOrder.of(lengths_N, num_units)
        first_RG, second_RG, second_T, scale_T1 = self._table(gates.first_BUK), None, None, None
        if gates.second_SVK is not None:
            assert gates.row_N is not None
            second_RG = self._table(gates.second_SVK)
            second_T = order.places(gates.row_N, gates.second_SVK.shape[1])
        if gates.scale_NU is not None:
            scale_T1 = gates.scale_NU[order.row_T, order.unit_T, None]
        places = Places(
            order.sizes,
            order.places(gates.window_N, num_units),
            second_T,
            keep=torch.is_grad_enabled(),
        )
        weight = self.weight_hidden.to(first_RG.dtype)
        hidden_TH: Tensor = Recurrence.apply(first_RG, second_RG, scale_T1, weight, places)
        states = hidden_TH.new_zeros(2 * num_rows * num_units, self.hidden)
        every = torch.arange(num_rows, device=lengths_N.device)
        states = states.index_copy(0, order.places(every, num_units), hidden_TH)
        return states.view(num_rows, num_units, 2 * self.hidden)

    def _table(self, gates: Tensor) -> Tensor:
        return gates.reshape(-1, 4 * self.hidden)
