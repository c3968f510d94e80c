"""Rows that killed their worker, worked on apart from all others until each culprit is alone."""

import logging
import math
from collections import deque
from collections.abc import Iterable
from typing import Any, Protocol

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

from pipelines.errors import RunFailedError
from pipelines.nightly.plan.chunks import Range, pieces
from pipelines.nightly.work.decode import decode_range
from pipelines.nightly.work.executor import SUSPECT_PIECES
from pipelines.nightly.work.open_work import OpenWork
from pipelines.nightly.work.stages import Stages, extract_batch, stage
from pipelines.nightly.work.staging import Receipt
from ulsdram_core.reasons import Reason

_log = logging.getLogger(__name__)


class Pool(Protocol):
    """What a worker asks of the cluster, and how many may die."""

    @property
    def cpus_per_worker(self) -> float:
        """CPU share of one worker."""

    @property
    def max_worker_failures(self) -> int:
        """Deaths after which the run gives up."""


class Isolated:
    """A worker that does all stages of a piece by itself."""

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self._model = stages.load_model()

    def work(self, piece: Range) -> list[str]:
        """Stage the rows of a piece; the receipts."""
        size = piece[1] - piece[0]
        receipts: list[Receipt] = []
        for batch in decode_range(self._stages.work, piece, self._stages.decode, most=size):
            done = extract_batch(self._model, batch, self._stages, on_broken_device=lambda: None)
            receipts += stage([done], self._stages)
        return [receipt.to_json() for receipt in receipts]


def isolate(work: OpenWork, suspects: Iterable[Range], *, num_gpus: float, pool: Pool) -> None:
    """Work on pieces one after another; a row that is alone and kills often enough is poison."""
    waiting = deque((piece, 0) for piece in suspects)
    actor: Any = None
    while waiting:
        piece, attempts = waiting.popleft()
        if actor is None:
            actor = _worker(work.stages, num_gpus=num_gpus, num_cpus=pool.cpus_per_worker)
        try:
            for text in ray.get(actor.work.remote(piece)):
                work.add(Receipt.from_json(text))
        except RayError as error:
            detail = cause_of(error)
            work.worker_failed(pool.max_worker_failures, detail)
            ray.kill(actor)
            actor = None
            _log.warning("rows %d to %d of the plan's work: %s", *piece, detail)
            size = piece[1] - piece[0]
            if size > 1:
                smaller = pieces(piece, math.ceil(size / SUSPECT_PIECES))
                waiting.extendleft((part, 0) for part in reversed(smaller))
            elif attempts + 1 < work.config.max_attempts:
                waiting.appendleft((piece, attempts + 1))
            else:
                is_memory = isinstance(error, OutOfMemoryError) or "low on memory" in str(error)
                work.settle(piece[0], Reason.OUT_OF_MEMORY if is_memory else Reason.POISON_ROW)
    if actor is not None:
        ray.kill(actor)
    work.close()


def cause_of(error: RayError) -> str:
    """Return what killed a worker, in a line; an exception of our own code rises instead."""
    if isinstance(error, RayTaskError):
        cause = error.cause if isinstance(error.cause, Exception) else error
        while not isinstance(cause, RayError) and isinstance(cause.__cause__, Exception):
            cause = cause.__cause__
        if not isinstance(cause, RayError) or isinstance(cause, RayTaskError):
            raise cause from None
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if "creation task" in str(error):
        raise RunFailedError(f"no model worker could start: {lines[-1]}") from error
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]


def _worker(stages: Stages, *, num_cpus: float, num_gpus: float) -> Any:
    options = {"num_cpus": num_cpus, "num_gpus": num_gpus, "max_restarts": 0}
    return ray.remote(**options)(Isolated).remote(stages)
