"""Running the stages in this process; `ray_executor.py` runs the same ones on a cluster."""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from pipelines.cluster.tasks import Item, Result, WorkerDiedError
from pipelines.lake.source import InputChangedError
from pipelines.nightly.work.decode import DecodedBatch, decode_chunk
from pipelines.nightly.work.model import LoadedModel
from pipelines.nightly.work.stages import Stages, extract_batch, failure_of
from pipelines.nightly.work.waves import WaveRun


class Executor(Protocol):
    """Where work happens."""

    survives_poison: bool  # whether a row that kills its worker leaves the driver alive

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item], *, is_heavy: bool
    ) -> Iterator[tuple[Item, Result | WorkerDiedError]]:
        """`function` of every item, in any order; light work may stay in this process."""

    def num_cores(self) -> int:
        """Real CPU cores behind the workers."""

    def run(self, waves: WaveRun, stages: Stages) -> None:
        """Work until `waves` hands out nothing more and all has come back."""


class LocalExecutor:
    """Every stage called plainly, one after another; for small catalogues and for tests."""

    survives_poison = False

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

    def run(self, waves: WaveRun, stages: Stages) -> None:
        """See Executor."""
        model: LoadedModel | None = None
        while (chunk := waves.next_chunk()) is not None:
            try:
                batches = decode_chunk(chunk, stages.decode)
            except InputChangedError as error:
                waves.input_changed(error)
                continue
            except Exception as error:  # noqa: BLE001 - the quarantine boundary
                waves.failed(chunk, failure_of(error))
                continue
            if model is None:
                model = stages.model.load()
                stages.check_model(model.model_id)
            for batch in batches:
                _extract(model, batch, waves, stages)
            waves.completed(chunk)


def _extract(model: LoadedModel, batch: DecodedBatch, waves: WaveRun, stages: Stages) -> None:
    try:
        done = extract_batch(model, batch, stages)
    except Exception as error:  # noqa: BLE001 - the quarantine boundary
        waves.failed(batch.chunk, failure_of(error))
        return
    waves.finished(batch.chunk, done)
