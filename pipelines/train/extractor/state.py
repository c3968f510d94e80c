"""Where the training of an extractor stands."""

from dataclasses import dataclass

from pipelines.train.state import Place


@dataclass
class TrainPlace(Place):
    """The place of a training run; every epoch ends with a validation."""

    epoch_step: int = 0
    """Optimiser steps finished in this epoch."""
    best_f1: float = -1.0
    best_epoch: int = 0
    stale_epochs: int = 0
    """Epochs since the best one."""
