"""What one worker of any Ray Train run of ours is told, reads and reports."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import pyarrow as pa
import ray.train

from pipelines.labelled.table import LabelledTable
from pipelines.lake.storage import Storage
from pipelines.train.log import TrainLog

RecipeT = TypeVar("RecipeT")


@dataclass(frozen=True)
class WorkerSettings(Generic[RecipeT]):
    """What the driver hands to every worker; picklable."""

    recipe: RecipeT
    start: Storage
    """Model directory to start from; the same for all workers."""
    output: Storage
    train: LabelledTable
    valid: LabelledTable
    num_threads: int


def shard_tables(name: str, rows: int) -> Iterator[pa.Table]:
    """Yield this worker's part of a split, `rows` rows at a time."""
    shard = ray.train.get_dataset_shard(name)
    yield from shard.iter_batches(batch_size=rows, batch_format="pyarrow", prefetch_batches=1)


def report(
    figures: dict[str, float], *, rank: int, log: TrainLog, save: Callable[[Path], None]
) -> None:
    """Save a checkpoint; every rank reports, rank 0 brings the files that `save` writes."""
    if rank:
        ray.train.report(figures)
        return
    log.flush()
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder))
        ray.train.report(figures, checkpoint=ray.train.Checkpoint.from_directory(folder))
