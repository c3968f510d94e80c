"""Running the stages as one Ray Data pipeline: chunks -> decode tasks -> model actors -> parts.

    from_items(chunks) -> decode_stage -> ModelStage (actors) -> write_stage -> receipts

Only receipts reach the driver. What travels between stages is one Arrow row per batch, its pixels
in buffers that are not copied again; a block is one such row, so that memory is bounded by the
sizes of batches and by Ray's back-pressure. Restarts and retries of workers are bounded: a row that
kills its worker twice ends the dataset, a watch that hears of every batch names it, and it is
worked on apart from all others (`ray_isolation.py`); the rest goes on in another pass.
"""

import logging
import os
import pickle
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
import ray.data
from pydantic import BaseModel, ConfigDict, Field
from ray.exceptions import RayError, RayTaskError

from pipelines.cluster.connect import connect_cluster
from pipelines.cluster.tasks import Item, Result, WorkerDiedError
from pipelines.errors import RunFailedError
from pipelines.nightly.plan.chunks import Range
from pipelines.nightly.work.decode import decode_range
from pipelines.nightly.work.open_work import OpenWork
from pipelines.nightly.work.ray_isolation import cause_of, isolate
from pipelines.nightly.work.stages import BROKEN_DEVICE, Stages, extract_batch, stage
from pipelines.nightly.work.staging import Receipt

_log = logging.getLogger(__name__)
_MAP_RETRIES = 3
_MOST_BLOCKS = 10_000
_IDLE_PASSES = 3
# Actors ask for a little less than their share and tasks for next to nothing (how many run at once
# is bounded by `decode_workers`): where actors fill every place, as after a node's loss, decoding
# still gets one, and the pipeline cannot wait for itself.
_OF_ACTOR, _OF_TASK = 0.9, 0.05


class WorkerConfig(BaseModel):
    """Sizes of the worker pools; 0 chooses from the cluster."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_workers: int = Field(0, ge=0, description="Model actors; 0: one per GPU, else per core.")
    gpus_per_model_worker: float = Field(1.0, gt=0, description="GPU share of one model actor.")
    cpus_per_worker: float = Field(
        0.5, gt=0, description="CPU share of a model worker; decoding asks for a twentieth of it."
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
    """Return pool sizes on a cluster with these resources; `num_cores`: real cores behind them."""
    num_gpus = cluster.get("GPU", 0.0)
    if num_gpus:
        automatic = max(1, int(num_gpus / config.gpus_per_model_worker))
        share = config.gpus_per_model_worker
    else:
        automatic, share = num_cores, 0.0
    model_workers = config.model_workers or automatic
    return PoolSizes(model_workers, config.decode_workers or max(1, num_cores), share)


class Watch:
    """Hears of every batch before it is worked on and after: what was begun twice is suspect."""

    def __init__(self) -> None:
        self._begun: dict[Range, int] = {}
        self._failures = 0

    def begin(self, piece: Range) -> None:
        """Note that a worker begins with these rows."""
        self._failures += piece in self._begun
        self._begun[piece] = self._begun.get(piece, 0) + 1

    def end(self, piece: Range, *, is_blameless: bool = False) -> None:
        """They are done, or their worker ends itself for another reason."""
        self._begun.pop(piece, None)
        self._failures += is_blameless

    def report(self) -> tuple[list[Range], int]:
        """Return what a worker died of twice, and how many died."""
        return sorted(p for p, count in self._begun.items() if count > 1), self._failures


def decode_stage(chunks: pa.Table, stages: Any, watch: Any) -> Iterator[pa.Table]:
    """Decode chunks into batches."""
    known: Stages = ray.get(stages)
    for chunk in chunks.to_pylist():
        start, end = chunk["start"], chunk["end"]
        batches = decode_range(known.work, (start, end), known.decode)
        while start < end:
            ray.get(watch.begin.remote((start, end)))
            batch = next(batches)
            ray.get(watch.end.remote((start, end)))
            yield pack(batch)
            start = batch.end


class ModelStage:
    """One model in one process: decoded batches in, rows of the extractions table out."""

    def __init__(self, stages: Any, watch: Any) -> None:
        # pixels are views of what Ray shares between processes, which nobody writes to
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        self._stages: Stages = ray.get(stages)
        self._watch = watch
        self._model = self._stages.load_model()

    def __call__(self, packed: pa.Table) -> pa.Table:
        batch = unpack(packed)
        piece = batch.start, batch.end
        ray.get(self._watch.begin.remote(piece))
        done = extract_batch(
            self._model, batch, self._stages, on_broken_device=lambda: self._end_process(piece)
        )
        ray.get(self._watch.end.remote(piece))
        return pack(done)

    def _end_process(self, piece: Range) -> None:
        """End it: a broken device stays broken in this process, another one may have a good one."""
        ray.get(self._watch.end.remote(piece, is_blameless=True))
        os._exit(BROKEN_DEVICE)


def write_stage(packed: pa.Table, stages: Any) -> pa.Table:
    """Stage the rows of several batches; give back receipts."""
    found = [unpack(packed.slice(i, 1)) for i in range(packed.num_rows)]
    receipts = stage(found, ray.get(stages))
    return pa.table({"receipt": [receipt.to_json() for receipt in receipts]})


def pack(item: Any) -> pa.Table:
    """Return one row: the object, and beside it the large buffers that it holds."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(item, protocol=5, buffer_callback=buffers.append)
    kind = pa.list_(pa.large_binary())
    return pa.table(
        {
            "head": pa.array([head], pa.large_binary()),
            "buffers": pa.array([[buffer.raw() for buffer in buffers]], kind),
        }
    )


def unpack(row: pa.Table) -> Any:
    """Return the inverse of `pack`; nothing large is copied."""
    buffers = row["buffers"][0].values
    views = [buffers[i].as_buffer() for i in range(len(buffers))]
    return pickle.loads(row["head"][0].as_buffer(), buffers=views)


class RayExecutor:
    """The Executor of the nightly job; starts Ray when it is first needed."""

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

    def run(self, work: OpenWork) -> None:
        """See Executor."""
        if not work.left():
            return
        connect_cluster()
        idle = 0
        while work.left():
            before = work.totals.rows
            error, suspects = self._one_pass(work)
            if error is not None:
                _log.warning("the workers stopped (%s); what they had done is kept", error)
            share = self._sizes().gpus_per_model_worker
            isolate(work, suspects, num_gpus=share, pool=self._config)
            idle = 0 if work.totals.rows > before else idle + 1
            if idle == _IDLE_PASSES:
                raise RunFailedError(f"nothing could be extracted in {idle} attempts: {error}")

    def _one_pass(self, work: OpenWork) -> tuple[str | None, list[Range]]:
        """Work on all that is left; why it stopped before the end, and the rows to blame."""
        watch = ray.remote(num_cpus=0)(Watch).remote()
        problem = None
        try:
            for row in self._dataset(work, watch).iter_rows():
                work.add(Receipt.from_json(row["receipt"]))
        except RayError as error:
            problem = cause_of(error)
        finally:
            work.close()
        try:
            suspects, failures = ray.get(watch.report.remote())
        except RayError:  # lost with its node: nobody to blame, what is left is worked again
            suspects, failures = [], 1
        for _ in range(max(failures, problem is not None)):
            work.worker_failed(self._config.max_worker_failures, problem or "")
        return problem, suspects

    def _dataset(self, work: OpenWork, watch: Any) -> ray.data.Dataset:
        sizes, config, chunks = self._sizes(), self._config, list(work.chunks())
        settings = work.stages.decode.chunks
        stages = ray.put(work.stages)
        with _context():
            dataset = ray.data.from_items(
                [{"start": start, "end": end} for start, end in chunks],
                override_num_blocks=min(len(chunks), _MOST_BLOCKS),
            )
            dataset = dataset.map_batches(
                decode_stage,
                fn_args=(stages, watch),
                batch_size=1,
                batch_format="pyarrow",
                compute=ray.data.TaskPoolStrategy(size=min(len(chunks), sizes.decode_workers)),
                num_cpus=_OF_TASK * config.cpus_per_worker,
                max_retries=1,
            )
            dataset = dataset.map_batches(
                ModelStage,
                fn_constructor_args=(stages, watch),
                batch_size=1,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(
                    min_size=max(1, sizes.model_workers // 2),
                    max_size=sizes.model_workers,
                    initial_size=sizes.model_workers,
                    max_tasks_in_flight_per_actor=config.batches_per_model_worker,
                ),
                num_cpus=_OF_ACTOR * config.cpus_per_worker,
                num_gpus=sizes.gpus_per_model_worker,
                max_restarts=1,
                max_task_retries=1,
            )
            return dataset.map_batches(
                write_stage,
                fn_args=(stages,),
                batch_size=max(1, settings.part_rows // settings.batch_rows),
                batch_format="pyarrow",
                compute=ray.data.TaskPoolStrategy(size=sizes.decode_workers),
                num_cpus=_OF_TASK * config.cpus_per_worker,
                max_retries=1,
            )

    def _sizes(self) -> PoolSizes:
        return pool_sizes(self._config, ray.cluster_resources(), num_cores=self.num_cores())


@contextmanager
def _context() -> Iterator[None]:
    """Blocks of one row each and no output but ours; a dataset keeps what it was made with."""
    changed = {
        "target_max_block_size": 1,
        "enable_progress_bars": False,
        "print_on_execution_start": False,
        "actor_init_retry_on_errors": False,
    }
    context = ray.data.DataContext.get_current()
    before = {name: getattr(context, name) for name in changed}
    for name, value in changed.items():
        setattr(context, name, value)
    try:
        with warnings.catch_warnings():
            # bounds on restarts and retries have no named parameters yet
            warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
            yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)


def _result(ref: Any) -> Any:
    try:
        return ray.get(ref)
    except RayTaskError:
        raise
    except RayError as error:
        return WorkerDiedError(f"{type(error).__name__}: {error}"[:300])
