"""The linear-chain CRF: pytorch-crf's module with batched decoding and exact gradients.

Log-likelihood and span probabilities come from the sums in `lattice.py`; gradients are
posteriors, not a replay of the recursion. What those sums do not cover - masks with gaps, and
scores spread over more than `MAX_LOG_RANGE` - is left to pytorch-crf's own arithmetic.
"""

# S positions, L = S + 1 steps, T tags, K = T + 1 states (the last one is pad), B sequences, N spans

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torchcrf
from torch import Tensor
from torch.autograd.function import once_differentiable

from ulsdram_core.method.lattice import (
    MAX_LOG_RANGE,
    Potentials,
    Scores,
    backward_messages,
    build_potentials,
    forward_messages,
    log_total,
)

REDUCTIONS = ("none", "sum", "mean", "token_mean")
# Elements of one [T, T, B] table of Viterbi candidates: a CPU wants it in its cache, a GPU filled.
MAX_CANDIDATES_CPU = 2**20
MAX_CANDIDATES_GPU = 2**26
# Stands for -inf in running sums, where -inf less -inf would be NaN.
LOG_NEVER = -1e6


@dataclass(frozen=True, slots=True, eq=False)
class TagSpans:
    """Spans whose probability is asked for: five int64 tensors [N], positions half-open."""

    sequence: Tensor
    start: Tensor
    end: Tensor
    begin_tag: Tensor
    inside_tag: Tensor


class CRF(torchcrf.CRF):
    """A drop-in `torchcrf.CRF`: same parameters, `forward`, `decode` and errors.

    Masks are True on the valid positions. What comes back is [B, ...], with or without
    `batch_first`.
    """

    def forward(
        self,
        emissions: Tensor,
        tags: Tensor,
        mask: Tensor | None = None,
        reduction: str = "sum",
    ) -> Tensor:
        """Return the log-likelihood of `tags`: [B] if reduction is none, else a scalar; >= float32.

        It can be differentiated once. Padding may hold anything, in emissions and in tags.
        """
        self._validate(emissions, tags=tags, mask=mask)
        if reduction not in REDUCTIONS:
            raise ValueError(f"invalid reduction: {reduction}")
        emissions_SBT, mask_SB = self._positions_first(emissions, mask)
        tags_SB = tags.transpose(0, 1) if self.batch_first else tags
        scores = self._scores()
        log_range = scores.log_range()
        if log_range <= MAX_LOG_RANGE and not _has_gaps(mask_SB):
            llh_B = _LogLikelihood.apply(
                emissions_SBT,
                scores.start_T,
                scores.end_T,
                scores.transitions_TT,
                _Given(tags_SB, mask_SB, log_range),
            )
        else:
            full_SB = torch.ones_like(tags_SB, dtype=torch.bool) if mask_SB is None else mask_SB
            score_B = self._compute_score(emissions_SBT, tags_SB, full_SB)
            llh_B = score_B - self._compute_normalizer(emissions_SBT, full_SB)
        return _reduce(llh_B, mask_SB, reduction, tags_SB.numel())

    @torch.no_grad()
    def decode(self, emissions: Tensor, mask: Tensor | None = None) -> list[list[int]]:
        """Return the best tag sequence of each sample, as lists without padding."""
        self._validate(emissions, mask=mask)
        emissions_SBT, mask_SB = self._positions_first(emissions, mask)
        if mask_SB is None:
            return self._best_tags(emissions_SBT, None).T.tolist()
        if _has_gaps(mask_SB):
            return self._viterbi_decode(emissions_SBT, mask_SB)
        tags_SB = self._best_tags(emissions_SBT, mask_SB)
        rows = torch.cat([mask_SB.sum(0, keepdim=True), tags_SB]).T.tolist()
        return [row[1 : row[0] + 1] for row in rows]

    @torch.no_grad()
    def viterbi(self, emissions: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return [B, S] int64: the best tag sequences, 0 at padding; stays on the device."""
        emissions_SBT, mask_SB = self._right_padded(emissions, mask)
        return self._best_tags(emissions_SBT, mask_SB).T

    @torch.no_grad()
    def span_log_prob(
        self, emissions: Tensor, spans: TagSpans, mask: Tensor | None = None
    ) -> Tensor:
        """Return [N] log P(begin_tag at start, inside_tag up to end, no inside_tag at end).

        That is the probability of exactly this span, whatever is tagged elsewhere. Float64.
        """
        emissions_SBT, mask_SB = self._right_padded(emissions, mask)
        _check_spans(spans, emissions_SBT, mask_SB)
        scores = self._scores()
        log_range = scores.log_range()
        if not log_range <= MAX_LOG_RANGE:
            return self._constrained_log_prob(emissions_SBT, mask_SB, spans)
        potentials = build_potentials(emissions_SBT, mask_SB, scores, log_range)
        return _span_log_prob(potentials, spans)

    def _scores(self) -> Scores:
        return Scores(self.start_transitions, self.end_transitions, self.transitions)

    def _positions_first(
        self, emissions: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        emissions = emissions.to(torch.promote_types(emissions.dtype, torch.float32))
        mask = None if mask is None else mask.bool()
        if not self.batch_first:
            return emissions, mask
        return emissions.transpose(0, 1), None if mask is None else mask.transpose(0, 1)

    def _right_padded(self, emissions: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        self._validate(emissions, mask=mask)
        emissions_SBT, mask_SB = self._positions_first(emissions, mask)
        if _has_gaps(mask_SB):
            raise ValueError(
                "mask has gaps, expected valid positions first; move the padding to the end"
            )
        return emissions_SBT, mask_SB

    def _best_tags(self, emissions_SBT: Tensor, mask_SB: Tensor | None) -> Tensor:
        """Return [S, B] int64; as many sequences at once as the table of candidates allows."""
        is_cpu = emissions_SBT.device.type == "cpu"
        limit = MAX_CANDIDATES_CPU if is_cpu else MAX_CANDIDATES_GPU
        size = max(1, limit // self.num_tags**2)
        chunks = emissions_SBT.split(size, dim=1)
        masks = [None] * len(chunks) if mask_SB is None else mask_SB.split(size, dim=1)
        paths = [
            _viterbi(part, self._scores(), part_mask)
            for part, part_mask in zip(chunks, masks, strict=True)
        ]
        return torch.cat(paths, dim=1)

    def _constrained_log_prob(
        self, emissions_SBT: Tensor, mask_SB: Tensor | None, spans: TagSpans
    ) -> Tensor:
        # One sequence per span, with the other tags forbidden: slow, and right for any scores.
        wide_SBT = emissions_SBT.double()
        full_SB = _full(wide_SBT) if mask_SB is None else mask_SB
        position_S1 = torch.arange(len(wide_SBT), device=wide_SBT.device).unsqueeze(1)
        tag_T = torch.arange(self.num_tags, device=wide_SBT.device)
        is_inside_NT = tag_T == spans.inside_tag.unsqueeze(1)
        is_begin_NT = tag_T == spans.begin_tag.unsqueeze(1)
        at_start = (position_S1 == spans.start).unsqueeze(2)
        within = ((position_S1 > spans.start) & (position_S1 < spans.end)).unsqueeze(2)
        at_end = (position_S1 == spans.end).unsqueeze(2)
        forbidden = (at_start & ~is_begin_NT) | (within & ~is_inside_NT) | (at_end & is_inside_NT)
        only_SNT = wide_SBT[:, spans.sequence].masked_fill(forbidden, -math.inf)
        total_B = self._compute_normalizer(wide_SBT, full_SB)
        return (
            self._compute_normalizer(only_SNT, full_SB[:, spans.sequence]) - total_B[spans.sequence]
        )


class _Given(NamedTuple):
    tags_SB: Tensor
    mask_SB: Tensor | None
    log_range: float


class _LogLikelihood(torch.autograd.Function):
    """[B] log-likelihoods; the gradient is what the tags do less what the model expects."""

    @staticmethod
    def forward(
        ctx: Any,
        emissions_SBT: Tensor,
        start_T: Tensor,
        end_T: Tensor,
        transitions_TT: Tensor,
        given: _Given,
    ) -> Tensor:
        scores = Scores(start_T, end_T, transitions_TT)
        potentials = build_potentials(emissions_SBT, given.mask_SB, scores, given.log_range)
        states_LB, moves_LB = _as_path(given, emissions_SBT.shape[2])
        score_B = potentials.log_weight_KK.flatten()[moves_LB].sum(0)
        score_B += _emission_scores(potentials.log_step_LKB[:-1, :-1], given)
        step_LKB, weight_KK = potentials.log_step_LKB.exp_(), potentials.log_weight_KK.exp()
        arrivals_LKB, forward = forward_messages(step_LKB, weight_KK, potentials.renormalise_every)
        ctx.save_for_backward(
            emissions_SBT, start_T, states_LB, moves_LB, step_LKB, weight_KK,
            arrivals_LKB, forward.sums_LKB,
        )  # fmt: skip
        ctx.renormalise_every = potentials.renormalise_every
        dtype = torch.promote_types(emissions_SBT.dtype, start_T.dtype)
        return (score_B - log_total(forward)).to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_B: Tensor) -> tuple[Tensor | None, ...]:
        (
            emissions_SBT, start_T, states_LB, moves_LB, step_LKB, weight_KK, arrivals_LKB, sums_LKB
        ) = ctx.saved_tensors  # fmt: skip
        grad_B = grad_B.double()
        onward_LKB = backward_messages(step_LKB, weight_KK, ctx.renormalise_every).sums_LKB
        posterior_LKB = arrivals_LKB * onward_LKB
        share_L1B = grad_B / posterior_LKB.sum(1, keepdim=True)
        onward_LKB.mul_(share_L1B)
        moves_KK = torch.zeros_like(weight_KK)
        moves_KK.view(-1).index_add_(0, moves_LB.flatten(), grad_B.expand_as(moves_LB).flatten())
        moves_KK[-1] -= weight_KK[-1] * onward_LKB[0].sum(1)
        moves_KK -= weight_KK * torch.bmm(sums_LKB[:-1], onward_LKB[1:].mT).sum(0)
        grad_SBT = None
        if ctx.needs_input_grad[0]:
            posterior_LKB.mul_(share_L1B).neg_()
            tagged_L1B = grad_B.expand_as(states_LB).unsqueeze(1)
            posterior_LKB.scatter_add_(1, states_LB.unsqueeze(1), tagged_L1B)
            grad_SBT = torch.empty_like(emissions_SBT)
            grad_SBT.copy_(posterior_LKB[:-1, :-1].permute(0, 2, 1))
        moves_KK = moves_KK.to(start_T.dtype)
        return grad_SBT, moves_KK[-1, :-1], moves_KK[:-1, -1], moves_KK[:-1, :-1], None


def _as_path(given: _Given, num_tags: int) -> tuple[Tensor, Tensor]:
    """Return the tags as states [L, B], pad after the end, and each move as a flat [K, K] index."""
    tags_SB, mask_SB, _ = given
    states_LB = tags_SB.new_full((len(tags_SB) + 1, tags_SB.shape[1]), num_tags)
    states_LB[:-1] = tags_SB if mask_SB is None else tags_SB.where(mask_SB, num_tags)
    moves_LB = states_LB + num_tags * (num_tags + 1)
    moves_LB[1:] = states_LB[1:] + states_LB[:-1] * (num_tags + 1)
    return states_LB, moves_LB


def _emission_scores(log_step_STB: Tensor, given: _Given) -> Tensor:
    # Without the pad state, so that a tag beyond the tag set is out of bounds.
    if given.mask_SB is None:
        return log_step_STB.gather(1, given.tags_SB.unsqueeze(1)).sum((0, 1))
    tags_S1B = given.tags_SB.where(given.mask_SB, 0).unsqueeze(1)
    return log_step_STB.gather(1, tags_S1B).squeeze(1).where(given.mask_SB, 0.0).sum(0)


def _span_log_prob(potentials: Potentials, spans: TagSpans) -> Tensor:
    log_step_LKB, log_weight_KK = potentials.log_step_LKB, potentials.log_weight_KK
    sequence, start, end, begin, inside = (
        spans.sequence, spans.start, spans.end, spans.begin_tag, spans.inside_tag
    )  # fmt: skip
    step_LKB, weight_KK = log_step_LKB.exp(), log_weight_KK.exp()
    arrivals_LKB, forward = forward_messages(step_LKB, weight_KK, potentials.renormalise_every)
    backward = backward_messages(step_LKB, weight_KK, potentials.renormalise_every)
    # Row 0: nothing is divided out before the first step.
    scale_LB = torch.stack([torch.zeros_like(forward.log_scale[0]), *forward.log_scale])
    log_prob_N = arrivals_LKB[start, begin, sequence].log() + scale_LB[start, sequence]
    log_prob_N += log_step_LKB[start, begin, sequence]
    running_LKB = log_step_LKB.clamp(min=LOG_NEVER).cumsum(0)
    log_prob_N += running_LKB[end - 1, inside, sequence] - running_LKB[start, inside, sequence]
    inner_N = log_weight_KK[begin, inside] + log_weight_KK[inside, inside] * (end - start - 2)
    is_single = end - start == 1
    log_prob_N += inner_N.masked_fill(is_single, 0.0)
    leave_NK = weight_KK[begin.where(is_single, inside)]
    leave_NK = leave_NK.scatter(1, inside.unsqueeze(1), 0.0)
    log_prob_N += (leave_NK * backward.sums_LKB[end, :, sequence]).sum(1).log()
    log_prob_N += torch.stack(list(backward.log_scale))[end, sequence]
    return (log_prob_N - log_total(forward)[sequence]).clamp(max=0.0)


def _viterbi(emissions_SBT: Tensor, scores: Scores, mask_SB: Tensor | None) -> Tensor:
    """Return [S, B] best tags; adds in pytorch-crf's order, so that ties fall the same way."""
    dtype = torch.promote_types(emissions_SBT.dtype, scores.start_T.dtype)
    emissions_STB = emissions_SBT.permute(0, 2, 1).to(dtype).contiguous()
    transitions_TT, end_T = scores.transitions_TT.to(dtype), scores.end_T.to(dtype)
    best_STB = _best_scores(emissions_STB, scores.start_T.to(dtype), transitions_TT)
    length, num_tags, batch = emissions_STB.shape
    last_B = torch.full((batch,), length - 1, device=best_STB.device)
    if mask_SB is not None:
        last_B = mask_SB.sum(0) - 1
    ends_BT = best_STB[last_B, :, torch.arange(batch, device=best_STB.device)] + end_T
    tags_SB = torch.empty((length, batch), dtype=torch.int64, device=best_STB.device)
    tags_SB[-1] = current_B = ends_BT.max(1).indices
    # int32: `amin` of int64 takes 140 us instead of 3.
    every_T1 = torch.arange(num_tags, dtype=torch.int32, device=best_STB.device).unsqueeze(1)
    last_tag = every_T1[-1]
    for position in range(length - 2, -1, -1):
        # Back-pointers only for the tags on the paths: no [S, T, B] of them to keep.
        # The first of the best; `max` starts threads for it, 60 us instead of 25 on a busy machine.
        came_TB = best_STB[position] + transitions_TT.index_select(1, current_B)
        came_TB += emissions_STB[position + 1].gather(0, current_B.unsqueeze(0))
        previous_B = torch.where(came_TB == came_TB.amax(0), every_T1, last_tag).amin(0).long()
        if mask_SB is not None:
            previous_B = torch.where(mask_SB[position + 1], previous_B, current_B)
        tags_SB[position] = current_B = previous_B
    return tags_SB if mask_SB is None else tags_SB.masked_fill_(~mask_SB, 0)


def _best_scores(emissions_STB: Tensor, start_T: Tensor, transitions_TT: Tensor) -> Tensor:
    """Return [S, T, B]: the score of the best path that ends in each tag at each position."""
    best_STB = torch.empty_like(emissions_STB)
    torch.add(start_T.unsqueeze(1), emissions_STB[0], out=best_STB[0])
    transitions_TT1 = transitions_TT.unsqueeze(2)
    candidates_TTB = emissions_STB.new_empty(*transitions_TT.shape, emissions_STB.shape[2])
    best, emissions = best_STB.unbind(0), emissions_STB.unbind(0)
    for position in range(1, len(best)):
        torch.add(best[position - 1].unsqueeze(1), transitions_TT1, out=candidates_TTB)
        torch.amax(candidates_TTB, 0, out=best[position]).add_(emissions[position])
    return best_STB


def _reduce(llh_B: Tensor, mask_SB: Tensor | None, reduction: str, num_positions: int) -> Tensor:
    if reduction == "none":
        return llh_B
    if reduction == "sum":
        return llh_B.sum()
    if reduction == "mean":
        return llh_B.mean()
    return llh_B.sum() / (num_positions if mask_SB is None else mask_SB.sum())


def _full(emissions_SBT: Tensor) -> Tensor:
    return emissions_SBT.new_ones(emissions_SBT.shape[:2], dtype=torch.bool)


def _has_gaps(mask_SB: Tensor | None) -> bool:
    """Return whether a valid position follows padding."""
    return mask_SB is not None and bool((mask_SB[1:] & ~mask_SB[:-1]).any())


def _check_spans(spans: TagSpans, emissions_SBT: Tensor, mask_SB: Tensor | None) -> None:
    length, batch, num_tags = emissions_SBT.shape
    is_known = (spans.sequence >= 0) & (spans.sequence < batch)
    for tag in (spans.begin_tag, spans.inside_tag):
        is_known = is_known & (tag >= 0) & (tag < num_tags)
    lengths_N: Tensor | int = length
    if mask_SB is not None:
        lengths_N = mask_SB.sum(0)[spans.sequence.clamp(0, batch - 1)]
    is_known = is_known & (spans.start >= 0) & (spans.start < spans.end) & (spans.end <= lengths_N)
    if not bool(is_known.all()):
        raise ValueError(
            f"found {int((~is_known).sum())} of {is_known.numel()} spans outside their sequence or "
            "tag set, expected 0 <= start < end <= length; check the spans' positions and tags"
        )
