"""Running the stages in this process; `ray_executor.py` runs the same ones on a cluster.

It is what tests and simulators use: a night without a cluster takes milliseconds. A row that ends
the process is found by running again: the piece that was under way is remembered on storage.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from pipelines.cluster.tasks import Item, Result, WorkerDiedError
from pipelines.lake.documents import read_json, write_json
from pipelines.nightly.plan.chunks import Range, pieces
from pipelines.nightly.work.decode import DecodedBatch, decode_range
from pipelines.nightly.work.model import LoadedModel
from pipelines.nightly.work.open_work import OpenWork
from pipelines.nightly.work.stages import extract_batch, stage
from ulsdram_core.reasons import Reason

SUSPECT_PIECES = 16  # into which rows that killed a worker are cut


class Executor(Protocol):
    """Where work happens."""

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item], *, is_heavy: bool
    ) -> Iterator[tuple[Item, Result | WorkerDiedError]]:
        """Yield `function` of every item, in any order; light work may stay in this process."""

    def num_cores(self) -> int:
        """Return real CPU cores behind the workers."""

    def run(self, work: OpenWork) -> None:
        """Work until nothing is left but rows whose input has changed."""


class LocalExecutor:
    """Every stage called plainly, one after another."""

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item], *, is_heavy: bool
    ) -> Iterator[tuple[Item, Result | WorkerDiedError]]:
        """See Executor."""
        del is_heavy
        for item in items:
            yield item, function(item)

    def num_cores(self) -> int:
        """See Executor."""
        return 1

    def run(self, work: OpenWork) -> None:
        """See Executor."""
        loop = _Loop(work)
        loop.suspects()
        for chunk in work.chunks():
            loop.work_on(chunk)


class _Loop:
    def __init__(self, work: OpenWork) -> None:
        self._work = work
        self._stages = work.stages
        self._model: LoadedModel | None = None
        self._mark = work.stages.staging.join(f"under-way-{work.stages.generation:04d}.json")

    def work_on(self, chunk: Range, *, most: int = 0, attempts: int = 0) -> None:
        """Decode and extract a range; every batch is a part of its own."""
        for batch in self._marked(chunk, most, attempts):
            if self._model is None:
                self._model = self._stages.load_model()
            done = extract_batch(self._model, batch, self._stages, on_broken_device=lambda: None)
            for receipt in stage([done], self._stages):
                self._work.add(receipt)

    def suspects(self) -> None:
        """Work on what was under way when the process ended, in pieces that tell more."""
        found = read_json(self._mark)
        if found is None:
            return
        suspect, attempts = (found["start"], found["end"]), found["attempts"]
        size = suspect[1] - suspect[0]
        if not _is_open(suspect, self._work.left()):
            return
        if size == 1 and attempts >= self._work.config.max_attempts:
            self._work.settle(suspect[0], Reason.POISON_ROW)
            return
        for piece in pieces(suspect, max(1, math.ceil(size / SUSPECT_PIECES))):
            if _is_open(piece, self._work.left()):
                count = attempts if size == 1 else 0
                self.work_on(piece, most=piece[1] - piece[0], attempts=count)

    def _marked(self, chunk: Range, most: int, attempts: int) -> Iterator[DecodedBatch]:
        """Yield batches of a range, each remembered before anything can end the process over it."""
        start, end = chunk
        size = most or self._stages.decode.chunks.batch_rows
        batches = decode_range(self._stages.work, chunk, self._stages.decode, most=most)
        while start < end:
            mark = {"start": start, "end": min(end, start + size), "attempts": attempts + 1}
            write_json(self._mark, mark)
            batch = next(batches)
            yield batch
            start = batch.end


def _is_open(piece: Range, left: list[Range]) -> bool:
    """Return whether nothing of a range is staged."""
    return any(start <= piece[0] and piece[1] <= end for start, end in left)
