"""Where a pre-training run stands."""

from dataclasses import dataclass, field
from typing import Any, Self

from pipelines.train.state import Place
from ulsdram_core.eclip.growth import Growth


@dataclass
class PretrainPlace(Place):
    """The place of a pre-training run; its epochs hold several validations."""

    epoch_rows: int = 0
    """Rows of each worker's shard done in this epoch."""
    pairs: int = 0
    """Pairs of all workers seen in all."""
    validations: int = 0
    """Validations done in this epoch."""
    best_recall: float = -1.0
    best_step: int = 0
    growth: Growth = field(kw_only=True)

    @classmethod
    def _of(cls, document: dict[str, Any]) -> Self:
        return cls(**{**document, "growth": Growth(**document["growth"])})
