"""Memory and throughput of e-CLIP, and the duplicate finder on synthetic hash columns.

    python tests/benchmarks/bench_eclip.py memory --recipe eclip_tiny --batch 32 --streams 1 16
    python tests/benchmarks/bench_eclip.py speed --recipe eclip_small
    python tests/benchmarks/bench_eclip.py duplicates --rows 250000 1000000

memory: peak resident memory of a training step at 1 and at 16 streams, each in a process of its
own. speed: pairs/s of a training step and of embedding, beside what the encoders alone must cost:
a forward and backward pass for a step of one stream, plus a forward pass for several. Prints one
JSON object as the last line.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from eclip_in_memory import read_pairs

from pipelines.train.eclip.recipe import EclipRecipe, load_eclip_recipe
from ulsdram_core.demo import DemoConfig, generate
from ulsdram_core.eclip.embedder import Embedder
from ulsdram_core.eclip.pairs import Pair, collate_pairs
from ulsdram_core.eclip.parts import EclipParts, assemble_eclip
from ulsdram_core.eclip.pretraining import build_step
from ulsdram_core.eclip.streams import MultiStream
from ulsdram_core.encoders.tokenizer import build_tokenizer, load_tokenizer
from ulsdram_core.schema import DecodedProduct
from ulsdram_core.text import TextProcessor

DISTINCT = 64
"""Pairs that are drawn; larger batches repeat them."""


def load(recipe: EclipRecipe) -> tuple[EclipParts, list[Pair]]:
    """The recipe's model, and pairs of the demo catalogue."""
    rows = [
        (product.to_product(), None)
        for product in generate(DemoConfig(num_products=DISTINCT, missing_pictures=0))
    ]
    name = recipe.model.text_encoder
    if name.name == "tiny":
        tokenizer = build_tokenizer([product.texts["title"] for product, _ in rows], 2000)
    else:
        tokenizer = load_tokenizer(name.location())
    parts = assemble_eclip(recipe.config(), tokenizer)
    text = TextProcessor(tokenizer, parts.config.text)
    return parts, list(read_pairs(rows, text, parts.config.image))


def peak_memory() -> int:
    """Most resident memory of this process so far, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def step_once(recipe: EclipRecipe, batch: int, num_streams: int) -> dict[str, int]:
    """Take two steps of `num_streams` streams of `batch` pairs; memory before and at the peak."""
    parts, pairs = load(recipe)
    config = recipe.pretrain
    step = build_step(
        parts.model.train(), config, MultiStream(parts.model, config.targets), total_pairs=10**6
    )
    some = [pairs[i % len(pairs)] for i in range(batch)]
    before = peak_memory()
    for _ in range(2):
        streams = [collate_pairs(some, picture_size=recipe.image.size) for _ in range(num_streams)]
        step(streams, pairs_seen=0)
    return {"streams": num_streams, "before_kib": before, "peak_kib": peak_memory()}


def measure_memory(arguments: argparse.Namespace) -> dict:
    """Peak memory by number of streams, relative to the first."""
    rows = []
    for num_streams in arguments.streams:
        command = [sys.executable, __file__, "step", "--recipe", arguments.recipe]
        command += ["--batch", str(arguments.batch), "--streams", str(num_streams)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    first = rows[0]["peak_kib"]
    return {"rows": rows, "peak_ratio": [round(row["peak_kib"] / first, 3) for row in rows]}


def rate(call: Callable[[], object], pairs: int, seconds: float) -> float:
    """Pairs per second over at least `seconds`, after one call to warm up."""
    call()
    started, calls = time.monotonic(), 0
    while time.monotonic() - started < seconds:
        call()
        calls += 1
    return round(calls * pairs / (time.monotonic() - started), 1)


def measure_speed(arguments: argparse.Namespace) -> dict:
    """Training and embedding against the encoders alone."""
    recipe = load_eclip_recipe(arguments.recipe, arguments.set)
    parts, pairs = load(recipe)
    pairs = pairs[: arguments.batch]
    model, size, count = parts.model, recipe.image.size, len(pairs)
    stream = collate_pairs(pairs, picture_size=size)
    config = recipe.pretrain
    step = build_step(model, config, MultiStream(model, config.targets), total_pairs=10**6)

    def encode() -> None:
        with torch.inference_mode():
            model.text_features(stream.batch)
            model.picture_features(stream.batch)

    def encode_backward() -> None:
        model.zero_grad(set_to_none=True)
        (
            model.text_features(stream.batch).sum() + model.picture_features(stream.batch).sum()
        ).backward()

    products = [DecodedProduct(str(i), {}, pair.pictures) for i, pair in enumerate(pairs)]
    titles = [p.title for p in generate(DemoConfig(num_products=DISTINCT, missing_pictures=0))]
    products = [
        DecodedProduct(p.product_id, {"title": title}, p.pictures)
        for p, title in zip(products, titles, strict=False)
    ]
    seconds = arguments.seconds
    model.train()
    found = {
        "step_1_stream": rate(lambda: step([stream], pairs_seen=0), count, seconds),
        "step_4_streams": rate(lambda: step([stream] * 4, pairs_seen=0), 4 * count, seconds),
        "encoders_forward_backward": rate(encode_backward, count, seconds),
    }
    embedder = Embedder(parts, device="cpu")
    found["encoders_forward"] = rate(encode, count, seconds)
    found["embedding"] = rate(lambda: embedder.embed(products), count, seconds)
    both = 1 / (1 / found["encoders_forward_backward"] + 1 / found["encoders_forward"])
    found["share_of_limit"] = {
        "step_1_stream": round(found["step_1_stream"] / found["encoders_forward_backward"], 3),
        "step_4_streams": round(found["step_4_streams"] / both, 3),
        "embedding": round(found["embedding"] / found["encoders_forward"], 3),
    }
    return found


def find_duplicates(num_rows: int) -> dict:
    """Time and memory of all keys and of grouping over synthetic traces with planted copies."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pipelines.lake.storage import Storage
    from pipelines.prepare.pairs.catalogs import Ties
    from pipelines.prepare.pairs.duplicates import (
        DuplicateConfig,
        StoredTraces,
        edge_tasks,
        find_edges,
    )
    from pipelines.prepare.pairs.scan import SCHEMA

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "traces.parquet")
        with pq.ParquetWriter(path, SCHEMA) as writer:
            for start in range(0, num_rows, 100_000):
                rows = synthetic_rows(start, min(100_000, num_rows - start))
                writer.write_table(pa.table(rows, schema=SCHEMA))
        before = peak_memory()
        started = time.monotonic()
        traces = StoredTraces((Storage.of(path),), num_rows)
        config = DuplicateConfig(bucket_rows=250_000)
        ties = Ties(num_rows)
        for task in edge_tasks(traces, config):
            ties.add(task.kind, find_edges(task))
        groups = ties.groups(config)
    planted = np.arange(9, num_rows, 10)
    return {
        "rows": num_rows,
        "seconds": round(time.monotonic() - started, 1),
        "before_kib": before,
        "peak_kib": peak_memory(),
        "recall": float((groups.labels[planted] == groups.labels[planted - 1]).mean()),
        "false_rows": int((groups.labels != np.arange(num_rows)).sum() - len(planted)),
        "compared": groups.counts["perceptual_comparisons"],
    }


def synthetic_rows(start: int, count: int) -> dict:
    """Random traces; every tenth row copies the one before it with up to six bits flipped."""
    rng = np.random.default_rng(start)
    names = ("picture_hi", "picture_lo", "title_hi", "title_lo", "perceptual", "title_bits")
    columns = {name: rng.integers(1, 2**63, count).astype(np.uint64) for name in names}
    columns["title_bits"] |= np.uint64(2**40 - 1)
    colours = rng.integers(0, 256, (count, 48)).astype(np.uint8)
    copies = np.arange(9, count, 10)
    flips = np.zeros(len(copies), np.uint64)
    for _ in range(6):
        flips |= np.uint64(1) << rng.integers(0, 64, len(copies)).astype(np.uint64)
    columns["perceptual"][copies] = columns["perceptual"][copies - 1] ^ flips
    colours[copies] = colours[copies - 1]
    nothing = np.zeros(count, np.uint64)
    return {
        **columns,
        "row": np.arange(start, start + count),
        "id_hash": nothing,
        "noise": [None] * count,
        "is_usable": np.ones(count, bool),
        "title_words": np.full(count, 9, np.int32),
        "colours": [row.tobytes() for row in colours],
        "catalog_hi": nothing,
        "catalog_lo": nothing,
        "catalog_id": [None] * count,
        "similarity": [None] * count,
    }


def measure_duplicates(arguments: argparse.Namespace) -> dict:
    """Rows of every size, each in a process of its own."""
    rows = []
    for num_rows in arguments.rows:
        command = [sys.executable, __file__, "find", "--rows", str(num_rows)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    return {"rows": rows}


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("memory", "speed", "duplicates", "step", "find"))
    parser.add_argument("--recipe", default="eclip_tiny")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--seconds", type=float, default=5.0, help="time per figure of `speed`")
    parser.add_argument("--rows", type=int, nargs="+", default=[250_000, 1_000_000])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.what == "step":
        recipe = load_eclip_recipe(arguments.recipe, arguments.set)
        found = step_once(recipe, arguments.batch, arguments.streams[0])
    elif arguments.what == "find":
        found = find_duplicates(arguments.rows[0])
    else:
        measures = {
            "memory": measure_memory, "speed": measure_speed, "duplicates": measure_duplicates
        }  # fmt: skip
        found = measures[arguments.what](arguments)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
