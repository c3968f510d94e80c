"""A training checkpoint: weights, optimiser moments, best weights, place in the run.

safetensors and JSON only: a checkpoint folder may come from shared storage and is never unpickled.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from ulsdram_core.errors import CheckpointError
from ulsdram_core.fit.averaging import WeightMean

WEIGHTS, BEST, MEAN, MOMENTS, PLACE = (
    "model.safetensors",
    "best.safetensors",
    "mean.safetensors",
    "optimizer.safetensors",
    "place.json",
)


@dataclass
class Place:
    """Where a run stands; everything else is a function of the recipe, its seed and this."""

    epoch: int = 1
    """The epoch under way, from 1."""
    step: int = 0
    """Optimiser steps finished in all."""
    finished: bool = False
    seconds: float = 0.0
    """Training time over all attempts."""
    history: list[dict[str, float]] = field(default_factory=list)
    """Validation figures of every finished epoch, or validation."""

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return the place that a checkpoint was written at."""
        try:
            return cls._of(json.loads((folder / PLACE).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise CheckpointError(f"checkpoint {folder} cannot be restored: {error}") from error

    @classmethod
    def _of(cls, document: dict[str, Any]) -> Self:
        return cls(**document)


AnyPlace = TypeVar("AnyPlace", bound=Place)


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the weights on the CPU."""
    return {name: t.detach().cpu().clone().contiguous() for name, t in model.state_dict().items()}


def save_state(
    folder: Path,
    *,
    model: nn.Module,
    best: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    place: Place,
    mean: WeightMean | None = None,
) -> None:
    """Write a checkpoint into an empty folder."""
    save_file(state_of(model), folder / WEIGHTS)
    save_file(best, folder / BEST)
    moments = {
        f"{number}/{name}": torch.as_tensor(value).detach().cpu().contiguous()
        for number, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }
    save_file(moments, folder / MOMENTS)
    if mean is not None:
        save_file(mean.state_dict(), folder / MEAN)
    (folder / PLACE).write_text(json.dumps(asdict(place)), encoding="utf-8")


def load_state(
    folder: Path,
    kind: type[AnyPlace],
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    mean: WeightMean | None = None,
) -> tuple[AnyPlace, dict[str, Tensor]]:
    """Restore what `save_state` wrote; returns the place and the best weights."""
    place = kind.read(folder)
    try:
        model.load_state_dict(load_file(folder / WEIGHTS))
        best = load_file(folder / BEST)
        moments = load_file(folder / MOMENTS)
        if mean is not None:
            mean.load_state_dict(load_file(folder / MEAN))
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"checkpoint {folder} cannot be restored: {error}") from error
    _restore_moments(optimizer, moments)
    return place, best


def restore_schedule(schedule: LambdaLR, optimizer: torch.optim.Optimizer, *, step: int) -> None:
    """Set the learning rates to those of a step."""
    schedule.load_state_dict({**schedule.state_dict(), "last_epoch": step})
    for group, base, factor in zip(
        optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True
    ):
        group["lr"] = base * factor(step)


def _restore_moments(optimizer: torch.optim.Optimizer, moments: Mapping[str, Tensor]) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in moments.items():
        number, name = key.split("/")
        like = parameters[int(number)]
        if value.shape == like.shape:
            # The fused optimiser pairs raw memory: moments must lie as their parameter does,
            # which for convolution weights may be channels-last.
            value = torch.empty_like(like, dtype=value.dtype, device="cpu").copy_(value)
        state.setdefault(int(number), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
