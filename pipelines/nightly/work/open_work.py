"""What is left of a plan's work, what came back of it, and what it cost."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field

from pipelines.errors import RunFailedError
from pipelines.nightly.crash import crash_point
from pipelines.nightly.plan.chunks import Range, without
from pipelines.nightly.work.decode import InputChangedError
from pipelines.nightly.work.progress import Progress
from pipelines.nightly.work.stages import Stages, settle_row
from pipelines.nightly.work.staging import Account, Receipt, Staging
from ulsdram_core.reasons import Reason

_log = logging.getLogger(__name__)


class AttemptConfig(BaseModel):
    """How hard to try."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_attempts: int = Field(3, ge=1, description="Times that a single row may kill a worker.")
    max_poison_rows: int = Field(
        100, ge=0, description="More poison rows than this fail the run: the model is at fault."
    )
    max_replans: int = Field(3, ge=0, description="Times to plan again when inputs change.")
    receipt_seconds: float = Field(
        2.0, ge=0, description="Receipts are logged this often; a crash costs what was not logged."
    )


@dataclass(slots=True)
class WorkTotals:
    """Sums over what this call of the job has worked."""

    rows: int = 0
    worker_failures: int = 0
    account: Account = field(default_factory=Account)
    batches: list[tuple[float, float]] = field(default_factory=list)
    started: float = 0.0

    def add(self, receipt: Receipt) -> None:
        """Count a receipt."""
        self.rows += len(receipt)
        self.account += receipt.account
        self.batches += receipt.batches

    @property
    def start_seconds(self) -> float:
        """Until the first batch was extracted."""
        return min(self.batches)[0] - self.started if self.batches else 0.0

    def steady(self) -> tuple[float, float]:
        """Return seconds from the first batch to the last, and core seconds in between."""
        if not self.batches:
            return 0.0, 0.0
        first, last = min(self.batches), max(self.batches)
        return last[0] - first[0], sum(cores for _, cores in self.batches) - first[1]


class OpenWork:
    """The work of one plan, less what receipts vouch for."""

    def __init__(
        self, stages: Stages, staging: Staging, config: AttemptConfig, totals: WorkTotals
    ) -> None:
        self.stages = stages
        self.config = config
        self.totals = totals
        self._staging = staging
        self._changed: dict[Range, str] = {}
        self._num_done = sum(end - start for start, end in staging.done(stages.generation))
        self._progress = Progress(stages.work.size - self._num_done)
        self._passed: set[str] = set()

    def left(self) -> list[Range]:
        """Return ranges without a receipt, but for those whose input has changed."""
        done = self._staging.done(self.stages.generation)
        return without(self.stages.work.size, [*done, *self._changed])

    def chunks(self) -> Iterator[Range]:
        """Yield what is left, as one decode task reads it."""
        return self.stages.work.chunks(self.left(), self.stages.decode.chunks)

    def add(self, receipt: Receipt) -> None:
        """Count a part that a worker has staged."""
        if receipt.changed:
            _log.warning("an input changed since it was planned: %s", receipt.changed)
            self._changed |= dict.fromkeys(receipt.ranges, receipt.changed)
            return
        self._crash("before")
        if not self._staging.add(receipt):
            return
        self.totals.add(receipt)
        self._num_done += len(receipt)
        self._progress.add(len(receipt))
        self._crash("after")
        if self.totals.account.poison_rows > self.config.max_poison_rows:
            raise RunFailedError(
                f"more than {self.config.max_poison_rows} rows failed in the model or killed "
                "their worker; the model or the machine is at fault"
            )

    def settle(self, position: int, reason: Reason) -> None:
        """Give up on a single row."""
        _log.warning("row %d of the plan's work is given up: %s", position, reason.value)
        self.add(settle_row(position, reason, self.stages))

    def worker_failed(self, most: int, detail: str) -> None:
        """Count a dead worker; more than `most` end the run."""
        self.totals.worker_failures += 1
        if self.totals.worker_failures > most:
            raise RunFailedError(
                f"{self.totals.worker_failures} workers failed, expected at most {most} "
                f"(last: {detail}); look at the workers' logs, then run again: what was "
                "extracted is kept"
            )

    def close(self) -> None:
        """Log what came back; whoever works next sees it."""
        self._staging.flush()

    def check_finished(self) -> None:
        """Raise InputChangedError if an input changed; all rows are staged otherwise."""
        if self._changed:
            raise InputChangedError("; ".join(sorted(set(self._changed.values()))[:3]))
        assert not self.left(), self.left()[:3]

    def _crash(self, when: str) -> None:
        """Pass the named points around a receipt: the first, one in the middle, the last."""
        share = self._num_done / max(1, self.stages.work.size)
        for name, begins in (("first", 0.0), ("middle", 0.4), ("last", 0.7)):
            point = f"{when}_{name}_receipt"
            if share >= begins and point not in self._passed:
                self._passed.add(point)
                crash_point(point)
