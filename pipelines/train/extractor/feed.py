"""From a worker's shard to batches: pooled, shuffled and sorted by length, the same every time."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import torch

from pipelines.labelled.pixels import products_with_pixels
from pipelines.labelled.table import LabelledTable
from ulsdram_core.batch import Batch, Example, collate
from ulsdram_core.fit.fitting import length_sorted_batches
from ulsdram_core.fit.hiding import Hiding
from ulsdram_core.labels import LabelSet, align_gold
from ulsdram_core.seeding import generator_of, seed_of
from ulsdram_core.text import TextProcessor


@dataclass(frozen=True)
class FeedConfig:
    """How a worker cuts its shard."""

    batch_products: int
    """Products per micro-batch of this worker."""
    pool_batches: int
    accumulate: int
    hide: Hiding
    picture_size: int
    seed: int
    rank: int

    @property
    def pool_products(self) -> int:
        """Products read, shuffled and sorted together."""
        return self.batch_products * self.accumulate * self.pool_batches

    def num_steps(self, num_products: int) -> int:
        """Optimiser steps of an epoch over a shard of `num_products`; equal on all workers."""
        per_step = self.batch_products * self.accumulate
        return -(-num_products // per_step)


class Feed:
    """Turns a worker's decoded rows into the micro-batches of its optimiser steps."""

    def __init__(
        self, config: FeedConfig, table: LabelledTable, text: TextProcessor, labels: LabelSet
    ) -> None:
        self.config = config
        self.table = table
        self.text = text
        self.labels = labels

    def steps(self, pools: Iterable[pa.Table], *, epoch: int, skip: int) -> Iterator[list[Batch]]:
        """Yield each step's micro-batches of one epoch, leaving out the first `skip` steps.

        pools: tables of `pool_products` rows each, the last one smaller.
        """
        done = 0
        for number, pool in enumerate(pools):
            per_step = self.config.batch_products * self.config.accumulate
            num_steps = -(-pool.num_rows // per_step)
            if done + num_steps <= skip:
                done += num_steps
                continue
            groups = self._examples(pool)
            order = generator_of(self.config.seed, "order", epoch, self.config.rank, number)
            lengths = [max((len(e.window.piece_ids) for e in group), default=0) for group in groups]
            for chosen in length_sorted_batches(lengths, per_step, order, pool=len(groups)):
                done += 1
                if done > skip:
                    yield self._micro_batches([groups[i] for i in chosen], epoch, done)

    def seed_step(self, epoch: int, epoch_step: int) -> None:
        """Seed dropout for one step, whatever ran before."""
        torch.manual_seed(seed_of(self.config.seed, "chance", epoch, self.config.rank, epoch_step))

    def _examples(self, pool: pa.Table) -> list[list[Example]]:
        groups = []
        for product, pixels in products_with_pixels(pool, self.table, self.config.picture_size):
            windows = self.text.encode(product.texts)
            gold = align_gold(windows, product.gold or (), self.labels, self.table.sources)
            groups.append([Example(w, pixels, gold.seen_by(w)) for w in windows])
        return groups

    def _micro_batches(self, groups: list[list[Example]], epoch: int, step: int) -> list[Batch]:
        chance = generator_of(self.config.seed, "pictures", epoch, self.config.rank, step)
        size = self.config.batch_products
        batches = []
        for start in range(0, len(groups), size):
            examples = [e for group in groups[start : start + size] for e in group]
            batch = collate(examples, picture_size=self.config.picture_size)
            batches.append(self.config.hide(batch, chance))
        return batches
