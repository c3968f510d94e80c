"""Do pictures and the attribute range help? Three seeds of each system on the demo catalogue.

    python tests/benchmarks/demo_ablation.py --products 6000 --epochs 8 --seeds 3

Trains on the catalogue's train split, scores its test split: TAG-F1 of all products and of those
whose text only the picture decides. Prints a table, and one JSON object as the last line.
"""

import argparse
import json
import time

from small_systems import (
    CONCAT,
    NO_RANGE,
    NORMALIZED_TIR,
    PAPER_TIR,
    PAR,
    PICTURE,
    PICTURE_SIZE,
    SOFTMAX_TIR,
    Budget,
    System,
    summarise,
    table_line,
    train,
)

from ulsdram_core.demo import DemoConfig, generate, split
from ulsdram_core.extractor import Extractor
from ulsdram_core.metrics import ExtractionMetrics

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
    for product in generate(DemoConfig(num_products=num_products, picture_size=PICTURE_SIZE)):
        parts[split(product.catalog_id)].append(product)
    return parts


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


def run(system: System, parts: dict[str, list], budget: Budget, *, seed: int) -> dict[str, float]:
    """Train one system with one seed and score it."""
    started = time.time()
    built = train(system, [item.to_product() for item in parts["train"]], budget, seed=seed)
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
    budget = Budget(arguments.epochs, rate=arguments.rate)
    print({name: len(items) for name, items in parts.items()})
    report = {}
    for name in arguments.systems:
        rows = [run(SYSTEMS[name], parts, budget, seed=seed) for seed in range(arguments.seeds)]
        report[name] = summarise(rows)
        print(table_line(name, report[name]), flush=True)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
