"""The steps of a bidirectional LSTM over ragged rows, forward and backward.

Axes: N rows, H hidden size per direction, G = 4H gates of one direction, R rows of a table of
gates, T places: all valid units of all rows in both directions, step by step; within a step the
forward direction comes first.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ulsdram_core.precision import full_precision


@dataclass(frozen=True)
class _Step:
    """The places of one step: `size` rows forward, then the same rows backward."""

    start: int
    size: int

    def of(self, places: Tensor) -> Tensor:
        """Return what belongs to the step, [2, size, ...]."""
        return places[self.start : self.start + 2 * self.size].unflatten(0, (2, self.size))

    def flat(self, places: Tensor) -> Tensor:
        """Return what belongs to the step, [2 * size, ...]."""
        return places[self.start : self.start + 2 * self.size]


def _steps(sizes: list[int]) -> Iterator[_Step]:
    start = 0
    for size in sizes:
        yield _Step(start, size)
        start += 2 * size


@dataclass(frozen=True)
class Places:
    """What is read where."""

    sizes: list[int]
    """Number of rows active at each step."""
    first_T: Tensor
    second_T: Tensor | None
    keep: bool
    """Whether gradients may be asked for."""


class Recurrence(torch.autograd.Function):
    """hidden_TH of gates first[first_T] + scale * second[second_T].

    Step by step the gates of the active rows are put together, moved on and, when extracting,
    forgotten: they stay in cache, where all of them at once would go through memory several times.
    Gradients are those of autograd; the weights' is one product over all steps.
    """

    @staticmethod
    def forward(
        ctx: Any,
        first_RG: Tensor,
        second_RG: Tensor | None,
        scale_T1: Tensor | None,
        weight_2GH: Tensor,
        places: Places,
    ) -> Tensor:
        # The state adds up over a row's units, so bf16 would lose it bit by bit.
        dtype = torch.promote_types(first_RG.dtype, torch.float32)
        width, total, widest = (
            weight_2GH.shape[-1],
            len(places.first_T),
            max(places.sizes, default=0),
        )
        hidden_TH = first_RG.new_empty(total, width, dtype=dtype)
        gates_TG = hidden_TH.new_empty(total if places.keep else 2 * widest, 4 * width)
        cells_TH = hidden_TH.new_empty(total if places.keep else 0, width)
        hidden = cell = hidden_TH.new_zeros(2, widest, width)
        weight_2HG = weight_2GH.mT
        with full_precision(first_RG.device):
            for step in _steps(places.sizes):
                gates = (step if places.keep else _Step(0, step.size)).flat(gates_TG)
                _gather(first_RG, step.flat(places.first_T), gates)
                if second_RG is not None and places.second_T is not None:
                    extra = second_RG.index_select(0, step.flat(places.second_T)).to(dtype)
                    _add_scaled(gates, extra, None if scale_T1 is None else step.flat(scale_T1))
                gates = gates.view(2, step.size, -1)
                if step.start:
                    _add_product(gates, hidden[:, : step.size], weight_2HG)
                enter, forget, candidate, out = gates.split(width, dim=-1)
                gates[..., : 2 * width].sigmoid_()
                out.sigmoid_()
                candidate.tanh_()
                cell = torch.addcmul(enter * candidate, forget, cell[:, : step.size])
                hidden = torch.mul(out, cell.tanh(), out=step.of(hidden_TH))
                if places.keep:
                    step.of(cells_TH).copy_(cell)
        if places.keep:
            ctx.sizes = places.sizes
            saved = (first_RG, second_RG, scale_T1, weight_2GH, places.first_T, places.second_T)
            ctx.save_for_backward(*saved, gates_TG, cells_TH, hidden_TH)
        return hidden_TH

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_TH: Tensor) -> tuple[Tensor | None, ...]:
        first, second, scale_T1, weight_2GH, first_T, second_T, *kept = ctx.saved_tensors
        gates_TG, cells_TH, hidden_TH = kept
        grad_TG = torch.empty_like(gates_TG)
        steps = list(_steps(ctx.sizes))
        with full_precision(grad_TH.device):
            _walk_back(steps, gates_TG, cells_TH, weight_2GH, grad_TH, grad_TG)
            grad_weight = _weight_gradient(steps, grad_TG, hidden_TH, weight_2GH)
            grad_first = _scatter(first, first_T, grad_TG)
            grad_second = grad_scale = None
            if second is not None:
                scaled_TG = grad_TG if scale_T1 is None else grad_TG * scale_T1
                grad_second = _scatter(second, second_T, scaled_TG)
            if scale_T1 is not None:
                parts = [
                    (step.flat(grad_TG) * second.index_select(0, step.flat(second_T))).sum(1, True)
                    for step in steps
                ]
                grad_scale = torch.cat(parts or [scale_T1]).to(scale_T1.dtype)
        return grad_first, grad_second, grad_scale, grad_weight, None


def _walk_back(
    steps: list[_Step],
    gates_TG: Tensor,
    cells_TH: Tensor,
    weight_2GH: Tensor,
    grad_TH: Tensor,
    grad_TG: Tensor,
) -> None:
    """Fill in the gradient of the gates before their sigmoids and tanh, last step first."""
    width = weight_2GH.shape[-1]
    later_hidden = later_cell = grad_TH.new_zeros(2, 0, width)
    for place in reversed(range(len(steps))):
        step = steps[place]
        enter, forget, candidate, out = step.of(gates_TG).split(width, dim=-1)
        grad_hidden = step.of(grad_TH).clone()
        grad_hidden[:, : later_hidden.shape[1]] += later_hidden
        squashed = step.of(cells_TH).tanh()
        grad_cell = grad_hidden * out * (1 - squashed * squashed)
        grad_cell[:, : later_cell.shape[1]] += later_cell
        grad = step.of(grad_TG)
        torch.mul(grad_cell * candidate, enter * (1 - enter), out=grad[..., :width])
        forgotten = grad[..., width : 2 * width]
        if place:
            before = steps[place - 1].of(cells_TH)[:, : step.size]
            torch.mul(grad_cell * before, forget * (1 - forget), out=forgotten)
        else:
            forgotten.zero_()
        torch.mul(grad_cell * enter, 1 - candidate * candidate, out=grad[..., 2 * width : -width])
        torch.mul(grad_hidden * squashed, out * (1 - out), out=grad[..., -width:])
        later_cell = grad_cell * forget
        if place:
            later_hidden = torch.bmm(grad.to(weight_2GH.dtype), weight_2GH)


def _weight_gradient(
    steps: list[_Step], grad_TG: Tensor, hidden_TH: Tensor, weight_2GH: Tensor
) -> Tensor:
    """Return the gradient of what multiplies the hidden states: one product per direction."""
    if len(steps) < 2:
        return torch.zeros_like(weight_2GH)
    gradients = []
    for direction in (0, 1):
        grads = torch.cat([step.of(grad_TG)[direction] for step in steps[1:]])
        states = [
            before.of(hidden_TH)[direction, : step.size]
            for before, step in itertools.pairwise(steps)
        ]
        gradients.append(grads.to(weight_2GH.dtype).mT @ torch.cat(states).to(weight_2GH.dtype))
    return torch.stack(gradients)


def _add_scaled(gates: Tensor, extra: Tensor, scale: Tensor | None) -> None:
    if scale is None:
        gates += extra
    else:
        gates.addcmul_(extra, scale)


def _gather(table_RG: Tensor, places: Tensor, out: Tensor) -> None:
    if table_RG.dtype == out.dtype:
        torch.index_select(table_RG, 0, places, out=out)
    else:
        out.copy_(table_RG.index_select(0, places))


def _scatter(table_RG: Tensor, places_T: Tensor, grad_TG: Tensor) -> Tensor:
    """Return the table's gradient; the same sum in the same order in every run."""
    grad_RG = torch.zeros_like(table_RG)
    if table_RG.is_cuda:  # index_add_ adds there in whatever order threads arrive
        return grad_RG.index_put_((places_T,), grad_TG.to(table_RG.dtype), accumulate=True)
    return grad_RG.index_add_(0, places_T, grad_TG.to(table_RG.dtype))


def _add_product(gates: Tensor, hidden: Tensor, weight_2HG: Tensor) -> None:
    if weight_2HG.dtype == gates.dtype:
        gates.baddbmm_(hidden, weight_2HG)
    else:
        gates += torch.bmm(hidden.to(weight_2HG.dtype), weight_2HG)
