"""Systems that benchmarks train from scratch on one core: their parts, rates and training."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ulsdram_core.encoders.tokenizer import build_tokenizer
from ulsdram_core.fit.examples import ExampleBuilder
from ulsdram_core.fit.fitting import FitConfig, fit
from ulsdram_core.image import ImageConfig
from ulsdram_core.labels import LabelSet
from ulsdram_core.method.model import ModelConfig
from ulsdram_core.parts import ExtractorConfig, ModelParts, assemble
from ulsdram_core.schema import Product
from ulsdram_core.text import TextProcessor

PICTURE = {"image_encoder": {"architecture": "tiny", "width": 16}}
PAR = {"policy": {"kind": "prototype"}, "head": "released"}
NO_RANGE = {"policy": {"kind": "none"}, "head": "none"}
CONCAT = {"kind": "concat", "normalize_regions": True}
PAPER_TIR = {"kind": "tir"}
NORMALIZED_TIR = {"kind": "tir", "normalize_regions": True, "tir": {"init_std": 0.05}}
SOFTMAX_TIR = {**NORMALIZED_TIR, "tir": {"attention": "softmax", "init_std": 0.05}}
PICTURE_SIZE = 64


@dataclass(frozen=True)
class System:
    """One row of a table."""

    model: dict
    fusion_rate: float = 1e-3
    alignment: float = 0.0


@dataclass(frozen=True)
class Budget:
    """How a system is trained."""

    epochs: int
    batch_size: int = 32
    rate: float = 1e-3
    hidden: int = 96
    vocab_size: int = 2000


def config_of(system: System, budget: Budget) -> ExtractorConfig:
    """Return a system's config over a small text encoder."""
    text = {"name": "tiny", "hidden": budget.hidden, "layers": 2, "heads": 4, "dropout": 0.1}
    model = ModelConfig.model_validate({"text_encoder": text, **system.model})
    image = ImageConfig(size=PICTURE_SIZE) if model.image_encoder else None
    return ExtractorConfig(model=model, image=image)


def train(system: System, products: Sequence[Product], budget: Budget, *, seed: int) -> ModelParts:
    """Train one system with one seed, printing a line per epoch."""
    tokenizer = build_tokenizer([p.texts["title"] for p in products], budget.vocab_size)
    labels = LabelSet.from_products(products)
    torch.manual_seed(seed)
    parts = assemble(config_of(system, budget), labels, tokenizer)
    builder = ExampleBuilder(
        TextProcessor(tokenizer, parts.config.text), labels, parts.config.image
    )
    settings = FitConfig(
        epochs=budget.epochs,
        batch_size=budget.batch_size,
        seed=seed,
        picture_dropout=0.05,
        optim={
            "image_rate": budget.rate,
            "text_rate": budget.rate,
            "fusion_rate": system.fusion_rate,
            "schedule": "cosine",
        },
        loss={"alignment_weight": system.alignment},
    )
    started = time.time()
    for epoch in fit(parts, list(builder(products)), settings):
        seconds = time.time() - started
        print(f"  epoch {epoch.number} loss {epoch.loss:.3f} {seconds:.0f} s", flush=True)
    return parts


def summarise(rows: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over seeds."""
    return {
        key: {
            "mean": statistics.mean(row[key] for row in rows),
            "sd": statistics.stdev(row[key] for row in rows) if len(rows) > 1 else 0.0,
        }
        for key in rows[0]
    }


def table_line(name: str, figures: dict[str, dict[str, float]]) -> str:
    """One printed row: means and deviations."""
    cells = [f"{key} {found['mean']:.2f} +- {found['sd']:.2f}" for key, found in figures.items()]
    return f"{name:28s} " + "  ".join(cells)
