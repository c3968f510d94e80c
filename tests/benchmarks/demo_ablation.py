"""Do pictures and the attribute range help? Three seeds of each system on the demo catalogue.

    python tests/benchmarks/demo_ablation.py --products 6000 --epochs 8 --seeds 3

Trains on the catalogue's train split, scores its test split: TAG-F1 of all products and of those
whose text only the picture decides. Prints a table, and one JSON object as the last line.
"""

import argparse
import json
import statistics
import time
from dataclasses import dataclass

import torch

from ulsdram_core.demo import DemoConfig, generate, split
from ulsdram_core.examples import ExampleBuilder
from ulsdram_core.extractor import Extractor
from ulsdram_core.fitting import FitConfig, fit
from ulsdram_core.image import ImageConfig
from ulsdram_core.labels import LabelSet
from ulsdram_core.metrics import ExtractionMetrics
from ulsdram_core.model import ModelConfig
from ulsdram_core.parts import ExtractorConfig, ModelParts, assemble
from ulsdram_core.schema import Product
from ulsdram_core.text import TextProcessor
from ulsdram_core.tokenizer import build_tokenizer

PICTURE = {"image_encoder": {"architecture": "tiny", "width": 16}}
PAR = {"policy": {"kind": "prototype"}, "head": "released"}
NO_RANGE = {"policy": {"kind": "none"}, "head": "none"}
CONCAT = {"kind": "concat", "normalize_regions": True}
PAPER_TIR = {"kind": "tir"}
NORMALIZED_TIR = {"kind": "tir", "normalize_regions": True, "tir": {"init_std": 0.05}}
SOFTMAX_TIR = {**NORMALIZED_TIR, "tir": {"attention": "softmax", "init_std": 0.05}}


@dataclass(frozen=True)
class System:
    """One row of the table."""

    model: dict
    fusion_rate: float = 1e-3
    alignment: float = 0.0


SYSTEMS = {
    "ULS-L (text only)": System(NO_RANGE),
    "ULS-VL vanilla (concat)": System({**NO_RANGE, **PICTURE, "fusion": CONCAT}, 2e-4),
    "ULS-L + PAR": System(PAR),
    "ULS-VL vanilla + PAR": System({**PAR, **PICTURE, "fusion": CONCAT}, 2e-4),
    "TIR + PAR, the paper's form": System({**PAR, **PICTURE, "fusion": PAPER_TIR}),
    "TIR + PAR, normalised": System({**PAR, **PICTURE, "fusion": NORMALIZED_TIR}, 2e-4),
    "TIR + PAR, aligned": System({**PAR, **PICTURE, "fusion": NORMALIZED_TIR}, alignment=1.0),
    "softmax TIR + PAR, aligned": System({**PAR, **PICTURE, "fusion": SOFTMAX_TIR}, alignment=1.0),
}


def load(num_products: int) -> dict[str, list]:
    """Draw the catalogue and split it by catalogue entry."""
    parts = {"train": [], "valid": [], "test": []}
    for product in generate(DemoConfig(num_products=num_products, picture_size=64)):
        parts[split(product.catalog_id)].append(product)
    return parts


def config_of(system: dict) -> ExtractorConfig:
    """Return a system's config over the small text encoder."""
    text = {"name": "tiny", "hidden": 96, "layers": 2, "heads": 4, "dropout": 0.1}
    model = ModelConfig(**{"text_encoder": text, **system})
    image = ImageConfig(size=64) if model.image_encoder else None
    return ExtractorConfig(model=model, image=image)


def score(extractor: Extractor, demo: list) -> dict[str, float]:
    """TAG-F1 of all products and of the ambiguous ones, in percent."""
    products = [product.to_product() for product in demo]
    metrics = {"all": ExtractionMetrics(), "ambiguous": ExtractionMetrics()}
    for item, product, extraction in zip(demo, products, extractor.extract(products), strict=True):
        gold = [span for span in product.gold if span.source == "title"]
        metrics["all"].update(gold, extraction)
        if item.trait:
            metrics["ambiguous"].update(gold, extraction)
    micro = {name: found.compute()["tag"]["micro"] for name, found in metrics.items()}
    return {
        "f1": 100 * micro["all"]["f1"],
        "precision": 100 * micro["all"]["precision"],
        "recall": 100 * micro["all"]["recall"],
        "ambiguous_f1": 100 * micro["ambiguous"]["f1"],
    }


def train(
    system: System, products: list[Product], *, seed: int, epochs: int, rate: float
) -> ModelParts:
    """Train one system with one seed."""
    tokenizer = build_tokenizer([product.texts["title"] for product in products], 2000)
    labels = LabelSet.from_products(products)
    torch.manual_seed(seed)
    built = assemble(config_of(system.model), labels, tokenizer)
    builder = ExampleBuilder(
        TextProcessor(tokenizer, built.config.text), labels, built.config.image
    )
    settings = FitConfig(
        epochs=epochs,
        batch_size=32,
        seed=seed,
        picture_dropout=0.05,
        optim={
            "image_rate": rate,
            "text_rate": rate,
            "fusion_rate": system.fusion_rate,
            "schedule": "cosine",
        },
        loss={"alignment_weight": system.alignment},
    )
    started = time.time()
    for epoch in fit(built, list(builder(products)), settings):
        seconds = time.time() - started
        print(f"  epoch {epoch.number} loss {epoch.loss:.3f} {seconds:.0f} s", flush=True)
    return built


def run(system: System, parts: dict[str, list], *, seed: int, epochs: int, rate: float) -> dict:
    """Train one system with one seed and score it."""
    products = [product.to_product() for product in parts["train"]]
    started = time.time()
    built = train(system, products, seed=seed, epochs=epochs, rate=rate)
    seconds = time.time() - started
    return {**score(Extractor(built), parts["test"]), "seconds": seconds}


def main() -> None:
    """Train and score every system with every seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--products", type=int, default=6000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate of the encoders")
    parser.add_argument("--systems", nargs="*", default=list(SYSTEMS))
    arguments = parser.parse_args()
    parts = load(arguments.products)
    print({name: len(items) for name, items in parts.items()})
    report = {}
    for name in arguments.systems:
        rows = [
            run(SYSTEMS[name], parts, seed=seed, epochs=arguments.epochs, rate=arguments.rate)
            for seed in range(arguments.seeds)
        ]
        report[name] = {
            key: {
                "mean": statistics.mean(row[key] for row in rows),
                "sd": statistics.stdev(row[key] for row in rows) if len(rows) > 1 else 0.0,
            }
            for key in rows[0]
        }
        found = report[name]
        print(
            f"{name:28s} "
            + "  ".join(
                f"{key} {found[key]['mean']:.2f} +- {found[key]['sd']:.2f}" for key in found
            ),
            flush=True,
        )
    print(json.dumps(report))


if __name__ == "__main__":
    main()
