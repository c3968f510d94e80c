"""Do heatmaps point at the product? Mass of a colour word's map inside the garment's box.

    python tests/benchmarks/heatmap_mass.py --products 6000 --epochs 8 [--model DIR]

Trains TIR + PAR on the demo catalogue (or loads DIR), then draws another catalogue and takes its
products that are small, off-centre, cover at most a quarter of their picture and have a colour
in the title. A map's mass is the positive part of its scores; where none is positive the map says
nothing and counts as uniform. Compared pairwise with a uniform map (the box's share of the
picture) and with the map of a word outside every value. Last line: one JSON object.
"""

import argparse
import json
import math
import re

import numpy as np
from demo_ablation import SYSTEMS, load
from small_systems import Budget, train

from ulsdram_core.demo import DemoConfig, DemoProduct, generate
from ulsdram_core.extractor import Extractor
from ulsdram_core.heatmap import TextSpan, heatmaps

SIDE = 64
Box = tuple[int, int, int, int]


def small_products(count: int, seed: int) -> list[DemoProduct]:
    """Draw products as the module's docstring says."""
    config = DemoConfig(num_products=count, picture_size=SIDE, seed=seed)
    return [item for item in generate(config) if item.box is not None and is_case(item)]


def is_case(item: DemoProduct) -> bool:
    """Return whether a product is small, has a colour in its title, and a word beside it."""
    small = item.is_small and item.box is not None and box_share(item.box) <= 0.25
    return small and color_span(item) is not None and unrelated_span(item) is not None


def box_share(box: Box) -> float:
    """Share of the picture that the box covers."""
    left, top, right, bottom = box
    return (right - left) * (bottom - top) / SIDE**2


def color_span(item: DemoProduct) -> TextSpan | None:
    """Where the title says the product's colour."""
    for span in item.gold:
        if span.attribute == "color" and span.source == "title":
            return TextSpan("title", span.start, span.end)
    return None


def unrelated_span(item: DemoProduct) -> TextSpan | None:
    """The first word of the title that is no part of a value."""
    taken = [(span.start, span.end) for span in item.gold if span.source == "title"]
    for word in re.finditer(r"[A-Za-z]{2,}", item.title):
        if all(word.end() <= start or word.start() >= end for start, end in taken):
            return TextSpan("title", word.start(), word.end())
    return None


def mass_inside(weights_hw: np.ndarray, box: Box) -> float:
    """Share of a map's positive mass inside the box; cells count by their overlap with it."""
    height, width = weights_hw.shape
    positive = weights_hw.clip(min=0)
    if positive.sum() == 0:
        return box_share(box)
    left, top, right, bottom = box
    columns = overlap(width, left, right)
    rows = overlap(height, top, bottom)
    return float((positive * np.outer(rows, columns)).sum() / positive.sum())


def overlap(cells: int, start: float, end: float) -> np.ndarray:
    """Share of each of `cells` equal strips of the picture that lies in [start, end)."""
    edges = np.arange(cells + 1) * SIDE / cells
    inside = np.minimum(edges[1:], end) - np.maximum(edges[:-1], start)
    return inside.clip(min=0) / (SIDE / cells)


def compare(found: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """Mean difference with a 95 % bootstrap interval, wins, and a two-sided sign test."""
    difference = found - other
    draws = np.random.default_rng(0).integers(0, len(found), (10_000, len(found)))
    low, high = np.quantile(difference[draws].mean(1), [0.025, 0.975])
    wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
    return {
        "difference": float(difference.mean()),
        "low": float(low),
        "high": float(high),
        "wins": wins,
        "losses": losses,
        "sign_test_p": sign_test(wins, wins + losses),
    }


def sign_test(wins: int, total: int) -> float:
    """Two-sided probability of so uneven a split of `total` fair coins."""
    extreme = max(wins, total - wins)
    tail = sum(math.comb(total, count) for count in range(extreme, total + 1)) / 2**total
    return min(1.0, 2 * tail)


def measure(extractor: Extractor, products: list[DemoProduct]) -> dict[str, object]:
    """Measure every product's three maps."""
    color, unrelated, uniform = [], [], []
    for item in products:
        assert item.box is not None
        decoded = extractor.decode(item.to_product())
        spans = [color_span(item), unrelated_span(item)]
        maps = heatmaps(extractor, decoded, [span for span in spans if span is not None])
        color.append(mass_inside(maps[0].weights_Phw[0], item.box))
        unrelated.append(mass_inside(maps[1].weights_Phw[0], item.box))
        uniform.append(box_share(item.box))
    found = np.array(color)
    return {
        "products": len(products),
        "color": float(found.mean()),
        "unrelated": float(np.mean(unrelated)),
        "uniform": float(np.mean(uniform)),
        "color_minus_uniform": compare(found, np.array(uniform)),
        "color_minus_unrelated": compare(found, np.array(unrelated)),
    }


def main() -> None:
    """Train or load, then measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--products", type=int, default=6000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--system", default="TIR + PAR, aligned", choices=sorted(SYSTEMS))
    parser.add_argument("--cases", type=int, default=1500, help="products drawn to choose from")
    parser.add_argument("--model", help="a model directory, instead of training")
    parser.add_argument("--save", help="folder for the trained model")
    arguments = parser.parse_args()
    if arguments.model:
        extractor = Extractor.load(arguments.model)
    else:
        products = [product.to_product() for product in load(arguments.products)["train"]]
        system = SYSTEMS[arguments.system]
        budget = Budget(arguments.epochs)
        extractor = Extractor(train(system, products, budget, seed=0))
        if arguments.save:
            extractor.save(arguments.save)
    print(json.dumps(measure(extractor, small_products(arguments.cases, seed=1))))


if __name__ == "__main__":
    main()
