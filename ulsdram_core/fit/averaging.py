"""A running mean of a model's weights, which answers better than the weights of one step.

Steps at a steady learning rate wander about a good place; their mean lies in it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

ETA = 3
"""Step t weighs t**ETA (Shamir and Zhang, 2013): about the last quarter of the steps so far."""


class WeightMean:
    """Follows the parameters that are trained; batch norm statistics stay those of the model."""

    def __init__(self, model: nn.Module) -> None:
        self._parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._means = {n: p.detach().clone() for n, p in self._parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after optimiser step `step`, counted from 1."""
        share = (ETA + 1) / (step + ETA)
        torch._foreach_lerp_(list(self._means.values()), list(self._parameters.values()), share)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the model the mean weights while it is open."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def copy_to_model(self) -> None:
        """Give the model the mean weights for good."""
        for name, parameter in self._parameters.items():
            parameter.copy_(self._means[name])

    @torch.no_grad()
    def _swap(self) -> None:
        # Values and not memory: the optimiser and its gradients are tied to the parameters'.
        for name, parameter in self._parameters.items():
            own = parameter.detach().clone()
            parameter.copy_(self._means[name])
            self._means[name].copy_(own)

    def state_dict(self) -> dict[str, Tensor]:
        """Return a copy of the means on the CPU."""
        return {name: mean.cpu().clone().contiguous() for name, mean in self._means.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned, for the same model."""
        if state.keys() != self._means.keys():
            raise ValueError(
                f"found means of {len(state)} parameters, expected {len(self._means)} of the same "
                "names; they belong to another model"
            )
        for name, mean in self._means.items():
            mean.copy_(state[name])
