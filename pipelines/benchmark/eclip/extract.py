"""Attribute extraction from little: ULS-DRAM with e-CLIP's encoders, on a share of the labels."""

from dataclasses import dataclass

import torch

from pipelines.benchmark.eclip.tasks import Figure
from pipelines.labelled.table import LabelledTable
from pipelines.train.extractor.recipe import Recipe
from pipelines.train.extractor.start import extractor_config
from ulsdram_core.eclip.bridge import assemble_from_eclip
from ulsdram_core.eclip.parts import EclipParts
from ulsdram_core.extractor import Extractor
from ulsdram_core.fit.examples import ExampleBuilder
from ulsdram_core.fit.fitting import fit
from ulsdram_core.labels import LabelSet
from ulsdram_core.metrics import ExtractionMetrics
from ulsdram_core.schema import Product
from ulsdram_core.seeding import generator_of
from ulsdram_core.text import TextProcessor

SCORED_AT_ONCE = 256


@dataclass(frozen=True)
class ExtractSettings:
    """What the extraction task costs."""

    recipe: Recipe
    shares: tuple[float, ...] = (0.01, 0.1)
    seeds: int = 3
    min_steps: int = 200
    """Steps that small shares are trained for at least, by more epochs."""
    test_rows: int | None = None


def extract_figures(
    name: str, eclip: EclipParts, tables: dict[str, LabelledTable], settings: ExtractSettings
) -> list[Figure]:
    """Return TAG-F1 on the test split after training on each share of the train split."""
    train = _products(tables["train"], None)
    test = _products(tables["test"], settings.test_rows)
    found = []
    for share in settings.shares:
        rows = [
            _train_and_score(eclip, train, test, settings, share=share, seed=seed)
            for seed in range(settings.seeds)
        ]
        scores = torch.tensor(rows)
        values = {"f1": float(scores.mean())}
        if len(rows) > 1:
            values["f1_sd"] = float(scores.std())
        detail = f"{max(2, round(share * len(train)))} labelled, {settings.seeds} seeds"
        found.append(Figure("extraction", name, "both", "fine-tune", values, detail))
    return found


def _products(table: LabelledTable, limit: int | None) -> list[Product]:
    frame = table.scan() if limit is None else table.scan().head(limit)
    return table.products(frame.select(table.names).collect(engine="streaming").to_arrow())


def _train_and_score(
    eclip: EclipParts,
    train: list[Product],
    test: list[Product],
    settings: ExtractSettings,
    *,
    share: float,
    seed: int,
) -> float:
    count = max(2, round(share * len(train)))
    order = torch.randperm(len(train), generator=generator_of(seed, "share")).tolist()
    chosen = [train[i] for i in order[:count]]
    recipe = settings.recipe
    torch.manual_seed(seed)
    # Labels of the whole split: what a share lacks counts as missed, alike for all systems.
    parts = assemble_from_eclip(extractor_config(recipe), LabelSet.from_products(train), eclip)
    builder = ExampleBuilder(
        TextProcessor(parts.tokenizer, parts.config.text), parts.labels, parts.config.image
    )
    examples = list(builder(chosen))
    steps_per_epoch = -(-len(examples) // recipe.fit.batch_size)
    epochs = max(recipe.fit.epochs, -(-settings.min_steps // steps_per_epoch))
    config = recipe.fit.model_copy(update={"seed": seed, "epochs": epochs})
    for _ in fit(parts, examples, config):
        pass
    metrics = ExtractionMetrics()
    extractor = Extractor(parts)
    for start in range(0, len(test), SCORED_AT_ONCE):
        some = test[start : start + SCORED_AT_ONCE]
        for product, extraction in zip(some, extractor.extract(some), strict=True):
            metrics.update(product.gold or (), extraction)
    return float(metrics.compute()["tag"]["micro"]["f1"])
