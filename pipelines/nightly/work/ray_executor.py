"""Running the stages on Ray: decode tasks feed a fixed pool of model actors.

Plain tasks and actors instead of a dataset pipeline: the driver must know which rows were in the
hands of a worker that died, and must see every result exactly once. Nothing is retried by Ray;
`WaveRun` decides. CPU requests are fractions, so that a small cluster cannot deadlock.
"""

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import ray
from pydantic import BaseModel, ConfigDict, Field
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError

from pipelines.cluster.connect import connect_cluster
from pipelines.cluster.tasks import Item, Result, WorkerDiedError
from pipelines.errors import RunFailedError
from pipelines.nightly.plan.chunks import Chunk
from pipelines.nightly.work.decode import (
    DecodedBatch,
    DecodeSettings,
    InputChangedError,
    decode_chunk,
    num_batches,
)
from pipelines.nightly.work.stages import Stages, extract_batch, failure_of
from pipelines.nightly.work.waves import Done, Failure, WaveRun
from ulsdram_core.reasons import Reason

_log = logging.getLogger(__name__)
_MAP_RETRIES = 3
_START_ATTEMPTS = 3
_IDLE_SECONDS = 10.0
_PATIENCE_SECONDS = 300.0
_LOOK_SECONDS = 30.0


class WorkerConfig(BaseModel):
    """Sizes of the worker pools; 0 chooses from the cluster."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_workers: int = Field(0, ge=0, description="Model actors; 0: one per GPU, else per core.")
    gpus_per_model_worker: float = Field(1.0, gt=0, description="GPU share of one model actor.")
    cpus_per_worker: float = Field(
        0.5, gt=0, description="CPU share that a worker asks of Ray; fractions avoid deadlock."
    )
    decode_workers: int = Field(0, ge=0, description="Decode tasks at once; 0: one per core.")
    batches_per_model_worker: int = Field(
        2, ge=1, description="Batches queued at one model actor, so that it never waits."
    )
    max_worker_failures: int = Field(
        200, ge=0, description="Deaths of workers after which the run gives up."
    )


@dataclass(frozen=True, slots=True)
class PoolSizes:
    """How many workers of which kind."""

    model_workers: int
    decode_workers: int
    gpus_per_model_worker: float


def pool_sizes(config: WorkerConfig, cluster: dict[str, float], *, num_cores: int) -> PoolSizes:
    """Pool sizes on a cluster with these resources; `num_cores`: real cores behind them."""
    num_gpus = cluster.get("GPU", 0.0)
    if num_gpus:
        automatic = max(1, int(num_gpus / config.gpus_per_model_worker))
        share = config.gpus_per_model_worker
    else:
        automatic, share = num_cores, 0.0
    model_workers = config.model_workers or automatic
    return PoolSizes(model_workers, config.decode_workers or max(1, num_cores), share)


class ModelWorker:
    """One model in one process; used as a Ray actor."""

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self._model = stages.model.load()

    def ready(self) -> str:
        """Answers with the model's id once it is loaded."""
        return self._model.model_id

    def extract(self, batch: DecodedBatch) -> Done | Failure:
        """Table rows of a batch, or why there are none."""
        try:
            return extract_batch(self._model, batch, self._stages)
        except Exception as error:  # noqa: BLE001 - the quarantine boundary
            return failure_of(error)


def decode_for_ray(chunk: Chunk, settings: DecodeSettings) -> list[object]:
    """A small sign of success, then the batches: the driver never fetches pixels."""
    return [True, *decode_chunk(chunk, settings)]


class RayExecutor:
    """The Executor of the nightly job; starts Ray when it is first needed."""

    survives_poison = True

    def __init__(self, config: WorkerConfig) -> None:
        self._config = config

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item], *, is_heavy: bool
    ) -> Iterator[tuple[Item, Result | WorkerDiedError]]:
        """See Executor."""
        if not is_heavy and not ray.is_initialized():
            yield from ((item, function(item)) for item in items)
            return
        connect_cluster()
        task = ray.remote(num_cpus=self._config.cpus_per_worker, max_retries=_MAP_RETRIES)(function)
        most = 2 * self._sizes().decode_workers
        waiting = deque(items)
        running: dict[Any, Item] = {}
        while waiting or running:
            while waiting and len(running) < most:
                item = waiting.popleft()
                running[task.remote(item)] = item
            (ref,), _ = ray.wait(list(running), num_returns=1)
            yield running.pop(ref), _result(ref)

    def num_cores(self) -> int:
        """See Executor."""
        if not ray.is_initialized():
            return os.cpu_count() or 1
        num_cores = int(ray.cluster_resources().get("CPU", 1))
        if len(ray.nodes()) == 1:  # a private cluster has more logical than real CPUs
            num_cores = min(num_cores, os.cpu_count() or 1)
        return max(1, num_cores)

    def run(self, waves: WaveRun, stages: Stages) -> None:
        """See Executor."""
        chunk = waves.next_chunk()
        if chunk is None:
            return
        connect_cluster()
        loop = _Loop(waves, stages, config=self._config, sizes=self._sizes())
        try:
            loop.run(chunk)
        finally:
            loop.close()

    def _sizes(self) -> PoolSizes:
        return pool_sizes(self._config, ray.cluster_resources(), num_cores=self.num_cores())


def _result(ref: Any) -> Any:
    try:
        return ray.get(ref)
    except RayTaskError:
        raise
    except RayError as error:
        return WorkerDiedError(f"{type(error).__name__}: {error}"[:300])


def _places(share: float) -> int:
    """How many workers of this CPU share the nodes that are up can hold."""
    alive = (node["Resources"] for node in ray.nodes() if node["Alive"])
    return sum(int(resources.get("CPU", 0.0) / share) for resources in alive)


@dataclass(slots=True)
class _Worker:
    actor: Any
    starting: Any  # the answer to `ready`; None once it came
    batches: dict[Any, Chunk] = field(default_factory=dict)


@dataclass(slots=True)
class _Decoding:
    chunk: Chunk
    batches: list[Any]  # references to decoded rows, one per piece
    pieces: list[Chunk]


class _Loop:
    """The driver's event loop: at most one owner of every row at any time."""

    def __init__(
        self, waves: WaveRun, stages: Stages, *, config: WorkerConfig, sizes: PoolSizes
    ) -> None:
        self._waves = waves
        self._stages = stages
        self._config = config
        self._sizes = sizes
        self._stages_ref = ray.put(stages)
        self._settings_ref = ray.put(stages.decode)  # without the model: no torch to import
        self._decode_task = ray.remote(num_cpus=config.cpus_per_worker, max_retries=0)(
            decode_for_ray
        )
        self._actor_class = ray.remote(
            num_cpus=config.cpus_per_worker,
            num_gpus=sizes.gpus_per_model_worker,
            max_restarts=0,
            max_task_retries=0,
        )(ModelWorker)
        self._workers: list[_Worker] = []
        self._decoding: dict[Any, _Decoding] = {}
        self._ready: deque[tuple[Any, Chunk]] = deque()
        self._most_decoding = sizes.decode_workers
        self._most_workers = sizes.model_workers
        self._known_places = _places(config.cpus_per_worker)
        self._last_moved = self._looked = time.monotonic()
        self._failed_starts = 0
        self._has_started = False

    def run(self, chunk: Chunk | None) -> None:
        """Work until nothing is left; `chunk` is the first one."""
        while True:
            while chunk is not None:
                self._start_decoding(chunk)
                chunk = self._waves.next_chunk() if self._has_room() else None
            if not (self._decoding or self._ready or self._num_extracting()):
                chunk = self._waves.next_chunk()
                if chunk is None:
                    return
                continue
            self._fill_workers()
            self._await_one()
            chunk = self._waves.next_chunk() if self._has_room() else None

    def close(self) -> None:
        """Let the actors go."""
        for worker in self._workers:
            ray.kill(worker.actor)

    def _has_room(self) -> bool:
        buffered = 2 * self._sizes.model_workers * self._config.batches_per_model_worker
        return len(self._decoding) < self._most_decoding and len(self._ready) < buffered

    def _num_extracting(self) -> int:
        return sum(len(worker.batches) for worker in self._workers)

    def _start_decoding(self, chunk: Chunk) -> None:
        count = num_batches(chunk, self._stages.decode)
        sign, *batches = self._decode_task.options(num_returns=count + 1).remote(
            chunk, self._settings_ref
        )
        pieces = chunk.slices(self._stages.decode.chunks.batch_rows)
        self._decoding[sign] = _Decoding(chunk, batches, pieces)

    def _fill_workers(self) -> None:
        """Hand ready batches to the actors that have least; replace actors that died."""
        self._grow_again()
        while len(self._workers) < self._most_workers and (self._ready or self._decoding):
            actor = self._actor_class.remote(self._stages_ref)
            self._workers.append(_Worker(actor, actor.ready.remote()))
        while self._ready:
            ref, piece = self._ready[0]
            able = [worker for worker in self._workers if self._may_take(worker, piece)]
            if not able:
                return
            worker = min(able, key=lambda w: len(w.batches))
            self._ready.popleft()
            worker.batches[worker.actor.extract.remote(ref)] = piece

    def _may_take(self, worker: _Worker, piece: Chunk) -> bool:
        """A row by itself is a suspect: it gets an actor to itself, so that no other is blamed."""
        if worker.starting is not None or any(len(other) == 1 for other in worker.batches.values()):
            return False
        most = 1 if len(piece) == 1 else self._config.batches_per_model_worker
        return len(worker.batches) < most

    def _await_one(self) -> None:
        starting = {w.starting: w for w in self._workers if w.starting is not None}
        extracting = {ref: w for w in self._workers for ref in w.batches}
        refs = [*self._decoding, *starting, *extracting]
        done, _ = ray.wait(refs, num_returns=1, timeout=_IDLE_SECONDS)
        if done:
            self._last_moved = time.monotonic()
        elif self._is_starved():
            self._make_room()
        for ref in done:
            if ref in self._decoding:
                self._decoded(ref)
            elif ref in starting:
                self._started(starting[ref])
            else:
                self._extracted(extracting[ref], ref)

    def _is_starved(self) -> bool:
        """Whether models that are up have nothing to do, for decoding gets no place."""
        is_up = any(worker.starting is None for worker in self._workers)
        return bool(self._decoding) and is_up and not (self._ready or self._num_extracting())

    def _make_room(self) -> None:
        """Leave a place for decoding where actors ask for all there are, as after a node's loss.

        Without a loss only after a long wait: a cluster that grows on demand may be growing.
        """
        places = _places(self._config.cpus_per_worker)
        waited = time.monotonic() - self._last_moved
        if places >= self._known_places and waited < _PATIENCE_SECONDS:
            return
        self._most_workers = max(1, min(self._sizes.model_workers, places - 1))
        idle = sorted(
            (worker for worker in self._workers if not worker.batches),
            key=lambda worker: worker.starting is None,  # those that wait for a place go first
        )
        surplus = max(0, len(self._workers) - self._most_workers)
        for worker in idle[:surplus]:
            _log.warning("the cluster has %d places: a model worker makes room", places)
            self._workers.remove(worker)
            ray.kill(worker.actor)

    def _grow_again(self) -> None:
        """Use the places of nodes that came (back)."""
        now = time.monotonic()
        if self._most_workers < self._sizes.model_workers and now - self._looked > _LOOK_SECONDS:
            self._looked = now
            places = _places(self._config.cpus_per_worker)
            self._known_places = max(self._known_places, places)
            grown = min(self._sizes.model_workers, places - 1)
            self._most_workers = max(self._most_workers, grown)

    def _started(self, worker: _Worker) -> None:
        try:
            self._stages.check_model(ray.get(worker.starting))
            worker.starting = None
            self._has_started = True
        except RayError as error:
            self._workers.remove(worker)
            self._failed_starts += 1
            if self._has_started:  # the model loads: it is the machine, as when a node is lost
                self._waves.totals.worker_failures += 1
                self._check_failures()
            elif self._failed_starts >= _START_ATTEMPTS:
                raise RunFailedError(f"no model worker could start: {error}") from error

    def _decoded(self, sign: Any) -> None:
        decoding = self._decoding.pop(sign)
        try:
            ray.get(sign)
        except InputChangedError as error:
            self._waves.input_changed(error)
        except RayError as error:
            self._fail(decoding.chunk, error)
        else:
            self._ready.extend(zip(decoding.batches, decoding.pieces, strict=True))

    def _extracted(self, worker: _Worker, ref: Any) -> None:
        piece = worker.batches.pop(ref)
        try:
            outcome = ray.get(ref)
        except RayError as error:
            self._fail(piece, error)
            if isinstance(error, RayActorError) and worker in self._workers:
                self._workers.remove(worker)
                # its other batches were lost with it
                for other in worker.batches.values():
                    self._fail(other, error)
            return
        if isinstance(outcome, Failure):
            self._waves.failed(piece, outcome)
        else:
            self._waves.finished(piece, outcome)
        self._check_failures()

    def _fail(self, chunk: Chunk, error: RayError) -> None:
        """Give a chunk back; out of memory also means: less at once."""
        if isinstance(error, RayTaskError):
            cause = error.cause if isinstance(error.cause, Exception) else error
            self._waves.failed(chunk, failure_of(cause))
            return
        # Ray's text for any death speaks of the OOM killer as a possibility: that says nothing
        if isinstance(error, OutOfMemoryError) or "low on memory" in str(error):
            self._most_decoding = max(1, self._most_decoding // 2)
            self._waves.failed(chunk, Failure(Reason.OUT_OF_MEMORY, "the node ran out of memory"))
        else:
            detail = f"its worker died ({type(error).__name__})"
            self._waves.failed(chunk, Failure(Reason.POISON_ROW, detail))

    def _check_failures(self) -> None:
        failures = self._waves.totals.worker_failures
        if failures > self._config.max_worker_failures:
            raise RunFailedError(
                f"{failures} workers failed, expected at most "
                f"{self._config.max_worker_failures}; look at the workers' logs"
            )
