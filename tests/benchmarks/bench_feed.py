"""How much of a training run is training: the job's rate against the same steps fed from memory.

    python tests/benchmarks/bench_feed.py --data DATA --recipe mae_small --products 3000

DATA is a prepared folder (train/ valid/). The job reads and decodes its products through Ray Data,
nothing kept between steps; the other run holds decoded products in memory and takes the same steps
with as many threads. They take turns (memory, job, memory). Prints one JSON object last.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import polars as pl
import ray
import torch
from picture_gain import load

from pipelines.lake.storage import Storage
from pipelines.train.extractor.job import TrainRequest, train
from pipelines.train.extractor.recipe import Recipe, load_recipe
from pipelines.train.extractor.start import extractor_config
from ulsdram_core.encoders.tokenizer import build_tokenizer, load_tokenizer
from ulsdram_core.fit.examples import ExampleBuilder
from ulsdram_core.fit.fitting import fit
from ulsdram_core.labels import LabelSet
from ulsdram_core.parts import assemble
from ulsdram_core.text import TextProcessor

VALID = 64
WARM_UP = 5


def sample(data: Path, folder: Path, count: int) -> Path:
    """The first products of each split, in row groups that can be read apart."""
    for split, rows in (("train", count), ("valid", VALID)):
        (folder / split).mkdir(parents=True)
        frame = pl.scan_parquet(data / split / "*.parquet").head(rows).collect()
        frame.write_parquet(folder / split / "part-00000.parquet", row_group_size=500)
    return folder


def job_rate(recipe: Recipe, data: Path, out: Path) -> float:
    """Products a second of the training job's steps, waits for the next batch included.

    Counted from the fifth step: Ray Data takes seconds to start its first read, once an epoch.
    """
    train(TrainRequest(recipe, Storage.of(data), Storage.of(out)))
    ray.shutdown()
    entries = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    times = [entry["time"] for entry in entries if entry["kind"] == "step"]
    # The last batch may be smaller.
    return (len(times) - 1 - WARM_UP) * recipe.fit.batch_size / (times[-2] - times[WARM_UP - 1])


def memory_rate(recipe: Recipe, data: Path, threads: int) -> float:
    """Products a second of the same steps on decoded products in memory."""
    torch.set_num_threads(threads)
    products = load(data, "train", pictures=recipe.image is not None, limit=None)
    labels = LabelSet.from_products(products)
    location = recipe.model.text_encoder.tokenizer_location()
    texts = [product.texts["title"] for product in products]
    tokenizer = load_tokenizer(location) if location else build_tokenizer(texts)
    torch.manual_seed(recipe.fit.seed)
    parts = assemble(extractor_config(recipe), labels, tokenizer)
    text = TextProcessor(tokenizer, parts.config.text)
    examples = list(ExampleBuilder(text, labels, parts.config.image)(products))
    started = time.monotonic()
    for _ in fit(parts, examples, recipe.fit):
        pass
    return len(products) * recipe.fit.epochs / (time.monotonic() - started)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--recipe", default="mae_small")
    parser.add_argument("--products", type=int, default=3000)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    options = parser.parse_args()
    overrides = ["fit.epochs=1", "run.keep_decoded_mb=0", *options.overrides]
    recipe = load_recipe(options.recipe, overrides)
    threads = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as scratch:
        data = sample(options.data, Path(scratch) / "data", options.products)
        before = memory_rate(recipe, data, threads)
        job = job_rate(recipe, data, Path(scratch) / "out")
        after = memory_rate(recipe, data, threads)
    memory = statistics.mean([before, after])
    rates = {"memory_before": before, "job": job, "memory_after": after}
    print({name: f"{rate:.1f} products/s" for name, rate in rates.items()})
    print(json.dumps({"recipe": options.recipe, **rates, "share": job / memory}))


if __name__ == "__main__":
    main()
