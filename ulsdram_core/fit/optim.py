"""Optimiser and schedule: two learning rates under ULS, warm-up, decay."""

import math
from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from ulsdram_core.frozen import Frozen


class OptimConfig(Frozen):
    """How the parameters are moved."""

    kind: Literal["adam", "adamw"] = Field("adamw", description="adam is the paper's")
    image_rate: float = Field(5e-5, gt=0, description="learning rate of the image encoder")
    text_rate: float = Field(1e-4, gt=0, description="learning rate of the text encoder")
    task_rate: float | None = Field(
        None, gt=0, description="learning rate of everything else; null takes text_rate (paper)"
    )
    fusion_rate: float | None = Field(
        None,
        gt=0,
        description="learning rate of the fusion; null takes task_rate. Its attention has no "
        "softmax, so fast steps over wide regions drown the text",
    )
    weight_decay: float = Field(
        0.01, ge=0, description="decoupled decay of matrices; adamw only, as the paper's has none"
    )
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps that warm up")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "linear", description="decay after the warm-up"
    )
    clip: float = Field(1.0, gt=0, description="largest gradient norm")

    def build(self, model: nn.Module, num_steps: int) -> tuple[torch.optim.Optimizer, LambdaLR]:
        """Build the optimiser and its schedule over `num_steps` steps."""
        optimizer = self.optimizer(model)
        return optimizer, LambdaLR(optimizer, lambda step: self.factor(step, num_steps))

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Build the optimiser alone; `lr` and `initial_lr` of its groups are the full rates."""
        kind = torch.optim.Adam if self.kind == "adam" else torch.optim.AdamW
        groups = [{**group, "initial_lr": group["lr"]} for group in self._groups(model)]
        # Fused: one pass over parameters and moments instead of ten; CPU steps are bound by it.
        return kind(groups, fused=True)

    def factor(self, step: int, num_steps: int) -> float:
        """Return the learning-rate multiplier at `step` of `num_steps`."""
        warmup_steps = self.warmup * num_steps
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        progress = (step - warmup_steps) / max(1.0, num_steps - warmup_steps)
        if self.schedule == "linear":
            return max(0.0, 1 - progress)
        if self.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        return 1.0

    def _groups(self, model: nn.Module) -> Iterator[dict[str, object]]:
        rates = {
            "image": self.image_rate,
            "text": self.text_rate,
            "fusion": self.fusion_rate or self.task_rate or self.text_rate,
            "task": self.task_rate or self.text_rate,
        }
        for part, rate in rates.items():
            for decayed in (True, False):
                parameters = [
                    parameter
                    for name, parameter in model.named_parameters()
                    if parameter.requires_grad
                    and _part(name) == part
                    and (parameter.dim() > 1) == decayed
                ]
                if parameters:
                    decay = self.weight_decay if decayed and self.kind == "adamw" else 0.0
                    yield {"params": parameters, "lr": rate, "weight_decay": decay}


def _part(name: str) -> str:
    if name.startswith("image_encoder."):
        return "image"
    if name.startswith(("fusion.", "region_norm.")):
        return "fusion"
    return "text" if name.startswith("text_encoder.") else "task"
