"""The batch-size scheduler: more streams per batch when the validation loss stops falling."""

from dataclasses import dataclass

from pydantic import Field

from ulsdram_core.frozen import Frozen


class GrowthConfig(Frozen):
    """How the effective batch grows; large ones from the start slow convergence down."""

    start_streams: int = Field(1, ge=1, description="streams per batch at the start")
    max_streams: int = Field(16, ge=1, description="most streams per batch; 1 keeps it constant")
    factor: int = Field(2, ge=2, description="what a growth multiplies the streams by")
    patience: int = Field(1, ge=1, description="validations without progress before a growth")
    progress: float = Field(
        0.01, ge=0, description="least relative fall of the validation loss that counts as progress"
    )

    def start(self) -> "Growth":
        """Return the state at the beginning of a run."""
        return Growth(min(self.start_streams, self.max_streams))

    def after(self, state: "Growth", loss: float) -> "Growth":
        """Return the state after a validation.

        Validation is always done in batches of one size, so losses compare across growths.
        """
        if state.best is None or loss < state.best * (1 - self.progress):
            return Growth(state.streams, loss, 0)
        stale = state.stale + 1
        if stale < self.patience:
            return Growth(state.streams, state.best, stale)
        return Growth(min(state.streams * self.factor, self.max_streams), state.best, 0)


@dataclass(frozen=True)
class Growth:
    """Streams per batch now, the best validation loss, and validations since it."""

    streams: int
    best: float | None = None
    stale: int = 0
