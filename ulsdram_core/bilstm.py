"""A bidirectional LSTM over ragged rows whose input projection is made by the caller.

Axes: N rows, U units, T tokens (all valid units of all rows), H hidden size per direction.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class RaggedOrder:
    """Time-major order of the valid units of right-padded rows, longest row first."""

    sizes: list[int]
    """Number of rows still active at each step."""
    forward_row: Tensor
    """[T] row of each token, reading each row from its first unit."""
    forward_unit: Tensor
    """[T] unit of each token, reading each row from its first unit."""
    backward_unit: Tensor
    """[T] unit of each token, reading each row from its last unit."""

    @classmethod
    def of(cls, lengths_N: Tensor, num_units: int) -> "RaggedOrder":
        """Order rows of the given lengths, each at most `num_units`."""
        order = torch.argsort(lengths_N, descending=True, stable=True)
        sorted_lengths = lengths_N[order]
        steps = torch.arange(num_units, device=lengths_N.device)
        active_UN = steps[:, None] < sorted_lengths[None, :]
        step_T, place_T = active_UN.nonzero(as_tuple=True)
        last = sorted_lengths[place_T] - 1
        sizes = active_UN.sum(1).tolist()
        return cls([n for n in sizes if n], order[place_T], step_T, last - step_T)


class BiLstm(nn.Module):
    """LSTM in both directions; `forward` takes gate pre-activations, not inputs.

    The projection W x is left to the caller because pairs of one product share most of it
    (see `PairFeatures.project`). Same gate order and initialisation as `nn.LSTM`.
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

    def forward(self, gates_NUG: Tensor, lengths_N: Tensor) -> Tensor:
        """Return [N, U, 2H] hidden states; zeros at padded units.

        gates_NUG: [N, U, 8H], pre-activations of the forward then the backward direction.
        """
        order = RaggedOrder.of(lengths_N, gates_NUG.shape[1])
        half = 4 * self.hidden
        rows = order.forward_row
        gates_2TG = torch.stack(
            [
                gates_NUG[..., :half][rows, order.forward_unit],
                gates_NUG[..., half:][rows, order.backward_unit],
            ]
        )
        hidden_2TH = self._recur(gates_2TG, order.sizes)
        states = hidden_2TH.new_zeros(*gates_NUG.shape[:2], 2, self.hidden)
        first = states[:, :, 0].index_put((rows, order.forward_unit), hidden_2TH[0])
        second = states[:, :, 1].index_put((rows, order.backward_unit), hidden_2TH[1])
        return torch.cat([first, second], dim=-1)

    def _recur(self, gates_2TG: Tensor, sizes: list[int]) -> Tensor:
        # The state adds up over a row's units, so bf16 would lose it bit by bit.
        dtype = torch.promote_types(gates_2TG.dtype, torch.float32)
        rows = sizes[0] if sizes else 0
        hidden = cell = gates_2TG.new_zeros(2, rows, self.hidden, dtype=dtype)
        weight = self.weight_hidden.mT
        outputs, start = [], 0
        for size in sizes:  # both directions advance in one batched product per step
            gates = gates_2TG[:, start : start + size]
            if start:
                gates = torch.baddbmm(gates.to(dtype), hidden[:, :size], weight)
            enter, forget, candidate, output = gates.chunk(4, dim=-1)
            fresh = torch.sigmoid(enter) * torch.tanh(candidate)
            cell = torch.sigmoid(forget) * cell[:, :size] + fresh
            hidden = torch.sigmoid(output) * torch.tanh(cell)
            outputs.append(hidden)
            start += size
        return torch.cat(outputs, dim=1) if outputs else gates_2TG[..., : self.hidden]
