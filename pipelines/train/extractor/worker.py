"""What one Ray Train worker does: its steps, validation, checkpoints."""

import logging
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import ray.train
import torch
import torch.distributed as dist
from ray.train.torch import get_device, prepare_model

from pipelines.evaluate.scoring import extract_rows
from pipelines.train.extractor.feed import Feed, FeedConfig
from pipelines.train.extractor.recipe import Recipe
from pipelines.train.extractor.state import TrainPlace
from pipelines.train.log import TrainLog, clock
from pipelines.train.rank import WorkerSettings, report, shard_tables
from pipelines.train.state import load_state, restore_schedule, save_state, state_of
from ulsdram_core.checkpoint import load_model
from ulsdram_core.extractor import Extractor
from ulsdram_core.fit.losses import ExtractionLoss
from ulsdram_core.fit.step import StepResult, TrainStep
from ulsdram_core.metrics import ExtractionMetrics
from ulsdram_core.parts import ModelParts
from ulsdram_core.precision import choose_precision
from ulsdram_core.process import tune_process
from ulsdram_core.text import TextProcessor

_log = logging.getLogger(__name__)
VALID_BATCH = 256
LINE_SECONDS = 10.0


TrainSettings = WorkerSettings[Recipe]


def train_worker(config: dict[str, Any]) -> None:
    """Entry point of every worker."""
    settings: TrainSettings = config["settings"]
    tune_process(settings.num_threads)
    with settings.start.local_copy() as folder, tempfile.TemporaryDirectory() as scratch:
        Worker(settings, load_model(folder), Path(scratch)).run()


class Worker:
    """One rank of a training run."""

    def __init__(self, settings: TrainSettings, parts: ModelParts, scratch: Path) -> None:
        context = ray.train.get_context()
        self.rank, self.world = context.get_world_rank(), context.get_world_size()
        self.settings = settings
        self.recipe = settings.recipe
        self.parts = parts
        self.device = get_device()
        self.place = TrainPlace()
        self.seen = 0
        text = TextProcessor(parts.tokenizer, parts.config.text)
        self.feed = Feed(self._feed_config(), settings.train, text, parts.labels)
        shard_rows = settings.train.num_rows // self.world  # Ray Data splits equally
        self.steps_per_epoch = self.feed.config.num_steps(shard_rows)
        self.num_steps = self.steps_per_epoch * self.recipe.fit.epochs
        optim = self.recipe.fit.optim
        parts.model.to(self.device)
        self.optimizer, self.schedule = optim.build(parts.model, self.num_steps)
        self.best = state_of(parts.model)
        self.mean = self.recipe.fit.weight_mean(parts.model)
        self.log = TrainLog(settings.output, scratch, self.num_steps)
        self._restore()
        self.step = TrainStep(
            model=self._wrapped(),
            loss=ExtractionLoss(self.recipe.fit.loss, parts.config.range),
            optimizer=self.optimizer,
            schedule=self.schedule,
            clip=optim.clip,
            precision=choose_precision(self.recipe.fit.precision, self.device),
            world_size=self.world,
            reduce=self._sum_over_workers,
        )

    def run(self) -> None:
        """Train until the last epoch, or until patience ends."""
        while not self.place.finished:
            self._run_epoch()
            self._finish_epoch()

    def _feed_config(self) -> FeedConfig:
        fit, run = self.recipe.fit, self.recipe.run
        micro = -(-fit.batch_size // (self.world * run.accumulate))
        return FeedConfig(
            batch_products=micro,
            pool_batches=run.pool_batches,
            accumulate=run.accumulate,
            hide=fit.hiding(self.parts.tokenizer),
            picture_size=self.recipe.image.size if self.recipe.image else 1,
            seed=fit.seed,
            rank=self.rank,
        )

    def _wrapped(self) -> torch.nn.Module:
        if self.world == 1:
            return self.parts.model
        # A batch may lack pictures or pairs: those parameters then get no gradient.
        return prepare_model(
            self.parts.model, parallel_strategy_kwargs={"find_unused_parameters": True}
        )

    def _restore(self) -> None:
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is not None:
            with checkpoint.as_directory() as folder:
                self.place, self.best = load_state(
                    Path(folder),
                    TrainPlace,
                    model=self.parts.model,
                    optimizer=self.optimizer,
                    mean=self.mean,
                )
            restore_schedule(self.schedule, self.optimizer, step=self.place.step)
            _log.info("resuming at epoch %d step %d", self.place.epoch, self.place.step)
        self.log.resume(self.place)

    def _sum_over_workers(self, numbers: list[float]) -> list[float]:
        if self.world == 1:
            return numbers
        totals = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        dist.all_reduce(totals)
        return totals.tolist()

    def _run_epoch(self) -> None:
        place = self.place
        self.parts.model.train()
        started = last_line = time.monotonic()
        steps = self.feed.steps(
            shard_tables("train", self.feed.config.pool_products),
            epoch=place.epoch,
            skip=place.epoch_step,
        )
        for batches in steps:
            self.feed.seed_step(place.epoch, place.epoch_step)
            result = self.step([batch.to(self.device) for batch in batches])
            self.seen += self.world * self.feed.config.batch_products * len(batches)
            self._count_step(result)
            if self.rank == 0 and time.monotonic() - last_line > LINE_SECONDS:
                last_line = time.monotonic()
                print(self._line(result.loss), flush=True)  # noqa: T201 - the progress line
            if place.epoch_step % self.recipe.run.checkpoint_steps == 0:
                place.seconds += time.monotonic() - started
                started = time.monotonic()
                self._report()
        place.seconds += time.monotonic() - started

    def _line(self, loss: float) -> str:
        place = self.place
        elapsed, left = self.log.pace(place.step)
        f1 = f"{place.best_f1:.4f}" if place.best_f1 >= 0 else "-"
        return (
            f"epoch {place.epoch}/{self.recipe.fit.epochs} step {place.step}/{self.num_steps} "
            f"loss {loss:.4f} best F1 {f1} {self.seen / elapsed:.1f} products/s {clock(left)} left"
        )

    def _count_step(self, result: StepResult) -> None:
        place = self.place
        place.step += 1
        place.epoch_step += 1
        if self.mean is not None:
            self.mean.update(place.step)
        self.log.step(
            place,
            {
                "loss": result.loss,
                "tag_loss": result.tag_loss,
                "attribute_loss": result.attribute_loss,
                "gradient_norm": result.gradient_norm,
                "rate": float(self.schedule.get_last_lr()[0]),
            },
        )

    def _finish_epoch(self) -> None:
        place = self.place
        self.parts.model.eval()
        with self.mean.applied() if self.mean is not None else nullcontext():
            figures = self._score_epoch()
        patience = self.recipe.run.patience
        impatient = patience is not None and place.stale_epochs >= patience
        place.finished = impatient or place.epoch >= self.recipe.fit.epochs
        if self.rank == 0:
            print(  # noqa: T201 - the progress line
                f"epoch {place.epoch}/{self.recipe.fit.epochs} validation "
                + " ".join(f"{name} {value:.4f}" for name, value in figures.items()),
                flush=True,
            )
        place.epoch += 1
        place.epoch_step = 0
        self._report()

    def _score_epoch(self) -> dict[str, float]:
        """Validate the model as it is, and keep its weights if it is the best so far."""
        place = self.place
        figures = self._validate()
        place.history.append({"epoch": place.epoch, **figures})
        self.log.epoch(place, figures)
        if figures["f1"] > place.best_f1:
            place.best_f1, place.best_epoch = figures["f1"], place.epoch
            place.stale_epochs = 0
            self.best = state_of(self.parts.model)
        else:
            place.stale_epochs += 1
        return figures

    def _validate(self) -> dict[str, float]:
        """Score the validation split; each worker takes every world-size-th batch."""
        extractor = Extractor(self.parts, device=self.device, precision=self.recipe.fit.precision)
        metrics = ExtractionMetrics()
        for number, rows in enumerate(shard_tables("valid", VALID_BATCH)):
            if number % self.world == self.rank:
                for product, extraction in extract_rows(rows, self.settings.valid, extractor):
                    metrics.update(product.gold or (), extraction)
        merged = self._merge(metrics)
        figures = merged.compute()
        return {
            "f1": figures["tag"]["micro"]["f1"],
            "precision": figures["tag"]["micro"]["precision"],
            "recall": figures["tag"]["micro"]["recall"],
        }

    def _merge(self, metrics: ExtractionMetrics) -> ExtractionMetrics:
        if self.world == 1:
            return metrics
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, metrics)
        merged = ExtractionMetrics()
        for part in found:
            merged.merge(part)
        return merged

    def _report(self) -> None:
        place = self.place
        report(
            {"step": place.step, "best_f1": place.best_f1},
            rank=self.rank,
            log=self.log,
            save=lambda folder: save_state(
                folder,
                model=self.parts.model,
                best=self.best,
                optimizer=self.optimizer,
                place=place,
                mean=self.mean,
            ),
        )
