"""MAE-model as a run: attributes are given, known values are ranked, only accuracy is scored."""

import time
from collections import defaultdict
from typing import Any

import numpy as np
import torch

from pipelines.benchmark.paper.data import BenchmarkData, highest_regions
from pipelines.benchmark.paper.plan import RunPlan
from pipelines.benchmark.paper.score import Score
from ulsdram_core.baselines.value_ranker import (
    Query,
    RankerConfig,
    ValueRanker,
    ValueTable,
    fit_ranker,
    rank,
)
from ulsdram_core.labels import LabelSet
from ulsdram_core.schema import Product
from ulsdram_core.text import TextProcessor


def run_ranker(plan: RunPlan, data: BenchmarkData) -> dict[str, Any]:
    """Train the ranker on gold values; ask it for every gold attribute of the test products."""
    config = plan.ranker
    assert config is not None
    labels = data.labels()
    reader = _Reader(plan, data, config)
    table = ValueTable(len(labels))
    train = reader.training(labels, table)
    torch.manual_seed(config.seed)
    model = ValueRanker(config, len(reader.tokenizer), table, reader.picture_dim)
    started = time.monotonic()
    losses = list(fit_ranker(model, table, train))
    trained = time.monotonic()
    asked = [(p, a) for p in range(len(data.test)) for a in data.test[p].gold_attributes()]
    queries = [
        reader.query(data.test[place], "test", place, labels.index(attribute))
        for place, attribute in asked
        if attribute in labels
    ]
    answers = iter(rank(model, table, queries))
    values: dict[int, dict[str, set[str]]] = defaultdict(dict)
    for place, attribute in asked:
        answer = next(answers) if attribute in labels else None
        if answer is not None:
            values[place][attribute] = {answer}
    seconds = time.monotonic() - trained
    score = Score()
    for place, product in enumerate(data.test):
        score.add_values(product, values[place])
    return {
        "figures": score.figures(has_spans=False, has_head=False),
        "products": score.per_product(),
        "sweep": None,
        "losses": losses,
        "cost": {
            "parameters": sum(p.numel() for p in model.parameters()),
            "trained_parameters": sum(p.numel() for p in model.parameters()),
            "train_minutes": (trained - started) / 60,
            "products_per_second": len(data.test) / max(seconds, 1e-9),
        },
    }


class _Reader:
    """Turns products into queries: the first window's pieces and the highest picture features."""

    def __init__(self, plan: RunPlan, data: BenchmarkData, config: RankerConfig) -> None:
        self.plan, self.data, self.config = plan, data, config
        self.tokenizer = data.tokenizer(plan.extractor.model.text_encoder)
        self.text = TextProcessor(self.tokenizer, plan.extractor.text)
        self.picture_dim = data.fixed_encoder(plan).region_dim

    def training(self, labels: LabelSet, table: ValueTable) -> list[Query]:
        """Return one query per distinct gold value, filling the table."""
        found = []
        for place, product in enumerate(self.data.train):
            gold = {(g.attribute, g.value): None for g in product.gold or ()}
            for attribute, value in gold:
                if attribute in labels:
                    number = labels.index(attribute)
                    known = table.add(number, value)
                    found.append(self.query(product, "train", place, number, value=known))
        return found

    def query(
        self, product: Product, split: str, place: int, attribute: int, *, value: int = -1
    ) -> Query:
        """Return one question."""
        store = self.data.store(self.plan, split)
        assert store is not None
        picture = highest_regions(store, place, self.config.max_pictures)
        if picture is None:
            picture = np.zeros(self.picture_dim, np.float32)
        windows = self.text.encode(product.texts)
        pieces = windows[0].piece_ids if windows else np.zeros(0, np.int64)
        return Query(pieces, picture, attribute, value)
