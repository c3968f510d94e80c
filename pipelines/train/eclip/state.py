"""A pre-training checkpoint: weights, moments, best weights, place in the run; no pickles."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from pipelines.train.state import PROGRESS, load_tensors, save_tensors
from ulsdram_core.eclip.dual_encoder import DualEncoder
from ulsdram_core.eclip.growth import Growth
from ulsdram_core.errors import CheckpointError


@dataclass
class PretrainProgress:
    """Where a run stands; everything else is a function of the recipe, its seed and this."""

    growth: Growth
    epoch: int = 1
    """The epoch under way, from 1."""
    epoch_rows: int = 0
    """Rows of each worker's shard done in this epoch."""
    step: int = 0
    pairs: int = 0
    """Pairs of all workers seen in all."""
    validations: int = 0
    """Validations done in this epoch."""
    best_recall: float = -1.0
    best_step: int = 0
    finished: bool = False
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


def save_progress(
    folder: Path,
    *,
    model: DualEncoder,
    best: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    progress: PretrainProgress,
) -> None:
    """Write a checkpoint into an empty folder."""
    save_tensors(folder, model=model, best=best, optimizer=optimizer)
    (folder / PROGRESS).write_text(json.dumps(asdict(progress)), encoding="utf-8")


def read_progress(folder: Path) -> PretrainProgress:
    """The place that a checkpoint was written at."""
    try:
        document = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
        return PretrainProgress(**{**document, "growth": Growth(**document["growth"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"checkpoint {folder} cannot be restored: {error}") from error


def load_progress(
    folder: Path, *, model: DualEncoder, optimizer: torch.optim.Optimizer
) -> tuple[PretrainProgress, dict[str, Tensor]]:
    """Restore what `save_progress` wrote; returns the progress and the best weights."""
    progress = read_progress(folder)
    return progress, load_tensors(folder, model=model, optimizer=optimizer)
