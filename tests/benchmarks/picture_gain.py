"""What do pictures add on labelled products? Text only beside TIR + PAR, several seeds.

    python tests/benchmarks/picture_gain.py --data DATA --epochs 5 --seeds 3
    python tests/benchmarks/picture_gain.py --data DATA --model MODEL  # score a trained one

DATA is a prepared folder (train/ valid/ test/). Encoders start from scratch. Scores TAG-F1 of the
chosen split over all products, over titles that name two or more colours, and over the colour
attributes of those; colours are the words of values of attributes whose name holds "colo".
Prints a line per run and a table; the last line is one JSON object.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import polars as pl
from small_systems import (
    NORMALIZED_TIR,
    PAPER_TIR,
    PAR,
    PICTURE,
    Budget,
    System,
    summarise,
    table_line,
    train,
)

from ulsdram_core.extractor import Extractor
from ulsdram_core.metrics import TagMetric, gold_spans, predicted_spans
from ulsdram_core.schema import GoldSpan, Product

SYSTEMS = {
    "ULS-L + PAR (text only)": System(PAR),
    "ULS-DRAM, the paper's form": System({**PAR, **PICTURE, "fusion": PAPER_TIR}),
    "ULS-DRAM, aligned": System({**PAR, **PICTURE, "fusion": NORMALIZED_TIR}, alignment=1.0),
}
SLICES = ("all", "multi_color", "color_of_multi")


def load(folder: Path, split: str, *, pictures: bool, limit: int | None) -> list[Product]:
    """Read one split of a prepared folder."""
    frame = pl.scan_parquet(folder / split / "*.parquet")
    columns = ["product_id", "title", "gold", *(["image"] if pictures else [])]
    rows = frame.select(columns).head(limit or 10**9).collect()
    return [
        Product(
            row["product_id"],
            {"title": row["title"]},
            (row["image"],) if row.get("image") else (),
            gold=tuple(
                GoldSpan(g["attribute"], g["value"], g["start"], g["end"])
                for g in row["gold"] or ()
                if (g.get("source") or "title") == "title"
            ),
        )
        for row in rows.iter_rows(named=True)
    ]


def color_words(products: Sequence[Product]) -> set[str]:
    """The words of the colour attributes' values."""
    values = [s.value.lower() for p in products for s in p.gold or () if "colo" in s.attribute]
    return {word for value in values for word in value.split() if word.isalpha()}


def score(extractor: Extractor, products: Sequence[Product], colors: set[str]) -> dict[str, float]:
    """TAG-F1 in percent, whole and by slice."""
    metrics = {name: TagMetric() for name in SLICES}
    for product, extraction in zip(products, extractor.extract(products), strict=True):
        found, gold = predicted_spans(extraction), gold_spans(product.gold or ())
        metrics["all"].update(found, gold)
        if len(colors.intersection(product.texts["title"].lower().split())) > 1:
            metrics["multi_color"].update(found, gold)
            metrics["color_of_multi"].update(
                {span for span in found if "colo" in span[0]},
                {span for span in gold if "colo" in span[0]},
            )
    return {name: 100 * metric.compute()["micro"]["f1"] for name, metric in metrics.items()}


def score_model(arguments: argparse.Namespace) -> dict[str, float]:
    """Score a model directory on the chosen split."""
    extractor = Extractor.load(arguments.model)
    sees = extractor.config.image is not None
    scored = load(arguments.data, arguments.split, pictures=sees, limit=None)
    labelled = load(arguments.data, "train", pictures=False, limit=arguments.limit)
    return score(extractor, scored, color_words(labelled))


def main() -> None:
    """Train and score every system with every seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, help="training products at most")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--systems", nargs="*", default=list(SYSTEMS))
    parser.add_argument("--model", type=Path, help="score this model directory, train nothing")
    arguments = parser.parse_args()
    if arguments.model:
        print(json.dumps(score_model(arguments)))
        return
    budget = Budget(arguments.epochs, batch_size=64, hidden=arguments.hidden, vocab_size=8000)
    report = {}
    for name in arguments.systems:
        sees = "image_encoder" in SYSTEMS[name].model
        products = load(arguments.data, "train", pictures=sees, limit=arguments.limit)
        scored = load(arguments.data, arguments.split, pictures=sees, limit=None)
        colors = color_words(products)
        rows = []
        for seed in range(arguments.seeds):
            started = time.time()
            extractor = Extractor(train(SYSTEMS[name], products, budget, seed=seed))
            minutes = (time.time() - started) / 60
            rows.append({**score(extractor, scored, colors), "minutes": minutes})
            print(name, seed, rows[-1], flush=True)
        report[name] = summarise(rows)
        print(table_line(name, report[name]), flush=True)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
