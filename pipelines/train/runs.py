"""What every Ray Train run of ours shares: its identity, its finished result, how it is started."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import ray
import torch
from pydantic import BaseModel, ConfigDict, Field
from ray.data import ExecutionOptions
from ray.train import CheckpointConfig, DataConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from pipelines.labelled.pixels import decoded_dataset, kept_if_small
from pipelines.labelled.table import LabelledTable
from pipelines.lake.storage import Storage, file_version
from pipelines.lake.tables import Columns
from pipelines.nightly.table.lock import LockConfig, Owner, TableLock
from pipelines.train.rank import WorkerSettings
from ulsdram_core.checkpoint import CARD, CONFIG, METRICS, RECIPE, WEIGHTS
from ulsdram_core.image import ImageConfig
from ulsdram_core.text import TextConfig


def fingerprint_of(recipe: str, tables: Iterable[LabelledTable], words: Iterable[object]) -> str:
    """Identify a run: the same request resumes, a changed one starts anew."""
    digest = hashlib.sha256(recipe.encode())
    for table in tables:
        for name in table.files:
            info = table.place.sibling(name).info()
            digest.update(f"{name} {info.get('size')} {file_version(info)}".encode())
    for word in words:
        digest.update(f"{word} ".encode())
    return digest.hexdigest()[:16]


def model_version(place: Storage | None) -> str:
    """Name a model directory and the versions of its files, notes aside; "" where there is none."""
    if place is None:
        return ""
    files = [
        f"{path} {info['size']} {file_version(info)}"
        for path, info in sorted(place.fs.find(place.path, detail=True).items())
        if path.rsplit("/", 1)[-1] not in (METRICS, RECIPE, CARD)
    ]
    return "\n".join([place.uri, *files])


@contextmanager
def sole_owner(output: Storage, config: LockConfig | None = None) -> Iterator[None]:
    """Keep a second training out of this output: both would share its drafts."""
    folder = output.join("_lock")
    lock = TableLock.acquire(folder, Owner.this_process("of training"), config or LockConfig())
    try:
        yield
    finally:
        lock.release()
        folder.delete()


def finished_summary(output: Storage, fingerprint: str) -> dict[str, Any] | None:
    """Return the summary of a finished run of this very request, if the output holds one."""
    model = output.join("model")
    if not {CONFIG, METRICS, WEIGHTS} <= set(model.names()):
        return None
    metrics: dict[str, Any] = json.loads(model.join(METRICS).read_bytes())
    if metrics.pop("fingerprint", None) != fingerprint:
        return None
    return {**metrics, "already_trained": True}


class CourseConfig(BaseModel):
    """How a run is read, saved and ended, whatever is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint_steps: int = Field(200, ge=1, description="steps between checkpoints")
    keep_decoded_mb: int = Field(
        200,
        ge=0,
        description="a split whose decoded pictures take no more is decoded once and kept in the "
        "object store; larger ones are decoded as they are read, in every epoch",
    )
    max_failures: int = Field(3, ge=0, description="worker failures survived")


class RunRecipe(BaseModel):
    """What every recipe of a run holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str = Field("", description="one line for people")
    text: TextConfig = Field(default_factory=TextConfig, description="how texts are read")
    image: ImageConfig | None = Field(None, description="how pictures are read")
    run: CourseConfig = Field(default_factory=CourseConfig, description="course of the run")
    columns: Columns = Field(default_factory=Columns, description="columns of the products table")


AnyRecipe = TypeVar("AnyRecipe", bound=RunRecipe)


@dataclass(frozen=True)
class RunRequest(Generic[AnyRecipe]):
    """What a user asked for, whatever is trained."""

    recipe: AnyRecipe
    data: Storage
    output: Storage
    num_workers: int = 1
    init_from: Storage | None = None
    random_init: bool = False
    restart: bool = False


def run_workers(
    worker: Callable[[dict[str, Any]], None],
    request: RunRequest[AnyRecipe],
    tables: Mapping[str, LabelledTable],
    start: Storage,
    fingerprint: str,
) -> Path:
    """Run `worker` on the cluster over decoded tables; returns the last checkpoint's folder."""
    recipe = request.recipe
    settings: WorkerSettings[AnyRecipe] = WorkerSettings(
        recipe=recipe,
        start=start,
        output=request.output,
        train=tables["train"],
        valid=tables["valid"],
        num_threads=max(1, torch.get_num_threads() // request.num_workers),
    )
    checkpoints = request.output.join("checkpoints")
    limit = recipe.run.keep_decoded_mb * 1_000_000
    name = f"run-{fingerprint}"
    if request.restart:
        checkpoints.join(name).delete()
    # The cluster's GPUs count, not the driver's: a head often has none.
    use_gpu = ray.cluster_resources().get("GPU", 0) > 0
    trainer = TorchTrainer(
        worker,
        train_loop_config={"settings": settings},
        scaling_config=ScalingConfig(num_workers=request.num_workers, use_gpu=use_gpu),
        run_config=RunConfig(
            name=name,
            storage_path=checkpoints.path,
            storage_filesystem=checkpoints.arrow,
            failure_config=FailureConfig(max_failures=recipe.run.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
        datasets={split: _decoded(table, recipe.image, limit) for split, table in tables.items()},
        # Validation is read whole by every worker, which scores its part: no row is lost to an
        # equal split. Order is kept so that a resumed run meets the same batches.
        dataset_config=DataConfig(
            datasets_to_split=["train"],
            execution_options=ExecutionOptions(preserve_order=True),
            enable_shard_locality=False,
        ),
    )
    result = trainer.fit()
    assert result.checkpoint is not None, "the last epoch reports a checkpoint"
    return Path(result.checkpoint.to_directory())


def _decoded(table: LabelledTable, image: ImageConfig | None, limit: int) -> ray.data.Dataset:
    side = image.size if image else 0
    num_bytes = table.num_rows * (3 * side**2 * max(1, len(table.picture_columns)) + 1000)
    return kept_if_small(decoded_dataset(table, image), num_bytes, limit)


def put_folder(save: Callable[[Path], Path], place: Storage, scratch: Path) -> None:
    """Write a model directory anywhere; one written in part is neither finished nor loadable.

    Elsewhere than on this machine an old model's metrics (which say that it is finished) and config
    (without which nothing loads it) go first, and the new ones come last.
    """
    if place.is_local:
        save(Path(place.path))
        return
    folder = save(scratch / "upload")
    last = (CONFIG, METRICS)
    for name in reversed(last):
        place.join(name).delete()
    names = sorted(path.name for path in folder.iterdir())
    for name in [*(n for n in names if n not in last), *last]:
        place.join(name).write_bytes((folder / name).read_bytes())
