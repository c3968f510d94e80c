"""Sums over every tag sequence of a linear-chain CRF, in probability space.

A sequence is extended by one state, `pad`: it starts in pad, passes through its tags and falls
back into pad for good. Start and end scores are then ordinary transitions, sequences of different
lengths step together without any masking, and the sum over all paths ends up in one cell.

Everything is float64, whatever the emissions: with few tags a step is dominated by call overhead,
so it costs little, and its range makes a renormalisation necessary only now and then.
"""

# S positions, L = S + 1 steps, T tags, K = T + 1 states (the last one is pad), B sequences

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# A chain may lose e^-200 before it is renormalised. Two chains and one step more multiply to
# e^-600, which float64 (e^-708) still holds. A tag that underflows is then at least e^-300 below
# the best one, of which transitions within this range can win back no more than e^200.
MAX_LOG_RANGE = 200.0
# Up to here one product is a few element-wise calls: 9 us instead of a matrix product's 7 (K = 4,
# B = 1000), but a matrix product starts threads, and then takes 40 us or more if a core is busy.
MAX_UNROLLED_STATES = 6


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """A CRF's start [T], end [T] and transition [T, T] scores, in log space."""

    start_T: Tensor
    end_T: Tensor
    transitions_TT: Tensor

    def log_range(self) -> float:
        """Return the widest spread within one of the three; NaN or inf if a score is."""
        parts = (self.start_T.detach(), self.end_T.detach(), self.transitions_TT.detach())
        return float(torch.stack([part.max() - part.min() for part in parts]).max())

    def joined(self) -> Tensor:
        """Return [K, K] float64, each of the three shifted to a maximum of 0; pad to pad is 0."""
        num_tags = self.start_T.numel()
        log_weight_KK = self.start_T.new_zeros((num_tags + 1, num_tags + 1), dtype=torch.float64)
        log_weight_KK[:num_tags, :num_tags] = self.transitions_TT - self.transitions_TT.max()
        log_weight_KK[num_tags, :num_tags] = self.start_T - self.start_T.max()
        log_weight_KK[:num_tags, num_tags] = self.end_T - self.end_T.max()
        return log_weight_KK


@dataclass(frozen=True, slots=True, eq=False)
class Potentials:
    """What the chains multiply, shifted in log space so that no factor is above 1.

    The shifts move every path of a sequence alike, so they cancel in all probabilities.
    """

    log_step_LKB: Tensor  # emissions less their position's best; -inf where a state cannot be
    log_weight_KK: Tensor  # transitions, with start and end as those out of and into pad
    renormalise_every: int


@dataclass(frozen=True, slots=True, eq=False)
class Messages:
    """One direction's sums up to and including each step, divided by e^log_scale."""

    sums_LKB: Tensor
    log_scale: Sequence[Tensor]  # L x [B]


def build_potentials(
    emissions_SBT: Tensor, mask_SB: Tensor | None, scores: Scores, log_range: float
) -> Potentials:
    """Shift emissions and scores; mask_SB is True on each sequence's first positions, None: all."""
    length, batch, num_tags = emissions_SBT.shape
    log_step_LKB = emissions_SBT.new_full(
        (length + 1, num_tags + 1, batch), -math.inf, dtype=torch.float64
    )
    log_step_LKB[length, num_tags] = 0.0
    log_tags_STB = log_step_LKB[:length, :num_tags]
    log_tags_STB.copy_(emissions_SBT.permute(0, 2, 1))
    log_tags_STB.sub_(log_tags_STB.amax(1, keepdim=True))
    if mask_SB is not None:
        log_tags_STB.masked_fill_(~mask_SB.unsqueeze(1), -math.inf)
        log_step_LKB[:length, num_tags].masked_fill_(~mask_SB, 0.0)
    every = int(MAX_LOG_RANGE / max(log_range, math.log(num_tags + 1)))
    return Potentials(log_step_LKB, scores.joined(), max(1, every))


def forward_messages(step_LKB: Tensor, weight_KK: Tensor, every: int) -> tuple[Tensor, Messages]:
    """Return sums over everything before each step [L, K, B], and over everything up to it.

    The latter ends with the total, at pad. The former carries the previous step's scale.
    """
    arrivals_LKB = torch.empty_like(step_LKB)
    order = range(len(step_LKB))
    weight_KK = weight_KK.T.contiguous()
    return arrivals_LKB, _run_chain(step_LKB, weight_KK, every, order, arrivals_LKB.unbind(0))


def backward_messages(step_LKB: Tensor, weight_KK: Tensor, every: int) -> Messages:
    """Return sums over everything from each step on."""
    order = range(len(step_LKB) - 1, -1, -1)
    arrivals = [torch.empty_like(step_LKB[0])] * len(order)
    return _run_chain(step_LKB, weight_KK, every, order, arrivals)


def log_total(forward: Messages) -> Tensor:
    """Return [B] the log of the sum over all tag sequences, shifted like the potentials."""
    return forward.sums_LKB[-1, -1].log() + forward.log_scale[-1]


def _run_chain(
    step_LKB: Tensor, weight_KK: Tensor, every: int, order: range, arrivals: Sequence[Tensor]
) -> Messages:
    # Few kernels a step, written where they stay.
    sums_LKB = torch.empty_like(step_LKB)
    steps, sums = step_LKB.unbind(0), sums_LKB.unbind(0)
    state_KB = torch.zeros_like(steps[0])
    state_KB[-1] = 1.0
    log_scale_B = torch.zeros_like(steps[0][0])
    log_scale = [log_scale_B] * len(order)
    columns = weight_KK.unsqueeze(2).unbind(1)
    for number, step in enumerate(order, start=1):
        _advance(columns, weight_KK, state_KB, out_KB=arrivals[step])
        state_KB = torch.mul(arrivals[step], steps[step], out=sums[step])
        if number % every == 0:
            mass_B = state_KB.sum(0)
            state_KB.div_(mass_B)
            log_scale_B = log_scale_B + mass_B.log()
        log_scale[step] = log_scale_B
    return Messages(sums_LKB, log_scale)


def _advance(
    columns: Sequence[Tensor], weight_KK: Tensor, state_KB: Tensor, *, out_KB: Tensor
) -> None:
    """out = weight @ state; the columns of weight are [K, 1]."""
    if len(columns) > MAX_UNROLLED_STATES:
        torch.mm(weight_KK, state_KB, out=out_KB)
        return
    rows = state_KB.unbind(0)
    torch.mul(columns[0], rows[0], out=out_KB)
    for column_K1, row_B in zip(columns[1:], rows[1:], strict=True):
        out_KB.addcmul_(column_K1, row_B)
