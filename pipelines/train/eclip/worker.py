"""What one Ray Train worker does in pre-training: its pools, steps, validation, checkpoints."""

import logging
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray.train
import torch
import torch.distributed as dist
from ray.train.torch import get_device

from pipelines.labelled.table import LabelledTable
from pipelines.train.eclip.pools import part_rows, pools_of
from pipelines.train.eclip.recipe import EclipRecipe
from pipelines.train.eclip.state import PretrainPlace
from pipelines.train.eclip.table import pairs_of_rows
from pipelines.train.log import TrainLog, clock
from pipelines.train.rank import WorkerSettings, report, shard_tables
from pipelines.train.state import load_state, save_state, state_of
from ulsdram_core.eclip.dual_encoder import PairVectors
from ulsdram_core.eclip.pairs import Pair, draw_streams, order_pairs
from ulsdram_core.eclip.parts import EclipParts, load_eclip
from ulsdram_core.eclip.pretraining import build_step
from ulsdram_core.eclip.streams import BatchLoss, MultiStream
from ulsdram_core.eclip.validation import embed_pairs, pair_figures
from ulsdram_core.eclip.workers import Workers
from ulsdram_core.precision import choose_precision
from ulsdram_core.process import tune_process
from ulsdram_core.seeding import generator_of, seed_of
from ulsdram_core.text import TextProcessor

_log = logging.getLogger(__name__)
VALID_ROWS = 256
LINE_SECONDS = 10.0


PretrainSettings = WorkerSettings[EclipRecipe]


def pretrain_worker(config: dict[str, Any]) -> None:
    """Entry point of every worker."""
    settings: PretrainSettings = config["settings"]
    tune_process(settings.num_threads)
    with settings.start.local_copy() as folder, tempfile.TemporaryDirectory() as scratch:
        PretrainWorker(settings, load_eclip(folder), Path(scratch)).run()


class PretrainWorker:
    """One rank of a pre-training run."""

    def __init__(self, settings: PretrainSettings, parts: EclipParts, scratch: Path) -> None:
        context = ray.train.get_context()
        self.workers = Workers(context.get_world_rank(), context.get_world_size())
        self.settings = settings
        self.config = settings.recipe.pretrain
        self.parts = parts
        self.device = get_device()
        self.model = parts.model.to(self.device)
        self.text = TextProcessor(parts.tokenizer, parts.config.text)
        self.shard_rows = settings.train.num_rows // self.workers.world  # split equally
        self.total_pairs = self.shard_rows * self.workers.world * self.config.epochs
        self.precision = choose_precision(self.config.precision, self.device)
        streams = MultiStream(
            self.model, self.config.targets, precision=self.precision, workers=self.workers
        )
        self.step = build_step(self.model, self.config, streams, total_pairs=self.total_pairs)
        self.place = PretrainPlace(growth=self.config.growth.start())
        self.best = state_of(self.model)
        self.log = TrainLog(settings.output, scratch, 0)
        self._restore()
        self._started, self._start_pairs = time.monotonic(), self.place.pairs

    def run(self) -> None:
        """Train until the last epoch."""
        while not self.place.finished:
            self._run_epoch()

    def _restore(self) -> None:
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is not None:
            with checkpoint.as_directory() as folder:
                self.place, self.best = load_state(
                    Path(folder),
                    PretrainPlace,
                    model=self.model,
                    optimizer=self.step.optimizer,
                )
            _log.info("resuming at epoch %d, pair %d", self.place.epoch, self.place.pairs)
        self.log.resume(self.place)

    def _run_epoch(self) -> None:
        place = self.place
        last_report = started = time.monotonic()
        pool_start = 0
        parts = shard_tables("train", part_rows(self.settings.recipe.run.pool_pairs))
        for number, rows in enumerate(pools_of(parts, place.epoch)):
            if place.epoch_rows < pool_start + rows.num_rows:
                for batch in self._batches(rows, number, pool_start):
                    found = self._train(batch)
                    last_report = self._say(found, last_report)
                    place.seconds += time.monotonic() - started
                    started = time.monotonic()
                    if self._is_validation_due():
                        self._validate()
                    elif place.step % self.settings.recipe.run.checkpoint_steps == 0:
                        self._report()
            pool_start += rows.num_rows
        place.finished = place.epoch >= self.config.epochs
        place.epoch += 1
        place.epoch_rows = place.validations = 0
        self._report()

    def _batches(self, rows: pa.Table, number: int, pool_start: int) -> Iterator[list[Pair | None]]:
        """Yield the pool's batches from the place where the run stands.

        Cut by rows, not by usable pairs, so that all workers take equally many steps.
        """
        place = self.place
        pairs = self._pairs(rows, self.settings.train)
        catalogs = [-1 - i if pair is None else pair.catalog for i, pair in enumerate(pairs)]
        chance = generator_of(self.config.seed, "order", place.epoch, self.workers.rank, number)
        order = order_pairs(catalogs, chance, group=self.config.group)
        while (start := place.epoch_rows - pool_start) < len(order):
            size = self.config.stream_pairs * place.growth.streams
            chosen = order[start : start + size]
            place.epoch_rows += len(chosen)
            yield [pairs[i] for i in chosen]

    def _pairs(self, rows: pa.Table, table: LabelledTable) -> list[Pair | None]:
        """Return pairs in order, None for rows that cannot be used."""
        return pairs_of_rows(rows, table, self.text, self.settings.recipe)

    def _train(self, batch: list[Pair | None]) -> BatchLoss:
        place = self.place
        seed = (self.config.seed, place.epoch, self.workers.rank, place.step)
        torch.manual_seed(seed_of("chance", *seed))
        streams = draw_streams(
            [pair for pair in batch if pair is not None],
            stream_pairs=self.config.stream_pairs,
            picture_size=self.settings.recipe.image.size,
            seed=seed_of("draw", *seed),
        )
        self.model.train()
        found = self.step([s.to(self.device) for s in streams], pairs_seen=place.pairs)
        place.step += 1
        place.pairs += len(batch) * self.workers.world
        self.log.step(
            place,
            {
                "loss": found.loss,
                "batch_pairs": found.num_pairs,
                "scale": float(self.model.scale().detach()),
                "rate": self.step.optimizer.param_groups[0]["lr"],
            },
        )
        return found

    def _is_validation_due(self) -> bool:
        place = self.place
        due = place.epoch_rows * self.config.validations // max(1, self.shard_rows)
        return due > place.validations

    def _validate(self) -> None:
        place = self.place
        place.validations += 1
        self.model.eval()
        figures = self._figures()
        recall = (figures["picture_to_text_r1"] + figures["text_to_picture_r1"]) / 2
        place.history.append({"epoch": place.epoch, "pairs": place.pairs, **figures})
        self.log.epoch(place, figures)
        if recall > place.best_recall:
            place.best_recall, place.best_step = recall, place.step
            self.best = state_of(self.model)
        place.growth = self.config.growth.after(place.growth, figures["loss"])
        if self.workers.rank == 0:
            line = " ".join(f"{name} {value:.4f}" for name, value in figures.items())
            print(f"validation {line} streams {place.growth.streams}", flush=True)  # noqa: T201
        self._report()

    def _figures(self) -> dict[str, float]:
        """Return validation figures, the same on all workers, each of which embeds its part."""
        vectors: list[PairVectors] = []
        catalogs: list[int] = []
        for number, rows in enumerate(shard_tables("valid", VALID_ROWS)):
            if number * VALID_ROWS >= self.config.valid_pairs:
                break
            if number % self.workers.world != self.workers.rank:
                continue
            found = self._pairs(rows, self.settings.valid)
            pairs = [pair for pair in found if pair is not None]
            if pairs:
                vectors.append(self._embed(pairs))
                catalogs += [pair.catalog for pair in pairs]
        empty = torch.zeros(0, self.settings.recipe.model.dim)
        texts = self._gather(torch.cat([empty, *(v.text_BE for v in vectors)]))
        pictures = self._gather(torch.cat([empty, *(v.picture_BE for v in vectors)]))
        numbers = self._gather(torch.tensor(catalogs, dtype=torch.long))
        scale = float(self.model.scale().detach())
        figures = pair_figures(PairVectors(texts, pictures), numbers, scale, self.config.targets)
        return self._from_first(figures)

    def _embed(self, pairs: list[Pair]) -> PairVectors:
        return embed_pairs(
            self.model,
            pairs,
            stream_pairs=self.config.stream_pairs,
            picture_size=self.settings.recipe.image.size,
            precision=self.precision,
        )

    def _gather(self, rows: torch.Tensor) -> torch.Tensor:
        return self.workers.gather(rows.to(self.device)).values.cpu()

    def _from_first(self, figures: dict[str, float]) -> dict[str, float]:
        """Return rank 0's: the last bit of a float must not make workers' batches differ."""
        if self.workers.world == 1:
            return figures
        box = [figures]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def _say(self, found: BatchLoss, last: float) -> float:
        now = time.monotonic()
        if self.workers.rank or now - last < LINE_SECONDS:
            return last
        place = self.place
        rate = (place.pairs - self._start_pairs) / (now - self._started)
        left = clock((self.total_pairs - place.pairs) / rate)
        print(  # noqa: T201 - the progress line
            f"epoch {place.epoch}/{self.config.epochs} pairs {place.pairs}/"
            f"{self.total_pairs} loss {found.loss:.4f} batch {found.num_pairs} "
            f"best R@1 {max(0.0, place.best_recall):.4f} {rate:.1f} pairs/s {left} left",
            flush=True,
        )
        return now

    def _report(self) -> None:
        place = self.place
        report(
            {"step": place.step, "best_recall": place.best_recall},
            rank=self.workers.rank,
            log=self.log,
            save=lambda folder: save_state(
                folder,
                model=self.model,
                best=self.best,
                optimizer=self.step.optimizer,
                place=place,
            ),
        )
